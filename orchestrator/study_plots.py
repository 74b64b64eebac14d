"""Plots of a study as inline SVG: the best so far, what mattered, where the good settings lie.

Numbers of `report.json`: `search` in, SVG text out. Only finished trials carry a figure that can be compared; those that
were ended early are shown pale. A plot has a bounded number of marks, however many trials there were.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .plots import COLOURS, INK, svg
from .study_report import short, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MARKS = 400
MOST_LINES = 120
LONGEST_TICK = 24
TOP = COLOURS["student"]
REST = COLOURS["teacher"]

Row = Mapping[str, Any]


def study_plots(found: Row) -> Iterator[tuple[str, str]]:
    """A caption and an SVG each."""
    finished = [t for t in found["history"] if t["who"] == "student" and t["state"] == "finished"]
    metric = next(iter(found["metrics"]))
    yield f"Best {metric} so far, over the trials as they ended; pale: ended early.", best_so_far(found, metric)
    if found["importance"]:
        yield "What mattered: share of how finished trials differ (PED-ANOVA).", importance(found["importance"])
    for other in [name for name in found["metrics"] if name != metric]:
        yield f"{metric} against {other}; on the line nobody is better in both.", front(found, metric, other)
    if len(finished) > 1:
        shown = thinned(finished, metric, found["metrics"][metric], MOST_MARKS)
        for path in found["search"]["space"]:
            yield f"{metric} over {path}. {_of(shown, finished)}", slice_of(found, shown, path, metric)


def wide_plots(found: Row) -> Iterator[tuple[str, str]]:
    """Those that need the whole width of a page."""
    finished = [t for t in found["history"] if t["who"] == "student" and t["state"] == "finished"]
    metric = next(iter(found["metrics"]))
    if len(finished) > 1:
        shown = thinned(finished, metric, found["metrics"][metric], MOST_LINES)
        yield f"One line a trial, the best in front. {_of(shown, finished)}", parallel(found, shown, metric)


def _of(shown: Sequence[Row], all_of_them: Sequence[Row]) -> str:
    return (
        ""
        if len(shown) == len(all_of_them)
        else f"{len(shown):,} of {len(all_of_them):,} trials: the best, and an even share of the others."
    )


def thinned(trials: Sequence[Row], metric: str, direction: str, most: int) -> list[Row]:
    """The best quarter of what can be shown, and an even share of the rest."""
    if len(trials) <= most:
        return list(trials)
    ordered = sorted(trials, key=lambda t: t["values"][metric], reverse=direction == "max")
    best, rest = ordered[: most // 4], ordered[most // 4 :]
    left = most - len(best)
    return [*best, *(rest[number * len(rest) // left] for number in range(left))]


def best_so_far(found: Row, metric: str) -> str:
    """Every trial a mark, the best one up to there a line."""
    trials = [t for t in found["history"] if t["who"] == "student" and metric in t["values"]]
    better = max if found["metrics"][metric] == "max" else min
    best: list[float] = []
    for trial in trials:
        if trial["state"] == "finished":
            best.append(better([trial["values"][metric], *best[-1:]]))
        else:
            best.append(best[-1] if best else float("nan"))
    stride = -(-len(trials) // MOST_MARKS)

    def draw(axes: "Axes") -> None:
        for state, alpha in (("pruned", 0.3), ("finished", 0.8)):
            at = [(n + 1, t["values"][metric]) for n, t in enumerate(trials) if t["state"] == state][::stride]
            if at:
                axes.scatter([n for n, _ in at], [y for _, y in at], s=16, color=REST, alpha=alpha, linewidth=0)
        steps = range(1, len(trials) + 1)
        axes.step(list(steps)[::stride], best[::stride], where="post", color=TOP, linewidth=2, label="best so far")
        for trial, colour, label in (
            (found["as_recipe"], INK, "the recipe as it stands"),
            (found["control"]["best"], COLOURS["control"], "tuned control"),
        ):
            if trial is not None and metric in figures(trial):
                axes.axhline(value_of(trial, metric), color=colour, linewidth=1.1, linestyle="--", label=label)
        axes.set(xlabel="trials that have ended", ylabel=metric)
        axes.legend(loc="best")

    return svg(draw, f"Best {metric} so far")


def figures(trial: Row) -> set[str]:
    return {f"validation.{name}" for name in trial["validation"]} | (set(trial) - {"number", "params", "validation"})


def importance(shares: Mapping[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda item: item[1])

    def draw(axes: "Axes") -> None:
        axes.barh([_tick(name) for name, _ in ordered], [100 * share for _, share in ordered], color=TOP, height=0.6)
        axes.set(xlabel="% of how trials differ")

    return svg(draw, "Importance of settings", size=(5.4, 1.0 + 0.36 * len(ordered)))


def front(found: Row, metric: str, other: str) -> str:
    """Two metrics of finished trials; the front joined."""
    trials = [t for t in found["history"] if t["who"] == "student" and t["state"] == "finished"]
    trials = thinned(trials, metric, found["metrics"][metric], MOST_MARKS)

    def draw(axes: "Axes") -> None:
        at = [[t["values"][name] for t in trials] for name in (other, metric)]
        axes.scatter(at[0], at[1], s=16, color=REST, alpha=0.6, linewidth=0)
        best = sorted((value_of(t, other), value_of(t, metric)) for t in found["front"])
        axes.plot(*zip(*best, strict=True), "o-", color=TOP, markersize=5, linewidth=1.4)
        axes.set(xlabel=other, ylabel=metric)

    return svg(draw, f"Pareto front of {metric} and {other}")


def parallel(found: Row, trials: Sequence[Row], metric: str) -> str:
    """One axis a setting, from bottom to top, and the metric; a line a trial."""
    space, paths = found["search"]["space"], [*found["search"]["space"]]
    scales = {path: Scale(space[path], [t["params"][path] for t in trials]) for path in paths}
    values = [t["values"][metric] for t in trials]
    low, high = min(values), max(values)
    sign = 1 if found["metrics"][metric] == "max" else -1

    def share(value: float) -> float:
        return (value - low) / (high - low) if high > low else 0.5

    def draw(axes: "Axes") -> None:
        for trial in sorted(trials, key=lambda t: sign * t["values"][metric]):
            good = share(trial["values"][metric]) if sign > 0 else 1 - share(trial["values"][metric])
            line = [*(scales[path].at(trial["params"][path]) for path in paths), share(trial["values"][metric])]
            colour, width = (TOP, 2.2) if good == 1 else (REST, 0.9)
            axes.plot(range(len(line)), line, color=colour, alpha=0.15 + 0.75 * good**3, linewidth=width)
        for number, path in enumerate(paths):
            for at, label in scales[path].ticks():
                axes.text(number + 0.03, at, label, fontsize=7.5, va="center", ha="left")
        for at, value in ((0.0, low), (1.0, high)):
            axes.text(len(paths) + 0.03, at, f"{value:.3g}", fontsize=7.5, va="center", ha="left")
        axes.set_xticks(range(len(paths) + 1), [_tick(name) for name in (*paths, metric)], rotation=20, ha="right")
        axes.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.1, len(paths) + 0.5))
        axes.grid(visible=True, axis="x")

    return svg(draw, "Settings of trials side by side", size=(max(9.0, 1.4 * (len(paths) + 1)), 3.6))


def slice_of(found: Row, trials: Sequence[Row], path: str, metric: str) -> str:
    """The metric over one setting; the best trial in front."""
    entry = found["search"]["space"][path]
    scale = Scale(entry, [t["params"][path] for t in trials])
    best = found["best"]
    from matplotlib.ticker import LogLocator, NullLocator

    def draw(axes: "Axes") -> None:
        # names in a row: spread a little by the trial's number, the same in every drawing
        at = [scale.x(t["params"][path]) + scale.spread * ((t["number"] * 0.618) % 1 - 0.5) for t in trials]
        axes.scatter(at, [t["values"][metric] for t in trials], s=16, color=REST, alpha=0.6, linewidth=0)
        axes.scatter([scale.x(best["params"][path])], [value_of(best, metric)], s=60, color=TOP, zorder=3)
        if scale.names:
            axes.set_xticks(range(len(scale.names)), [_tick(name) for name in scale.names], rotation=20, ha="right")
        if scale.is_log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=path, ylabel=metric)

    return svg(draw, f"{metric} over {path}")


class Scale:
    """Where the values of one setting lie: a range, a range of factors, or names in a row."""

    def __init__(self, entry: Mapping[str, Any], values: Sequence[Any]) -> None:
        self.is_log = "log_uniform" in entry
        self.names: list[str] = []
        kind = next(iter(entry))
        if kind in ("choice", "subset"):
            known = [short(value) for value in entry["choice"]] if kind == "choice" else []
            self.names = list(dict.fromkeys([*known, *sorted(short(value) for value in values)]))
        else:
            self.low, self.high = min([entry[kind][0], *values]), max([entry[kind][1], *values])

    @property
    def spread(self) -> float:
        return 0.25 if self.names else 0.0

    def x(self, value: Any) -> float:
        """In the units of an axis."""
        return float(self.names.index(short(value))) if self.names else float(value)

    def at(self, value: Any) -> float:
        """From 0 to 1."""
        if self.names:
            return self.names.index(short(value)) / max(1, len(self.names) - 1)
        if self.is_log:
            from math import log

            return log(value / self.low) / log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def ticks(self) -> list[tuple[float, str]]:
        if self.names:
            return [(number / max(1, len(self.names) - 1), _tick(name)) for number, name in enumerate(self.names)]
        return [(0.0, f"{self.low:.3g}"), (1.0, f"{self.high:.3g}")]


def _tick(name: str) -> str:
    return name if len(name) <= LONGEST_TICK else f"\N{HORIZONTAL ELLIPSIS}{name[1 - LONGEST_TICK :]}"
