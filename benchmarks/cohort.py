"""What it costs that peers teach each other: a step of a cohort beside independent trainings, and a codistilling straggler.

    python benchmarks/cohort.py [--rounds 7] [--steps 12]

Real processes, one thread each, over gloo. Both sides run in the same processes in turn, with a barrier between them; a
figure is the median over rounds of the slower rank's time. The last line printed is one JSON object:

    cohort_over_independent                 step of two conv-net peers (mutual) over two independent trainings side by side
    cohort_over_independent_mlp             the same for a tiny MLP at batch 64: what a collective costs against no work
    exchange                                by number of ranks: bytes a step sends a rank, and its share of the step (on two
                                            cores, more ranks than cores wait for each other: that is in the share)
    codistillation_with_straggler_over_solo steps a second of a codistilling member beside a peer slowed five times, over
                                            those beside a dead one (it runs the peer's last generation in both)
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from benchmarks.record import finish, with_record
from benchmarks.rows import noise, prepared
from benchmarks.turns import ratio
from students.cohorts.codistillation import CodistillingCohort
from students.cohorts.peers import Cohort
from students.config.cohort import CohortConfig
from students.data.shared import SharedData
from students.fitting.ranks import Ranks
from students.runs.of_cohort import member_runs
from students.runs.run import CohortRun
from students.runs.session import PlainSession
from students.training.train import Clock, Training

NETWORKS: dict[str, dict[str, Any]] = {
    "conv": {"model": "teachers.zoo:conv_net", "arguments": {"width": 8}, "batch_size": 256},
    "mlp": {"model": "students.models:mlp", "arguments": {"hidden": 16}, "batch_size": 64},
}
ROWS = 8192
SLOWED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12, help="of the conv net, a round and side")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    with_record(parser)
    arguments = parser.parse_args()
    if arguments.rank:
        one_rank(json.loads(arguments.rank))
        return
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        finish("cohort", measured(Path(folder), arguments.rounds, arguments.steps), keep=arguments.record)


def measured(folder: Path, rounds: int, steps: int) -> dict[str, Any]:
    rows = prepared(folder, *noise(ROWS)).folder
    figures: dict[str, Any] = {}
    for network, suffix in (("conv", ""), ("mlp", "_mlp")):
        found = on_ranks(folder, rows, {"do": "cohort", "network": network, "rounds": rounds, "steps": steps}, world=2)
        times = {side: [max(times) for times in zip(*(rank[side] for rank in found), strict=True)] for side in SIDES}
        longer = ratio(times["cohort"], times["independent"])
        figures[f"cohort_over_independent{suffix}"] = round(longer, 4)
        figures[f"independent_step_ms{suffix}"] = round(1e3 * median(times["independent"]), 3)
        print(
            f"two peers, {network}: independent {figures[f'independent_step_ms{suffix}']} ms a step, ratio {longer:.3f}"
        )
    figures["exchange"] = {}
    for world in (2, 4, 8):
        job = {"do": "exchange", "network": "conv", "rounds": 1, "steps": steps}
        told = on_ranks(folder, rows, job, world=world)[0]
        figures["exchange"][world] = told
        print(f"{world} ranks: {told['bytes']:,.0f} bytes a step and rank, {100 * told['share']:.1f} % of a step")
    found = on_ranks(folder, rows, {"do": "straggler", "network": "conv", "rounds": rounds, "steps": steps}, world=2)
    beside = ratio(found[0]["beside_peer"], found[0]["solo"])
    figures["codistillation_with_straggler_over_solo"] = round(beside, 4)
    print(f"codistilling beside a straggler: {beside:.3f} of the solo throughput")
    return figures | {"rounds": rounds, "torch": torch.__version__}


def on_ranks(folder: Path, rows: Path, job: Mapping[str, Any], world: int) -> list[Any]:
    """What each of `world` processes says of its part of `job`."""
    out = Path(tempfile.mkdtemp(dir=folder))
    jobs = [
        json.dumps({**job, "rank": rank, "world": world, "out": str(out), "rows": str(rows)}) for rank in range(world)
    ]
    processes = [subprocess.Popen([sys.executable, __file__, "--rank", each]) for each in jobs]
    if any([process.wait() for process in processes]):
        raise SystemExit(f"a rank of {job} failed")
    return [json.loads((out / f"said-{rank}.json").read_text()) for rank in range(world)]


def one_rank(job: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    out = Path(job["out"])
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=job["rank"], world_size=job["world"])
    said = {"cohort": against_independent, "exchange": exchange, "straggler": straggler}[job["do"]](job)
    (out / f"said-{job['rank']}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


def cohort_run(job: Mapping[str, Any], method: str, **options: Any) -> CohortRun:
    network = dict(NETWORKS[job["network"]])
    train = {"steps": 1_000_000, "batch_size": network.pop("batch_size"), "evaluate_every": 1_000_000}
    members = {f"m{number}": network for number in range(job["world"])}
    document = {"method": method, "members": members, "train": train, **options}
    config: CohortConfig = TypeAdapter(CohortConfig).validate_python(document)
    stage = Path(job["out"])
    common = {"stage": stage, "stage_name": "distill/bench", "transfer_set": Path(job["rows"])}
    return member_runs("bench", config, 0, folder=stage, sources=(), **common)


SIDES = ("cohort", "independent")


def against_independent(job: Mapping[str, Any]) -> dict[str, list[float]]:
    run = cohort_run(job, "mutual")
    steps = job["steps"] * (1 if job["network"] == "conv" else 100)
    sides = {"cohort": cohort_steps(run), "independent": own_steps(run, job["rank"])}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(job["rounds"] + 1):
        for side in sorted(sides, reverse=bool(number % 2)):
            dist.barrier()
            begun = time.perf_counter()
            for _ in range(steps):
                next(sides[side])
            if number:  # the first round warms up
                times[side].append((time.perf_counter() - begun) / steps)
    return times


def cohort_steps(run: CohortRun) -> Iterator[None]:
    cohort, clock = Cohort(run, Ranks(torch.device("cpu")), SharedData()), Clock(1e9)
    for batches in cohort.batches():
        cohort.advance(batches, clock)
        yield


def own_steps(run: CohortRun, rank: int) -> Iterator[None]:
    """The same member alone, by labels: an independent training."""
    hard = tuple(term for term in run.members[rank].objective if term.loss == "hard")
    member = replace(run.members[rank], objective=hard)
    session = PlainSession()
    training = Training(member, session, SharedData().of([member], session)[0])
    for batch in training.batches():
        training.advance(batch)
        yield


def exchange(job: Mapping[str, Any]) -> dict[str, float]:
    cohort, clock = Cohort(cohort_run(job, "mutual"), Ranks(torch.device("cpu")), SharedData()), Clock(1e9)
    batches = cohort.batches()
    cohort.advance(next(batches), clock)
    cohort.exchange.taken(1)
    begun = time.perf_counter()
    for _ in range(job["steps"]):
        cohort.advance(next(batches), clock)
    step_ms = 1e3 * (time.perf_counter() - begun) / job["steps"]
    taken = cohort.exchange.taken(job["steps"])
    return {
        "bytes": taken["exchange_bytes"],
        "share": round(taken["exchange_ms"] / step_ms, 4),
        "step_ms": round(step_ms, 2),
    }


def straggler(job: Mapping[str, Any]) -> dict[str, list[float]]:
    """Rank 0 is measured; rank 1 is its peer, slowed, and in the solo rounds a dead one, whose last generation is heard."""
    run = cohort_run(job, "codistillation", exchange_every=10, burn_in=0, max_staleness=1_000_000)
    mine, slow = codistilling_steps(run, job["rank"]), job["rank"] == 1
    found: dict[str, list[float]] = {"beside_peer": [], "solo": []}
    for number in range(job["rounds"] + 1):
        for side in sorted(found, reverse=bool(number % 2)):
            dist.barrier()
            begun, steps = time.perf_counter(), job["steps"] * (1 if slow else SLOWED)
            for _ in range(0 if slow and side == "solo" else steps):
                start = time.perf_counter()
                next(mine)
                if slow:
                    time.sleep((SLOWED - 1) * (time.perf_counter() - start))
            if number:
                found[side].append(steps / (time.perf_counter() - begun))
    return found


def codistilling_steps(run: CohortRun, rank: int) -> Iterator[None]:
    cohort = CodistillingCohort(replace(run, members=(run.members[rank],)), PlainSession(), SharedData())
    clock = Clock(1e9)
    for batches in cohort.batches():
        cohort.advance(batches, clock)
        yield


if __name__ == "__main__":
    main()
