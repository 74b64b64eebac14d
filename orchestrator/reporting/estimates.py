"""What a run was thought to take beside what it took. Knows nothing of how that was thought."""

from collections.abc import Mapping, Sequence
from typing import Any

KINDS = ("train_teacher", "label", "distill")


def beside_estimates(
    estimates: Mapping[str, Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each stage (`work`: `label/wide`) of which something was built: `rows` and `bytes` in its store and `rows_per_s`, or the
    `trainings` that were built, and `wall_s`, of one of these; each with what was `predicted`, null where nobody knew."""
    built: dict[str, list[Mapping[str, Any]]] = {}
    for stage in stages:
        if stage["stage"] in KINDS and "begun" in stage:
            built.setdefault(f"{stage['stage']}/{stage['name']}", []).append(stage)
    return [_row(work, parts, estimates.get(work, {})) for work, parts in built.items()]


def _row(work: str, parts: Sequence[Mapping[str, Any]], thought: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"work": work}
    if work.startswith("label/"):
        took = max(part["ended"] for part in parts) - min(part["begun"] for part in parts)
        rows, wall_s = sum(part["rows"] for part in parts), thought.get("wall_s")
        row |= {
            "rows": rows,
            "bytes": sum(part["bytes"] for part in parts),
            "rows_per_s": rows / took if took else None,
        }
        rate = thought["rows"] / wall_s if wall_s and thought.get("rows") else None
        predicted = {"rows": thought.get("rows"), "bytes": thought.get("bytes"), "rows_per_s": rate, "wall_s": wall_s}
    else:
        took = sum(part["seconds"] for part in parts) / len(parts)
        row["trainings"] = len(parts)
        predicted = {"trainings": thought.get("trainings", 1), "wall_s": thought.get("wall_s")}
    return {**row, "wall_s": took, "predicted": predicted}
