"""A student on one of several nodes follows its teacher; a node joins and labels, then the one dies where it and the teacher were.

Two such runs give two students (each drew what was labelled by then), so what a run left is compared with an undisturbed one
as far as it is labels, and the student with the one that its passes and its seed give in one process that nobody disturbs.
"""

import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from students.config.student import StudentConfig
from students.data.passes import PASSES
from students.data.shared import SharedData
from students.runs.of_student import student_run
from students.runs.run import Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.soft_targets.store import SoftTargetStore
from tests import faults
from tests.node_cluster import until
from tests.node_faults import LEFT, RIGHT, TEACHER, Nodes
from tests.storage_nodes import first_step_after
from tests.warm import side_by_side

STEPS = 2000
FOLLOWS = faults.Setup(
    "follows",
    "digits.yaml",
    (
        f"teachers={{patient: {TEACHER}}}",
        "students.small.teachers=[patient]",
        "students.small.follow=true",
        "students.small.control=false",
        f"students.small.train.steps={STEPS}",
        "students.small.train.seeds=[0]",
        "students.small.resources={custom: {trains: 1}}",
    ),
    "distill",
)
"""The teacher has two replicas, each on a node that `teaches`, the student is on any that `trains`."""
SHARDS = 8
"""Of twenty with training rows: so many are labelled, then no more until there is a checkpoint."""


@dataclass(frozen=True)
class Followed:
    """What was there when a node was killed, and how it went on."""

    checkpoint: Path
    passes: list[dict[str, Any]]
    rows: set[int]
    """That were labelled."""
    step: int
    """Of the first point of the student's curve after the kill."""
    seconds: float
    """From the kill to the end."""

    @property
    def kept(self) -> int:
        """The step of the checkpoint."""
        return int(self.checkpoint.name.removeprefix("step-"))


def follow_while_nodes_come_and_go(nodes: Nodes, out: Path, at: random.Random) -> Followed:
    """The right node labels and trains; the left one joins and labels; the right one is killed, another joins."""
    nodes.pace(0.5)
    nodes.kill(nodes.left)
    before = nodes.asked()[nodes.right.address]
    driver, log = nodes.start(out, FOLLOWS), out.with_name(f"{out.name}.log")
    until(lambda: nodes.asked()[nodes.right.address] >= before + SHARDS, or_dead=driver, log=log)
    nodes.pace(2.0, held=nodes.right.address)
    until(lambda: bool(checkpoints(out)), or_dead=driver, log=log)
    nodes.left = nodes.add(cpus=2, resources=LEFT)
    until(lambda: nodes.asked()[nodes.left.address] > 0, or_dead=driver, log=log)
    time.sleep(at.uniform(0.0, 2.0))
    assert nodes.right.workers("fit_in_task"), "the student is not where the node dies"
    killed, since = time.time(), time.monotonic()
    nodes.kill(nodes.right)
    checkpoint, rows = checkpoints(out)[-1], labelled(out)
    passes = torch.load(checkpoint / "state.pt", weights_only=True)["passes"]
    nodes.pace(2.0, held=nodes.left.address)
    nodes.right = nodes.add(cpus=2, resources=RIGHT)
    until(lambda: any(node.workers("fit_in_task") for node in (nodes.left, nodes.right)), or_dead=driver, log=log)
    nodes.pace(0.1)
    faults.finish(driver, out)
    return Followed(checkpoint, passes, rows, first_step_after(out, killed), time.monotonic() - since)


def checkpoints(out: Path) -> list[Path]:
    """Of the student, by their steps."""
    seals = out.glob("students/small-*/student/seed-0/attempts/*/step-*/SEAL.json")
    return sorted((seal.parent for seal in seals), key=lambda folder: folder.name)


def labelled(out: Path) -> set[int]:
    """Training rows whose labels are committed, by their places."""
    store = SoftTargetStore.open(store_of(out))
    missing = {*store.missing()}
    spans = [store.shard_rows(number) for number in range(store.num_shards) if number not in missing]
    return {row for first, rows in spans for row in range(first, first + rows)}


def store_of(out: Path) -> Path:
    """Of training rows."""
    specs = {spec.parent: json.loads(spec.read_bytes()) for spec in out.glob("soft_targets/*/spec.json")}
    (found,) = [folder for folder, spec in specs.items() if spec["segment"] == "train-0"]
    return found


def problems(out: Path, calm: Path, followed: Followed) -> list[str]:
    """Rows that are lost, doubled or labelled otherwise; a student that learnt from what was not there, began anew, or is not
    the one that its passes give."""
    found, expected = (replace(faults.outcome(folder), students={}) for folder in (out, calm))
    told = faults.compare(found, expected)
    (student,) = out.glob("students/small-*/student/seed-0")
    passes = json.loads((student / PASSES).read_bytes())["passes"]
    ends = [each["step"] + each["batches"] for each in passes]
    if [each["step"] for each in passes] != [0, *ends[:-1]]:
        told.append("there is a gap between two passes")
    drawn = {row for each in followed.passes for first, behind in each["rows"] for row in range(first, behind)}
    if not drawn <= followed.rows:
        told.append(f"{len(drawn - followed.rows)} rows were drawn before they were labelled")
    if passes[: len(followed.passes)] != followed.passes or len(passes) == len(followed.passes):
        told.append("it did not go on with the passes of its checkpoint")
    if followed.step <= followed.kept:
        told.append(f"it had a checkpoint of step {followed.kept}, and went on at {followed.step}")
    again = out.with_name(f"{out.name}-again")
    side_by_side(learn_again, [(again, out)])
    if (again / "student/seed-0/model.safetensors").read_bytes() != (student / "model.safetensors").read_bytes():
        told.append("its passes and its seed give another student")
    return told


def learn_again(folder: Path, out: Path) -> None:
    """The student, from the passes of the one in `out` and from the labels there, undisturbed."""
    from orchestrator.recipe.load import load_recipe
    from orchestrator.stages.keys import hearing

    torch.set_num_threads(1)
    recipe = load_recipe(faults.RECIPES / FOLLOWS.recipe, FOLLOWS.overrides)
    config = recipe.students["small"]
    assert isinstance(config, StudentConfig)
    (prepared,) = (out / "prepared").iterdir()
    source = Source("patient", {"train-0": store_of(out)}, **hearing(recipe, "patient"))
    common: dict[str, Any] = {"stage": folder, "stage_name": "distill/small", "transfer_set": prepared, "follow": True}
    run = student_run("student", config, 0, folder=folder, sources=(source,), **common)
    run.folder.mkdir(parents=True)
    session = PlainSession()
    training = Training(run, session, SharedData().of([run], session)[0])
    (passes,) = out.glob(f"students/small-*/student/seed-0/{PASSES}")
    assert training.passes is not None
    training.passes.go_to(json.loads(passes.read_bytes())["passes"])
    training.train(math.inf)
    training.finish()


def kills(folder: Path, times: int, seed: int) -> Iterator[faults.Kill]:
    with Nodes(folder) as nodes:
        calm = folder / "calm"
        faults.finish(nodes.start(calm, FOLLOWS), calm)
        for number in range(times):
            out = folder / f"follows-{number}"
            followed = follow_while_nodes_come_and_go(nodes, out, random.Random(seed + number))
            how = f"went on at {followed.step}, from {followed.kept}"
            yield faults.Kill(how, followed.seconds, problems(out, calm, followed))
            shutil.rmtree(out)


KINDS = {"node of a student that follows": kills}
