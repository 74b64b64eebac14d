"""When everything that a run would do begins and ends, if it takes as long as is thought: the run's own planner on virtual time."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..building.works import Lengths, works_of
from ..cluster.capacity import Node, total
from ..recipe.model import Recipe
from ..scheduling.gantt import busy, chart
from ..scheduling.planner import Work
from ..scheduling.virtual import Bar, schedule
from .walk import Planned


@dataclass(frozen=True)
class Schedule:
    """Bars of what is not there yet. `untimed`: stages of which no run in OUT has found out how long they take."""

    bars: Sequence[Bar] = ()
    untimed: Sequence[str] = ()
    used: Mapping[str, float] = field(default_factory=dict)
    """By resource, the share of all that there is that works have."""
    tried: Sequence[str] = ()
    """Stages as long as a batch took that was tried."""

    @property
    def seconds(self) -> float | None:
        """None: nobody knows."""
        return None if self.untimed else max((bar.end for bar in self.bars), default=0.0)

    def record(self) -> dict[str, Any]:
        bars = [{"work": bar.name, "start": bar.start, "end": bar.end, "on": [*bar.on]} for bar in self.bars]
        return {
            "seconds": self.seconds,
            "untimed": [*self.untimed],
            "tried": [*self.tried],
            "used": dict(self.used),
            "bars": bars,
        }

    def lines(self) -> Iterator[str]:
        if not self.bars:
            return
        used = " and ".join(f"{share:.0%} of the {what}s" for what, share in self.used.items())
        if self.seconds is None:
            took = f"lengths are guessed by steps: nothing here was timed of {_some(self.untimed)}"
        elif self.tried:
            took = f"about {self.seconds:,.0f} s, as earlier runs here took, and a batch that was tried of {_some(self.tried)}"
        else:
            took = f"about {self.seconds:,.0f} s, as earlier runs here took"
        yield f"schedule of trainings, labels and judgements: {used} in use; {took}"
        yield from chart(self.bars)


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def scheduled(
    recipe: Recipe, planned: Sequence[Planned], nodes: Mapping[str, Node], lengths: Lengths, tried: Collection[str] = ()
) -> Schedule:
    """Of what is not reused, on the `nodes` of today. Evaluation and export come after it, one after the other.

    `tried`: stages of which `lengths` has what a batch took that was tried.
    """
    learners = [name for names in recipe.learners_in_order() for name in names]
    all_works = works_of(recipe, learners, [*nodes.values()], lengths)
    works = {work.name: work for work in all_works if not _is_there(work, planned)}
    bars = schedule(works.values(), nodes)
    stages = dict.fromkeys("/".join(bar.name.split("/")[:2]) for bar in bars)
    used = {}
    for what in ("CPU", "GPU"):
        took = {name: sum(part.num * part.request.get(what, 0) for part in work.gang) for name, work in works.items()}
        if share := busy(bars, took, total([*nodes.values()], what)):
            used[what] = round(share, 4)
    untimed = [name for name in stages if name not in lengths.timed]
    return Schedule(bars, untimed, used, [name for name in stages if name in tried])


def _is_there(work: Work, planned: Sequence[Planned]) -> bool:
    """Whether all stages of a work would be reused; `train_teacher/wide/fold-0` is a part of one."""
    kind, name, *part = work.name.split("/", 2)
    mine = [each for each in planned if (each.stage, each.name) == (kind, name)]
    if kind == "distill":
        mine = [each for each in mine if each.part in ("", *part)]
    return bool(mine) and all(each.action == "reuse" for each in mine)
