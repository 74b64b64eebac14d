"""How far a row is from those that a teacher knows: the energy of its logits, from its stores.

E(x) = -log sum exp f(x), of the teacher's own classes, uncalibrated (JEM: Grathwohl et al., 2020; as a score of what is out of
distribution: Liu et al., 2020). Knows nothing of batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from teachers.errors import RecipeError
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import Segment, TransferSet

from ..config.energy import Energy, judge_of
from ..runs.run import Source
from .stores import open_store

CHUNK = 16_384
ALL_ALIKE = 1e-3
"""Of log-probabilities each energy is 0; float16 keeps it to about so much."""


@dataclass(frozen=True)
class Reference:
    """The energies of the validation rows, f32, ascending, and which of them is the threshold."""

    energies: NDArray[np.float32]
    threshold: float

    @classmethod
    def of(cls, source: Source, transfer_set: TransferSet, quantile: float) -> "Reference":
        """Raises RecipeError for a teacher whose rows all have the same energy: it gives probabilities."""
        found = [energies(source, transfer_set, segment) for segment in transfer_set.of("validation")]
        there = np.concatenate(found)
        there = np.sort(there[~np.isnan(there)])
        if not len(there):
            raise RecipeError(
                f"energy: teacher {source.name!r} knows no validation row, so there is no threshold; remove it"
            )
        if float(np.abs(there).max()) < ALL_ALIKE:
            raise RecipeError(
                f"energy: every row has the energy 0 by teacher {source.name!r}, so what it gives are log-probabilities, not logits; "
                f"name another teacher, or remove it"
            )
        return cls(there, float(np.quantile(there, quantile, method="higher")))

    def is_beyond(self, energy: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which rows are above the threshold; what is not known is not."""
        beyond: NDArray[np.bool_] = energy > self.threshold
        return beyond

    def weights(self, energy: NDArray[np.float32]) -> NDArray[np.float32]:
        """1 up to the threshold; above it, the part of the rows there that are as high, the row itself among them: (0, 1]."""
        above = int(self.is_beyond(self.energies).sum())
        as_high = len(self.energies) - np.searchsorted(self.energies, energy, side="left")
        share = (1 + as_high) / (1 + above)
        return np.where(self.is_beyond(energy), np.minimum(share, 1), 1).astype(np.float32)


def energies(source: Source, transfer_set: TransferSet, segment: Segment) -> NDArray[np.float32]:
    """Of the rows of a segment, f32 `[rows]`, NaN of rows of which the teacher knows nothing."""
    store = open_store(source, transfer_set, segment)
    spec, rows = store.spec.answered, store.rows()
    out = np.empty(segment.num_rows, np.float32)
    for first in range(0, segment.num_rows, CHUNK):
        here = slice(first, min(first + CHUNK, segment.num_rows))
        fields = {name: torch.empty((here.stop - first, *each.shape), dtype=each.dtype) for name, each in rows.items()}
        for name, field in fields.items():
            rows[name].copy(first, field)
        said = spec.encodes.decode(fields, spec.width, source.probability_floor)
        out[here] = -torch.logsumexp(said.double(), -1).numpy()
    return out


def judging(energy: Energy, sources: Mapping[str, Source]) -> Source:
    """The teacher whose logits count."""
    return sources[judge_of(energy, [*sources])]


def weights_of(energy: Energy, source: Source, train: MergedSplit, labelled: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What each training row counts, f32 `[num_rows]`: 1 of labelled rows, of those that are not judged and those that are like the
    validation rows; of others 0 where they are dropped."""
    transfer_set = train.transfer_set
    reference = Reference.of(source, transfer_set, energy.quantile)
    found = train.ordered([energies(source, transfer_set, segment) for segment in train.segments])
    counts = reference.weights(found) if energy.rows == "weigh" else np.where(reference.is_beyond(found), 0, 1)
    judged = train.ordered([np.full(each.num_rows, energy.judges(each.kind)) for each in train.segments])
    return np.where(labelled | ~judged, 1, counts).astype(np.float32)
