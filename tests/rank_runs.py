"""Runs trained by several ranks of a real gloo group, without Ray.

As a script it is one rank: RANK WORLD FOLDER, where `runs.pickle` lies.
"""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from students.fitting.fit import fit
from students.fitting.ranks import Ranks
from students.runs.run import Run


def on_ranks(folder: Path, runs: Sequence[Run], world: int) -> None:
    """Train `runs` on `world` processes; raises when one fails, with what it said."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.pickle").write_bytes(pickle.dumps(list(runs)))
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(world), folder], stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    for process in processes:
        _, told = process.communicate()
        assert process.returncode == 0, told[-3000:]


def one_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder.resolve()}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    fit(pickle.loads((folder / "runs.pickle").read_bytes()), Ranks(torch.device("cpu")))
    dist.destroy_process_group()


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
