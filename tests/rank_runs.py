"""Runs trained by several ranks of a real gloo group, without Ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from students.fitting.fit import fit
from students.fitting.ranks import Ranks
from students.runs.run import Run
from tests.warm import side_by_side


def on_ranks(folder: Path, runs: Sequence[Run], world: int, **options: Any) -> None:
    """Train `runs` on `world` processes, with `options` of `fit`; raises when one fails, with what it said."""
    folder.mkdir(parents=True, exist_ok=True)
    side_by_side(one_rank, [(rank, world, folder, list(runs), options) for rank in range(world)])


def one_rank(rank: int, world: int, folder: Path, runs: Sequence[Run], options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder.resolve()}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    fit(runs, Ranks(torch.device("cpu")), **options)
    dist.destroy_process_group()
