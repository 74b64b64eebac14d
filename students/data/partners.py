"""Views in which rows are mixed (`transform: mixup`): with which row each is, and what of that row a batch brings.

Who learns what teachers say sees the rows that they saw, mixed with any row of the same part of its segment. A control, which nobody
speaks to, has the same draws among the labelled rows, which are all that it has. Knows nothing of losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.rows.rows import Among, Placed, Rows
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.mixup import partners
from teachers.transfer_set.views import seeds_of_views

from ..objective.targets import Column
from ..objective.units import OWN_SHARE
from ..runs.run import Run
from .inputs import INPUT, KEY, OTHER, Only, stored_columns
from .labels import batch_labels

Known = NDArray[np.bool_]


@dataclass(frozen=True)
class Partners:
    """Of the rows that are drawn; of them in each view, `[views * num_rows]`, where nothing else is said."""

    among: Mapping[str, Rows]
    """Input columns of all rows that are seen, as they are stored."""
    places: Tensor
    """Where each row lies among these, `[num_rows]`."""
    others: Tensor
    """Where the row lies that it is mixed with; in view 0 the row itself."""
    of_others: Mapping[str, Among]
    """Their keys and labels."""
    own_share: Tensor
    has_label: Tensor | None
    """f32: whether a term that compares with labels has all that it needs; None: everywhere."""

    @classmethod
    def of(cls, train: MergedSplit, only: Only, labels: Tensor, labelled: Known, *, alone: bool) -> "Partners":
        """`only`: the rows that are drawn; `labels` and `labelled`: of all rows; `alone`: nobody spoke of the rows, which are mixed
        among themselves."""
        viewed = train.transfer_set.viewed
        assert viewed is not None
        seen = np.flatnonzero(only) if alone and only is not None else np.arange(train.num_rows)
        places = np.arange(len(seen)) if alone or only is None else np.flatnonzero(only)
        keys, labels, labelled = train.keys()[seen], labels[torch.from_numpy(seen)], labelled[seen]
        others = [places]
        for view in range(1, viewed.number):
            others.append(among_all(keys, viewed.seed, view) if alone else train.partners(view)[places])
        both = [labelled[places] & labelled[each] for each in others]
        number = np.int32 if len(seen) < 1 << 31 else np.int64  # half the memory
        at = torch.from_numpy(np.concatenate(others).astype(number))
        return cls(
            stored_columns(train, only if alone else None),
            torch.from_numpy(places.astype(number)),
            at,
            {KEY: Among(torch.from_numpy(keys.view(np.int64)), at), "label": Among(labels, at)},
            torch.cat([viewed.shares(keys[places], view) for view in range(viewed.number)]),
            None if all(each.all() for each in both) else torch.from_numpy(np.concatenate(both).astype(np.float32)),
        )

    def beside(
        self, columns: Mapping[str, Column], memory: int, device: torch.device
    ) -> tuple[dict[str, Column | Among], int]:
        """`columns` and those of the other rows, and what of `memory` bytes is left: inputs that fit are held once for all views."""
        found: dict[str, Column | Among] = {**columns, OWN_SHARE: self.own_share}
        found |= {OTHER + name: column for name, column in self.of_others.items()}
        if self.has_label is not None:
            found["has_label"] = self.has_label
        num_bytes = sum(rows.nbytes for rows in self.among.values())
        if num_bytes > memory // 2:
            others = self.others.numpy()
            return found | {OTHER + INPUT + name: Placed(rows, others) for name, rows in self.among.items()}, memory
        for name, rows in self.among.items():
            held = rows.owned().to(device)
            found |= {INPUT + name: Among(held, self.places), OTHER + INPUT + name: Among(held, self.others)}
        return found, memory - num_bytes


def partners_of(run: Run, train: MergedSplit, only: Only, labels: NDArray[Any], labelled: Known) -> Partners | None:
    """Of views that are mixed; None of others. `labels`, as a transfer set has them, and `labelled` are of all rows."""
    if run.views is None or not run.views.mixes:
        return None
    of_rows = batch_labels(labels, train.transfer_set.space), labelled
    return Partners.of(train, only, *of_rows, alone=run.labelled_only)


def among_all(keys: NDArray[np.uint64], seed: int, view: int) -> NDArray[np.int64]:
    """With which of the rows with these keys each is mixed, where they are all that there is."""
    of_keys = torch.from_numpy(np.array(keys).view(np.int64))
    seeds = seeds_of_views(seed, of_keys, torch.full_like(of_keys, view))
    return partners(seeds, torch.zeros_like(seeds), torch.full_like(seeds, len(keys))).numpy()
