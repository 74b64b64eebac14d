"""What `plan --check` finds when it tries somebody: problems, which would end a run, and notes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from teachers.config.resources import Resources
from teachers.errors import CollegiumError, EnvironmentUnfit, UsersCodeError
from teachers.users_code.calls import KEY

PARAMETERS_NAMED = 3


@dataclass
class Rehearsed:
    """What would end a run, and what is worth knowing."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
