"""Every student against every other: paired over seeds and test rows, as a student and its control are.

Knows the evaluations, which say which rows were right; measures nothing itself.
"""

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from students.measuring.gain import paired_gain, points
from teachers.transfer_set.transfer_set import TransferSet

COLUMNS = ("student", "against", "difference", "low", "high", "seeds", "rows", "better", "worse", "conclusion")
"""Of the CSV; differences are of accuracies, as in `report.json`; `rows` are groups of rows where the split has groups."""
WORDS = {"helps": "better", "hurts": "worse", "open": "open"}
"""Of a student against another one."""


def comparison_of(evaluations: Mapping[str, Mapping[str, Any]], transfer_set: TransferSet) -> dict[str, Any]:
    """`names`, and `pairs` of all of them: {student, against, **gain}. `evaluations`: by student, or `cohort.member`.

    Seeds are paired in their order, as many as both have.
    """
    groups = _groups(transfer_set)
    right = {name: _right(found["right"]["student"], len(groups)) for name, found in evaluations.items()}
    pairs = []
    for one, other in combinations(right, 2):
        seeds = min(len(right[one]), len(right[other]))
        gain = paired_gain(right[one][:seeds], right[other][:seeds], groups)
        pairs.append({"student": one, "against": other, **gain.to_json()})
    return {"names": [*right], "pairs": pairs}


def _groups(transfer_set: TransferSet) -> NDArray[np.uint64]:
    """Of the labelled test rows, in the order in which they were evaluated."""
    parts = [
        transfer_set.groups(segment)[transfer_set.usable_labels(segment) >= 0] for segment in transfer_set.of("test")
    ]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _right(packed: Sequence[str], num_rows: int) -> NDArray[np.bool_]:
    """bool [seeds, rows]."""
    bits = [np.frombuffer(base64.b64decode(each), np.uint8) for each in packed]
    return np.stack([np.unpackbits(each, count=num_rows).astype(bool) for each in bits])


def both_ways(comparison: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By (student, against), in either order."""
    found = {}
    for pair in comparison["pairs"]:
        found[pair["student"], pair["against"]] = dict(pair)
        found[pair["against"], pair["student"]] = _turned(pair)
    return found


def _turned(pair: Mapping[str, Any]) -> dict[str, Any]:
    low, high = (None, None) if pair["low"] is None else (-pair["high"], -pair["low"])
    conclusion = {"helps": "hurts", "hurts": "helps", "open": "open"}[pair["conclusion"]]
    return {
        **pair,
        "student": pair["against"],
        "against": pair["student"],
        "low": low,
        "mean": -pair["mean"],
        "high": high,
        "won": pair["lost"],
        "lost": pair["won"],
        "conclusion": conclusion,
    }


def page_table(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for a page: `name`, and of each student a gain, or None of itself. Empty for fewer than two."""
    names, pairs = comparison["names"], both_ways(comparison)
    if len(names) < 2:
        return []
    return [{"name": one, "gains": [pairs.get((one, other)) for other in names]} for one in names]


def text_table(comparison: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal: points of test accuracy by which the student of a row is above that of a column."""
    names, pairs = comparison["names"], both_ways(comparison)
    if len(names) < 2:
        return []
    rows = [["", *names]]
    rows += [[one, *(_cell(pairs[one, other]) if one != other else "" for other in names)] for one in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        *lines,
        "points of test accuracy, row less column, \N{PLUS-MINUS SIGN} 95% interval; * a difference is shown",
    ]


def _cell(pair: Mapping[str, Any]) -> str:
    star = "*" if pair["conclusion"] != "open" else ""
    if pair["low"] is None:
        return points(pair["mean"])
    half = 100 * (pair["high"] - pair["low"]) / 2
    return f"{points(pair['mean'])} \N{PLUS-MINUS SIGN} {half:.1f}{star}"


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
