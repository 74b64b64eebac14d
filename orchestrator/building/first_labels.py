"""Who follows a teacher is told as soon as its first labels are there."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from teachers.soft_targets.store import SoftTargetStore

from ..stages.stages import Stage
from .context import Begun


class FirstLabels:
    """Of one teacher. `whole`: the segments by which rules judge it, labelled in full before anybody learns from it; `some`: those
    that are learnt from, of which one shard is enough."""

    def __init__(self, whole: Sequence[str], some: Sequence[str]) -> None:
        self.whole, self.some = whole, some
        self.teacher: Begun | None = None
        """Once its stages are known."""
        self.begun: Future[Begun] = Future()

    def in_order(self, stages: Iterable[Stage]) -> list[Stage]:
        """In which segments are labelled: first those that somebody waits for."""
        return sorted(stages, key=lambda stage: (stage.part not in self.whole, stage.part not in self.some))

    def look(self) -> None:
        """Tell who waits, if the first labels are there; its replicas have their seats."""
        if self.begun.done():
            return
        assert self.teacher is not None
        stores = {each: SoftTargetStore.open(self.teacher.store(each)) for each in (*self.whole, *self.some)}
        whole = not any(stores[segment].missing() for segment in self.whole)
        if whole and any(len(stores[segment].records().table) for segment in self.some):
            self.tell()

    def tell(self) -> None:
        if not self.begun.done():
            assert self.teacher is not None
            self.begun.set_result(self.teacher)
