"""From codes of categories to what a network or an estimator takes of them.

Plain tensor operations on whatever device the codes are on. Knows nothing of how codes came about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from ..config.preprocess import CategoriesName
from ..transfer_set.columns import FIRST, MISSING, UNKNOWN, Column

Shape = tuple[int, ...]


@dataclass(frozen=True)
class CategoryTransform:
    """What is made of a column of categories i32 `[rows, K]`, by `treatment`:

    `one_hot`: f32 `[rows, W]`, one for each value of each category, and one for what lacks or is unknown where training
    rows do; of what none of them has all are 0. `ordinal`: f32 `[rows, K]`, the place among the sorted values, -1 for
    unknown, -2 for none. `native`: the same, NaN for both; unknown has a place behind the others where training rows have
    such. `codes`: i64 `[rows, K]`, as they are: 0 for none, 1 for unknown.
    """

    name: str
    shape: Shape
    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    missing: tuple[bool, ...]
    """Per category, whether training rows lack it."""
    unknown: tuple[bool, ...]
    """Per category, whether training rows have what is unknown."""
    treatment: CategoriesName
    tables: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    kind = "category"
    wide = False

    @classmethod
    def of(cls, column: Column, treatment: CategoriesName) -> Self:
        missing, unknown = (tuple(count > 0 for count in counts) for counts in (column.missing, column.unknown))
        return cls(column.name, column.shape, column.names, column.values, missing, unknown, treatment)

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` gave. Raises KeyError or TypeError for anything else."""
        names, missing, unknown = (tuple(document[key]) for key in ("names", "missing", "unknown"))
        values = tuple(tuple(known) for known in document["values"])
        treatment = document["categories"]
        return cls(document["name"], tuple(document["shape"]), names, values, missing, unknown, treatment)

    def document(self) -> dict[str, Any]:
        """JSON for a model folder."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "names": list(self.names),
            "values": [list(known) for known in self.values],
            "missing": list(self.missing),
            "unknown": list(self.unknown),
            "categories": self.treatment,
        }

    @property
    def is_joined(self) -> bool:
        """Whether what is made of it stands among the numeric features."""
        return self.treatment != "codes"

    @property
    def output_shape(self) -> Shape:
        return (self.width,)

    @property
    def width(self) -> int:
        return len(self._cells()) if self.treatment == "one_hot" else len(self.names)

    @property
    def num_codes(self) -> tuple[int, ...]:
        """How many codes each category has: what an embedding needs."""
        return tuple(FIRST + len(known) for known in self.values)

    def __call__(self, codes: Tensor) -> Tensor:
        if self.treatment == "codes":
            return codes.to(torch.int64)
        if self.treatment == "one_hot":
            place, code = self._on(codes.device)
            return (codes.index_select(1, place) == code).to(torch.float32)
        found = (codes - FIRST).to(torch.float32)
        if self.treatment == "ordinal":
            return found
        last = [
            float(len(known)) if strange else float("nan")
            for known, strange in zip(self.values, self.unknown, strict=True)
        ]
        found = torch.where(codes == UNKNOWN, torch.tensor(last, device=codes.device), found)
        return found.masked_fill(codes == MISSING, float("nan"))

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(which category each one-hot feature is of, its code), there once and not with every batch."""
        if torch.compiler.is_compiling():
            return self._table(device)
        if device not in self.tables:
            with torch.inference_mode(False):
                self.tables[device] = self._table(device)
        return self.tables[device]

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor]:
        cells = torch.tensor(self._cells(), dtype=torch.int64).reshape(-1, 2)
        return cells[:, 0].to(device), cells[:, 1].to(device, torch.int32)

    def _cells(self) -> list[tuple[int, int]]:
        """(category, code) of every one-hot feature."""
        found = []
        for at, known in enumerate(self.values):
            also = [MISSING] * self.missing[at] + [UNKNOWN] * self.unknown[at]
            found += [(at, code) for code in (*also, *range(FIRST, FIRST + len(known)))]
        return found
