"""Every student against every other: paired over seeds and test rows, as a student and its control are.

Knows the evaluations, which say how good each row's answer was; measures nothing itself.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from students.measuring.by_row import from_document, gain_between
from students.tasks.figure import Figure
from teachers.tasks.labels import has_label
from teachers.transfer_set.transfer_set import TransferSet

COLUMNS = ("student", "against", "difference", "low", "high", "seeds", "rows", "better", "worse", "conclusion")
"""Of the CSV; differences are of the headline, + is better, as in `report.json`; `rows` are groups of rows where the split has groups."""
WORDS = {"helps": "better", "hurts": "worse", "open": "open"}
"""Of a student against another one."""


def comparison_of(evaluations: Mapping[str, Mapping[str, Any]], transfer_set: TransferSet) -> dict[str, Any]:
    """`names`, and `pairs` of all of them: {student, against, **gain}. `evaluations`: by student, or `cohort.member`.

    Seeds are paired in their order, as many as both have.
    """
    groups, task = groups_of_test_rows(transfer_set), transfer_set.space.task
    found = {name: from_document(each["by_row"]["student"], len(groups)) for name, each in evaluations.items()}
    pairs = []
    for one, other in combinations(found, 2):
        gain = gain_between(task, found[one], found[other], groups)
        assert gain is not None
        pairs.append({"student": one, "against": other, **gain.to_json()})
    return {"names": [*found], "pairs": pairs}


def groups_of_test_rows(transfer_set: TransferSet) -> NDArray[np.uint64]:
    """Of the labelled test rows, in the order in which they were evaluated."""
    parts = [
        transfer_set.groups(segment)[has_label(transfer_set.usable_labels(segment))]
        for segment in transfer_set.of("test")
    ]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def both_ways(comparison: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By (student, against), in either order."""
    found = {}
    for pair in comparison["pairs"]:
        found[pair["student"], pair["against"]] = dict(pair)
        found[pair["against"], pair["student"]] = _turned(pair)
    return found


def _turned(pair: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the other one."""
    ends = (None, None) if pair["low"] is None else (0.0 - pair["high"], 0.0 - pair["low"])  # never -0.0
    return {
        **pair,
        "student": pair["against"],
        "against": pair["student"],
        "low": ends[0],
        "mean": 0.0 - pair["mean"],
        "high": ends[1],
        "by_seed": [0.0 - each for each in pair["by_seed"]],
        "won": pair["lost"],
        "lost": pair["won"],
        "conclusion": {"helps": "hurts", "hurts": "helps", "open": "open"}[pair["conclusion"]],
    }


def page_table(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for a page: `name`, and of each student a gain, or None of itself. Empty for fewer than two."""
    names, pairs = comparison["names"], both_ways(comparison)
    if len(names) < 2:
        return []
    return [{"name": one, "gains": [pairs.get((one, other)) for other in names]} for one in names]


def text_table(figure: Figure, comparison: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal: by how much the student of a row is better than that of a column."""
    names, pairs = comparison["names"], both_ways(comparison)
    if len(names) < 2:
        return []
    rows = [["", *names]]
    rows += [[one, *(_cell(figure, pairs[one, other]) if one != other else "" for other in names)] for one in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        *lines,
        f"{figure.units_gained}, row less column, \N{PLUS-MINUS SIGN} 95% interval; * a difference is shown",
    ]


def _cell(figure: Figure, pair: Mapping[str, Any]) -> str:
    star = "*" if pair["conclusion"] != "open" else ""
    if pair["low"] is None:
        return figure.gained(pair["mean"])
    half = figure.half_width((pair["high"] - pair["low"]) / 2)
    return f"{figure.gained(pair['mean'])} \N{PLUS-MINUS SIGN} {half}{star}"


def csv_text(report: Mapping[str, Any], learners: Mapping[str, Any]) -> str:
    """Every student against every other, and against its own control: a line each, with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    pairs = [*both_ways(report["comparison"]).values(), *_against_controls(learners)]
    for pair in sorted(pairs, key=lambda pair: [*learners].index(pair["student"])):
        figures = [
            pair["mean"],
            pair["low"],
            pair["high"],
            len(pair["by_seed"]),
            pair["units"],
            pair["won"],
            pair["lost"],
        ]
        told = ["" if value is None else value for value in figures]
        writer.writerow([pair["student"], pair["against"], *told, WORDS[pair["conclusion"]]])
    return buffer.getvalue()


def _against_controls(learners: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, learner in learners.items():
        if learner["gain"]:
            yield {"student": name, "against": f"control of {name}", **learner["gain"]}
