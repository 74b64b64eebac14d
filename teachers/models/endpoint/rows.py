"""Canonical rows as others read them: by the names of the source's columns, numbers, words, text, PNG in base64.

Knows nothing of prompts or of HTTP.
"""

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...transfer_set.columns import FIRST, Column
from ...transfer_set.dates import date_of, date_units

Batch = Mapping[str, NDArray[Any]]
Row = dict[str, Any]
"""By column: a number, a list of them, a word, text, a date, PNG in base64; None where the source has no value."""


@dataclass(frozen=True)
class Fields:
    """Which columns of a source stand in which column of the canonical rows."""

    columns: tuple[Column, ...]
    sources: Mapping[str, Sequence[str]]
    """By canonical column the source's columns that are joined in it."""
    units: Mapping[str, int] = field(default_factory=dict)
    """Of the source's columns that hold dates: seconds in one of what they are counted in, since 1970."""

    @classmethod
    def of(cls, columns: Sequence[Column], made_of: Sequence[Mapping[str, Any]]) -> "Fields":
        """`made_of`: documents of the plans by which the columns were made."""
        sources = {plan["name"]: tuple(plan["sources"]) for plan in made_of}
        return cls(tuple(columns), sources, {name: unit for plan in made_of for name, unit in date_units(plan).items()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for column in self.columns for name in self._names(column))

    def _names(self, column: Column) -> Sequence[str]:
        joined = column.names or self.sources.get(column.name, (column.name,))
        return joined if column.kind != "number" or column.shape == (len(joined),) else (column.name,)

    def rows(self, batch: Batch, wanted: Collection[str] | None = None) -> list[Row]:
        """One mapping a row, of the columns that are `wanted`; None: of all."""
        num_rows = len(next(iter(batch.values())))
        found: list[Row] = [{} for _ in range(num_rows)]
        for column in self.columns:
            names = self._names(column)
            for number, name in enumerate(names):
                if wanted is None or name in wanted:
                    values = batch[column.name]
                    is_part = column.kind in ("number", "category") and column.shape == (len(names),)
                    part = values[:, number] if is_part else values
                    if name in self.units:
                        told: list[Any] = [date_of(value, self.units[name]) for value in part.tolist()]
                    else:
                        told = VALUES[column.kind](part, column, number)
                    for row, value in zip(found, told, strict=True):
                        row[name] = value
        return found


def _numbers(values: NDArray[Any], column: Column, number: int) -> list[Any]:
    """Shortest decimals that are the same float32 or float64; whole ones without a point."""
    return [_number(value) if values.ndim == 1 else [_number(each) for each in value.ravel()] for value in values]


def _number(value: Any) -> float | int | None:
    if np.isnan(value):
        return None
    told = float(str(value))
    return int(told) if told.is_integer() and abs(told) < 2**53 else told


def _words(codes: NDArray[Any], column: Column, number: int) -> list[str | None]:
    values = column.values[number]
    return [values[code - FIRST] if code >= FIRST else None for code in codes.tolist()]


def _texts(values: NDArray[Any], column: Column, number: int) -> list[str]:
    return [str(value) for value in values.tolist()]


def _images(values: NDArray[Any], column: Column, number: int) -> list[str]:
    from PIL import Image

    told = []
    for value in values:
        payload = io.BytesIO()
        Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value).save(payload, "PNG")
        told.append(base64.b64encode(payload.getvalue()).decode())
    return told


VALUES: dict[str, Callable[[NDArray[Any], Column, int], list[Any]]] = {
    "number": _numbers,
    "category": _words,
    "text": _texts,
    "image": _images,
}
