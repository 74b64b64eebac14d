"""What `report.html` shows of a study: figures and settings side by side, the front, what failed, and captioned plots.

Knows nothing but `report.json`: `search`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from . import study_plots
from .axes import Axis, axis_of
from .study import front_table, short, value_of
from .study_plots import LINES, MARKS, Trial, label_of

Plot = tuple[str, Markup]
"""A caption and an SVG."""
ROWS_OF_THE_FRONT = 30
AXES = 10
"""Settings that parallel coordinates have room for."""


def study_page(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs beside the section itself."""
    front = [*found["front"]][:ROWS_OF_THE_FRONT]
    plots = _Plots(found)
    return {
        "compared": [*_compared(found)],
        "front": front_table({**found, "front": front}) if front else [],
        "left_out": len(found["front"]) - len(front),
        "broad": [*plots.broad()],
        "plots": [*plots.of_the_whole()],
        "slices": [*plots.slices()],
    }


def _compared(found: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Figures and settings of the recipe as it stands, the best and the control: rows of text, names first."""
    control = "tuned control" if found["control"]["searched"] else "control"
    named = {"as in the recipe": found["as_recipe"], "best": found["best"], control: found["control"]["best"]}
    who = {name: trial for name, trial in named.items() if trial}
    yield ["", *(f"{name}, trial {trial['number']}" for name, trial in who.items())]
    for key in found["best"]["validation"]:
        figures = [trial["validation"].get(key) for trial in who.values()]
        yield [label_of(f"validation.{key}"), *("" if value is None else f"{value:.4f}" for value in figures)]
    for metric in found["metrics"]:
        if not metric.startswith("validation."):
            yield [label_of(metric), *(f"{trial[metric]:,.4g}" if metric in trial else "" for trial in who.values())]
    for path in found["search"]["space"]:
        params = [trial["params"] for trial in who.values()]
        yield [path, *(short(values[path]) if path in values else "" for values in params)]


class _Plots:
    """Plots of one study with their captions; only finished trials carry a comparable figure."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.found = found
        self.metric, self.direction = next(iter(found["metrics"].items()))
        self.students: list[Trial] = [trial for trial in found["history"] if trial["who"] == "student"]
        self.finished = [trial for trial in self.students if trial["state"] == "finished"]
        self.by_number = {trial["number"]: trial for trial in self.finished}
        self.best = self.by_number[found["best"]["number"]]
        space = found["search"]["space"]
        ordered = sorted(space, key=lambda path: -_share(found["importance"], path))
        self.axes = {path: axis_of(path, space[path], [t["params"][path] for t in self.finished]) for path in ordered}

    def broad(self) -> Iterator[Plot]:
        if len(self.finished) < 2:
            return
        axes: list[Axis] = [*self.axes.values()][:AXES]
        svg = study_plots.parallel(self.finished, axes, self.metric, self.direction, self.best)
        shown = self._shown(len(self.finished), LINES)
        some = f" The {AXES} settings that mattered most, of {len(self.axes)}." if len(self.axes) > AXES else ""
        yield f"Every line is a trial, the better the bluer; thick: the best.{some} {shown}{self._edge()}", Markup(svg)

    def of_the_whole(self) -> Iterator[Plot]:
        yield self._best_so_far()
        if shares := self.found["importance"]:
            svg = study_plots.importance(shares, self.metric)
            left_out = len(shares) - study_plots.BARS
            more = f" {left_out} that mattered less are not shown." if left_out > 0 else ""
            yield f"Importance of settings for a good {label_of(self.metric)} (PED-ANOVA).{more}", Markup(svg)
        if self.found["front"]:
            yield from self._fronts()

    def _best_so_far(self) -> Plot:
        told = {"recipe": self.found["as_recipe"], "control": self.found["control"]["best"]}
        lines = {kind: value_of(trial, self.metric) for kind, trial in told.items() if trial}
        svg = study_plots.best_so_far(self.students, self.metric, self.direction, lines)
        pruned = [trial for trial in self.students if trial["state"] == "pruned"]
        pale = f" Pale: {_some(len(pruned), MARKS)} pruned, at their best look." if pruned else ""
        shown = self._shown(len(self.finished), MARKS)
        return (
            f"{_capital(label_of(self.metric))} of every trial. {shown}{pale}{self._edge([*lines.values()], pruned)}",
            Markup(svg),
        )

    def _fronts(self) -> Iterator[Plot]:
        front = [self.by_number[trial["number"]] for trial in self.found["front"]]
        first, *others = self.found["metrics"].items()
        for other in others:
            svg = study_plots.pareto(self.finished, front, dict([first, other]), self.best)
            line = ", by the line those best in these two" if len(others) > 1 else ""
            shown = f"{_some(len(front), MARKS)} of the front in blue{line}; ringed: the best in {label_of(first[0])}."
            rest = f"{self._shown(len(self.finished), MARKS)}{self._edge([t['values'][self.metric] for t in front])}"
            yield f"Trials that no other beats in everything: {shown} {rest}", Markup(svg)

    def slices(self) -> Iterator[Plot]:
        space = self.found["search"]["space"]
        if len(self.finished) < 2:
            return
        for path, axis in self.axes.items():
            if "subset" in space[path]:
                svg = study_plots.slice_of_names(self.finished, path, space[path], self.metric, self.direction)
                yield "With each of them in and out; bars: medians.", Markup(svg)
            else:
                svg = study_plots.slice_of(self.finished, axis, self.metric, self.direction, self.best)
                yield "Ringed: the best trial.", Markup(svg)

    def _shown(self, count: int, most: int) -> str:
        if count <= most:
            return f"{count:,} finished trial{'s' if count != 1 else ''}."
        return (
            f"{most:,} of {count:,} finished trials are drawn: the best {most // 3} and an even sample of the others."
        )

    def _edge(self, keep: Sequence[float] = (), pruned: Sequence[Trial] = ()) -> str:
        """What a plot does with trials far behind; `keep`: values that it has to show."""
        values = [trial["values"][self.metric] for trial in self.finished]
        low, high = study_plots.window(values, self.direction, keep)
        values += [trial["values"][self.metric] for trial in pruned if self.metric in trial["values"]]
        outside = sum(not low <= value <= high for value in values)
        bound = low if self.direction == "max" else high
        return f" At the edge: {outside:,} worse than {bound:.3g}." if outside else ""


def _some(count: int, most: int) -> str:
    return f"{count:,}" if count <= most else f"{most:,} of {count:,}"


def _share(importance: Mapping[str, float], path: str) -> float:
    """Of a setting; of a subset that of its most important name."""
    own = (share for name, share in importance.items() if name == path or name.startswith(f"{path}."))
    return max(own, default=0.0)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
