"""In which views training rows are seen. Imports no torch: plans know of views, too; what makes them is in `views`."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..storage.seal import digest_of
from .segment import VIEW, Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .transfer_set import Columns, TransferSet

MIXUP = "mixup"
"""The step of `transform` that looks at two rows."""


@dataclass(frozen=True)
class Viewing:
    """`number` views of every training row, view 0 being the row itself; picklable.

    View v of a row is what `transform` makes of it with seeds drawn from (`seed`, `sample_key`, v), so it is the same whoever
    asks, in any batch and process. `code`: digest of the functions that `transform` names. `alpha`: of `mixup`.
    """

    number: int
    transform: tuple[str, ...]
    seed: int = 0
    code: str = ""
    alpha: float = 1.0

    @property
    def mixes(self) -> bool:
        """Whether a view of a row is made of two."""
        return MIXUP in self.transform

    def of(self, segment: Segment) -> tuple[Segment, ...]:
        """The segment, and of training rows the segments of their further views."""
        views = range(1, self.number) if segment.split == "train" else ()
        digests = {view: digest_of([segment.digest, self.document(view)]) for view in views}
        further = (
            replace(segment, name=f"{segment.name}{VIEW}{view}", view=view, digest=digests[view]) for view in views
        )
        return (segment, *further)

    def document(self, view: int) -> dict[str, Any]:
        """All that makes view number `view` of the rows."""
        found = {"view": view, "transform": list(self.transform), "seed": self.seed, "code": self.code}
        return found | ({"alpha": self.alpha} if self.mixes else {})

    def partners(self, segment: Segment, keys: "NDArray[np.uint64]", rows: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """With which rows of the segment these, which have these keys, are mixed in its view, i64 `[rows]`.

        Any row of the same part of the segment, the row itself too: what is read of a row's neighbours then stays near, and parts,
        which no later row changes, are in the segment's digest.
        """
        import numpy as np
        import torch  # which preparing and planning do without

        from .mixup import partners
        from .views import seeds_of_views

        of_keys = _signed(keys)
        seeds = seeds_of_views(self.seed, of_keys, torch.full_like(of_keys, segment.view))
        starts, sizes = (
            np.array([getattr(part, name) for part in segment.parts]) for name in ("first_row", "num_rows")
        )
        part = np.searchsorted(starts, rows, side="right") - 1
        return partners(seeds, torch.from_numpy(starts[part]), torch.from_numpy(sizes[part])).numpy()

    def shares(self, keys: "NDArray[np.uint64]", view: int) -> "Tensor":
        """How much of itself each row with these keys keeps in a view, f32 `[rows]`; 1: it is not mixed."""
        import torch

        from .mixup import WHOLE, shares
        from .views import seeds_of_views

        of_keys = _signed(keys)
        if not view or not self.mixes:
            return torch.ones(len(of_keys))
        return shares(self.alpha, seeds_of_views(self.seed, of_keys, torch.full_like(of_keys, view))) / WHOLE

    def inputs(
        self, transfer_set: "TransferSet", segment: Segment, rows: "NDArray[Any]", as_they_are: "Columns"
    ) -> "Columns":
        """Canonical inputs of the rows with these numbers, ascending, in the segment's view, columns `[rows, ...]` copied."""
        import numpy as np
        import torch

        from .shown import Others, shown

        if not len(rows):
            return as_they_are
        keys, others = _keys_of(transfer_set, segment, rows), None
        if self.mixes:
            partners, places = np.unique(self.partners(segment, keys, rows), return_inverse=True)
            beside = _copied(transfer_set.as_they_are(segment, partners))
            of_partners = _signed(_keys_of(transfer_set, segment, partners))
            at = torch.from_numpy(places)
            others = Others({name: column[at] for name, column in beside.items()}, of_partners[at])
        of_keys = _signed(keys)
        found = shown(self, _copied(as_they_are), of_keys, torch.full_like(of_keys, segment.view), others)
        return {name: column.numpy() for name, column in found.items()}


def _keys_of(transfer_set: "TransferSet", segment: Segment, rows: "NDArray[Any]") -> "NDArray[np.uint64]":
    """Of some rows, ascending; no key before the first or behind the last is read."""
    first = int(rows[0])
    found: NDArray[np.uint64] = transfer_set.keys(segment, first, int(rows[-1]) + 1 - first)[rows - first]
    return found


def _copied(columns: "Columns") -> "dict[str, Tensor]":
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.array(column)) for name, column in columns.items()}


def _signed(keys: "NDArray[np.uint64]") -> "Tensor":
    """Their bits as i64, copied."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(keys).view(np.int64))
