"""The order in which a student that follows its teachers draws rows: pass by pass over what is labelled, then as any other.

Every row is drawn once before any is drawn again, as far as it is there; then all that are there, while the share of steps that
were taken stays below the share of rows that are labelled. When labels began to come in time decides this order and nothing
else does: passes are kept with checkpoints and beside the result, and from these and the seed it can be made again.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from teachers.process.waiting import Wait

from ..runs.run import Run
from ..runs.session import Session
from .batches import Batches
from .following import Following
from .rows import TrainingRows

log = logging.getLogger(__name__)

PASSES = "passes.json"
"""Beside the result of who followed."""
PACE = 7 / 8
"""Before all rows are labelled, of its steps no more than this times the share of rows that are: the rest are drawn from all."""
LEAST = 1 / 8
"""Of a pass over rows that were drawn before, at least so much is taken at once: it gathers them all."""
POLL_S = 0.2

Mask = NDArray[np.bool_]
T = TypeVar("T")
ALL: Literal["all"] = "all"


@dataclass(frozen=True)
class Pass:
    """`batches` steps from `step` on, over `rows` in one view: (first, behind the last) of segments laid one after another."""

    step: int
    batches: int
    view: int
    rows: tuple[tuple[int, int], ...]

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "rows": [[*each] for each in self.rows]}

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Pass":
        return cls(**{**document, "rows": tuple((first, last) for first, last in document["rows"])})


class Passes:
    """Of one training."""

    def __init__(self, rows: TrainingRows, following: Following, run: Run, session: Session, steps: int) -> None:
        self.rows, self.following, self.run, self.session, self.steps = rows, following, run, session, steps
        self.waited_s = 0.0
        """For labels, since this process began."""
        self.while_waiting: Callable[[], object] = lambda: None
        """Done again and again in a wait, by every rank by itself."""
        self.go_to([])

    def document(self) -> list[dict[str, Any]]:
        """Of those that were begun."""
        return [each.document() for each in self.taken]

    def go_to(self, document: Sequence[dict[str, Any]]) -> None:
        """Those of an earlier try, from whose checkpoint it goes on."""
        self.taken = [Pass.of(each) for each in document]
        self.drawn = np.zeros_like(self.following.there)
        for each in self.taken:
            self._note(each)

    def from_step(self, step: int) -> Iterator[dict[str, Tensor]]:
        """The batches of step `step` (counted from 0) and all after it."""
        for number, each in enumerate(self.taken):
            if step < each.step + each.batches:
                self._until(partial(self._there, each))
                yield from self._batches(number, each, step - each.step)
                step = each.step + each.batches
        while (found := self._until(partial(self._next, step))) is not ALL:
            assert isinstance(found, Pass)
            self.taken.append(found)
            self._note(found)
            yield from self._batches(len(self.taken) - 1, found, 0)
            step += found.batches
        yield from Batches(self.rows, self.run, self.session).from_step(step)

    def _batches(self, number: int, one: Pass, start: int) -> Iterator[dict[str, Tensor]]:
        there = self.following.train.ordered([self._mask(one)])
        epoch = number * len(self.drawn) + one.view
        batches = Batches(self.rows, self.run, self.session, there).of_epoch(epoch, start)
        yield from islice(batches, one.batches - start)

    def _until(self, found: Callable[[], T | None]) -> T:
        """What `found` finds, once that is something; every rank asks with the same rows there, and finds the same."""
        wait, began = Wait(log), time.monotonic()
        self.following.look(self.session)
        while (what := found()) is None:
            wait.tell(lambda: f"labels: {self.following.share:.0%} of the rows have them")
            self.while_waiting()
            time.sleep(POLL_S)
            self.following.look(self.session)
        self.waited_s += time.monotonic() - began
        return what

    def _there(self, one: Pass) -> Pass | None:
        """It, once all its rows are."""
        return one if self.following.there[one.view][self._mask(one)].all() else None

    def _next(self, step: int) -> "Pass | Literal['all'] | None":
        """The next pass; ALL: all rows are labelled, and each was drawn once; None: there is none yet."""
        if (first := self._first_time(step)) is not None:
            return first
        return ALL if self.following.is_whole else self._again(step)

    def _first_time(self, step: int) -> Pass | None:
        """Over whole batches of rows that were not drawn in their view, where batches are drawn from all rows alike."""
        size = self.run.train.batch_size
        for view, fresh in enumerate(self.following.there & ~self.drawn):
            if self._draws_alike and (batches := int(fresh.sum()) // size):
                fresh[np.flatnonzero(fresh)[batches * size :]] = False
                return Pass(step, batches, view, _ranges(fresh))
        return None

    def _again(self, step: int) -> Pass | None:
        """Over all that are there, as far as the pace allows."""
        may_take = int(PACE * self.steps * self.following.share) - step
        whole = self.following.there.sum(1) // self.run.train.batch_size
        views = [view for view in np.flatnonzero(whole).tolist() if self._has_each_kind(self.following.there[view])]
        if not views or may_take < max(1, LEAST * whole[view := views[len(self.taken) % len(views)]]):
            return None
        return Pass(step, min(int(whole[view]), may_take), view, _ranges(self.following.there[view]))

    @property
    def _draws_alike(self) -> bool:
        train = self.run.train
        return train.balanced is None and (train.labelled_fraction is None or bool(self.rows.labelled.all()))

    def _has_each_kind(self, there: Mask) -> bool:
        """Of rows with a label and without one, where batches take some of each."""
        labelled = self.rows.labelled[self.following.train.ordered([there])]
        return self._draws_alike or {False, True} & {*self.rows.labelled.tolist()} <= {*labelled.tolist()}

    def _note(self, one: Pass) -> None:
        """What a pass has drawn in full counts as drawn."""
        mask = self._mask(one)
        if one.batches * self.run.train.batch_size >= mask.sum():
            self.drawn[one.view] |= mask

    def _mask(self, one: Pass) -> Mask:
        mask = np.zeros(self.drawn.shape[1], bool)
        for first, last in one.rows:
            mask[first:last] = True
        return mask


def _ranges(mask: Mask) -> tuple[tuple[int, int], ...]:
    """Where it is true: (first, behind the last) of each stretch."""
    ends = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return tuple(zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True))
