"""Kills real processes of real runs at random moments, and compares what comes out with an undisturbed run.

`python -m tests.faults` does it ten times for the driver, a teacher actor, a training worker, a rank of a cohort and nodes
each (see `node_faults`), and prints the times. `moment_faults` kills at named moments of a shard. The test suite does one of each
kind. A run is killed by SIGKILL; where the driver died, the same command is started again.
"""

import argparse
import hashlib
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa

from benchmarks.record import finish as tell
from benchmarks.record import with_record

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Setup:
    """What is run."""

    name: str
    recipe: str
    overrides: tuple[str, ...]
    verb: str = "run"


SMALL = Setup(
    "students",
    "digits.yaml",
    (
        "teachers.wide.train.steps=60",
        "teachers.wide.arguments.width=8",
        "teachers.wide.replicas=2",
        "teachers.deep.train.steps=40",
        "teachers.deep.arguments.width=4",
        "students.small.train.steps=400",
        "students.small.train.seeds=[0, 1]",
    ),
)
"""A run of half a minute, with every kind of stage in it."""
HASTY = replace(
    SMALL, overrides=(*SMALL.overrides, *(f"teachers.{name}.stall_timeout_s=30" for name in ("wide", "deep", "trees")))
)
"""Who hangs is soon replaced."""
SMALLEST = Setup(
    "least",
    "digits.yaml",
    (
        "teachers={wide: {kind: sklearn, model: 'sklearn.linear_model:LogisticRegression', replicas: 2}}",
        "students.small.teachers=[wide]",
        "students.small.train.steps=12000",
        "students.small.train.seeds=[0]",
        "students.small.control=false",
    ),
    "distill",
)
"""One teacher, which is no network, and one student, only as far as its training, which takes longer than to start it."""
PEERS = Setup(
    "cohort",
    "peers.yaml",
    (
        "teachers={}",
        "cohorts.trio={method: mutual, members: {a: {model: 'students.models:mlp', arguments: {hidden: 16}}, "
        "b: {model: 'students.models:small_conv_net'}}, train: {steps: 2500, seeds: [0]}}",
    ),
)
"""Two peers, each on a worker of its own."""
PATIENCE_S = 1200.0
"""For a process to appear that is to be killed, and for a run to end."""


@dataclass(frozen=True)
class Outcome:
    """What must not depend on kills."""

    keys: dict[str, tuple[int, ...]]
    """By teacher and segment, every sample_key in the store, in order."""
    labels: dict[str, tuple[str, ...]]
    """By teacher and segment, hashes of the shards."""
    students: dict[str, str]
    """By run, SHA-256 of the student's weights."""


def command(out: Path, setup: Setup) -> list[str]:
    options = [part for override in setup.overrides for part in ("-o", override)]
    collegium = str(Path(sys.executable).parent / "collegium")
    return [collegium, setup.verb, str(RECIPES / setup.recipe), "--out", str(out), "--json", *options]


def start(out: Path, setup: Setup) -> "subprocess.Popen[bytes]":
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(command(out, setup), stdout=subprocess.DEVNULL, stderr=log)


def finish(driver: "subprocess.Popen[bytes]", out: Path) -> None:
    code = driver.wait(timeout=PATIENCE_S)
    assert code == 0, f"exit code {code}; {(out.parent / f'{out.name}.log').read_text()[-3000:]}"


def outcome(out: Path) -> Outcome:
    """Read with pyarrow and hashlib alone: the check must not trust the code that it checks."""
    keys, labels = {}, {}
    for store in sorted((out / "soft_targets").glob("*")):
        spec = json.loads((store / "spec.json").read_bytes())
        records = pa.ipc.open_file(store / "MANIFEST.arrow").read_all().sort_by("shard").to_pylist()
        found: list[int] = []
        for record in records:
            found += pa.ipc.open_file(store / record["path"]).read_all()["sample_key"].to_pylist()
        name = f"{spec['teacher']}/{spec['segment']}"
        keys[name], labels[name] = tuple(found), tuple(record["xxh3_128"] for record in records)
    weights = {
        "/".join(path.relative_to(out / "students").parts[1:-1]): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "students").rglob("model.safetensors"))
    }
    return Outcome(keys, labels, weights)


MISSED = "nobody: it had ended already"


