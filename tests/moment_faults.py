"""Kills of a replica, or of its driver, exactly while a shard is read, computed, written, and between its publishing and its commit.

`dying_teacher` says how a moment is met. After a replica's death the same run goes on; after the driver's the same command
is started again. A disk that is full in the middle of a shard is here as well.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests import dying_teacher
from tests.disks import Disk
from tests.faults import PATIENCE_S, Kill, Outcome, Setup, command, compare, finish, outcome

SETUP = Setup(
    "moments",
    "digits.yaml",
    (
        "teachers={near: {kind: callable, function: 'dying_teacher:say', output: logits, batch_size: 16, replicas: 2}}",
        "students.small.teachers=[near]",
        "students.small.train.steps=100",
        "students.small.train.seeds=[0]",
        "students.small.control=false",
    ),
    "distill",
)
"""29 shards of 64 rows and one small student."""
Step = tuple[str, ...]


@dataclass(frozen=True)
class Moment:
    """The steps of `dying_teacher.Death` that belong to it, how often a replica surely passes one, and what there is then
    of a shard: a draft, the shard under its name."""

    steps: tuple[Step, ...]
    passes: int
    has_draft: bool | None
    """None: or not."""
    is_published: bool


MOMENTS = {
    "reads": Moment(
        (
            ("return", "OpenTask.keys", "label_shard"),  # keys are mapped
            ("return", "TransferSet.inputs", "OpenTask.read"),  # all is mapped, nothing copied
        ),
        8, False, False,
    ),
    "computes": Moment((dying_teacher.HALF_COMPUTED,), 40, False, False),  # four batches a shard
    "writes": Moment(
        (
            ("c_call", "write", "write_draft", "shards"),  # the file is there, and empty
            ("c_call", "flush", "write_draft", "shards"),
            ("c_call", "fsync", "write_draft", "shards"),
            ("c_call", "link", "publish", "shards"),  # whole and on the disk, without its name
        ),
        8, True, False,
    ),
    "is between publish and commit": Moment(
        (
            ("c_return", "link", "publish", "shards"),
            ("return", "SoftTargetStore._publish_shard", "SoftTargetStore.commit"),
            ("c_call", "write", "write_draft", "commits"),  # the record's file is there, and empty
            ("c_call", "fsync", "write_draft", "commits"),
            ("c_call", "link", "publish", "commits"),  # whole and on the disk, without its name
        ),
        8, None, True,
    ),
}  # fmt: skip
"""By what the replica does. The first shards of each of its three threads may pass unseen; of 29 one has at least 15."""


def places(moment: Moment) -> list[tuple[Step, int]]:
    """(step, how often it is passed before), in an order in which neighbours have nothing in common."""
    found = [(step, after) for step in moment.steps for after in range(moment.passes)]
    random.Random(0).shuffle(found)
    return found


def start(out: Path, plan: Mapping[str, Any] | None = None) -> "subprocess.Popen[bytes]":
    user = out.parent / "user"  # a folder of its own: what its code reads there would be told
    user.mkdir(parents=True, exist_ok=True)
    shutil.copy(dying_teacher.__file__, user)
    environment = {**os.environ, dying_teacher.PLAN: json.dumps(plan)} if plan else None
    with out.with_name(f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command(out, SETUP), cwd=user, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def undisturbed(folder: Path) -> Outcome:
    """The same for all kinds."""
    out = folder.parent / "calm_moments" / "out"
    if not out.exists():
        finish(start(out), out)
    return outcome(out)


def disturbed(out: Path, name: str, victim: str, number: int) -> tuple[Outcome, str, float]:
    """One run with one kill: what came of it, when that was, and the seconds from there to the end of the run."""
    moment = MOMENTS[name]
    step, after = places(moment)[number % len(places(moment))]
    told, pid = out.with_suffix(".told"), out.with_suffix(".pid")
    driver = start(
        out, {"step": step, "after": after, "told": str(told), "driver": str(pid) if victim == "driver" else None}
    )
    pid.write_text(str(driver.pid))
    begun = time.monotonic()
    while not told.exists():
        assert driver.poll() is None, f"the run ended, code {driver.returncode}, before it came to {step}"
        assert time.monotonic() - begun < PATIENCE_S
        time.sleep(0.02)
    killed = time.monotonic()
    if victim == "driver":
        assert driver.wait(PATIENCE_S) == -signal.SIGKILL
        driver = start(out)
    finish(driver, out)
    seconds = time.monotonic() - killed
    found = json.loads(told.read_text())
    check(found, moment)
    assert not psutil.pid_exists(found["pid"])
    if victim == "replica":
        assert re.search(r"replica \d is lost, ", out.with_name(f"{out.name}.log").read_text())
    return outcome(out), f"at shard {found['shard']} of {found['store'][:12]}, {' '.join(step)}", seconds


def check(found: Mapping[str, Any], moment: Moment) -> None:
    """Of what there was of the shard at that moment: it was the one that is meant."""
    assert found["committed"] is False and found["published"] is moment.is_published, found
    assert moment.has_draft in (None, found["draft"] is not None), found


def kills(name: str, victim: str, folder: Path, times: int, seed: int) -> Iterator[Kill]:
    expected = undisturbed(folder)
    assert all(expected.keys.values()) and len(expected.students) == 1
    for number in range(seed, seed + times):
        found, when, seconds = disturbed(folder / f"run-{number}", name, victim, number)
        yield Kill(f"killed {when}", seconds, compare(found, expected))


def full_disks(folder: Path, times: int, seed: int) -> Iterator[Kill]:
    """A disk of stores that takes some shards; the command ends well, and the same one goes on when it has grown."""
    expected = undisturbed(folder)
    for number in range(seed, seed + times):
        out = folder / f"run-{number}"
        size = random.Random(number).randrange(64, 256, 4)
        disk = Disk(out / "soft_targets", f"{size}k")
        try:
            code = start(out).wait(PATIENCE_S)
            log = out.with_name(f"{out.name}.log").read_text()
            last = log.strip().splitlines()[-1]
            assert code == 4 and "No space left on device" in last and "make room there" in last, (code, last)
            assert "cannot be written" in last and "Traceback" not in log, log[-3000:]
            there = len([*disk.folder.glob("*/commits/*.json")]), len([*disk.folder.glob("*/shards/*.arrow")])
            assert there[0] and not [*disk.folder.glob("*/*/.draft-*")]
            disk.grow()
            again = time.monotonic()
            finish(start(out), out)
            seconds = time.monotonic() - again
            yield Kill(f"{size} KB: {there[0]} records, {there[1]} shards", seconds, compare(outcome(out), expected))
        finally:
            disk.remove()


KINDS: dict[str, Callable[[Path, int, int], Iterator[Kill]]] = {
    "replica that reads": partial(kills, "reads", "replica"),
    "replica that computes": partial(kills, "computes", "replica"),
    "replica that writes": partial(kills, "writes", "replica"),
    "replica between publish and commit": partial(kills, "is between publish and commit", "replica"),
    "driver while a replica reads": partial(kills, "reads", "driver"),
    "driver while a replica computes": partial(kills, "computes", "driver"),
    "driver while a replica writes": partial(kills, "writes", "driver"),
    "driver while a replica is between publish and commit": partial(kills, "is between publish and commit", "driver"),
    "disk full in mid-shard": full_disks,
}
