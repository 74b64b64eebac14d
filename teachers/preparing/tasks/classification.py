"""One class of many a row: a column of text, integers or truth values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...config.transfer_set import TransferSetConfig
from ...errors import DataError, RecipeError
from ...sources import class_label
from ...sources.files import File
from ...tasks.space import Space
from ...transfer_set.class_names import as_number, is_number_with_decimals
from ..classes import classes_of_source
from ..labels import as_text, class_numbers, classes_of, codes, remapped, told_of_decimals, why_odd
from .reader import Bad, Meant, Names, Training


class Classification:
    def names(self, config: TransferSetConfig, files: Sequence[File]) -> tuple[Names, Names]:
        return classes_of_source(config, files)

    def check(self, config: TransferSetConfig, sample: pa.RecordBatch) -> None:
        if len(config.labels) > 1:
            raise RecipeError(
                f"transfer_set.label: {', '.join(config.labels)} are {len(config.labels)} columns, and a row is of one class; "
                f"name one column, or say `task: multilabel` where several may hold, `task: regression` for numbers"
            )
        for name in config.labels:
            try:
                text, _ = as_text(sample.column(name))
            except DataError as error:
                raise RecipeError(f"transfer_set.label: {error}") from error
            if config.classes is None:
                _check_is_class(name, text)

    def read(
        self,
        config: TransferSetConfig,
        names: Names,
        integers: Names,
        data: pa.RecordBatch,
        bad: Bad,
        root: Path | None = None,
    ) -> Meant:
        if not config.labels:
            return Meant(np.full(data.num_rows, -1, np.int32), names or ())
        name = config.labels[0]
        meaning = integers or class_label(data.schema, name)
        text, odd = as_text(data.column(name), meaning)
        if names is None and odd.any():
            text = pc.if_else(pa.array(odd), pa.scalar(None, pa.string()), text)
        numbers, values = codes(text)
        outside: dict[int, str] = {}
        if names is not None:
            table, outside = class_numbers(values, names)
            odd &= ~np.isin(numbers, [at for at, number in enumerate(table) if number >= 0])
        for row in np.flatnonzero(odd).tolist():
            bad.setdefault(row, why_odd(data.column(name)[row].as_py(), meaning))
        for row in np.flatnonzero(np.isin(numbers, list(outside))).tolist() if outside else []:
            bad.setdefault(row, outside[int(numbers[row])])
        return Meant(numbers, tuple(values)) if names is None else Meant(remapped(numbers, table), names)

    def joined(self, parts: Sequence[Meant]) -> Meant:
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        place = {name: at for at, name in enumerate(names)}
        labels = [remapped(part.labels, [place[name] for name in part.names]) for part in parts]
        return Meant(np.concatenate(labels), names)

    def discovered(self, found: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        return classes_of(found)

    def placed(self, meant: Meant, names: Sequence[str], stands_for: Mapping[str, str]) -> NDArray[Any]:
        place = {name: at for at, name in enumerate(names)}
        return remapped(meant.labels, [place[stands_for[name]] for name in meant.names])

    def space(self, names: tuple[str, ...], training: Training) -> Space:
        return Space("classification", names)


def _check_is_class(name: str, text: pa.Array) -> None:
    """Raise RecipeError for numbers with decimals: a price, not a class. A few among whole ones are bad rows."""
    values = text.drop_null().to_pylist()
    decimals = [value for value in values if is_number_with_decimals(value)]
    numbers = len(decimals) + sum(as_number(value) is not None for value in values)
    if decimals and 2 * len(decimals) >= len(values) and numbers == len(values):
        raise RecipeError(f"transfer_set.label: {told_of_decimals(repr(name), decimals)}")
