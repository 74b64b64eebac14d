"""Plots of a study as inline SVG: how the best came to be, which settings mattered, and what they cost.

Trials are those of `report.json`: `search.history`. However many there are, a plot draws a bounded number of them.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from students.tasks.figure import FIGURES

from .axes import Axis, ticks_of
from .plots import COLOURS, INK, log_of_costs, svg
from .study import heard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Trial = Mapping[str, Any]
MARKS, LINES = 300, 150
"""Most that a plot of points, and one of lines, draws of the trials."""
BARS = 15
PALE, BLUE = (0.60, 0.64, 0.70), (0.16, 0.47, 0.82)
GOLDEN = 0.6180339887


def label_of(metric: str) -> str:
    """Of an axis: `validation accuracy`, `validation NLL, nats`, `latency, ms`."""
    labels = {figure.key: figure for figures in FIGURES.values() for figure in figures}
    key = metric.removeprefix("validation.")
    if key != metric and key in labels:
        return f"validation {labels[key].label}" + (", nats" if labels[key].unit == "nats" else "")
    return {"latency_ms": "latency, ms"}.get(metric, metric)


def thinned(trials: Sequence[Trial], metric: str, direction: str, most: int) -> list[Trial]:
    """At most so many, in their order: the best third of them, and an even sample of the others."""
    if len(trials) <= most:
        return [*trials]
    sign = -1 if direction == "max" else 1
    ranked = sorted(range(len(trials)), key=lambda at: sign * trials[at]["values"][metric])
    best, others = ranked[: most // 3], sorted(ranked[most // 3 :])
    sample = [others[at * len(others) // (most - len(best))] for at in range(most - len(best))]
    return [trials[at] for at in sorted([*best, *sample])]


def window(values: Sequence[float], direction: str, keep: Sequence[float] = ()) -> tuple[float, float]:
    """Lowest and highest that are worth seeing: trials far behind the middle would press all others into one line."""
    sign = 1 if direction == "max" else -1
    ranked = sorted((sign * value for value in values), reverse=True)
    best, worst = ranked[0], ranked[-1]
    bound = max(worst, best - 4 * (best - statistics.median(ranked)))
    bound = worst if bound == best else bound
    ends = [sign * best, sign * bound, *keep]
    return min(ends), max(ends)


def _clipped(trials: Sequence[Trial], metric: str, low: float, high: float) -> list[float]:
    return [min(high, max(low, trial["values"][metric])) for trial in trials]


def best_so_far(trials: Sequence[Trial], metric: str, direction: str, lines: Mapping[str, float]) -> str:
    """The student's trials in the order in which they ended; `lines`: what they are to be held against, by kind."""
    from matplotlib.ticker import MaxNLocator

    places = {trial["number"]: at for at, trial in enumerate(trials, 1)}
    told = [trial for trial in trials if metric in trial["values"]]
    pruned, finished = ([t for t in told if t["state"] == state] for state in ("pruned", "finished"))
    low, high = window([t["values"][metric] for t in finished], direction, [*lines.values()])

    def draw(axes: "Axes") -> None:
        for state, some, colour, alpha, size in (
            ("pruned", pruned, INK, 0.22, 3.5),
            ("finished", finished, COLOURS["student"], 0.5, 4.5),
        ):
            if shown := thinned(some, metric, direction, MARKS):
                at = [places[t["number"]] for t in shown]
                values = _clipped(shown, metric, low, high)
                axes.plot(at, values, "o", color=colour, alpha=alpha, markersize=size, mew=0, label=state)
        best = [*accumulate(_clipped(finished, metric, low, high), max if direction == "max" else min)]
        better = [at for at, value in enumerate(best) if at == 0 or value != best[at - 1]]
        at = [*(places[finished[number]["number"]] for number in better), len(trials)]
        values = [*(best[number] for number in better), best[-1]]
        axes.step(at, values, where="post", color=COLOURS["student"], linewidth=2, label="best so far")
        looks = {"recipe": ("the recipe as it stands", INK, ":"), "control": ("best control", COLOURS["control"], "--")}
        for kind, value in lines.items():
            name, colour, dashes = looks[kind]
            axes.axhline(value, color=colour, linewidth=1.4, linestyle=dashes, label=name)
        axes.set(xlabel="trials of the student that have ended", ylabel=label_of(metric))
        _margins(axes, low, high)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)

    return svg(draw, f"Best {label_of(metric)} so far", bottom=0.58)


def _margins(axes: "Axes", low: float, high: float) -> None:
    room = 0.06 * (high - low) or 0.01
    axes.set_ylim(low - room, high + room)


