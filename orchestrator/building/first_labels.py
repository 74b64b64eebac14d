"""Who follows a teacher is told as soon as its first labels are there."""

from collections.abc import Sequence
from concurrent.futures import Future

from teachers.soft_targets.store import SoftTargetStore

from .context import Begun


class FirstLabels:
    """Of one teacher. `whole`: the segments by which rules judge it, labelled in full before anybody learns from it; `some`: those
    that are learnt from, of which one shard is enough."""

    def __init__(self, whole: Sequence[str], some: Sequence[str]) -> None:
        self.whole, self.some = whole, some
        self.begun: Future[Begun] = Future()

    def in_order(self, segments: Sequence[str]) -> list[str]:
        """In which they are labelled: first those that somebody waits for."""
        return sorted(segments, key=lambda each: (each not in self.whole, each not in self.some))

    def look(self, begun: Begun) -> None:
        """Tell who waits, if the first labels are there. Its replicas have their seats."""
        if self.begun.done():
            return
        stores = {segment: SoftTargetStore.open(begun.store(segment)) for segment in (*self.whole, *self.some)}
        whole = not any(stores[segment].missing() for segment in self.whole)
        if whole and any(len(stores[segment].records().table) for segment in self.some):
            self.begun.set_result(begun)

    def tell(self, begun: Begun) -> None:
        """All labels are there."""
        if not self.begun.done():
            self.begun.set_result(begun)
