"""Stage maps of cohort members and the projectors between them. Projectors train with their member and are not delivered."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from teachers.errors import RecipeError
from teachers.models.captured import Captured

from ..config.cohort import OnlineTeacherCohort
from ..data.inputs import Network
from ..objective.projectors import Projector
from ..runs.run import CohortRun
from ..runs.session import Session
from ..training.steps import Stepper, Work, at_least_float32
from .exchange import Said

Shapes = list[tuple[int, ...]]


class WithMaps(nn.Module):
    """A network that also gives the outputs of some of its modules, and these as its projectors make them."""

    def __init__(self, network: nn.Module, layers: Sequence[str], projectors: Mapping[str, Projector]) -> None:
        super().__init__()
        self.captured, self.layers = Captured(network, layers), layers
        self.projectors = nn.ModuleDict(dict(projectors))

    def forward(self, inputs: Network) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """Logits, maps in the order of `layers`, and by `<layer number>_<member number>` the projected maps."""
        logits, seen = self.captured(inputs)
        maps = [seen[layer] for layer in self.layers]
        projected = {name: projector(maps[int(name.partition("_")[0])]) for name, projector in self.projectors.items()}
        return logits, maps, projected


class FeatureStepper(Stepper):
    """A member that says its stage maps, and compares its own with its peers'."""

    projected: dict[str, Tensor]
    dtype: torch.dtype
    is_followed: bool
    """Somebody compares maps with its own: then it says them."""

    def shapes(self, row: Network) -> Shapes:
        """Of its stage maps, without the rows; `row`: one row as the network takes it."""
        layers = self.run.membership.layers
        maps = maps_of(self.module, layers, row, f"{self.run.key}.layers: {self.run.model}")
        self.dtype = maps[0].dtype if maps else torch.float32
        return [tuple(each.shape[1:]) for each in maps]

    def attach(self, own: Shapes, theirs: Mapping[int, Shapes], *, is_followed: bool) -> None:
        """Make the projectors to the maps of the members `theirs`, and start."""
        self.is_followed = is_followed
        torch.manual_seed(self.run.draw_seed)
        projectors = {}
        for layer, shape in enumerate(own):
            for number, shapes in theirs.items():
                try:
                    projectors[f"{layer}_{number}"] = Projector(shape, shapes[layer]).to(self.dtype)
                except ValueError as error:
                    name = self.run.membership.layers[layer]
                    raise RecipeError(f"{self.run.key}.layers: {name}: {error}; name layers of one kind") from None
        self.start(WithMaps(self.module, self.run.membership.layers, projectors))

    def say(self, work: Work, number: int) -> Said:
        logits, maps, self.projected = self.forward(work, number)
        return [logits, *maps] if self.is_followed else [logits]

    def say_aside(self, work: Work, number: int) -> Said:
        logits, maps, _ = self.aside(work, number)
        return [logits, *maps] if self.is_followed else [logits]

    def pairs(self, everyone: Sequence[Said]) -> list[tuple[Tensor, Tensor]]:
        """Own projected maps of the last forward, each with the maps of the member that it is to follow."""
        assert isinstance(self.whole, WithMaps)
        found = []
        for name, own in self.projected.items():
            layer, _, number = name.partition("_")
            projector = self.whole.projectors[name]
            assert isinstance(projector, Projector)
            theirs = projector.pooled(everyone[int(number)][1 + int(layer)])
            found.append((own, theirs.to(at_least_float32(own).dtype)))
        return found


def maps_of(module: nn.Module, layers: Sequence[str], row: Network, where: str) -> list[Tensor]:
    """Stage maps of one row. Raises RecipeError, which begins with `where`, for a layer that is not there."""
    try:
        probe = Captured(module.eval(), layers)
        with torch.no_grad():
            _, seen = probe(row)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    probe.release().train()
    return [seen[layer] for layer in layers]


def connect(steppers: Sequence[FeatureStepper], run: CohortRun, same_rows: Session, rows: Sequence[Network]) -> None:
    """Tell every member the shapes of the others' maps, and let it make its projectors; `rows`: one as each takes it."""
    mine = [stepper.shapes(row) for stepper, row in zip(steppers, rows, strict=True)]
    everyone = [shapes for shapes_of_rank in same_rows.everyone(mine) for shapes in shapes_of_rank]
    follows = [followed_by(number, run) for number in range(len(run.members))]
    for stepper, own in zip(steppers, mine, strict=True):
        number = stepper.run.membership.number
        is_followed = any(number in each for each in follows)
        stepper.attach(own, {other: everyone[other] for other in follows[number]}, is_followed=is_followed)


def followed_by(number: int, run: CohortRun) -> list[int]:
    """Whose maps a member follows: all others', or, as the student of live teachers, the wide one's."""
    if isinstance(run.config, OnlineTeacherCohort):
        roles = [member.role for member in run.config.members.values()]
        return [roles.index("wide_teacher")] if roles[number] == "student" else []
    return [other for other in range(len(run.members)) if other != number]
