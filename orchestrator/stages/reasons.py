"""Why a stage is built: what decides it now, compared with what decided an earlier one."""

from collections.abc import Mapping
from typing import Any


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What changed between two documents of stages, in the order: inputs, own configuration, code."""
    called = {**old["called"], **new["called"]}
    changed = [f"{called.get(name, name)} changed" for name in _changed(old["inputs"], new["inputs"])]
    before, after = flat(old["config"]), flat(new["config"])
    changed += [f"{path}: {before.get(path)!r} -> {after.get(path)!r}" for path in _changed(before, after)]
    if old["version"] != new["version"]:
        changed.append("the program computes this stage differently now")
    return ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """{"a": [{"b": 1}]} as {"a.0.b": 1}; empty lists and mappings stay as they are."""
    entries = (
        list(value.items()) if isinstance(value, Mapping) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not entries:
        return {path: value}
    below = [flat(child, f"{path}.{name}" if path else str(name)) for name, child in entries]
    return {name: leaf for child in below for name, leaf in child.items()}
