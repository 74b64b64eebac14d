"""Derived columns: what a `preprocess` makes of text, once for all rows of a segment, of fixed width and mapped.

They lie in `derived/` beside the prepared sets and are found by what decides them: the segment's content and the digest of
what makes them. Where there are none they are made when they are asked for, the same bit for bit. Knows nothing of how
anything is made of text.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import StoreError
from ..storage import mirror
from ..storage.seal import NAME as SEAL
from ..storage.seal import local, publish, read_document, replace
from .arrow_columns import fixed_size_list, ipc_file

if TYPE_CHECKING:
    from ..rows.rows import Rows
    from .transfer_set import Segment, TransferSet

FORMAT = 1
NAME = "derived.json"
FOLDER = "derived"
PARTS = "parts"
PART_ROWS, PART_BYTES = 8192, 60 * 2**20
"""Of one part at most: small enough to share among tasks, and to lose little by a kill."""
CURE = "remove its folder and run the recipe again"


@dataclass(frozen=True)
class Derived:
    """One array of fixed width: `[rows, *shape]` of `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Derives(Protocol):
    """What makes arrays of the text columns `names`; picklable. `digest`: of all that decides them."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[Derived, ...]: ...
    @property
    def digest(self) -> str: ...
    @property
    def bytes_per_row(self) -> int: ...
    def counted(self, texts: Sequence[NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], int]:
        """(by name its `outputs`, of `str` arrays `[rows]`, one for each of `names`; of how many texts the end was cut off)."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a segment in one file; of `num_cut` texts the end was cut off."""

    path: str
    first_row: int
    num_rows: int
    num_cut: int


@dataclass(frozen=True)
class Deriving:
    """What is to be made of the text of one segment, into `folder`; picklable."""

    transfer_set: Path
    segment: str
    text: Derives
    folder: Path


def part_starts(num_rows: int, text: Derives) -> list[tuple[int, int]]:
    """(first row, rows) of each part: decided by the rows and what is made of them, and by nothing else."""
    size = max(1, min(PART_ROWS, PART_BYTES // text.bytes_per_row))
    return [(first, min(size, num_rows - first)) for first in range(0, num_rows, size)]


def missing_parts(told: Deriving, num_rows: int) -> list[tuple[int, int]]:
    """Those of `part_starts` that no earlier attempt has finished."""
    (told.folder / PARTS).mkdir(parents=True, exist_ok=True)
    return [part for part in part_starts(num_rows, told.text) if _record(told.folder, part[0]) is None]


def derive_part(given: tuple[Deriving, tuple[int, int]]) -> int:
    """Make one part and publish it, its record last; how many rows it has."""
    from .transfer_set import TransferSet

    told, (first_row, num_rows) = given
    transfer_set = TransferSet.open(told.transfer_set)
    inputs = transfer_set.inputs(transfer_set.segment(told.segment), first_row, num_rows)
    made, num_cut = told.text.counted([inputs[name] for name in told.text.names])
    batch = pa.RecordBatch.from_pydict({name: fixed_size_list(values) for name, values in made.items()})
    part = Part(f"{PARTS}/{first_row:012d}.arrow", first_row, num_rows, num_cut)
    replace(told.folder / part.path, ipc_file(batch))
    publish(_record_path(told.folder, first_row), json.dumps({"format": FORMAT, **asdict(part)}).encode())
    return num_rows


def finish(told: Deriving, segment: "Segment") -> list[str]:
    """Write `derived.json`, when all parts are there: every file, relative."""
    parts = [_record(told.folder, first) for first, _ in part_starts(segment.num_rows, told.text)]
    if None in parts:
        raise StoreError(f"{told.folder}: parts are missing; {CURE}")
    whole = [part for part in parts if part is not None]
    document = {
        "format": FORMAT,
        "rows": segment.digest,
        "text": told.text.digest,
        "num_rows": segment.num_rows,
        "num_cut": sum(part.num_cut for part in whole),
        "parts": [asdict(part) for part in whole],
    }
    publish(told.folder / NAME, json.dumps(document, indent=1).encode())
    return [NAME, *(part.path for part in whole)]


@dataclass(frozen=True)
class DerivedSegment:
    """What is made of the text of one segment, whole."""

    folder: Path
    rows: str
    """Digest of the segment."""
    text: str
    """Digest of what made it."""
    num_rows: int
    num_cut: int
    """Texts of which the end was cut off."""
    parts: tuple[Part, ...]

    @classmethod
    def find(cls, transfer_set: "TransferSet", segment: "Segment", text: Derives) -> Self | None:
        """None where it has not been made, or nowhere beside the transfer set."""
        beside = transfer_set.beside(FOLDER)
        names = {path.parent.name for path in beside.glob(f"*/{SEAL}")}
        names |= {name.split("/")[0] for name in mirror.entries(beside) if name.endswith(f"/{SEAL}")}
        digest = text.digest
        for name in sorted(names):
            with suppress(FileNotFoundError):  # it was removed meanwhile
                found = cls.at(beside / name)
                if (found.rows, found.text) == (segment.digest, digest):
                    return found
        return None

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Raises StoreError for a folder of another format."""
        document = read_document(local(folder, NAME), FORMAT, CURE)
        fields = {name: document[name] for name in ("rows", "text", "num_rows", "num_cut")}
        return cls(folder, **fields, parts=tuple(Part(**part) for part in document["parts"]))

    def arrays(self, first_row: int = 0, num_rows: int | None = None) -> list[Mapping[str, NDArray[Any]]]:
        """The columns of these rows, a mapping for each part that has some, mapped."""
        from ..rows.rows import map_columns  # imports torch, which deriving does without

        last = None if num_rows is None else first_row + num_rows
        return [
            {name: values[max(first_row - part.first_row, 0) : last and last - part.first_row] for name, values in held}
            for part in self.parts
            if (last is None or part.first_row < last) and part.first_row + part.num_rows > first_row
            for held in [map_columns(local(self.folder, part.path)).items()]
        ]


class DerivedColumns:
    """What `text` makes of the text of a transfer set: read where it has been made, else made anew, the same."""

    def __init__(self, transfer_set: "TransferSet", text: Derives) -> None:
        self.transfer_set, self.text = transfer_set, text
        self._found: dict[str, DerivedSegment | None] = {}

    def inputs(self, segment: "Segment", first_row: int, num_rows: int) -> dict[str, NDArray[Any]]:
        """By name, `[rows, *shape]`."""
        stored = self._stored(segment)
        if stored is None:
            inputs = self.transfer_set.inputs(segment, first_row, num_rows)
            return self.text.counted([inputs[name] for name in self.text.names])[0]
        parts = stored.arrays(first_row, num_rows)
        empty = {each.name: np.empty((0, *each.shape), each.dtype) for each in self.text.outputs}
        if len(parts) == 1:
            return dict(parts[0])
        return {name: np.concatenate([empty[name], *(part[name] for part in parts)]) for name in empty}

    def chosen(self, segment: "Segment", rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Of the rows with these numbers, ascending."""
        stored = self._stored(segment)
        if stored is None:
            inputs = self.transfer_set.chosen(segment, rows)
            return self.text.counted([inputs[name] for name in self.text.names])[0]
        found = {each.name: np.empty((len(rows), *each.shape), each.dtype) for each in self.text.outputs}
        for part, held in zip(stored.parts, stored.arrays(), strict=True):
            mine = slice(*np.searchsorted(rows, [part.first_row, part.first_row + part.num_rows]).tolist())
            for name, out in found.items():
                out[mine] = held[name][rows[mine] - part.first_row]
        return found

    def rows(self, segment: "Segment") -> "dict[str, Rows]":
        """The parts of every column, as the reader takes them."""
        from ..rows.rows import Rows

        stored = self._stored(segment)
        parts = [self.inputs(segment, 0, segment.num_rows)] if stored is None else stored.arrays()
        return {each.name: Rows([part[each.name] for part in parts]) for each in self.text.outputs}

    def _stored(self, segment: "Segment") -> DerivedSegment | None:
        if segment.name not in self._found:
            self._found[segment.name] = DerivedSegment.find(self.transfer_set, segment, self.text)
        return self._found[segment.name]


def _record_path(folder: Path, first_row: int) -> Path:
    return folder / PARTS / f"{first_row:012d}.json"


def _record(folder: Path, first_row: int) -> Part | None:
    """Of a part that is there."""
    path = _record_path(folder, first_row)
    if not mirror.there(path):
        return None
    document = read_document(path, FORMAT, CURE)
    part = Part(**{name: document[name] for name in Part.__dataclass_fields__})
    return part if mirror.there(folder / part.path) else None