def importance(shares: Mapping[str, float], metric: str) -> str:
    """By setting, its share in how a metric varies."""
    shown = [*shares.items()][:BARS]

    def draw(axes: "Axes") -> None:
        rows = range(len(shown))
        axes.barh(rows, [100 * share for _, share in shown], color=COLOURS["student"], alpha=0.75, height=0.62)
        for row, (_, share) in zip(rows, shown, strict=True):
            axes.annotate(f"{100 * share:.0f}", (100 * share, row), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(rows, [name for name, _ in shown])
        axes.set(xlim=(0, 112 * max(share for _, share in shown)), ylim=(len(shown) - 0.5, -0.5))
        axes.set_xlabel("% of what sets the best quarter of trials apart", loc="right")  # long names leave little room
        axes.grid(visible=False, axis="y")

    return svg(draw, f"Which settings decided {label_of(metric)}", size=(5.4, 1.0 + 0.34 * len(shown)))


def parallel(trials: Sequence[Trial], axes_of: Sequence[Axis], metric: str, direction: str, best: Trial) -> str:
    """One axis a setting and one for the metric, a line each trial, the better the bluer."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    low, high = window([t["values"][metric] for t in trials], direction)
    shown = thinned(trials, metric, direction, LINES)
    shown.sort(key=lambda trial: trial["values"][metric], reverse=direction == "min")
    figures = [((tick - low) / ((high - low) or 1.0), f"{tick:.4g}") for tick in ticks_of(low, high, is_log=False)]
    last = Axis(label_of(metric), lambda value: _share(value, low, high), figures, is_of_categories=False)

    def heights(trial: Trial) -> list[float]:
        own = [axis.place(trial["params"][axis.title]) + _jitter(trial, 0.05, axis) for axis in axes_of]
        return [*own, last.place(trial["values"][metric])]

    def draw(axes: "Axes") -> None:
        every = [*axes_of, last]
        from_pale_to_blue = LinearSegmentedColormap.from_list("", [(*PALE, 0.2), (*BLUE, 0.75)])
        lines = [[*enumerate(heights(trial))] for trial in shown]
        axes.add_collection(LineCollection(lines, array=range(len(lines)), cmap=from_pale_to_blue, linewidths=1))
        axes.plot(heights(best), color=COLOURS["control"], linewidth=3)
        for at, axis in enumerate(every):
            axes.axvline(at, color=INK, linewidth=0.8, alpha=0.6)
            for height, label in axis.ticks:
                axes.plot([at - 0.02, at + 0.02], [height, height], color=INK, linewidth=0.8)
                axes.text(at + 0.035, height, label, fontsize=8, va="center")
        axes.set_xticks(range(len(every)), [_broken(axis.title) for axis in every])
        axes.set_yticks([])
        axes.set(xlim=(-0.05, len(every) - 0.45))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)

    return svg(draw, f"Settings and {label_of(metric)} of every trial", size=(11, 3.7), left=0.43)


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))


def _jitter(trial: Trial, width: float, axis: Axis) -> float:
    """Keeps trials of one category apart, the same at every drawing."""
    return width * ((trial["number"] * GOLDEN) % 1 - 0.5) if axis.is_of_categories else 0.0


def _broken(path: str) -> str:
    """A path in two lines."""
    above, dot, last = path.rpartition(".")
    return f"{above}{dot}\n{last}" if dot else path.replace(", ", ",\n").replace("validation ", "validation\n")


def slice_of(trials: Sequence[Trial], axis: Axis, metric: str, direction: str, best: Trial) -> str:
    """The metric over the values of one setting."""
    low, high = window([t["values"][metric] for t in trials], direction)
    shown = thinned(trials, metric, direction, MARKS)

    def draw(axes: "Axes") -> None:
        width = 0.5 / max(1, len(axis.ticks) - 1)
        for kind, some, size in (("others", shown, 4.5), ("best", [best], 9.0)):
            at = [axis.place(t["params"][axis.title]) + _jitter(t, width, axis) for t in some]
            values = _clipped(some, metric, low, high)
            edge = {"mew": 1.4, "mec": INK} if kind == "best" else {"mew": 0, "alpha": 0.5}
            axes.plot(at, values, "o", color=COLOURS["student"], markersize=size, **edge, zorder=3)
        _set_ticks(axes, axis.ticks, room=0.06 + (width / 2 if axis.is_of_categories else 0))
        axes.set(xlabel=axis.title, ylabel=label_of(metric))
        _margins(axes, low, high)

    return svg(draw, f"{label_of(metric)} over {axis.title}", size=SMALL)


SMALL = (4.0, 2.9)


def _set_ticks(axes: "Axes", ticks: Sequence[tuple[float, str]], room: float) -> None:
    labels = [label for _, label in ticks]
    axes.set_xticks([at for at, _ in ticks], labels, **_turned(labels))
    axes.set_xlim(min([0.0, *(at for at, _ in ticks)]) - room, 1 + room)


def slice_of_names(trials: Sequence[Trial], path: str, entry: Mapping[str, Any], metric: str, direction: str) -> str:
    """The metric with each name of a subset in and out: two columns a name, as bars the medians of all trials."""
    of = entry["subset"]["of"]
    low, high = window([t["values"][metric] for t in trials], direction)
    shown = thinned(trials, metric, direction, max(40, MARKS // len(of)))

    def column(axes: "Axes", at: float, name: str, *, is_in: bool) -> None:
        every, some = (
            [t for t in group if (name in heard(t["params"][path], entry)) == is_in] for group in (trials, shown)
        )
        colour = COLOURS["student"] if is_in else INK
        places = [at + 0.26 * ((t["number"] * GOLDEN) % 1 - 0.5) for t in some]
        values = _clipped(some, metric, low, high)
        label = None if name != of[0] else "in" if is_in else "out"
        axes.plot(places, values, "o", color=colour, alpha=0.45, markersize=4, mew=0, label=label)
        if every:
            middle = min(high, max(low, statistics.median(t["values"][metric] for t in every)))
            axes.plot([at - 0.16, at + 0.16], [middle, middle], color=colour, linewidth=2)

    def draw(axes: "Axes") -> None:
        for number, name in enumerate(of):
            column(axes, number - 0.2, name, is_in=True)
            column(axes, number + 0.2, name, is_in=False)
        axes.set_xticks(range(len(of)), of, **_turned(of))
        axes.set(xlabel=path, ylabel=label_of(metric), xlim=(-0.5, len(of) - 0.5))
        _margins(axes, low, high)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.0)

    return svg(draw, f"{label_of(metric)} over {path}", size=SMALL, top=0.27)


def _turned(names: Sequence[str]) -> dict[str, Any]:
    is_long = sum(map(len, names)) > 34
    return {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if is_long else {}


def pareto(trials: Sequence[Trial], front: Sequence[Trial], metrics: Mapping[str, str], best: Trial) -> str:
    """The first of two metrics over the other: trials pale, the front blue, what is best for these two joined."""
    (up, up_direction), (along, direction) = metrics.items()
    is_log = all(t["values"][along] > 0 for t in [*trials, *front]) and direction == "min"
    joined = staircase(front, metrics)
    low, high = window([t["values"][up] for t in trials], up_direction, [t["values"][up] for t in front])
    shown = thinned(trials, up, up_direction, MARKS), thinned(front, up, up_direction, MARKS)

    def draw(axes: "Axes") -> None:
        looks = (INK, 0.25, 4.0), (COLOURS["student"], 0.9, 6.0)
        for some, (colour, alpha, size) in zip(shown, looks, strict=True):
            at = [t["values"][along] for t in some]
            axes.plot(at, _clipped(some, up, low, high), "o", color=colour, alpha=alpha, markersize=size, mew=0)
        line = [(t["values"][along], t["values"][up]) for t in thinned(joined, up, up_direction, MARKS)]
        axes.plot(*zip(*line, strict=True), color=COLOURS["student"], linewidth=1.4)
        axes.plot(best["values"][along], best["values"][up], "o", color=COLOURS["student"], ms=10, mew=1.4, mec=INK)
        axes.set(xlabel=label_of(along), ylabel=label_of(up))
        _margins(axes, low, high)
        if is_log:
            costs = [t["values"][along] for t in [*trials, *front]]
            log_of_costs(axes, min(costs) / 1.15, max(costs) * 1.15)

    return svg(draw, f"Pareto front of {label_of(up)} and {label_of(along)}")


def staircase(front: Sequence[Trial], metrics: Mapping[str, str]) -> list[Trial]:
    """Of a front of any number of metrics, those that no other beats in both of two, the best in the first one first."""
    signs = [-1 if direction == "max" else 1 for direction in metrics.values()]
    costs = [tuple(sign * t["values"][m] for sign, m in zip(signs, metrics, strict=True)) for t in front]
    lowest, kept = math.inf, []
    for at in sorted(range(len(front)), key=costs.__getitem__):
        if costs[at][1] < lowest:
            lowest = costs[at][1]
            kept.append(front[at])
    return kept