def workers_of(driver: "subprocess.Popen[bytes]", names: tuple[str, ...]) -> list[psutil.Process]:
    """Ray worker processes of this driver's cluster whose title has one of `names`."""
    found = []
    try:
        family = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    for process in family:
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and any(name in title for name in names):
            found.append(process)
    return found


def kill_driver(driver: "subprocess.Popen[bytes]", out: Path, at: random.Random) -> str:
    delay = at.uniform(2.0, 45.0)
    end = time.monotonic() + delay
    while time.monotonic() < end and driver.poll() is None:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return f"after {delay:.1f} s"


def kill_worker(
    names: tuple[str, ...], within_s: float = 4.0, *, most: int = 1, by: signal.Signals = signal.SIGKILL
) -> Callable[["subprocess.Popen[bytes]", Path, random.Random], str]:
    def kill(driver: "subprocess.Popen[bytes]", out: Path, at: random.Random) -> str:
        begun = time.monotonic()
        while not (found := workers_of(driver, names)):
            assert driver.poll() is None, "the run ended before there was anything to kill"
            assert time.monotonic() - begun < PATIENCE_S, f"no process called {names}"
            time.sleep(0.02)
        delay = at.uniform(0.0, within_s)
        time.sleep(delay)
        alive = [process for process in workers_of(driver, names) or found if process.is_running()]
        for process in alive[:most]:
            process.send_signal(by)
        return f"{delay:.1f} s after it appeared" if alive else MISSED

    return kill


def start_another(driver: "subprocess.Popen[bytes]", out: Path, at: random.Random) -> str:
    """The same command once more, beside the first: both end well."""
    delay = at.uniform(2.0, 30.0)
    time.sleep(delay)
    finish(start(out, SMALL), out)
    return f"not, but joined by another after {delay:.1f} s"


Killer = Callable[["subprocess.Popen[bytes]", Path, random.Random], str]
REPLICA = ("TeacherReplica",)
TRAINING = ("RayTrainWorker", "fit_in_task")
FAULTS: dict[str, tuple[Setup, Killer]] = {
    "driver": (SMALL, kill_driver),
    "teacher actor": (SMALL, kill_worker(REPLICA, within_s=1.0)),
    "all replicas at once": (SMALL, kill_worker(REPLICA, within_s=1.0, most=9)),
    "hung replica": (HASTY, kill_worker(REPLICA, within_s=1.0, by=signal.SIGSTOP)),
    "second driver": (SMALL, start_another),
    "training worker": (SMALL, kill_worker(TRAINING)),
    "rank of a cohort": (PEERS, kill_worker(TRAINING)),
}


@dataclass(frozen=True)
class Kill:
    """One kill: how it was, seconds from it to the end of the run, and what is lost, doubled or different."""

    how: str
    seconds: float
    problems: list[str]


def undisturbed(folder: Path, setup: Setup) -> Outcome:
    out = folder / f"undisturbed_{setup.name}"
    finish(start(out, setup), out)
    return outcome(out)


def disturbed(folder: Path, kind: str, seed: int) -> tuple[Outcome, str, float]:
    """One run with one kill: what came of it, when the kill was, and the seconds from it to the end of the run."""
    out = folder / f"{kind.replace(' ', '_')}-{seed}"
    setup, kill = FAULTS[kind]
    driver = start(out, setup)
    when = kill(driver, out, random.Random(seed))
    killed = time.monotonic()
    if kind == "driver":
        driver = start(out, setup)
    finish(driver, out)
    return outcome(out), when, time.monotonic() - killed


def disturbed_by_all(folder: Path, seed: int) -> Outcome:
    """One run that loses a teacher actor, then a training worker, then its driver."""
    out, at = folder / "all", random.Random(seed)
    driver = start(out, SMALLEST)
    for kind in ("teacher actor", "training worker"):
        assert FAULTS[kind][1](driver, out, at) != MISSED, kind
    time.sleep(at.uniform(0.0, 8.0))
    assert driver.poll() is None, "the run ended before its driver could be killed"
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finish(start(out, SMALLEST), out)
    return outcome(out)


