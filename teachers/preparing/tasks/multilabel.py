"""Classes that each hold of a row or not: columns of 0 and 1, a column of lists of classes, or text with a separator."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...config.transfer_set import TransferSetConfig
from ...errors import DataError, RecipeError
from ...sources import schema_of
from ...sources.files import File
from ...tasks.space import Space
from ..arrow_types import is_list, is_text
from ..canonical import nested
from ..labels import as_text, class_numbers, classes_of, codes
from ..scalars import leaves
from .reader import Bad, Meant, Names, Training, columns_of, is_missing, list_size

ANY = ""
"""Stands beside the classes that a batch holds: no class, its column says of which rows nothing is known."""
MOST = 10_000
"""Classes that are found by reading labels: each is a column of every row."""


class Multilabel:
    def names(self, config: TransferSetConfig, files: Sequence[File]) -> tuple[Names, Names]:
        if config.classes is not None and len(set(config.classes)) != len(config.classes):
            raise RecipeError("transfer_set.classes: a name is there twice")
        if len(config.labels) > 1:
            if config.classes is not None and len(config.classes) != len(config.labels):
                raise RecipeError(
                    f"transfer_set.classes: {len(config.classes)} names for {len(config.labels)} label columns; give one a column"
                )
            return tuple(config.classes or config.labels), None
        if not config.labels and config.classes is None:
            raise RecipeError("transfer_set.classes: without a label column the classes must be named here")
        if config.classes is not None:
            return tuple(config.classes), None
        size = list_size(schema_of(files).field(config.labels[0]).type)
        return None if size is None else tuple(map(str, range(size))), None

    def check(self, config: TransferSetConfig, sample: pa.RecordBatch) -> None:
        for name, array in columns_of(config, sample) if len(config.labels) == 1 else []:
            if is_text(array.type) and config.label_separator is None:
                raise RecipeError(
                    f"transfer_set.label: {name!r} is text; say what stands between two classes of a row, "
                    f'`label_separator: ";"` for example'
                )
            if not is_list(array.type) and not is_text(array.type) and not pa.types.is_null(array.type):
                raise RecipeError(
                    f"transfer_set.label: {name!r} is {array.type}; several classes of a row are a list, text with a "
                    f"separator, or several columns of 0 and 1"
                )
            each = list_size(array.type)
            if each is not None and len(config.classes or range(each)) != each:
                raise RecipeError(
                    f"transfer_set.classes: {len(config.classes or ())} names, and a row of {name!r} has {each} values of 0 and 1"
                )

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
            return Meant(np.full((data.num_rows, len(names or ())), -1, np.int8), names or ())
        columns = columns_of(config, data)
        if len(columns) > 1:
            return Meant(np.stack([_zero_one(name, array, bad) for name, array in columns], 1), names or ())
        name, array = columns[0]
        if pa.types.is_fixed_size_list(array.type):
            return _each(name, array, names, bad)
        return _members(config, names, name, array, bad)

    def joined(self, parts: Sequence[Meant]) -> Meant:
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        place = {name: at for at, name in enumerate(names)}
        labels = np.zeros((sum(len(part.labels) for part in parts), len(names)), np.int8)
        first = 0
        for part in parts:
            mine = labels[first : first + len(part.labels)]
            mine[:, [place[name] for name in part.names]] = part.labels
            mine[_unknown(part)] = -1
            first += len(mine)
        return Meant(labels, names)

    def discovered(self, found: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        names, stands_for = classes_of([name for name in found if name != ANY])
        if len(names) > MOST:
            raise DataError(
                f"the labels hold {len(names):,} distinct classes, more than {MOST:,}; name those that count in transfer_set.classes"
            )
        return names, stands_for

    def placed(self, meant: Meant, names: Sequence[str], stands_for: Mapping[str, str]) -> NDArray[Any]:
        """What is not named there does not hold; of a row of which nothing is known nothing is."""
        if meant.names == tuple(names):
            return meant.labels
        place = {name: at for at, name in enumerate(names)}
        out = np.zeros((len(meant.labels), len(names)), np.int8)
        for column, name in enumerate(meant.names):
            if name != ANY:
                into = out[:, place[stands_for[name]]]
                np.maximum(into, meant.labels[:, column], out=into)
        out[_unknown(meant)] = -1
        return out

    def space(self, names: tuple[str, ...], training: Training) -> Space:
        return Space("multilabel", names)


def _unknown(meant: Meant) -> NDArray[np.bool_]:
    """Rows without a label, where the names are those that were met."""
    unknown: NDArray[np.bool_] = meant.labels[:, meant.names.index(ANY)] < 0
    return unknown


def _zero_one(name: str, array: pa.Array, bad: Bad) -> NDArray[np.int8]:
    missing = is_missing(array, is_text(array.type))
    values, wrong = leaves(array)
    wrong = (wrong & ~missing) | (~missing & ~np.isin(values, (0, 1)))
    for row in np.flatnonzero(wrong).tolist():
        bad.setdefault(row, f"label {name} is {array[row].as_py()!r}, expected 0 or 1: whether the class holds")
    return np.where(missing | wrong, -1, values).astype(np.int8)


def _each(name: str, array: pa.Array, names: Names, bad: Bad) -> Meant:
    """Of `[rows, C]` of 0 and 1; a null among them is not known."""
    width = array.type.list_size
    values, wrong = nested(array.fill_null([0] * width) if array.null_count else array, (width,))
    missing = np.asarray(array.is_null())
    odd = ~np.isin(values, (0, 1)).all(1) | (wrong & ~missing)
    for row in np.flatnonzero(odd & ~missing).tolist():
        bad.setdefault(
            row, f"label {name} is {array[row].as_py()}, expected {width} times 0 or 1: whether each class holds"
        )
    found = np.where((missing | odd)[:, None], -1, values).astype(np.int8)
    return Meant(found, names or ())


def _members(config: TransferSetConfig, names: Names, name: str, array: pa.Array, bad: Bad) -> Meant:
    """Of lists of classes, or text that is one; null: nobody knows, empty: none holds."""
    parts = pc.split_pattern(array, pattern=config.label_separator or ";") if is_text(array.type) else array
    missing = np.asarray(array.is_null())
    rows = np.repeat(np.arange(len(array)), np.asarray(pc.fill_null(pc.list_value_length(parts), 0)))
    text, odd = as_text(parts.flatten())
    numbers, values = codes(text)
    for at in np.flatnonzero(odd).tolist():
        bad.setdefault(int(rows[at]), f"label {name} holds a value that names no class")
    found: list[str] = values
    if names is not None:
        table, outside = class_numbers(values, names)
        for at in np.flatnonzero(np.isin(numbers, list(outside))).tolist() if outside else []:
            bad.setdefault(int(rows[at]), outside[int(numbers[at])])
        numbers, found = np.append(np.asarray(table, np.int32), np.int32(-1))[numbers], list(names)
    if names is None:
        found = [*found, ANY]
    labels = np.zeros((len(array), len(found)), np.int8)
    said = numbers >= 0
    labels[rows[said], numbers[said]] = 1
    labels[missing] = -1
    return Meant(labels, tuple(found))
