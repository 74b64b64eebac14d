"""What is known of usable rows beside their inputs, of as many as find room in memory: about 50 bytes each.

Knows nothing of how many censuses there are, of how pieces are read or parts written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.task import DEFAULT_TASK, TaskName
from ..errors import DataError
from ..storage.seal import replace as replace_file
from ..tasks.labels import has_label, holds, strata
from ..transfer_set.arrow_columns import ipc_file, label_column, label_values
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import EVERY, SplitName
from .shuffle import Run, run_batch
from .splits import order_of


@dataclass(frozen=True)
class Census:
    """One entry a usable row, sorted by split, then key. Row `row[n]` of run `run[n]`; `content` hashes the inputs, `bytes`
    is what they take, of rows that hold text (else 0).

    `group`: the key of its group, which is its own where the split has no `group_by`. `labels` as `teachers.tasks.labels`
    has them; `labelled`: whose may be used.
    """

    keys: Keys
    group: Keys
    split: NDArray[np.uint8]
    labels: NDArray[Any]
    content: Keys
    run: NDArray[np.uint32]
    row: NDArray[np.uint32]
    bytes: NDArray[np.uint32]
    labelled: NDArray[np.bool_]
    task: TaskName = DEFAULT_TASK
    num_classes: int | None = None
    """Of boxes; None: as many as are met."""
    held: tuple[int, ...] | None = None
    """Of how many rows of all censuses each class holds, where several may; None: of these rows."""
    segment: NDArray[np.uint16] | None = None
    """Which of the planned segments a row is in; None: the one of its split."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has an entry for each row."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: each for name, each in found.items() if isinstance(each, np.ndarray)}

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Census":
        taken: dict[str, Any] = {name: each[rows] for name, each in self.arrays.items()}
        return replace(self, **taken)

    def in_order(self) -> "Census":
        """The same, sorted."""
        order = order_of(self.split, self.keys)
        taken: dict[str, Any] = {name: np.take(each, order, axis=0) for name, each in self.arrays.items()}
        return replace(self, **taken)

    @cached_property
    def strata(self) -> NDArray[np.int32]:
        """By what rows are divided, i32 [rows], -1 without a label."""
        return strata(self.labels, self.task, self.num_classes, self.held)

    @cached_property
    def has_label(self) -> NDArray[np.bool_]:
        return has_label(self.labels)

    @property
    def numbers(self) -> NDArray[Any]:
        """Of the segment of each row."""
        return self.split if self.segment is None else self.segment

    def of(self, split: SplitName) -> slice:
        """Where the rows of a split stand."""
        start, stop = np.searchsorted(self.split, [EVERY.index(split), EVERY.index(split) + 1])
        return slice(int(start), int(stop))

    def counts(self) -> NDArray[np.int64]:
        """Rows of each of EVERY."""
        return np.bincount(self.split, minlength=len(EVERY))

    def holds(self) -> NDArray[np.int64] | None:
        """What `held` says, of these rows alone."""
        found = holds(self.labels, self.task, self.num_classes)
        return None if found is None else found.sum(0)


def joined(parts: Sequence[Census]) -> Census:
    """One after the other, not sorted."""
    together: dict[str, Any] = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    return replace(parts[0], **together)


def by_run(run: NDArray[np.uint32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(run, where its rows are), run by run."""
    order = np.argsort(run, kind="stable")
    starts = np.flatnonzero(np.diff(run[order], prepend=-1))
    for here in np.split(order, starts[1:]) if len(run) else ():
        yield int(run[here[0]]), here


def write_census(path: Path, census: Census) -> None:
    """As an Arrow file, which `read_census` maps."""
    columns = {
        name: label_column(each.view(np.uint8) if each.dtype == bool else each) for name, each in census.arrays.items()
    }
    about = {"task": census.task, "num_classes": "" if census.num_classes is None else str(census.num_classes)}
    replace_file(path, ipc_file(pa.RecordBatch.from_pydict(columns, metadata=about)))


def read_census(path: Path, held: tuple[int, ...] | None) -> Census:
    batch = run_batch(path)
    found: dict[str, Any] = {name: label_values(batch.column(name)) for name in batch.schema.names}
    found["labelled"] = found["labelled"].view(bool)
    about = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
    return Census(
        **found, task=about["task"], num_classes=int(about["num_classes"]) if about["num_classes"] else None, held=held
    )


def check_unique(census: Census, runs: Sequence[Run], pieces: Path) -> None:
    """Raise DataError for two rows of one id or one key."""
    keys = np.sort(census.keys)
    twice = keys[1:][np.flatnonzero(keys[1:] == keys[:-1])[:1]]
    if not len(twice):
        return
    same = np.flatnonzero(census.keys == twice[0])
    same = same[np.lexsort((census.row[same], census.run[same]))]
    named = []
    for at in same[:2].tolist():
        batch, row = run_batch(pieces / runs[census.run[at]].path), int(census.row[at])
        named.append((batch.column("id")[row].as_py(), batch.column("position")[row].as_py()))
    raise same_key(*named)


def same_key(one: tuple[str, str], other: tuple[str, str]) -> DataError:
    """Of two rows (id, position) that have one key."""
    (first, there), (second, here) = one, other
    if first == second:
        return DataError(f"the id {first!r} is there twice, at {there} and {here}; an id names one row")
    return DataError(
        f"the ids {first!r} (at {there}) and {second!r} (at {here}) have the same sample_key; "
        f"give transfer_set.key_salt any text, and keys are made anew"
    )
