"""Cohorts to train in tests, in one process or on several ranks of a real gloo group."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from students.config.cohort import CohortConfig
from students.fitting.fit import fit
from students.fitting.ranks import Ranks
from students.runs.run import CohortRun, Source
from students.runs.session import PlainSession
from teachers.transfer_set.transfer_set import TransferSet
from tests.warm import side_by_side

COHORT = TypeAdapter(CohortConfig)
MLP = {"model": "students.models:mlp", "arguments": {"hidden": 16}}
CONV = {"model": "students.models:small_conv_net", "arguments": {"width": 4}}
EXACT = {"model": "cohort_runs:Exact", "arguments": {"hidden": 16}}


class DoubleFlatten(torch.nn.Flatten):
    def forward(self, inputs):
        return super().forward(inputs.double())


class Exact(torch.nn.Sequential):
    """Computes in float64, so that the order of sums is all that two ways of training can differ in."""

    def __init__(self, hidden, num_classes, input_shape):
        widths = [int(torch.tensor(input_shape).prod()), *([hidden] if isinstance(hidden, int) else hidden)]
        layers = [each for pair in pairwise(widths) for each in (torch.nn.Linear(*pair), torch.nn.Tanh())]
        super().__init__(DoubleFlatten(), *layers, torch.nn.Linear(widths[-1], num_classes))
        self.double()


class ExactPlain(torch.nn.Module):
    """One matrix, in float64: another architecture than `Exact`."""

    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.layer = torch.nn.Linear(int(torch.tensor(input_shape).prod()), num_classes).double()

    def forward(self, inputs):
        return self.layer(inputs.double().flatten(1))


class Exploding(torch.nn.Module):
    """Overflows when a step moves a weight by more than `limit`, as a rate that is too large does."""

    def __init__(self, limit, num_classes, input_shape):
        super().__init__()
        self.layer, self.limit = torch.nn.Linear(int(torch.tensor(input_shape).prod()), num_classes), limit
        self.register_buffer("before", self.layer.weight.detach().clone())

    def forward(self, inputs):
        logits = self.layer(inputs.flatten(1))
        if not self.training:
            return logits
        moved = (self.layer.weight.detach() - self.before).abs().max()
        self.before.copy_(self.layer.weight.detach())
        return logits if moved <= self.limit else logits * float("inf")


class Overflowing(ExactPlain):
    """Its weights are finite, what it says is not."""

    def forward(self, inputs):
        return super().forward(inputs) * float("inf")


class OverflowingAtRest(ExactPlain):
    """What it says is finite while it trains, and not when it is only asked."""

    def forward(self, inputs):
        return super().forward(inputs) * (1.0 if self.training else float("inf"))


def cohort_config(method: str = "mutual", members: Any = None, **options: Any) -> CohortConfig:
    members = members or {"a": MLP, "b": MLP}
    train = {"steps": 20, "batch_size": 32, "learning_rate": 1e-2} | options.pop("train", {})
    config: CohortConfig = COHORT.validate_python({"method": method, "members": members, "train": train, **options})
    return config


def make_cohort(
    folder: Path, transfer_set: TransferSet, config: CohortConfig, *, sources: tuple[Source, ...] = (), seed: int = 0
) -> CohortRun:
    from students.runs.of_cohort import member_runs

    common = {
        "stage": folder,
        "stage_name": "distill/trio",
        "transfer_set": transfer_set.folder,
        "user_path": Path(__file__).parent,
    }
    return member_runs("trio", config, seed, folder=folder, sources=sources, **common)


def only(run: CohortRun, number: int) -> CohortRun:
    """The run of one member by itself, as in a trainer of its own."""
    return dataclasses.replace(run, members=(run.members[number],))


def in_turn(run: CohortRun, **options: Any) -> list[Any]:
    return fit([run], PlainSession(), **options)


def on_ranks(folder: Path, transfer_set: TransferSet, config: CohortConfig, world: int, **more: Any) -> None:
    """Train on `world` processes; raises when one fails, with what it said."""
    folder.mkdir(parents=True, exist_ok=True)
    document = config.model_dump(mode="json")
    side_by_side(one_rank, [(rank, world, folder, transfer_set.folder, document, more) for rank in range(world)])


def one_rank(
    rank: int, world: int, folder: Path, transfer_set: Path, document: dict[str, Any], more: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder.resolve()}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    config = COHORT.validate_python(document)
    sources = tuple(Source(name, {"train-0": Path(path)}) for name, path in more.get("sources", {}).items())
    run = make_cohort(folder, TransferSet.open(transfer_set), config, sources=sources)
    if "only" in more:
        run = only(run, more["only"])
    fit([run], Ranks(torch.device("cpu")), checkpoint_every_s=more.get("checkpoint_every_s", 10.0))
    dist.destroy_process_group()
