"""Numbers one by one: how large errors are in the units of each, as a table, and as pictures.

Knows nothing but `report.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from students.tasks.figure import FIGURES, significant
from teachers.config.task import TaskName

from .plots import COLOURS, INK, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALUES = 25
"""On the page; all are in `report.json`."""
PICTURES = 4
"""Columns of which there are pictures."""


def value_table(task: TaskName, found: Mapping[str, Any], of: str = "student") -> dict[str, Any]:
    """`groups` of columns (title, columns), `rows` of {name, rows, mean, std, cells}, cells as text."""
    names = [name for name in dict.fromkeys((of, "control", "ensemble")) if name in found["rmse"]]
    figures = [figure for figure in FIGURES[task] if figure.key in found]
    rows = [
        {
            "name": value,
            "rows": found["rows"][number],
            "mean": _shown(found["mean"][number]),
            "std": _shown(found["std"][number]),
            "cells": [figure.shown(found[figure.key][name][number]) for figure in figures for name in names],
        }
        for number, value in enumerate(found["values"])
    ]
    groups = [{"title": figure.label, "names": names} for figure in figures]
    return {"of": of, "groups": groups, "rows": rows[:VALUES], "left_out": max(0, len(rows) - VALUES)}


def _shown(value: float | None) -> str:
    return "" if value is None else significant(value)


def pictures(scatter: Sequence[Mapping[str, Any]], of: str) -> Iterator[tuple[str, str]]:
    """(caption, SVG) of what is said beside what is so, and of residuals, for the first columns."""
    for found in scatter[:PICTURES]:
        if found["said"]:
            name = found["value"]
            yield f"What is said of {name} beside what is so; on the line it is right.", _predicted(found, of)
            yield f"Residuals of {name}: said less so, of all test rows.", _residuals(found, of)


def _predicted(found: Mapping[str, Any], of: str) -> str:
    def draw(axes: "Axes") -> None:
        both = [*found["said"], *found["label"]]
        low, high = min(both), max(both)
        room = 0.03 * (high - low or 1.0)
        axes.plot([low, high], [low, high], color=INK, alpha=0.4, linewidth=0.9, linestyle="--")
        axes.scatter(found["label"], found["said"], s=14, color=COLOURS["student"], alpha=0.5, linewidth=0)
        ends = (low - room, high + room)
        axes.set(
            xlabel=f"{found['value']}, true", ylabel=f"{found['value']}, said", xlim=ends, ylim=ends, aspect="equal"
        )

    return svg(draw, f"{found['value']} as {of} says it and as it is", size=(4.4, 4.0))


def _residuals(found: Mapping[str, Any], of: str) -> str:
    def draw(axes: "Axes") -> None:
        edges = found["edges"]
        width = edges[1] - edges[0]
        axes.bar(edges[:-1], found["residuals"], width, align="edge", color=COLOURS["student"], alpha=0.75)
        axes.axvline(0, color=INK, alpha=0.5, linewidth=0.9, linestyle="--")
        axes.set(xlabel=f"{found['value']}, said less true", ylabel="test rows")

    return svg(draw, f"Residuals of {of} in {found['value']}")
