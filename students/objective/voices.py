"""What teachers say of rows, in the classes of the transfer set: from a store, or with every batch; one alone, or several at once.

Knows nothing of how several become one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.rows.rows import Rows
from teachers.soft_targets.alignment import Alignment
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Live, Source
from .calibration import calibration_of
from .stores import open_store

Batch = Mapping[str, Tensor]
AsSeen = Callable[[Tensor, Batch, bool], Tensor]
"""(what is said of rows, or labels, `[rows, ...]`; a batch; whether it is of the augmented rows) to the same of the augmented rows."""
CHUNK = 16_384


class Voice:
    """What one teacher says of the training rows, in the classes of the transfer set."""

    is_live = is_growing = False

    def __init__(self, source: Source, train: MergedSplit) -> None:
        stores = [open_store(source, train.transfer_set, segment) for segment in train.in_views()]
        spec = stores[0].spec
        self.name, self.encoding, self.said = source.name, spec.encoding, spec.answered
        self.floor, self.has_unknown = source.probability_floor, any(store.has_unknown for store in stores)
        self.columns = {
            f"{source.name}.{field}": train.column_in_views([store.rows()[field] for store in stores])
            for field in stores[0].rows()
        }
        self.align(spec.names, source, train.transfer_set)

    def align(self, names: Sequence[str], source: Source, transfer_set: TransferSet) -> None:
        """`names`: of what it says, in its order."""
        self.alignment = Alignment.of(names, transfer_set.space, source.class_map, source.probability_floor)
        self.known, self.has_unknown = self.alignment.known, self.has_unknown or self.alignment.dropped is not None
        self.calibrated = calibration_of(source, transfer_set)

    @property
    def knows_all(self) -> bool:
        """Whether there is nothing, in any row, that it does not know."""
        return not self.has_unknown and bool(self.known.all())

    def said_of(self, batch: Batch) -> Tensor:
        """f32 `[rows, width]` from this teacher's columns of a batch, on their device; numbers in the units of the label. NaN
        where it does not know, of a row, what it knows of others."""
        fields = {name.rpartition(".")[2]: batch[name] for name in self.columns}
        return self.in_order(self.said.encodes.decode(fields, self.said.width, self.floor))

    def in_order(self, said: Tensor) -> Tensor:
        """Its columns as the transfer set has them, calibrated."""
        self.alignment = self.alignment.to(said.device)
        ordered = self.alignment(said)
        return ordered if self.calibrated is None else self.calibrated(ordered)

    def chunk(self, first_row: int, num_rows: int) -> dict[str, Tensor]:
        """This teacher's columns of some rows, copied."""
        return self._copied(num_rows, lambda rows, out: rows.copy(first_row, out))

    def some(self, numbers: NDArray[np.intp]) -> dict[str, Tensor]:
        """The same of the rows with these numbers, ascending."""
        return self._copied(len(numbers), lambda rows, out: rows.gather(numbers, out))

    def _copied(self, num_rows: int, copy: Callable[[Rows, Tensor], None]) -> dict[str, Tensor]:
        out = {name: torch.empty((num_rows, *rows.shape), dtype=rows.dtype) for name, rows in self.columns.items()}
        for name, rows in self.columns.items():
            copy(rows, out[name])
        return out


class LiveVoice(Voice):
    """What one live teacher says: in no store, every batch brings it along."""

    def __init__(self, source: Source, live: Live, transfer_set: TransferSet) -> None:
        self.name, self.encoding = source.name, "dense"
        self.is_live, self.columns, self.has_unknown = True, {}, True  # as far as anybody can know before it is asked
        self.align(live.classes, source, transfer_set)

    def said_of(self, batch: Batch) -> Tensor:
        return self.in_order(batch[live_column(self.name)])


def live_column(teacher: str) -> str:
    """Of a batch: f32 `[rows, width]`, in the teacher's own classes or numbers."""
    return f"{teacher}.said"


def voice_of(source: Source, train: MergedSplit) -> Voice:
    """Raises StoreError for stores of other rows, RecipeError for classes that do not fit."""
    if source.live is not None:
        return LiveVoice(source, source.live, train.transfer_set)
    return Voice(source, train)


class Chorus:
    """Several voices, heard at once; `knows_all`: of every row each of them knows everything, which is looked at once a run.
    `as_seen`: None where all speak of rows as they are stored, or augmentation changes nothing of what is said."""

    def __init__(self, voices: Sequence[Voice], as_seen: AsSeen | None = None) -> None:
        self.voices, self.as_seen = voices, as_seen
        self.known = torch.stack([voice.known for voice in voices])[:, None]
        self.knows_all = all(voice.knows_all for voice in voices)

    def said_of(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """What is said, f32 `[K, B, W]`, 0 where unknown, and known, bool `[K, B, W]`; `batches`: by voice."""
        said = torch.stack([self._heard(voice, batch) for voice, batch in zip(self.voices, batches, strict=True)])
        self.known = self.known.to(said.device)
        known = (self.known if self.as_seen is None else self.known[..., :1]).expand_as(said)
        if not any(voice.has_unknown for voice in self.voices):
            return said, known
        unknown = said.isnan()
        return said.masked_fill_(unknown, 0.0), known & ~unknown

    def _heard(self, voice: Voice, batch: Batch) -> Tensor:
        said = voice.said_of(batch)
        return said if self.as_seen is None else self.as_seen(said, batch, voice.is_live)

    def in_chunks(self, num_rows: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, said, known) of all rows of their columns."""
        for first in range(0, num_rows, CHUNK):
            rows = slice(first, min(first + CHUNK, num_rows))
            yield rows, *self.said_of([voice.chunk(first, rows.stop - first) for voice in self.voices])
