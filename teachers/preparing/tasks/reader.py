"""What the engine asks of the label columns of any task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...config.transfer_set import TransferSetConfig
from ...sources.files import File
from ...tasks.space import Space

Names = tuple[str, ...] | None
Bad = dict[int, str]
"""Row of a batch: why it cannot be used."""


@dataclass(frozen=True)
class Meant:
    """Labels `[rows, ...]` as `teachers.tasks.labels` has them, and what their numbers, or their columns, stand for.

    Where the names of the space are known before rows are read, `names` are those; else what this batch holds.
    """

    labels: NDArray[Any]
    names: tuple[str, ...]
    cut: int = 0
    """Rows whose label was too long, and lost something, as the recipe allows."""


Training = Callable[[], Iterable[NDArray[Any]]]
"""Labels of training rows in the order of their keys, part by part, as often as somebody asks; at least one part."""


class LabelReader(Protocol):
    """Of one task. Errors of the recipe are RecipeError, those of the data DataError."""

    def names(self, config: TransferSetConfig, files: Sequence[File]) -> tuple[Names, Names]:
        """(names of the space, None where only reading every label tells; what integers mean as labels, None: each file says)."""

    def check(self, config: TransferSetConfig, sample: pa.RecordBatch) -> None:
        """Raise RecipeError for columns that cannot hold such labels."""

    def read(
        self,
        config: TransferSetConfig,
        names: Names,
        integers: Names,
        data: pa.RecordBatch,
        bad: Bad,
        root: Path | None = None,
    ) -> Meant:
        """Labels of a batch; why a row has none that can be used goes to `bad`. `root`: of the files that it names."""

    def joined(self, parts: Sequence[Meant]) -> Meant:
        """One after the other, with the names of all."""

    def discovered(self, found: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """(names of the space where all that was `found` tells them; which of them each stands for)."""

    def placed(self, meant: Meant, names: Sequence[str], stands_for: Mapping[str, str]) -> NDArray[Any]:
        """The labels in the names of the space."""

    def space(self, names: tuple[str, ...], training: Training) -> Space:
        """Raises DataError where the labels `training` that may be learnt from teach nothing."""


def columns_of(config: TransferSetConfig, data: pa.RecordBatch) -> list[tuple[str, pa.Array]]:
    """The label's columns; arrays `[rows, C]` of NumPy as lists of one size."""
    found = [(name, data.column(name)) for name in config.labels]
    return [(name, array.storage if isinstance(array, pa.ExtensionArray) else array) for name, array in found]


def list_size(kind: pa.DataType) -> int | None:
    """How many values each row of a column has, where the column's type says so."""
    stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return stored.list_size if pa.types.is_fixed_size_list(stored) else None


def is_missing(array: pa.Array, text: bool) -> NDArray[np.bool_]:
    """Which values are null or, as text, empty."""
    import pyarrow.compute as pc

    missing = pc.is_null(array, nan_is_null=pa.types.is_floating(array.type))
    if text:
        missing = pc.or_(missing, pc.fill_null(pc.equal(pc.utf8_trim_whitespace(array), ""), True))
    return np.asarray(missing)
