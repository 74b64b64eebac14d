"""Plots of a report as inline SVG that takes the page's text colour, so it is legible on light, dark and paper.

Numbers in, SVG text out; knows nothing of the report around it.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from students.tasks.figure import RIGHT, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

INK = "#010203"
"""Stands for the page's text colour."""
COLOURS = {"student": "#2878d0", "control": "#d97a1e", "ensemble": "#1f9d6b", "teacher": "#8d6cc9"}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "path.simplify": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-9, 9),  # a power of ten would stand above the axes, where there is no room
}
LETTER, LINE, GAP, LABEL = 0.075, 0.14, 0.1, 0.2
"""Inches that a letter, a line of letters, the gap beside a tick and the name of an axis take at this size of letters."""
MOST = 0.65
"""Share of a picture that labels may take, however long they are."""
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def learning_curves(runs: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], key: str, label: str, of: str) -> str:
    """`key` over optimiser steps: every seed thin, their mean thick; runs are named `student/seed-0`, `control/seed-0`."""

    def draw(axes: "Axes") -> None:
        for kind in ("control", "student"):
            seeds = [run[key] for name, run in runs.items() if name.startswith(f"{kind}/") and key in run]
            for points in seeds:
                axes.plot(*zip(*points, strict=True), color=COLOURS[kind], alpha=0.35, linewidth=0.9)
            if seeds:
                axes.plot(*zip(*_mean_curve(seeds), strict=True), color=COLOURS[kind], linewidth=2, label=kind)
        axes.set(xlabel="optimiser steps", ylabel=label)
        axes.legend(loc="best")

    return svg(draw, f"{label} of {of} and its control over optimiser steps")


