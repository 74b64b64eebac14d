"""When each stage of a run began and ended, as a picture and in words, from what the stages say of themselves."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .plots import COLOURS, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OF_KIND = {"label": "ensemble", "train_teacher": "teacher", "distill": "student"}
"""Whose colour a kind of stage has; others are grey."""
GREY = "#808890"
Stage = Mapping[str, Any]


def began(stages: Sequence[Stage]) -> float | None:
    """When the first of them did, Unix time; None where none was built, or by an older version."""
    return min((stage["begun"] for stage in stages if "begun" in stage), default=None)


def timeline(stages: Sequence[Stage]) -> tuple[str, str] | None:
    """(caption, SVG): a row for each stage, a bar for each of its parts; None where there is nothing to see."""
    built = [stage for stage in stages if "begun" in stage]
    zero = began(built)
    if zero is None or len(built) < 2:
        return None
    rows: dict[str, list[Stage]] = {}
    for stage in sorted(built, key=lambda stage: stage["begun"]):
        rows.setdefault(f"{stage['stage']}/{stage['name']}", []).append(stage)
    end = max(stage["ended"] for stage in built) - zero
    unit, told = (1.0, "seconds") if end < 600 else (60.0, "minutes") if end < 36_000 else (3600.0, "hours")

    def draw(axes: "Axes") -> None:
        for row, (name, parts) in enumerate(rows.items()):
            colour = COLOURS.get(OF_KIND.get(name.partition("/")[0], ""), GREY)
            lanes = lanes_of(parts)
            for lane, spans in enumerate(lanes):
                bars = [((begun - zero) / unit, (ended - begun) / unit) for begun, ended in spans]
                axes.broken_barh(bars, (row - 0.4 + 0.8 * lane / len(lanes), 0.7 / len(lanes)), color=colour)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, end / unit)
        axes.set_xlabel(f"{told} since the first began")

    nodes = {node for stage in built for node in stage.get("on", ())}
    where = f", on {len(nodes)} nodes" if len(nodes) > 1 else ""
    caption = (
        f"What was built when{where}: of a stage with several parts those that went on at once lie below each other."
    )
    caption = " ".join([caption, *followed(built)])
    return caption, svg(draw, "What was built when", size=(9.6, 0.9 + 0.28 * len(rows)))


def followed(built: Sequence[Stage]) -> Iterator[str]:
    """Of each training that followed its teachers: when it began and ended, against when all labels were there."""
    for stage in built:
        ends = [
            each["ended"] for each in built if each["stage"] == "label" and each["name"] in stage.get("follows", ())
        ]
        if ends and max(ends) > stage["begun"]:
            early, late = max(ends) - stage["begun"], stage["ended"] - max(ends)
            saved = early - stage["waited"]
            yield (
                f"{stage['name']}/{stage['part']} followed {', '.join(stage['follows'])}: it began {early:,.0f} s before the last label was "
                f"there, waited {stage['waited']:,.0f} s for labels and ended {abs(late):,.0f} s {'after' if late > 0 else 'before'} the last, "
                f"{saved:,.0f} s earlier than by waiting for all of them."
            )


def lanes_of(parts: Sequence[Stage]) -> list[list[tuple[float, float]]]:
    """(begun, ended) of the parts, in as few lanes as there are that go on at once."""
    lanes: list[list[tuple[float, float]]] = []
    for part in sorted(parts, key=lambda part: part["begun"]):
        free = next((lane for lane in lanes if lane[-1][1] <= part["begun"] + 1e-3), None)
        if free is None:
            lanes.append(free := [])
        free.append((part["begun"], part["ended"]))
    return lanes
