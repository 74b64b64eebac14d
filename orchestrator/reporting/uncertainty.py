"""Students with a head for each teacher (`hydra`): how unsure they are, and whether of what their teachers are; a table and sentences.

Knows nothing but the parts of `report.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from students.tasks.figure import FIGURES, NOTHING, Figure, headline, significant
from teachers.config.task import ANSWER_OF

from .headline import learners, task_of

Found = Mapping[str, Any]
PARTS: dict[str, str] = {
    "total": "total",
    "aleatoric": "aleatoric",
    "epistemic": "epistemic",
    "disagreement": "heads differ",
    "rank_correlation": "rank correlation with teachers",
}
"""What is told of heads, in the order of columns."""


def about_heads(report: Found) -> Iterator[str]:
    """A sentence for each student with several heads."""
    values = ANSWER_OF[task_of(report)] == "values"
    what = "the standard deviation of what they say" if values else "the mutual information of what they say"
    unit = "" if values else " nats"
    for name, found in _with_heads(report):
        runs, theirs = found["uncertainty"]["runs"], found["uncertainty"]["teachers"]
        own = mean_of(runs, "epistemic")
        told = (
            f"{name} has {runs[0]['heads']} heads on one body, one a teacher{_control_has_one(found)}: {what} is "
            f"{_shown(own)}{unit} on test rows"
        )
        if theirs is None:
            yield f"{told}; what its teachers disagree by cannot be told, for one of them says classes only."
            continue
        ranks = mean_of(runs, "rank_correlation")
        alike = "" if ranks is None else f", and by row the two have a rank correlation of {ranks:.2f}"
        yield f"{told}, of its teachers {_shown(theirs['epistemic'])}{unit}{alike}."


def _control_has_one(found: Found) -> str:
    return ", and its control has one" if found["control_runs"] else ""


def tables(report: Found) -> list[dict[str, Any]]:
    """`title`, `columns` and `rows` of text, for each student with several heads."""
    figures = figures_told(report)
    return [
        {
            "title": name,
            "columns": [*(figure.label for figure in figures), *_parts(report)],
            "rows": [*_rows(report, name, found, figures)],
        }
        for name, found in _with_heads(report)
    ]


def figures_told(report: Found) -> list[Figure]:
    """The headline, and what is asked of probabilities."""
    return [headline(task_of(report)), *(each for each in FIGURES[task_of(report)][1:] if each.key in ("nll", "ece"))]


def _parts(report: Found) -> list[str]:
    if ANSWER_OF[task_of(report)] == "values":
        return [PARTS[key] for key in ("epistemic", "rank_correlation")]
    return [*PARTS.values()]


def _rows(report: Found, name: str, found: Found, figures: Sequence[Figure]) -> Iterator[list[str]]:
    runs, theirs = found["uncertainty"]["runs"], found["uncertainty"]["teachers"]
    keys = [key for key, title in PARTS.items() if title in _parts(report)]
    own = {key: mean_of(runs, key) for key in keys}
    yield [name, *_cells(figures, found["runs"]), *_doubts(own, keys)]
    alone = [run["alone"] for run in runs if "alone" in run]
    yield ["one of its heads", *_cells(figures, alone), *_doubts({}, keys)]
    for other in with_one_head(report, name):
        yield [f"{other}, with one head", *_cells(figures, learners(report)[other]["runs"]), *_doubts({}, keys)]
    yield ["teachers together", *_cells(figures, [found["ensemble"]]), *_doubts(theirs or {}, keys)]


def with_one_head(report: Found, name: str) -> list[str]:
    """Students that differ from this one in its heads alone, or in the objective, too."""
    students = report["recipe"]["students"]
    mine = {key: students[name].get(key) for key in ("model", "arguments", "preprocess", "teachers", "train")}
    return [
        other
        for other, config in students.items()
        if config.get("hydra") is None and all(config.get(key) == value for key, value in mine.items())
    ]


def _with_heads(report: Found) -> Iterator[tuple[str, Found]]:
    for name, found in learners(report).items():
        if found.get("uncertainty"):
            yield name, found


def mean_of(runs: Sequence[Found], key: str) -> float | None:
    """Over seeds; None where one has none."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return fmean(values) if values and len(values) == len(runs) else None


def _cells(figures: Sequence[Figure], runs: Sequence[Found]) -> list[str]:
    return [figure.shown(mean_of(runs, figure.key)) for figure in figures]


def _doubts(found: Found, keys: Sequence[str]) -> list[str]:
    return [_cell(key, found.get(key)) for key in keys]


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    if key == "disagreement":
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if key == "rank_correlation" else _shown(value)


def _shown(value: float | None) -> str:
    return NOTHING if value is None else significant(value, 3)
