"""Where classes are uneven: how students fare on those with many, some and few labelled training rows, beside their controls.

Knows the evaluations, which say in which rows each was right; measures nothing itself.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from students.measuring.by_row import from_document, gain_between
from students.measuring.gain import with_interval
from students.tasks.figure import Figure
from teachers.tasks.labels import has_label
from teachers.transfer_set.transfer_set import TransferSet

from .comparison import groups_of_test_rows
from .headline import spread

UNEVEN = 10
"""So many times as many rows has the largest class, of those with some, as the smallest: then there is a table."""
MANY, FEW = 100, 20
"""Labelled training rows of a class, from which on it is one of many shots, and up to which of few (Liu et al., 2019)."""
KINDS = ("student", "offline", "control")
TITLES = {"student": "{}", "offline": "{} from its teachers alone", "control": "control of {}"}


def shots_of(counts: Mapping[str, int]) -> dict[str, list[str]]:
    """Classes by shots, those groups that have some; `counts`: by class, its labelled training rows. Empty where classes are even.

    A class without a labelled training row is one of few.
    """
    some = [rows for rows in counts.values() if rows]
    if not some or max(some) < UNEVEN * min(some):
        return {}
    named: dict[str, list[str]] = {"many": [], "median": [], "few": []}
    for name, rows in counts.items():
        named["many" if rows >= MANY else "few" if rows <= FEW else "median"].append(name)
    return {shot: names for shot, names in named.items() if names}


def by_shots(evaluations: Mapping[str, Mapping[str, Any]], transfer_set: TransferSet, counts: Mapping[str, int]) -> Any:
    """`groups`: by shots, `classes`, the least and the most training `rows` of one, `test_rows`; `students`: by student (or
    `cohort.member`) and group, over seeds the share of test rows in which `student`, `offline` and `control` are right, and the
    `gain` over the control with its interval. None where classes are even, or a label is no class.

    `evaluations`: by the same names; `counts`: labelled training rows of each class.
    """
    labels = _labels(transfer_set)
    shots = shots_of(counts) if labels.ndim == 1 and labels.dtype.kind == "i" else {}
    if not shots or not evaluations:
        return None
    places = {name: number for number, name in enumerate(transfer_set.classes)}
    rows = {shot: np.isin(labels, [places[name] for name in names]) for shot, names in shots.items()}
    rows = {shot: mine for shot, mine in rows.items() if mine.any()}
    groups = {
        shot: {
            "classes": shots[shot],
            "rows": [min(counts[name] for name in shots[shot]), max(counts[name] for name in shots[shot])],
            "test_rows": int(mine.sum()),
        }
        for shot, mine in rows.items()
    }
    found = {name: dict(_of_one(each, rows, transfer_set)) for name, each in evaluations.items()}
    return {"groups": groups, "students": found}


def _labels(transfer_set: TransferSet) -> NDArray[Any]:
    """Of the labelled test rows, in the order in which they were evaluated."""
    parts = [transfer_set.usable_labels(segment) for segment in transfer_set.of("test")]
    parts = [labels[has_label(labels)] for labels in parts]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def _of_one(
    evaluation: Mapping[str, Any], rows: Mapping[str, NDArray[np.bool_]], transfer_set: TransferSet
) -> Iterator[tuple[str, dict[str, Any]]]:
    of_groups, task = groups_of_test_rows(transfer_set), transfer_set.space.task
    right = {
        kind: from_document(evaluation["by_row"][kind], len(of_groups))
        for kind in KINDS
        if kind in evaluation["by_row"]
    }
    for shot, mine in rows.items():
        some = {kind: each[:, mine] for kind, each in right.items() if isinstance(each, np.ndarray)}
        gain = gain_between(task, some["student"], some.get("control"), of_groups[mine])
        yield (
            shot,
            {kind: _over_seeds(each.mean(1).tolist()) for kind, each in some.items()}
            | {"gain": gain.to_json() if gain else None},
        )


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "runs": list(values)}


def page_table(figure: Figure, found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Columns (`groups`: of title, classes, training rows of each, test rows) and `lines`: `name` and, by group, what is right and
    the gain over the control, as text; `tone`: helps, hurts or open. None where classes are even."""
    if not found:
        return None
    lines = []
    for name, of_groups in found["students"].items():
        for kind in KINDS:
            cells = [
                {
                    "right": spread(figure, each[kind]),
                    "gain": with_interval(figure, each["gain"]) if kind == "student" and each["gain"] else "",
                    "tone": each["gain"]["conclusion"] if kind == "student" and each["gain"] else "open",
                }
                for each in of_groups.values()
                if kind in each
            ]
            if cells:
                lines.append({"name": TITLES[kind].format(name), "cells": cells})
    return {"groups": [{"title": shot, **about} for shot, about in found["groups"].items()], "lines": lines}
