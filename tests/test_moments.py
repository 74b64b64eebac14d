"""Whoever labels is killed at every step of a shard that `tests.moment_faults` knows: what is there stays, the rest is done anew."""

import json
import multiprocessing
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teachers.config.teacher import CallableTeacher
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import collect_garbage, verify
from teachers.transfer_set.transfer_set import TransferSet
from tests import dying_teacher
from tests.moment_faults import MOMENTS, Moment, Step, check
from tests.test_store import every_file, stored_keys


def a_task(folder: Path, digits: TransferSet) -> LabelTask:
    """Six shards."""
    segment = digits.segment("test-0")
    about = segment.name, segment.digest, "dense", tuple(digits.classes), segment.num_rows, 64
    SoftTargetStore.create(folder, Spec("near", "digest", *about))  # type: ignore[arg-type]
    return LabelTask(digits.folder, segment.name, folder)


def fill(task: LabelTask, plan: Mapping[str, Any] | None = None) -> None:
    if plan is not None:
        dying_teacher.arm(dict(plan))
    config = CallableTeacher(
        kind="callable", function="tests.dying_teacher:say", version="1", output="logits", batch_size=16
    )
    labeller = Labeller(TeacherSpec("near", config, None, (), Path(__file__).parent), [task], "cpu")
    for number in SoftTargetStore.open(task.store).missing(hashes=True):
        labeller.label(0, number)


@pytest.fixture(scope="module")
def calm(digits: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> SoftTargetStore:
    """Filled by somebody who lives, and sealed."""
    task = a_task(tmp_path_factory.mktemp("calm"), digits)
    fill(task)
    SoftTargetStore.open(task.store).seal()
    return SoftTargetStore.open(task.store)


@pytest.mark.parametrize(
    ("moment", "step"),
    [pytest.param(each, step, id=f"{name}: {step[1]}") for name, each in MOMENTS.items() for step in each.steps],
)
def test_who_dies_at_a_step_of_a_shard_loses_no_row_and_doubles_none(
    digits: TransferSet, calm: SoftTargetStore, tmp_path: Path, moment: Moment, step: Step
) -> None:
    task, told = a_task(tmp_path / "store", digits), tmp_path / "told"
    plan = {"step": step, "after": 2, "told": str(told), "driver": None}
    process = multiprocessing.get_context("fork").Process(target=fill, args=(task, plan))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found = json.loads(told.read_text())
    check(found, moment)
    store = SoftTargetStore.open(task.store)
    assert store.missing(hashes=True) == [*range(found["shard"], store.num_shards)] and verify(store) == []

    fill(task)
    assert store.seal().digest == calm.seal().digest
    assert np.array_equal(stored_keys(store), stored_keys(calm))
    collect_garbage(store, grace_s=-60)
    assert len(every_file(store.folder)) == 3 + store.num_shards