def compare(found: Outcome, expected: Outcome) -> list[str]:
    """What is lost, doubled or different."""
    problems = []
    for store, keys in expected.keys.items():
        has = found.keys.get(store, ())
        problems += [f"{store}: {len(set(keys) - set(has))} rows lost"] * (not set(keys) <= set(has))
        problems += [f"{store}: {len(has) - len(set(has))} rows doubled"] * (len(has) != len(set(has)))
        problems += [f"{store}: rows in another order"] * (sorted(has) == sorted(keys) and has != keys)
    problems += [
        f"{store}: other labels" for store in expected.labels if found.labels.get(store) != expected.labels[store]
    ]
    problems += [
        f"{run}: other weights" for run in expected.students if found.students.get(run) != expected.students[run]
    ]
    return problems


def accuracies(out: Path) -> list[float]:
    """Test accuracy of each seed, from the newest report."""
    report = json.loads(max((out / "runs").glob("*/report.json")).read_bytes())
    runs: list[float] = report["students"]["small"]["test_accuracy"]["runs"]
    return runs


def other_number_of_workers(folder: Path) -> str:
    """Two data-parallel workers instead of one, everything else equal."""
    out = folder / "two_workers"
    finish(start(out, replace(SMALL, overrides=(*SMALL.overrides, "students.small.train.workers=2"))), out)
    pairs = zip(accuracies(out), accuracies(folder / "undisturbed_students"), strict=True)
    difference = max(abs(two - one) for two, one in pairs)
    if difference > 0.005:
        raise SystemExit(f"two workers differ from one by {difference:.4f} in test accuracy")
    return f"2 workers and 1: test accuracies differ by {difference:.4f} at most"


def kinds_apart() -> dict[str, Callable[[Path, int, int], Iterator[Kill]]]:
    """Those that do their own setting up."""
    from tests import (  # which stand on this module
        moment_faults,
        node_faults,
        node_following,
        storage_faults,
        storage_nodes,
    )

    return {
        **moment_faults.KINDS,
        **node_faults.KINDS,
        **node_following.KINDS,
        **storage_faults.KINDS,
        **storage_nodes.KINDS,
    }


def kills(folder: Path, kind: str, times: int, seed: int) -> Iterator[Kill]:
    """Of one kind; each in a run of its own. One that found nobody left to kill is none."""
    if kind in (others := kinds_apart()):
        yield from others[kind](folder / kind.replace(" ", "_"), times, seed)
        return
    setup = FAULTS[kind][0]
    calm = folder / f"undisturbed_{setup.name}"
    expected = outcome(calm) if calm.exists() else undisturbed(folder, setup)
    runs = (disturbed(folder, kind, seed + number) for number in itertools.count())
    for found, when, seconds in itertools.islice((run for run in runs if run[1] != MISSED), times):
        yield Kill(f"killed {when}", seconds, compare(found, expected))


def campaign(
    folder: Path, kinds: Sequence[str], times: int, seed: int, figures: dict[str, tuple[int, float]]
) -> Iterator[str]:
    """Lines that tell of it; `figures`, by kind, gets how often something was killed, and the median of seconds."""
    if any(kind in FAULTS and FAULTS[kind][0] == SMALL for kind in kinds):
        undisturbed(folder, SMALL)
        yield other_number_of_workers(folder)
    for kind in kinds:
        durations = []
        for number, kill in enumerate(kills(folder, kind, times, seed)):
            durations.append(kill.seconds)
            told = "; ".join(kill.problems) or "same"
            yield f"{kind:<16} {number + 1:>2}  {kill.how:<38} done {kill.seconds:5.1f} s later  {told}"
            if kill.problems:
                raise SystemExit(f"{kind}, seed {seed + number}: {told}")
        figures[kind] = times, round(statistics.median(durations), 1)
        yield f"{kind:<16} median {figures[kind][1]:.1f} s from the kill to the end; rows lost 0, rows doubled 0"


def main() -> None:
    everything = [*FAULTS, *kinds_apart()]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=everything, default=everything, help="what is killed")
    with_record(parser)
    arguments = parser.parse_args()
    figures: dict[str, tuple[int, float]] = {}
    with tempfile.TemporaryDirectory(prefix="collegium-faults-") as folder:
        for line in campaign(Path(folder), arguments.kinds, arguments.times, arguments.seed, figures):
            print(line, flush=True)
    tell("faults", figures, keep=arguments.record)


if __name__ == "__main__":
    main()
