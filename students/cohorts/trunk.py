"""Cohorts that share a trunk: one model with a branch for each member (ONE; OKDDip's group leader)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.errors import RecipeError
from teachers.users_code.calls import within

from ..config.cohort import GroupLeaderCohort, SharedTrunkCohort
from ..data.inputs import Network
from ..data.shared import Data
from ..objective.objective import Heard
from ..runs.session import Session
from ..training.steps import Stepper, Work, at_least_float32
from ..training.train import Clock, Training, make_stepper
from .peers import Cohort

ATTENTION_WIDTH = 32
"""Of the queries and keys with which a peer chooses whom to follow."""


def unfolded(network: nn.Module, key: str) -> list[tuple[str, nn.Module]]:
    """The modules of an nn.Sequential in order, those within it unfolded. Raises RecipeError for another kind of module."""
    if not is_a_chain(network):
        raise RecipeError(
            f"{key}.model: gives a {type(network).__name__}; a shared trunk needs an nn.Sequential without a forward of "
            f"its own, so that it is known where to part it"
        )
    found: list[tuple[str, nn.Module]] = []
    for name, module in network.named_children():
        inner = unfolded(module, key) if is_a_chain(module) else [("", module)]
        found += [(f"{name}.{below}".rstrip("."), each) for below, each in inner]
    return found


def is_a_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def parted(network: nn.Module, trunk: str | None, key: str) -> tuple[list[tuple[str, nn.Module]], list[nn.Module]]:
    """(trunk with names, branch) of a network; a branch has its last module at least."""
    modules = unfolded(network, key)
    names = [name for name, _ in modules]
    if trunk is None:
        end = len(modules) // 2
    else:
        within_trunk = [at for at, name in enumerate(names) if name == trunk or name.startswith(f"{trunk}.")]
        end = within_trunk[-1] + 1 if within_trunk else 0
    if not 0 < end < len(modules):
        cohort = key.partition(".members")[0]
        raise RecipeError(
            f"{cohort}.trunk: {trunk!r} leaves no trunk or no branch of {key}; its modules are {', '.join(names)}"
        )
    return modules[:end], [module for _, module in modules[end:]]


def share_trunk(
    networks: Sequence[nn.Module], trunk: str | None, keys: Sequence[str]
) -> "tuple[nn.Sequential, list[Branch]]":
    """Give every network the first one's trunk, in place. Raises RecipeError where they do not fit."""
    first, _ = parted(networks[0], trunk, keys[0])
    for network, key in zip(networks[1:], keys[1:], strict=True):
        own, _ = parted(network, trunk, key)
        if [described(module) for _, module in own] != [described(module) for _, module in first]:
            raise RecipeError(
                f"{key}: its trunk is not that of {keys[0]} ({difference(own, first)}); members of one trunk have the "
                f"same modules up to `trunk`"
            )
        for (name, _), (_, shared) in zip(own, first, strict=True):
            network.set_submodule(name, shared)
    return nn.Sequential(*[module for _, module in first]), [
        Branch(parted(n, trunk, k)[1]) for n, k in zip(networks, keys, strict=True)
    ]


def described(module: nn.Module) -> tuple[str, list[tuple[str, tuple[int, ...]]]]:
    return repr(module), [(name, tuple(value.shape)) for name, value in module.state_dict().items()]


def difference(own: Sequence[tuple[str, nn.Module]], first: Sequence[tuple[str, nn.Module]]) -> str:
    for (name, mine), (other, theirs) in zip(own, first, strict=False):
        if described(mine) != described(theirs):
            return f"{name} is {str(mine).splitlines()[0]}, {other} is {str(theirs).splitlines()[0]}"
    return f"{len(own)} modules, {len(first)}"


