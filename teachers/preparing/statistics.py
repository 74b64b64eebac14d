"""What is told of each input column from the moments of its parts: mean and std, and how often a value lacks.

Knows nothing of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import DataError
from ..transfer_set.columns import Column
from ..transfer_set.transfer_set import SplitName
from .canonical import InputPlan
from .moments import Moments, lacking, mean_and_std, unknown

OfParts = dict[SplitName, list[list[Moments]]]
"""By split and part, the moments of each column."""


def with_moments(columns: Sequence[Column], train: Sequence[Sequence[Moments]]) -> tuple[Column, ...]:
    """With mean and std of the training rows, and how many of them lack a value."""
    filled = []
    for column, parts in zip(columns, zip(*train, strict=True), strict=True):
        if column.kind != "category":
            mean, std = mean_and_std(parts)
            column = replace(column, mean=mean, std=std, missing=lacking(parts))
        filled.append(column)
    return tuple(filled)


def check_there_are_values(columns: Sequence[Column], plans: Sequence[InputPlan], rows: int) -> None:
    """Raise DataError for a feature of which none of the `rows` training rows has a value."""
    for column, plan in zip(columns, plans, strict=True):
        if empty := [name for name, missing in zip(plan.sources, column.missing, strict=False) if missing == rows]:
            raise DataError(
                f"column {empty[0]!r}: none of the {rows:,} training rows has a value; take it out of the inputs"
            )


def lacks(columns: Sequence[Column], plans: Sequence[InputPlan], by_split: OfParts) -> dict[str, Any]:
    """By column of the source that may lack a value: how many rows of each split do, and of a category what is unknown.

    Of text that is what is empty, where there is any.
    `values`: how many a category has in its dictionary.
    """
    found: dict[str, Any] = {}
    for at, (column, plan) in enumerate(zip(columns, plans, strict=True)):
        if not column.can_lack:
            continue
        parts = {split: [moments[at] for moments in by_split[split]] for split in by_split}
        lack = {split: lacking(of_split) for split, of_split in parts.items()}
        strange = {split: unknown(of_split) for split, of_split in parts.items()}
        for place, name in enumerate(plan.sources):
            if column.kind == "category":
                values = {"kind": "category", "values": len(column.values[place]), "unknown": _at(strange, place)}
                found[name] = values | {"missing": _at(lack, place)}
            elif column.kind == "text":
                if any(of_split and of_split[0] for of_split in lack.values()):
                    found[name] = {"kind": "text", "missing": _at(lack, place)}
            elif plan.how[place].missing:
                found[name] = {"kind": "number", "missing": _at(lack, place)}
    return found


def _at(counts: Mapping[SplitName, Sequence[int]], place: int) -> dict[str, int]:
    return {split: each[place] if each else 0 for split, each in counts.items()}
