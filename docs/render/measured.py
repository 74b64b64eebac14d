"""Parts of pages that show figures, from the records that `benchmarks/record.py` keeps in `docs/measured/*.json`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .figures import Figure, records
from .killed import KILLED
from .rows import ACCURACY, SPEED
from .tables import row


def table(figures: Sequence[Figure]) -> str:
    lines = [row("what", "figure", "goal", "command"), "|---|---|---|---|"]
    return "\n".join([*lines, *(row(*figure.cells(records(figure.record))) for figure in figures)])


def front() -> str:
    """The rows of the README."""
    names = ("run", "again", "cached", "textbrewer", "labelling", "nothing")
    return table([*(SPEED[name] for name in names), ACCURACY["digits"], ACCURACY["fashion"]])


def splits() -> str:
    """`digits` over further splits of the rows, their mean and standard deviation."""
    found = records("digits")[-1]["figures"]
    rows = {**found["splits"], "**mean**": found["mean"], "sd": found["sd"]}
    columns = list(found["mean"])
    lines = [row("split seed", *columns), "|---|" + "---|" * len(columns)]
    return "\n".join([*lines, *(row(str(of), *(f"{rows[of][column]:.3f}" for column in columns)) for of in rows)])


def peers() -> str:
    found = records("peers")[-1]["figures"]["rows"]
    lines = [row("method", "mean member", "best on validation", "ensemble"), "|---|---|---|---|"]
    for method, values in found.items():
        cells = (values[key] for key in ("mean_member", "best_member", "ensemble"))
        lines.append(row(method, *(f"{100 * mean:.1f} ± {100 * spread:.1f}" for mean, spread in cells)))
    return "\n".join(lines)


def cohort_members() -> str:
    found = next(record for record in reversed(records("cohorts")) if "members" in record["figures"])["figures"]
    lines = [row("member", "in the cohort", "offline, from the teachers alone", "control"), "|---|---|---|---|"]
    for number, values in enumerate(zip(*(found[key] for key in ("members", "offline", "controls")), strict=True), 1):
        lines.append(row(str(number), *(f"{value:.3f}" for value in values)))
    return "\n".join(lines)


def faults() -> str:
    lines = [row("killed", "times", "median from the kill to the end"), "|---|---|---|"]
    newest = {kind: found for record in records("faults") for kind, found in record["figures"].items()}
    return "\n".join([*lines, *(row(KILLED[kind], str(times), f"{s:g} s") for kind, (times, s) in newest.items())])


def recipes() -> str:
    """Seconds of each shipped recipe, for the README's table."""
    newest = {name: seconds for record in records("recipes") for name, seconds in record["figures"].items()}
    lines = [row("recipe", "seconds"), "|---|---|"]
    return "\n".join([*lines, *(row(f"`{name}`", str(seconds)) for name, seconds in newest.items())])


def sources(*names: str) -> Callable[[], str]:
    """Which command, commit and machine the figures of a page come from."""

    def made() -> str:
        by_source: dict[tuple[str, str, str], list[str]] = {}
        for record in [record for name in names for record in records(name)]:
            source = (record["commit"] or "not kept", record["day"] or "not kept", _machine(record["machine"]))
            by_source.setdefault(source, []).append(f"`{record['command']}`")
        lines = [row("commands", "commit", "day", "machine"), "|---|---|---|---|"]
        rows = (row(", ".join(dict.fromkeys(commands)), *source) for source, commands in by_source.items())
        return "\n".join([*lines, *rows])

    return made


def _machine(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {machine[name]}" for name in ("torch", "ray") if machine.get(name))
    load = f", load {machine['load']:g}" if "load" in machine else ""
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['cores']} cores, {machine['cpu']}{load}; {gpu}; Python {machine['python']}, {packages}"


PARTS: dict[str, Callable[[], str]] = {
    "front": front,
    "speed": lambda: table(list(SPEED.values())),
    "accuracy": lambda: table(list(ACCURACY.values())),
    "splits": splits,
    "peers": peers,
    "cohort-members": cohort_members,
    "faults": faults,
    "recipes": recipes,
    "speed-sources": sources(
        "make",
        "training",
        "store",
        "labelling",
        "cohort",
        "live",
        "tune",
        "cluster",
        "schedule",
        "dispatch",
        "search",
        "command",
        "text",
        "endpoint",
        "detection",
        "decode",
        "methods",
        "hints",
        "views",
        "published",
        "scale",
        "prepare",
        "follow",
    ),
    "accuracy-sources": sources("make", "digits", "fashion", "peers", "cohorts", "search", "cells"),
    "faults-sources": sources("faults"),
}
