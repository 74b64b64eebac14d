"""All rows of a split in the order of their keys, whatever segments they came in.

A transfer set that grew has several segments where one that was made at once has one; who trains on either sees the same
rows in the same order. Knows nothing of what is trained.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows.rows import Merged, Rows
from .encoded_rows import EncodedRows
from .transfer_set import Segment, SplitName, TransferSet


class MergedSplit:
    """A split's segments, merged by `sample_key`. One segment is in that order already and costs nothing."""

    def __init__(self, transfer_set: TransferSet, split: SplitName) -> None:
        self.transfer_set, self.split, self.segments = transfer_set, split, transfer_set.of(split)
        self.num_rows = sum(segment.num_rows for segment in self.segments)
        self._order = self._merge() if len(self.segments) > 1 else None

    def _merge(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Where each row lies in the segments laid one after another."""
        keys = np.concatenate([self.transfer_set.keys(segment) for segment in self.segments])
        order = np.argsort(keys, kind="stable")  # finds the ascending runs and merges them
        return order.astype(np.int32) if self.num_rows < 1 << 31 else order

    def keys(self) -> NDArray[np.uint64]:
        """`sample_key`, ascending, u64 [num_rows]."""
        return self.ordered([self.transfer_set.keys(segment) for segment in self.segments])

    def groups(self) -> NDArray[np.uint64]:
        """The key of each row's group, u64 [num_rows]."""
        return self.ordered([self.transfer_set.groups(segment) for segment in self.segments])

    def labels(self) -> NDArray[Any]:
        """As `TransferSet.labels`, [num_rows, ...]."""
        return self.ordered([self.transfer_set.labels(segment) for segment in self.segments])

    def usable_labels(self) -> NDArray[Any]:
        """As `labels`, none where the label may not be used."""
        return self.ordered([self.transfer_set.usable_labels(segment) for segment in self.segments])

    def labelled(self) -> NDArray[np.bool_]:
        """Whose label may be used, bool [num_rows]."""
        return self.ordered([self.transfer_set.labelled(segment) for segment in self.segments])

    def texts(self, name: str) -> NDArray[Any]:
        """A text column, `str` [num_rows]."""
        return self.ordered([self.transfer_set.inputs(segment)[name] for segment in self.segments])

    def ordered(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """What is of the rows of each segment, in the order of keys, [num_rows, ...]."""
        return parts[0] if self._order is None else np.concatenate(parts)[self._order]

    def column(self, parts: Sequence[Rows]) -> Rows:
        """One column of the split, from its rows of each segment."""
        if self._order is None:
            return parts[0]
        encoded = [part for part in parts if isinstance(part, EncodedRows)]
        return EncodedRows.merged(encoded, self._order) if encoded else Merged(parts, self._order)

    @property
    def views(self) -> int:
        """In how many views its rows are seen; 1: as they are."""
        viewed = self.transfer_set.viewed
        return 1 if viewed is None or self.split != "train" else viewed.number

    def in_views(self) -> list[Segment]:
        """The segments of its rows as they are, then those of the first view, and so on."""
        viewed = self.transfer_set.viewed
        each = [(segment,) if viewed is None else viewed.of(segment) for segment in self.segments]
        return [segments[view] for view in range(self.views) for segments in each]

    def column_in_views(self, parts: Sequence[Rows]) -> Rows:
        """One column of `views` times as many rows, view after view, from those of each of `in_views`."""
        if self.views == 1:
            return self.column(parts)
        if self._order is None:
            return Rows([part for rows in parts for part in rows.parts])
        orders = [self._order + view * self.num_rows for view in range(self.views)]
        return Merged(parts, np.concatenate([order.astype(np.int64) for order in orders]))

    def partners(self, view: int) -> NDArray[np.int64]:
        """With which row each is mixed in one of its views, where views are mixed: places in the order of keys, [num_rows]."""
        viewed, first = self.transfer_set.viewed, 0
        assert viewed is not None and view
        parts: list[NDArray[np.int64]] = []
        for segment in self.segments:
            keys, rows = self.transfer_set.keys(segment), np.arange(segment.num_rows)
            parts.append(first + viewed.partners(viewed.of(segment)[view], keys, rows))
            first += segment.num_rows
        if self._order is None:
            return parts[0]
        places = np.empty(self.num_rows, np.int64)
        places[self._order] = np.arange(self.num_rows)
        found: NDArray[np.int64] = places[self.ordered(parts)]
        return found

    def chosen(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """{column: [len(rows), *shape]} of the rows with these places in the order of keys, text too, copied."""
        places = rows if self._order is None else self._order[rows]
        found: dict[str, NDArray[Any]] = {}
        first = 0
        for segment in self.segments:
            mine = np.flatnonzero((places >= first) & (places < first + segment.num_rows))
            for name, values in self.transfer_set.chosen(segment, places[mine] - first).items():
                out = found.setdefault(name, np.empty((len(rows), *values.shape[1:]), values.dtype))
                out[mine] = values
            first += segment.num_rows
        return found

    def inputs(self) -> dict[str, Rows]:
        """Every input column of a fixed width, mapped."""
        parts = [self.transfer_set.input_rows(segment) for segment in self.segments]
        return {name: self.column([part[name] for part in parts]) for name in parts[0]}