def _mean_curve(seeds: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """The mean of those seeds that have a point at a step."""
    at: dict[float, list[float]] = {}
    for points in seeds:
        for step, value in points:
            at.setdefault(step, []).append(value)
    return [(step, fmean(values)) for step, values in sorted(at.items()) if len(values) == len(seeds)]


def reliability(bins: Mapping[str, Sequence[Mapping[str, Any]]], of: str) -> str:
    """How often is right what was said with a confidence; on the diagonal is who is right as often as it is sure."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linewidth=0.9, linestyle="--")
        for name, filled in ((name, [bin for bin in given if bin["count"]]) for name, given in bins.items()):
            confidence, right = [bin["confidence"] for bin in filled], [bin[RIGHT] for bin in filled]
            total = sum(bin["count"] for bin in filled)
            sizes = [8 + 120 * bin["count"] / total for bin in filled]
            axes.plot(confidence, right, color=COLOURS[name], linewidth=1.4, label=name)
            axes.scatter(confidence, right, s=sizes, color=COLOURS[name], alpha=0.6, linewidth=0)
        axes.set(xlabel="confidence", ylabel=RIGHT, xlim=(0, 1.02), ylim=(0, 1.05), aspect="equal")
        axes.legend(loc="upper left")

    return svg(draw, f"Reliability diagram of {of}: {RIGHT} by confidence", size=(4.4, 4.0))


def agreement(
    figure: Figure, names: Sequence[str], matrix: Sequence[Sequence[float | None]], of: str = "teachers"
) -> str:
    """How two agree over test rows, by the `figure` of it: in percent, or as it is."""
    is_share = figure.unit == "share"

    def draw(axes: "Axes") -> None:
        others = [
            value
            for row, values in enumerate(matrix)
            for column, value in enumerate(values)
            if row != column and value is not None
        ]
        low, high = (min(others), max(others)) if others else (0.0, 1.0)
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                place = 0.0 if value is None else (value - low) / (high - low or 1.0)
                shade = 0.08 + 0.62 * min(1.0, max(0.0, place))
                colour = COLOURS["student"] if row != column else INK
                axes.add_patch(_cell(column, row, colour, shade if row != column else 0.06))
                shown = "" if value is None else f"{100 * value:.0f}" if is_share else f"{value:.2f}"
                axes.text(column, row, shown if row != column else "", ha="center", va="center")
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)

    edge = 1.6 + 0.55 * len(names)
    return svg(draw, f"Agreement of {of} {'in percent of' if is_share else 'over'} test rows", size=(edge + 0.4, edge))


def _cell(column: int, row: int, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, alpha=alpha, linewidth=0)


def headline_against(
    figure: Figure, points: Sequence[Mapping[str, Any]], key: str, label: str, ensemble: float | None
) -> str:
    """The headline on test over a cost (`key` of each point: name, kind, mean, std); the line is the teachers together."""
    scale, unit = (100, ", %") if figure.unit == "share" else (1, "")

    def draw(axes: "Axes") -> None:
        if ensemble is not None:
            line: dict[str, Any] = {"color": COLOURS["ensemble"], "linewidth": 1.2, "linestyle": "--"}
            axes.axhline(scale * ensemble, label="teachers together", **line)
            axes.legend(loc="lower right" if figure.sign > 0 else "upper right")
        for point in points:
            mean, spread = scale * point["mean"], scale * (point["std"] or 0)
            colour = COLOURS[point["kind"]]
            axes.errorbar(point[key], mean, spread, fmt="o", markersize=7, color=colour, capsize=3, linewidth=1.2)
            axes.annotate(point["name"], (point[key], mean), (8, 4), textcoords="offset points")
        axes.set(xlabel=label, ylabel=f"test {figure.label}{unit}")
        axes.margins(y=0.2)
        costs = [point[key] for point in points]
        log_of_costs(axes, min(costs) / 2, max(costs) * 4)  # room for names on the right

    return svg(draw, f"Test {figure.label} against {label}")


def log_of_costs(axes: "Axes", low: float, high: float) -> None:
    """A logarithm along the axes, with a few round costs written beside it."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(xscale="log", xlim=(low, high))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.xaxis.set_major_formatter(lambda cost, _: short(cost))
    axes.xaxis.set_minor_locator(NullLocator())


def short(count: float) -> str:
    """`1234567`: `1.23 M`."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.3g}"


def gains(figure: Figure, intervals: Mapping[str, Mapping[str, float]]) -> str:
    """Gain of each student over its control (of shares in points) with its 95% interval; the line is no difference."""
    scale = 100 if figure.unit == "share" else 1

    def draw(axes: "Axes") -> None:
        axes.axvline(0, color=INK, alpha=0.5, linewidth=0.9, linestyle="--")
        for row, gain in enumerate(intervals.values()):
            low, mean, high = (scale * gain[end] for end in ("low", "mean", "high"))
            axes.plot(
                [low, high], [row, row], color=COLOURS["student"], linewidth=5, alpha=0.35, solid_capstyle="round"
            )
            axes.plot(mean, row, "o", color=COLOURS["student"], markersize=8)
        axes.set_yticks(range(len(intervals)), list(intervals))
        axes.set_ylim(len(intervals) - 0.5, -0.5)
        axes.set_xlabel(f"{figure.units_gained} over the control", loc="right")  # long names leave little room

    return svg(draw, "Gain of each student over its control", size=(5.4, 1.0 + 0.45 * len(intervals)))


def svg(draw: "Callable[[Axes], None]", title: str, size: tuple[float, float] = (5.4, 3.6), **more: float) -> str:
    """What `draw` does to the axes of a figure of `size` inches; no two drawings of a page may have one title.

    `more`: inches that it needs at a side (`left`, `bottom`, `top`) beyond what the labels of the ticks take.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure, text = Figure(figsize=size), io.StringIO()
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        draw(axes)
        _fit(axes, size, more)
        # `savefig` would draw everything once more beforehand, to find out what size it has
        FigureCanvasSVG(figure).print_svg(text, metadata=NO_METADATA)
    return _inline(text.getvalue(), title)


def _fit(axes: "Axes", size: tuple[float, float], more: Mapping[str, float]) -> None:
    """Room for labels by their letters: matplotlib's layouts measure every one, which takes longer than all the rest."""
    (width, height), room = size, {"left": 0.04, "bottom": 0.04, "top": 0.04, **more}
    left = max((_extent(label)[0] for label in axes.get_yticklabels()), default=0.0)
    bottom = max((_extent(label)[1] for label in axes.get_xticklabels()), default=0.0)
    left = min(MOST * width, left + room["left"] + LABEL * bool(axes.get_ylabel()))
    bottom = min(MOST * height, bottom + room["bottom"] + LABEL * bool(axes.get_xlabel()))
    axes.set_position((left / width, bottom / height, 1 - (left + 0.04) / width, 1 - (bottom + room["top"]) / height))


def _extent(label: "Text") -> tuple[float, float]:
    """Inches to the left of the axes, or below them, that the label of a tick and its gap take."""
    lines, turned = label.get_text().split("\n"), math.radians(label.get_rotation())
    long, high = LETTER * max(map(len, lines)), LINE * len(lines)
    return GAP + long, GAP + high * math.cos(turned) + long * math.sin(turned)


def _inline(text: str, title: str) -> str:
    """SVG for a page: no prologue, the page's font and colour, ids that no other plot has."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    unique = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'\bid="', f'id="{unique}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{unique}-", text)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
