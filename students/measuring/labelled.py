"""The rows of a split that have a label: what every figure is of. The only code that opens the test split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.errors import DataError
from teachers.models.folder import LoadedModel
from teachers.transfer_set.transfer_set import Segment, SplitName, TransferSet

ROWS_AT_ONCE = 4096
"""Of one forward, and of one call of a combination rule; no figure depends on it."""


@dataclass(frozen=True)
class Labelled:
    """The rows of a split whose label may be used; a row without one counts in no figure."""

    transfer_set: TransferSet
    segments: tuple[Segment, ...]
    masks: tuple[NDArray[np.bool_], ...]
    labels: Tensor
    """i64[N], the segments one after the other."""
    groups: NDArray[np.uint64]
    """u64[N]: rows of one group (`group_by`) are no independent evidence; without groups each row is its own."""

    @classmethod
    def of(cls, transfer_set: TransferSet, split: SplitName) -> "Labelled":
        segments = transfer_set.of(split)
        found = [transfer_set.usable_labels(segment) for segment in segments]
        masks = tuple(labels >= 0 for labels in found)
        kept = [labels[mask].astype(np.int64) for labels, mask in zip(found, masks, strict=True)]
        groups = [transfer_set.groups(segment)[mask] for segment, mask in zip(segments, masks, strict=True)]
        labels = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *kept]))
        return cls(transfer_set, segments, masks, labels, np.concatenate([np.empty(0, np.uint64), *groups]))

    @classmethod
    def whole(cls, transfer_set: TransferSet, split: SplitName) -> "Labelled":
        """All rows of a split, where none has a label (-1): what can be said without one."""
        segments = transfer_set.of(split)
        masks = tuple(np.ones(segment.num_rows, bool) for segment in segments)
        groups = np.concatenate([transfer_set.groups(segment) for segment in segments])
        return cls(transfer_set, segments, masks, torch.full((len(groups),), -1), groups)

    def require(self, split: str) -> "Labelled":
        if not len(self.labels):
            rows = sum(segment.num_rows for segment in self.segments)
            raise DataError(
                f"{self.transfer_set.folder}: none of the {rows} rows of the {split} split has a label, so nothing can "
                f"be evaluated; give `transfer_set.label`, or rows with labels in that split"
            )
        return self

    def commonest(self) -> dict[str, Any]:
        """The class with the most rows, its share of them, and how many classes have rows."""
        counts = torch.bincount(self.labels)
        name = self.transfer_set.classes[int(counts.argmax())]
        return {"class": name, "share": int(counts.max()) / len(self.labels), "classes": int((counts > 0).sum())}

    def place(self, number: int) -> tuple[Segment, int]:
        """Where row `number` of N stands: its segment, and its row there."""
        for segment, mask in zip(self.segments, self.masks, strict=True):
            rows = np.flatnonzero(mask)
            if number < len(rows):
                return segment, int(rows[number])
            number -= len(rows)
        raise IndexError(f"there are {len(self.labels)} labelled rows")


def ask(model: LoadedModel, rows: Labelled) -> Tensor:
    """What a network says of `rows`, f32[N, C] on the CPU."""
    parts = []
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        for first in range(0, segment.num_rows, ROWS_AT_ONCE):
            num_rows = min(ROWS_AT_ONCE, segment.num_rows - first)
            logits = model(rows.transfer_set.inputs(segment, first, num_rows)).cpu()
            parts.append(logits[torch.from_numpy(mask[first : first + num_rows])])
    return torch.cat(parts)
