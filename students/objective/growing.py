"""What one teacher says while it labels: more and more of the training rows. Knows nothing of who waits for it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from teachers.soft_targets.schema import Commit
from teachers.transfer_set.merged import MergedSplit

from ..runs.run import Source
from .stores import growing_store
from .voices import Voice


class GrowingVoice(Voice):
    """What one teacher has said of the training rows so far; nothing is taken before it is told to `take` it."""

    is_growing = True

    def __init__(self, source: Source, train: MergedSplit) -> None:
        self.train, self.name, self.floor, self.has_unknown = train, source.name, source.probability_floor, True
        self.stores = [growing_store(source, train.transfer_set, segment) for segment in train.in_views()]
        spec = self.stores[0].spec
        self.encoding, self.said = spec.encoding, spec.answered
        self._renew()
        self.align(spec.names, source, train.transfer_set)

    def news(self) -> list[list[Commit]]:
        """Of each store the records of what is committed and not taken yet."""
        return [store.news() for store in self.stores]

    def take(self, news: Sequence[Sequence[Commit]]) -> None:
        for store, records in zip(self.stores, news, strict=True):
            store.take(records)
        self._renew()

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether it has said something of a row, bool `[views, rows]`."""
        masks = [store.there for store in self.stores]
        of_view = len(masks) // self.train.views
        views = [masks[first : first + of_view] for first in range(0, len(masks), of_view)]
        return np.stack([self.train.ordered(each) for each in views])

    def _renew(self) -> None:
        rows = [store.rows() for store in self.stores]
        self.columns = {
            f"{self.name}.{field}": self.train.column_in_views([each[field] for each in rows]) for field in rows[0]
        }
