"""Reading back what a teacher said of a segment. `EpochReader` and `Rows` are the reader's other parts, in files of their own.

Knows nothing of losses or models.
"""

from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from torch import Tensor

from ..errors import StoreError
from ..rows.buffers import empty
from ..rows.rows import Rows, map_columns, view_column
from .schema import KEY, Output, Spec
from .store import SoftTargetStore


class SoftTargets:
    """What one teacher said of one segment: a complete store, opened and mapped."""

    def __init__(self, spec: Spec, columns: dict[str, Rows], *, has_unknown: bool = False) -> None:
        self.spec, self.has_unknown = spec, has_unknown
        self._columns = columns

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map the store in `folder`; sizes are checked, hashes are `SoftTargetStore.verify`'s.

        Raises StoreError for a store that is damaged, incomplete or of another format.
        """
        store = SoftTargetStore.open(folder)
        if missing := store.missing():
            raise StoreError(
                f"{folder}: {len(missing)} of {store.num_shards} shards are missing ({missing[:10]}); "
                f"run the recipe again to label them"
            )
        schema = store.spec.schema()
        parts = [map_columns(path) for path in store.files()]
        empty = pa.RecordBatch.from_pylist([], schema)
        parts = parts or [{name: view_column(empty.column(name)) for name in schema.names}]
        columns = {name: Rows([part[name] for part in parts]) for name in schema.names}
        return cls(store.spec, columns, has_unknown=store.unknown()[1] > 0)

    def keys(self, first_row: int = 0, num_rows: int | None = None) -> np.ndarray:
        """`sample_key` u64 [num_rows], in the order of the segment."""
        column = self._columns[KEY]
        column.copy(
            first_row, out := empty(column.num_rows - first_row if num_rows is None else num_rows, (), column.dtype)
        )
        return out.numpy()

    def rows(self, output: Output | None = None) -> dict[str, Rows]:
        """The stored fields of an output, by default of the answer, without its name: dense {"value": f16 [N, C], "offset":
        f32 [N]}; label {"value": i32 [N]}."""
        fields = (output or self.spec.answered).fields
        return {name.rpartition(".")[2]: self._columns[name] for name in fields}

    def said(self, probability_floor: float = 1e-3, output: Output | None = None) -> Tensor:
        """An output decoded, by default the answer, float32 [num_rows, width], NaN where it is unknown; a label store gives the
        log of its floored one-hot."""
        output = output or self.spec.answered
        fields = {name: rows.owned() for name, rows in self.rows(output).items()}
        return output.encodes.decode(fields, output.width, probability_floor)
