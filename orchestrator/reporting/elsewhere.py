"""A model that was trained elsewhere beside those of a finished run: the same test rows, the same figures.

Knows a run's report and evaluations, and measures nothing itself.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.measuring.by_row import from_document, gain_between
from students.tasks.figure import FIGURES, Figure
from teachers.storage.seal import local
from teachers.transfer_set.transfer_set import TransferSet

from ..stages.stages import FOLDERS, SHORT
from .comparison import groups_of_test_rows
from .headline import learners, mean_of, task_of

if TYPE_CHECKING:
    from students.measuring.elsewhere import FromElsewhere


def folder_of(out: Path, report: Mapping[str, Any], stage: str, name: str | None = None) -> Path:
    """Of a stage of the run that `report` tells of."""
    found = next(each for each in report["stages"] if each["stage"] == stage and name in (None, each["name"]))
    return out / FOLDERS[found["stage"]] / f"{found['name']}-{found['key'][:SHORT]}"


def beside_a_run(out: Path, report: Mapping[str, Any], name: str, judged: "FromElsewhere") -> dict[str, Any]:
    """`figures` by who is judged: teachers, their ensemble, controls and students (means over seeds), and `name`; `pairs`: the
    delivered seed of every student against it, row by row."""
    task = task_of(report)
    keys = [figure.key for figure in FIGURES[task]]
    everybody = {who: {key: mean_of(runs, key) for key in keys} for who, runs in _runs(report)}
    everybody[name] = {key: judged.figures[key] for key in keys}
    groups = groups_of_test_rows(TransferSet.open(folder_of(out, report, "prepare")))
    pairs = []
    for student, learner in learners(report).items():
        learnt, _, member = student.partition(".")
        found = json.loads(local(folder_of(out, report, "evaluate", learnt), "evaluation.json").read_bytes())
        found = found["members"][member] if member else found
        place = sorted(run["seed"] for run in learner["runs"]).index(learner["delivered"])
        own = from_document(found["by_row"]["student"], judged.rows)[place : place + 1]
        gain = gain_between(task, own, judged.by_row, groups)
        assert gain is not None
        pairs.append({"student": student, "seed": learner["delivered"], "against": name, **gain.to_json()})
    return {"model": name, "rows": judged.rows, "figures": everybody, "pairs": pairs}


def _runs(report: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    for name, figures in report["teachers"].items():
        yield f"teacher {name}", [figures]
    if report["ensemble"]:
        yield "teachers together", [report["ensemble"]]
    for name, learner in learners(report).items():
        if learner["control_runs"]:
            yield f"control of {name}", learner["control_runs"]
        yield name, learner["runs"]


def lines(task_figures: Sequence[Figure], document: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal: a line for everybody, and one for each pair."""
    rows = [[f"{document['rows']:,} test rows", *(figure.label for figure in task_figures)]]
    rows += [
        [who, *(figure.shown(found[figure.key]) for figure in task_figures)]
        for who, found in document["figures"].items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for who, *cells in rows:
        told = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([who.ljust(widths[0]), *told]).rstrip()
    first = task_figures[0]
    for pair in document["pairs"]:
        yield (
            f"{pair['student']} (seed {pair['seed']}, which is delivered) against {pair['against']}: {first.gained(pair['mean'])} "
            f"{first.units_gained}; better in {pair['won']:,} and worse in {pair['lost']:,} of {pair['units']:,} "
            f"{'groups of test rows' if pair['grouped'] else 'test rows'}, p = {pair['sign_p']:.2g}"
        )
