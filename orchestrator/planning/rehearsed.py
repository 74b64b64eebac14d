"""What `plan --check` finds when it tries somebody: problems, which would end a run, and notes."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from teachers.config.resources import Resources
from teachers.errors import CollegiumError, EnvironmentUnfit, UsersCodeError
from teachers.resources.bundles import num_threads
from teachers.users_code.calls import KEY

if TYPE_CHECKING:
    from students.fitting.rehearsal import Tried
    from students.runs.run import Run

Result = TypeVar("Result")
PARAMETERS_NAMED = 3
BATCH_SIZE = 8
"""Of a training that is tried."""
STEPS_TIMED = 100
"""Of a budget whose first steps are timed."""
TIMED_S = 1.0
"""What is thought to take longer is not done to be timed: it is what it was for fewer rows, times as many."""
NOT_TIMED = (CollegiumError, MemoryError, RuntimeError)
"""For which a time stays unknown: the run may have more memory, and says itself what is wrong."""


@dataclass(frozen=True)
class Timed:
    """Seconds of one replica for a row, or of one worker for a step, on `device`."""

    seconds: float
    device: str


@dataclass
class Rehearsed:
    """What would end a run, what is worth knowing, and by stage (`label/wide`, `distill/small`) how long a row or a step took."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timed: dict[str, Timed] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    """By the same stages, of one network that is trained."""

    def time_steps(
        self, title: str, tried: "Tried", share: int, resources: Resources, run: "Callable[[int], Run]"
    ) -> None:
        """A step of one worker, whose share of a batch is `share` rows: of such a batch, where that does not take long.

        `run`: the training with batches of so many rows.
        """
        from students.fitting.cost import seconds_of_a_step

        assert tried.seconds is not None, "a network"
        seconds, device = tried.seconds * share / BATCH_SIZE, device_of(resources)
        if seconds < TIMED_S:
            with suppress(*NOT_TIMED), as_a_worker(resources):
                seconds = seconds_of_a_step(run(share), device)
        self.timed[title], self.parameters[title] = Timed(seconds, device), tried.parameters

    @contextmanager
    def told(self, where: str, resources: Resources) -> Iterator[None]:
        """What goes wrong inside is a problem of the part of the recipe that is called `where`.

        Of who asks for a GPU, where there is none, it is a note: the code may need one.
        """
        try:
            yield
        except EnvironmentUnfit:
            raise
        except CollegiumError as error:
            said = str(error).strip()
            joint = "." if KEY.match(said) else ": "
            told = said if said.startswith(where) else f"{where}{joint}{said}"
            if isinstance(error, UsersCodeError) and wants_gpu(resources) and device_of(resources) == "cpu":
                self.notes.append(f"could not be tried without a GPU: {told}")
            else:
                self.problems.append(told)


def as_a_worker(resources: Resources) -> AbstractContextManager[None]:
    """With as many threads as it will have."""
    from students.fitting.rehearsal import with_threads

    return with_threads(num_threads(resources))


def timed(do: Callable[[], Result]) -> tuple[Result, float]:
    """What it gives, and the seconds that it took."""
    began = time.perf_counter()
    return do(), time.perf_counter() - began


def note_idle(found: Rehearsed, where: str, idle: list[str], workers: int) -> None:
    """Parameters without a gradient, which workers have to look for in every step."""
    if idle and workers > 1:
        named = ", ".join(idle[:PARAMETERS_NAMED]) + " ..." * (len(idle) > PARAMETERS_NAMED)
        found.notes.append(
            f"{where}: {len(idle)} parameters have no part in what the network gives ({named}), which its {workers} workers "
            f"look for in every step; a network without them trains faster"
        )


def wants_gpu(resources: Resources) -> bool:
    return resources.gpus != "auto" and resources.gpus > 0


def device_of(resources: Resources) -> str:
    """A GPU for who asks for one by number, where this machine has one."""
    import torch

    return "cuda" if wants_gpu(resources) and torch.cuda.is_available() else "cpu"
