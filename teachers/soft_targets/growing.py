"""Reading a store while it is filled: of what is committed every byte is checked before it is used.

Knows nothing of who labels, nor of who waits.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError
from ..rows.rows import Rows, map_columns
from .schema import KEY, Commit
from .store import SoftTargetStore


class GrowingSoftTargets:
    """What one teacher has said of one segment so far; `keys`: u64 `[num_rows]` of the segment's rows.

    Rows that are not `there` are zeros.
    """

    def __init__(self, folder: Path, keys: NDArray[np.uint64]) -> None:
        self.store, self.keys = SoftTargetStore.open(folder), keys
        self.spec = self.store.spec
        if self.spec.num_rows != len(keys):
            raise StoreError(f"{folder} is of {self.spec.num_rows} rows, the segment has {len(keys)}; label again")
        self.there: NDArray[np.bool_] = np.zeros(len(keys), bool)
        self._parts: dict[int, dict[str, np.ndarray]] = {}

    def news(self) -> list[Commit]:
        """Records of shards that were committed and are not taken yet. Raises StoreError."""
        return self.store.committed(self._parts)

    def take(self, records: Sequence[Commit]) -> None:
        """Map the shards of these records. StoreError for one that is not as its record says, or of other rows."""
        for record in records:
            path = self.store.check(record)
            part = map_columns(path)
            rows = slice(record.first_row, record.first_row + record.num_rows)
            if not np.array_equal(part[KEY], self.keys[rows]):
                raise StoreError(f"{path} holds other rows than its segment; it was made from other data, label again")
            self._parts[record.shard] = part
            self.there[rows] = True

    def rows(self) -> dict[str, Rows]:
        """The stored fields of the answer, as `SoftTargets.rows` has them."""
        found = {}
        for name in self.spec.answered.fields:
            field = self.spec.fields[name]
            nothing = np.zeros((self.spec.rows_per_shard, *field.shape), field.dtype)  # one, for all that is missing
            parts = [
                self._parts[number][name] if number in self._parts else nothing[: self.spec.shard_rows(number)[1]]
                for number in range(self.spec.num_shards)
            ]
            found[name.rpartition(".")[2]] = Rows(parts)
        return found
