"""One or several real numbers a row, in their own units: columns of numbers, or one of lists of equally many."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...config.transfer_set import TransferSetConfig
from ...errors import DataError, RecipeError
from ...sources import schema_of
from ...sources.files import File
from ...tasks.space import Space
from ..arrow_types import is_number, is_text
from ..canonical import nested
from ..scalars import leaves
from ..sums import summed
from .reader import Bad, Meant, Names, Training, columns_of, is_missing, list_size


class Regression:
    def names(self, config: TransferSetConfig, files: Sequence[File]) -> tuple[Names, Names]:
        if not config.labels:
            return _given(config), None
        if config.classes is not None:
            raise RecipeError(
                "transfer_set.classes: numbers are called as their columns are; leave it out, or say `task: classification`"
            )
        if len(config.labels) == 1 and config.labels[0] in (schema := schema_of(files)).names:
            size = list_size(schema.field(config.labels[0]).type)
            if size is not None:
                return tuple(f"{config.labels[0]}[{number}]" for number in range(size)), None
        return tuple(config.labels), None

    def check(self, config: TransferSetConfig, sample: pa.RecordBatch) -> None:
        for name, array in columns_of(config, sample):
            kind = array.type
            if len(config.labels) == 1 and list_size(kind) is not None:
                continue
            values, wrong = leaves(array) if is_number(kind) or is_text(kind) else (np.zeros(0), np.ones(1, bool))
            missing = is_missing(array, is_text(kind)) if len(values) else np.zeros(1, bool)
            if wrong.any() and (wrong & ~missing).sum() * 2 > (~missing).sum():
                found = next((value for value in array.to_pylist() if value is not None), None)
                raise RecipeError(
                    f"transfer_set.label: {name!r} is {kind} ({found!r:.40}), no number; `task: classification` learns classes"
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
        columns = columns_of(config, data)
        if not columns:
            return Meant(np.full((data.num_rows, len(names or ())), np.nan, np.float32), names or ())
        if len(columns) == 1 and pa.types.is_fixed_size_list(columns[0][1].type):
            name, array = columns[0]
            width = array.type.list_size
            values, wrong = nested(array, (width,))
            found = np.where((np.asarray(array.is_null()) | wrong)[:, None], np.nan, values)
            found = _finite([f"{name}[{number}]" for number in range(width)], found, bad)
        else:
            found = _finite([name for name, _ in columns], np.stack([_numbers(n, a, bad) for n, a in columns], 1), bad)
        return Meant(found, names or ())

    def joined(self, parts: Sequence[Meant]) -> Meant:
        return Meant(np.concatenate([part.labels for part in parts]), parts[0].names)

    def discovered(self, found: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        raise AssertionError("numbers are named by their columns")

    def placed(self, meant: Meant, names: Sequence[str], stands_for: Mapping[str, str]) -> NDArray[Any]:
        return meant.labels

    def space(self, names: tuple[str, ...], training: Training) -> Space:
        scales = [_scale(name, partial(_known, training, at)) for at, name in enumerate(names)]
        if not any(scales):
            return Space("regression", names)  # what teachers say will tell the scale
        found = [scale or (0.0, 1.0) for scale in scales]
        return Space("regression", names, tuple(mean for mean, _ in found), tuple(std for _, std in found))


def _known(training: Training, at: int) -> Iterator[NDArray[np.float64]]:
    """One of the numbers, where it is there."""
    for labels in training():
        column = labels[:, at].astype(np.float64)
        yield column[~np.isnan(column)]


def _scale(name: str, known: Callable[[], Iterator[NDArray[np.float64]]]) -> tuple[float, float] | None:
    """Mean and standard deviation; None of no value. Raises DataError for one that is always the same."""
    ends = [(part.min(), part.max(), len(part)) for part in known() if len(part)]
    if not ends:
        return None
    least, largest, counts = (each for each in zip(*ends, strict=True))
    if min(least) == max(largest):
        raise DataError(
            f"the label {name!r} is {least[0]:g} in each of the {sum(counts):,} training rows that have it: there is "
            f"nothing to learn; see transfer_set.label"
        )
    mean = summed(known(), count := sum(counts)) / count
    return float(mean), float(np.sqrt(summed(((part - mean) ** 2 for part in known()), count) / count))


def _given(config: TransferSetConfig) -> tuple[str, ...]:
    """Names of numbers that no row has."""
    if not config.classes:
        raise RecipeError("transfer_set.classes: without a label column the numbers must be named here")
    if len(set(config.classes)) != len(config.classes):
        raise RecipeError("transfer_set.classes: a name is there twice")
    return tuple(config.classes)


def _numbers(name: str, array: pa.Array, bad: Bad) -> NDArray[np.float64]:
    """f64 [rows], NaN where there is none."""
    missing = is_missing(array, is_text(array.type))
    values, wrong = leaves(array)
    for row in np.flatnonzero(wrong & ~missing).tolist():
        bad.setdefault(row, f"label {name} is {array[row].as_py()!r}, not a number")
    return np.where(missing | wrong, np.nan, values.astype(np.float64))


def _finite(names: Sequence[str], values: NDArray[np.float64], bad: Bad) -> NDArray[np.float32]:
    """f32 [rows, D]; infinite ones, also in float32 alone, are bad."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    for row, column in np.argwhere(np.isinf(narrow)).tolist():
        bad.setdefault(row, f"label {names[column]} is {values[row, column]:g}, not a finite float32")
    return narrow
