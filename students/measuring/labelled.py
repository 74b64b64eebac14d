"""The rows of a split that have a label: what every figure is of. The only code that opens the test split."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.errors import DataError
from teachers.models.folder import LoadedModel
from teachers.tasks.labels import has_label, none_of
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import Segment, SplitName, TransferSet

from ..tasks.task import Task
from ..tasks.tasks import TASKS

ROWS_AT_ONCE = 4096
"""Of one forward, and of one call of a combination rule; no figure depends on it."""
VALUES_AT_ONCE = 1 << 26
"""Of canonical inputs in one forward: large images come in fewer rows."""


@dataclass(frozen=True)
class Labelled:
    """The rows of a split whose label may be used; a row without one counts in no figure."""

    transfer_set: TransferSet
    segments: tuple[Segment, ...]
    masks: tuple[NDArray[np.bool_], ...]
    labels: Tensor
    """As a transfer set has them (classes i64[N]), the segments one after the other."""
    groups: NDArray[np.uint64]
    """u64[N]: rows of one group (`group_by`) are no independent evidence; without groups each row is its own."""

    @classmethod
    def of(cls, transfer_set: TransferSet, split: SplitName) -> "Labelled":
        segments = transfer_set.of(split)
        found = [transfer_set.usable_labels(segment) for segment in segments]
        masks = tuple(has_label(labels) for labels in found)
        kept = [labels[mask] for labels, mask in zip(found, masks, strict=True)]
        groups = [transfer_set.groups(segment)[mask] for segment, mask in zip(segments, masks, strict=True)]
        labels = _tensor([_none(transfer_set, 0), *kept])
        return cls(transfer_set, segments, masks, labels, np.concatenate([np.empty(0, np.uint64), *groups]))

    @classmethod
    def whole(cls, transfer_set: TransferSet, split: SplitName) -> "Labelled":
        """All rows of a split, where none has a label: what can be said without one."""
        segments = transfer_set.of(split)
        masks = tuple(np.ones(segment.num_rows, bool) for segment in segments)
        groups = np.concatenate([transfer_set.groups(segment) for segment in segments])
        return cls(transfer_set, segments, masks, _tensor([_none(transfer_set, len(groups))]), groups)

    @property
    def space(self) -> Space:
        return self.transfer_set.space

    @property
    def task(self) -> Task:
        return TASKS[self.space.task]

    def require(self, split: str) -> "Labelled":
        if not len(self.labels):
            rows = sum(segment.num_rows for segment in self.segments)
            raise DataError(
                f"{self.transfer_set.folder}: none of the {rows} rows of the {split} split has a label, so nothing can "
                f"be evaluated; give `transfer_set.label`, or rows with labels in that split"
            )
        return self

    def commonest(self) -> dict[str, Any]:
        """What the best constant answer comes to on these rows."""
        return self.task.commonest(self.labels, Labelled.of(self.transfer_set, "train").labels, self.space)

    def place(self, number: int) -> tuple[Segment, int]:
        """Where row `number` of N stands: its segment, and its row there."""
        for segment, mask in zip(self.segments, self.masks, strict=True):
            rows = np.flatnonzero(mask)
            if number < len(rows):
                return segment, int(rows[number])
            number -= len(rows)
        raise IndexError(f"there are {len(self.labels)} labelled rows")


def _none(transfer_set: TransferSet, rows: int) -> NDArray[Any]:
    return none_of(transfer_set.space.task, rows, transfer_set.space.width)


def _tensor(parts: Sequence[NDArray[Any]]) -> Tensor:
    labels = torch.from_numpy(np.concatenate(parts))
    return labels.long() if labels.ndim == 1 else labels  # classes count as an index does


def ask(
    model: LoadedModel, rows: Labelled, say: Callable[[Mapping[str, NDArray[Any]]], Tensor] | None = None
) -> Tensor:
    """What a network says of `rows`, f32[N, width] on the CPU, numbers in the units of the label.

    `say`: in its place, of canonical inputs to `[..., rows, width]`.
    """
    parts, transfer_set = [], rows.transfer_set.seen(model.preprocessor.sees)
    transfer_set = transfer_set.deriving(model.preprocessor.text)
    at_once = rows_at_once(transfer_set, ROWS_AT_ONCE)
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        for first in range(0, segment.num_rows, at_once):
            num_rows = min(at_once, segment.num_rows - first)
            said = (say or model)(transfer_set.inputs(segment, first, num_rows)).cpu()
            parts.append(said[..., torch.from_numpy(mask[first : first + num_rows]), :])
    return torch.cat(parts, -2)


def rows_at_once(transfer_set: TransferSet, most: int) -> int:
    """So many rows that their inputs have room."""
    values = sum(math.prod(column.shape) for column in transfer_set.columns)
    return max(1, min(most, VALUES_AT_ONCE // max(1, values)))
