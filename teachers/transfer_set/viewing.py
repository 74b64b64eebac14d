"""In which views training rows are seen. Imports no torch: plans know of views, too; what makes them is in `views`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..storage.seal import digest_of
from .segment import VIEW, Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Viewing:
    """`number` views of every training row, view 0 being the row itself; picklable.

    View v of a row is what `transform` makes of it with seeds drawn from (`seed`, `sample_key`, v), so it is the same whoever
    asks, in any batch and process. `code`: digest of the functions that `transform` names.
    """

    number: int
    transform: tuple[str, ...]
    seed: int = 0
    code: str = ""

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
        return {"view": view, "transform": list(self.transform), "seed": self.seed, "code": self.code}

    def inputs(
        self, columns: "Mapping[str, NDArray[Any]]", keys: "NDArray[np.uint64]", view: int
    ) -> "dict[str, NDArray[Any]]":
        """Canonical inputs of the rows with these keys in one view, columns `[rows, ...]` copied."""
        import numpy as np
        import torch  # which preparing and planning do without

        from .views import shown

        of_keys = torch.from_numpy(np.array(keys).view(np.int64))
        copied = {name: torch.from_numpy(np.array(column)) for name, column in columns.items()}
        found = shown(self, copied, of_keys, torch.full_like(of_keys, view))
        return {name: column.numpy() for name, column in found.items()}