class Branch(nn.Module):
    """From the trunk's output to (features `[rows, width]`, logits `[rows, classes]`) of one member."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*modules[:-1]), modules[-1]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(inputs)
        return hidden.flatten(1), self.head(hidden)


class Gate(nn.Module):
    """softmax(ReLU(BN(FC(GAP(x))))): the weight of each branch for each row (ONE, Lan et al., 2018)."""

    def __init__(self, width: int, members: int) -> None:
        super().__init__()
        self.score, self.norm = nn.Linear(width, members), nn.BatchNorm1d(members)

    def forward(self, shared: Tensor) -> Tensor:
        return F.relu(self.norm(self.score(pooled(shared)))).softmax(-1)


class Attention(nn.Module):
    """Whom each peer follows, for each row: softmax of queries and keys of their features (OKDDip, Chen et al., 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, ATTENTION_WIDTH, bias=False)
        self.key = nn.Linear(width, ATTENTION_WIDTH, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`[rows, peers, width]` to weights `[rows, peers, peers]`; the last axis sums to 1."""
        return torch.einsum("bqd,bkd->bqk", self.query(features), self.key(features)).softmax(-1)


class ManyHeads(nn.Module):
    """Trunk, branches, and what decides whom a branch follows."""

    def __init__(self, trunk: nn.Module, branches: Sequence[Branch], config: SharedTrunkCohort, probe: Network) -> None:
        super().__init__()
        self.trunk, self.branches = trunk, nn.ModuleList(branches)
        names = [*config.members]
        self.leader: int | None = None
        if isinstance(config, GroupLeaderCohort):
            self.leader = names.index(config.leader) if config.leader else len(names) - 1
        shared, widths = self._shapes(probe)
        if self.leader is None:
            self.gate: nn.Module = Gate(shared, len(names)).to(self.dtype)
        else:
            peers = {width for number, width in enumerate(widths) if number != self.leader}
            if len(peers) > 1:
                raise RecipeError(
                    f"the branches' last layers have {sorted(peers)} inputs; peers that attend to each other have as many"
                )
            self.gate = Attention(*peers).to(self.dtype)

    def _shapes(self, probe: Network) -> tuple[int, list[int]]:
        """Width of the trunk's pooled output, and of each branch's features."""
        self.eval()
        with torch.no_grad():
            shared = self.trunk(probe)
            widths = [branch(shared)[0].shape[1] for branch in self.branches]
        self.train()
        self.dtype = shared.dtype
        return pooled(shared).shape[1], widths

    def forward(self, inputs: Network) -> tuple[Tensor, Tensor]:
        """Logits `[rows, members, classes]`, and the gate `[rows, members]` or the attention `[rows, peers, peers]`."""
        shared = self.trunk(inputs)
        said = [branch(shared) for branch in self.branches]
        logits = torch.stack([logits for _, logits in said], 1)
        if self.leader is None:
            return logits, self.gate(shared)
        return logits, self.gate(torch.stack([hidden for n, (hidden, _) in enumerate(said) if n != self.leader], 1))

    def targets(self, logits: Tensor, weights: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """What each branch follows, `[rows, 1, classes]`, and the gated ensemble `[rows, classes]` that learns the labels too.

        The peers' logits are constants; the attention is not, it learns whom to follow by the peers' loss.
        """
        if self.leader is None:
            ensemble = torch.einsum("bk,bkc->bc", weights, logits)
            return [ensemble.detach()[:, None]] * logits.shape[1], ensemble
        peers = [number for number in range(logits.shape[1]) if number != self.leader]
        constant = logits.detach()[:, peers]
        attended = torch.einsum("bqk,bkc->bqc", weights, constant)
        followed = {number: attended[:, at : at + 1] for at, number in enumerate(peers)}
        followed[self.leader] = constant.mean(1, keepdim=True)
        return [followed[number] for number in range(logits.shape[1])], None


def pooled(maps: Tensor) -> Tensor:
    """Mean over positions, `[rows, channels]`."""
    return maps.flatten(2).mean(2) if maps.ndim > 2 else maps


class TrunkCohort(Cohort):
    """All members in every process: one forward of the trunk serves all branches, one optimiser moves them."""

    def places(self) -> tuple[list[int], Session, Session]:
        alone = self.session.part(tuple((rank,) for rank in range(self.session.world)))
        return [*range(len(self.run.members))], self.session, alone

    def make_trainings(self, data: Sequence[Data]) -> list[Training]:
        config, members = self.run.config, self.run.members
        assert isinstance(config, SharedTrunkCohort)
        steppers = [make_stepper(*each, Stepper) for each in zip(members, [self.own] * len(members), data, strict=True)]
        trunk, branches = share_trunk([stepper.module for stepper in steppers], config.trunk, [m.key for m in members])
        torch.manual_seed(members[0].draw_seed)
        whole = ManyHeads(trunk, branches, config, data[0].preprocessor.of_zeros(2, self.session.device))
        first = steppers[0].start(whole)
        for stepper in steppers[1:]:
            stepper.whole, stepper.optimizer, stepper.network = first.whole, first.optimizer, first.network
        return [Training(*each) for each in zip(members, [self.own] * len(members), data, steppers, strict=True)]

    def advance(self, batches: Sequence[dict[str, Tensor]], clock: Clock) -> bool:
        first = self.trainings[0].stepper
        works = [each.stepper.begin(batch, self.step) for each, batch in zip(self.trainings, batches, strict=True)]
        for number in range(len(first.parts)):
            self.learn_together(works, number)
        due = self.agree_to_go_on([True] * len(works), clock)
        first.end(works[0])
        for training, work in zip(self.trainings, works, strict=True):
            training.took(torch.stack(work.terms).sum(0))
        return due

    def learn_together(self, works: Sequence[Work], number: int) -> None:
        first = self.trainings[0].stepper
        with within(self.trainings[0].run.key):
            logits, weights = first.forward(works[0], number)
        whole = first.whole
        assert isinstance(whole, ManyHeads)
        logits = at_least_float32(logits)
        targets, ensemble = whole.targets(logits, weights.to(logits))
        losses = []
        for training, work, own, target in zip(self.trainings, works, logits.unbind(1), targets, strict=True):
            training.stepper.check(own, training.stepper.parts[number])
            losses.append(training.stepper.loss(work, number, own, Heard(target)))
        if ensemble is not None:
            losses.append(first.loss_of_labels(works[0], number, ensemble))
        total = torch.stack(losses).sum()
        (total * self.session.world if self.session.world > 1 else total).backward()
