"""What a user, a machine or a signal can do to a run, met by the real command: message, exit code, nothing lost.

Where the rest of what the command must stand is tested:

    unknown or misspelt key, wrong type          test_recipe, test_cli
    missing file                                 test_recipe, test_cli, test_sources, test_adapters
    empty data set, an empty split               test_sources, test_transfer_set
    label outside the classes                    test_sources
    NaN or infinite feature                      test_sources
    teacher with another number of classes       test_cli (as declared), test_adapters (as it scores)
    student that names no such teacher, a cycle  test_recipe
    undecodable image, decompression bomb        test_sources
    image path, or link, out of the source       test_sources
    weights that do not fit, tensors named       test_adapters, test_model_folder
    a pickle without opt-in                      test_adapters
    config that names `os:system`                test_model_folder, and here
    teacher that says NaN, row keys named        test_adapters, test_labelling, test_pipeline
    `--out` not writable, or full                test_cli, test_stages, test_store, and here
    flipped byte of a shard                      test_store, test_cli (verify), test_pipeline (repaired before training)
    changed weights of a teacher                 test_pipeline
    a user's own folder `teachers`               test_imports, and here
    user's code that raises                      here
    SIGINT, SIGTERM                              here; SIGKILL in test_faults
    MLflow away at the start                     test_tracking, and here
    MLflow away in the middle                    test_tracking; its disk full: here
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.numpy import save_file

from orchestrator.tracking.late import replay
from orchestrator.tracking.tracker import Tracker
from teachers.transfer_set.transfer_set import TransferSet
from tests import warm
from tests.disks import Disk
from tests.test_tracking import append, children, client, points, report, steps_of
from tests.test_tracking import recipe as tracked
from tests.training_runs import make_run, make_store, source

PATIENCE_S = 600.0
COMMAND = Path(sys.executable).parent / "collegium"
RECIPE = """\
format: 1
name: tiny
transfer_set: {source: {kind: sklearn, name: digits}, inputs: image, label: digit, labelled: 100}
teachers:
  mine: {kind: callable, function: "mine:teach", output: logits, require: null}
students:
  small:
    model: "students.models:mlp"
    arguments: {hidden: 16}
    teachers: [mine]
    control: false
    train: {steps: 20, seeds: [0]}
"""
MINE = """\
import numpy as np

def teach(batch):
    return batch["image"].reshape(len(batch["image"]), -1)[:, :10].astype(np.float32)
"""
RAISING = """\
import torch

def teach(batch):
    raise ValueError("not today")

def augment(inputs, generator):
    raise ValueError("not today")

def loss(student, target, *, temperature):
    raise ValueError("not today")

def combine(logits, known, labels, *, temperature):
    raise ValueError("not today")

class Network(torch.nn.Linear):
    def __init__(self, num_classes):
        super().__init__(64, num_classes)

    def forward(self, inputs):
        raise ValueError("not today")
"""


def run(
    *arguments: str | Path, cwd: Path, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return warm.run(arguments, cwd, os.environ | (environment or {}))


def line_after(file: Path, text: str) -> int:
    """Number of the first `raise` after `text`."""
    lines = file.read_text().splitlines()
    begin = next(number for number, found in enumerate(lines) if text in found)
    return next(number for number in range(begin, len(lines)) if "raise" in lines[number]) + 1


def actions(stdout: str) -> dict[str, bool]:
    """By kind of stage: whether all of them were reused, from `--json`."""
    stages = json.loads(stdout)["stages"]
    return {kind: all(s["reused"] for s in stages if s["stage"] == kind) for kind in {s["stage"] for s in stages}}


@pytest.fixture(scope="module")
def address(ray_cluster: None) -> str:
    """Of the session's cluster: a command that joins it is done sooner than one that starts its own."""
    import ray

    found: str = ray.get_runtime_context().gcs_address
    return found


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, in which folders stand that are named like our packages."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "mine.py").write_text(MINE)
    (folder / "raising.py").write_text(RAISING)
    for name in ("teachers", "students", "orchestrator"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
        (folder / name / "mine.py").write_text(MINE)
    return folder


@pytest.fixture(scope="module")
def labelled(user: Path, address: str) -> Path:
    """A run up to its labels."""
    done = run("label", "recipe.yaml", "--out", "out", "--address", address, cwd=user)
    assert done.returncode == 0, done.stderr
    return user / "out"


@pytest.mark.campaign
@pytest.mark.slow
def test_a_users_folders_named_like_our_packages_disturb_no_process_of_a_run(labelled: Path) -> None:
    assert len(list(labelled.glob("soft_targets/mine-*/SEAL.json"))) == 3


def test_what_a_users_folder_named_like_our_package_holds_cannot_be_named(user: Path) -> None:
    done = run("plan", "recipe.yaml", "-o", "teachers.mine.function=teachers.mine:teach", cwd=user)
    assert (done.returncode, "rename yours" in done.stderr) == (2, True), done.stderr


def test_a_path_that_puts_a_users_package_before_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}  # of a fresh interpreter
    done = subprocess.run([COMMAND, "plan"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 4
    assert f"package 'teachers' would come from {tmp_path / 'teachers'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "where", "override"),
    [
        ("teachers.mine.function", "def teach", "teachers.mine.function=raising:teach"),
        pytest.param(
            "students.small.objective.0.loss",
            "def loss",
            "students.small.objective=[{loss: 'raising:loss'}]",
            marks=pytest.mark.campaign,  # a trainer; in a plain process below
        ),
    ],
)
def test_users_code_that_raises_in_a_worker_is_told_by_its_key_and_line(
    key: str, where: str, override: str, user: Path, labelled: Path, address: str
) -> None:
    done = run("distill", "recipe.yaml", "--out", labelled, "--address", address, "-o", override, cwd=user)
    assert done.returncode == 1, done.stderr
    place = f"raising.py:{line_after(user / 'raising.py', where)}"
    assert f"{key}: {override.partition('raising')[1]}" in done.stderr
    assert re.search(rf"ValueError: not today \(\S*{place}\)", done.stderr), done.stderr
    assert "traceback" not in done.stderr.lower()


@pytest.mark.parametrize(
    ("key", "where", "changes"),
    [
        ("students.small.model", "def forward", {"model": "raising:Network"}),
        ("students.small.train.augment", "def augment", {"augment": "raising:augment"}),
        (
            "students.small.objective.0.combine",
            "def combine",
            {"objective": [{"loss": "soft", "combine": "raising:combine"}]},
        ),
    ],
)
def test_users_code_that_raises_in_a_training_is_told_by_its_key_and_line(
    key: str, where: str, changes: dict[str, Any], user: Path, digits: TransferSet, tmp_path: Path
) -> None:
    from students.fitting.fit import fit
    from students.runs.session import PlainSession
    from teachers.errors import UsersCodeError

    store = make_store(tmp_path / "store", digits)
    asked = replace(make_run(tmp_path / "runs", digits, source(store), **changes), user_path=user)
    place = f"raising.py:{line_after(user / 'raising.py', where)}"
    with pytest.raises(UsersCodeError, match=f"{re.escape(key)}: raising:.*ValueError: not today .*{place}"):
        fit([asked], PlainSession())


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[str, str], Disk]]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system, and so fill one")
    made: list[Disk] = []

    def disk(name: str, size: str) -> Disk:
        try:
            made.append(Disk(tmp_path / "out" / name, size))
        except OSError as error:
            pytest.skip(str(error))
        return made[-1]

    yield disk
    for each in made:
        each.remove()


@pytest.mark.slow
@pytest.mark.campaign
def test_a_full_disk_is_named_wherever_it_is_met_and_costs_nothing_that_was_done(
    user: Path, address: str, tmp_path: Path, disks: Callable[[str, str], Disk]
) -> None:
    out = tmp_path / "out"
    full = [
        disks("soft_targets", "64k"),  # met by a teacher actor
        disks("students", "16k"),  # by a training worker
        disks("evaluations", "4k"),  # by the driver
    ]
    command = ("run", "recipe.yaml", "--json", "--out", out, "--address", address)
    for disk in full:
        done = run(*command, cwd=user)
        assert done.returncode == 4, done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert str(disk.folder) in last and "No space left on device" in last and "make room there" in last
        assert "Traceback" not in done.stderr
        disk.grow()
    done = run(*command, cwd=user)
    assert done.returncode == 0, done.stderr
    expected = {"prepare": True, "label": True, "judge": True, "distill": True, "evaluate": False, "export": False}
    assert actions(done.stdout) == expected


def test_a_disk_that_is_full_from_the_start_is_said_to_be(
    user: Path, tmp_path: Path, disks: Callable[[str, str], Disk]
) -> None:
    disk = disks("", "64k")
    done = run("run", "recipe.yaml", "--out", disk.folder, cwd=user)
    assert done.returncode == 4, done.stderr
    assert str(disk.folder) in done.stderr and "no space left" in done.stderr.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_tracking_database_whose_disk_is_full_gets_everything_once_there_is_room(
    tmp_path: Path, disks: Callable[[str, str], Disk]
) -> None:
    disk, out = disks("mlflow", "4m"), tmp_path / "out"
    uri = f"sqlite:///{disk.folder / 'mlflow.db'}"
    with Tracker.start(tracked(uri), out, out / "runs" / "1") as tracker:
        with (disk.folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        tracker.follow("distill/small", out / "metrics.jsonl")
        append(out / "metrics.jsonl", points(range(500)))
        (told,) = tracker.finish(report(), {}, patience_s=8.0)  # time for more attempts than a refusal has
    assert "collegium report" in told
    wait_until(lambda: not any(thread.name == "tracker" for thread in threading.enumerate()))
    disk.grow()
    assert ["sent to MLflow" in line for line in replay(out, uri)] == [True]
    (nested,) = children(uri, tracker.ids()).values()
    assert steps_of(uri, nested) == list(range(500))
    assert client(uri).get_run(tracker.ids()["run_id"]).info.status == "FINISHED"


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object]) -> None:
    """The limit only ends a test that would never."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def mlflow_statuses(out: Path) -> list[str]:
    """Of all parent runs, the newest first."""
    asked = client(f"sqlite:///{out / 'mlflow.db'}")
    runs = asked.search_runs([experiment.experiment_id for experiment in asked.search_experiments()])
    return [run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.campaign
def test_an_interrupted_run_leaves_no_process_and_goes_on_when_asked_again(user: Path, tmp_path: Path) -> None:
    """By a cluster that the command starts itself, beside folders named like our packages."""
    out, log = tmp_path / "out", tmp_path / "log"
    command = ["run", "recipe.yaml", "--json", "--out", str(out), "-o", "students.small.train.steps=1500"]
    driver = subprocess.Popen([COMMAND, *command], cwd=user, stdout=subprocess.DEVNULL, stderr=log.open("wb"))
    wait_until(lambda: any(out.glob("students/*/metrics.jsonl")) or driver.poll() is not None)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGTERM)
    assert (driver.wait(timeout=PATIENCE_S), bool(family)) == (143, True), log.read_text()
    assert log.read_text().endswith("interrupted; the same command goes on from here\n")
    assert "Traceback" not in log.read_text()
    wait_until(lambda: not any(map(is_alive, family)))
    assert mlflow_statuses(out)[0] == "KILLED"

    done = run(*command, cwd=user)
    assert done.returncode == 0, done.stderr
    reused = actions(done.stdout)
    assert (reused["prepare"], reused["label"]) == (True, True)
    assert mlflow_statuses(out) == ["FINISHED", "KILLED"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_process_group_interrupts_a_run_as_one_to_its_driver_does(
    user: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """From a terminal, `timeout` or a batch system: a Ray that dies of it would take the driver along."""
    out, log = tmp_path / "out", tmp_path / "log"
    command = [COMMAND, "run", "recipe.yaml", "--json", "--out", str(out), "-o", "students.small.train.steps=100000"]
    with log.open("wb") as told:
        driver = subprocess.Popen(command, cwd=user, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)
    wait_until(lambda: any(out.glob("soft_targets/*/spec.json")) or driver.poll() is not None)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert family and not [process for process in family if os.getpgid(process.pid) == driver.pid]
    os.killpg(driver.pid, number)
    assert driver.wait(timeout=PATIENCE_S) == 128 + number, log.read_text()
    assert log.read_text().endswith("interrupted; the same command goes on from here\n")
    assert json.loads(next(out.glob("runs/*/run.json")).read_bytes())["state"] == "interrupted"
    wait_until(lambda: not any(map(is_alive, family)))


def test_a_run_that_is_interrupted_while_its_tracking_database_is_made_can_be_started_again(
    user: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [COMMAND, "run", "recipe.yaml", "--out", out]
    driver = subprocess.Popen(command, cwd=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until((out / ".mlflow.lock").exists)
    time.sleep(0.7)  # into the making of its tables
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=PATIENCE_S) == 130
    with Tracker.start(tracked(), out, out / "runs" / "1"):
        pass
    assert mlflow_statuses(out)[0] == "FINISHED"


SWALLOWED = """
import os
import signal
import time
import weakref
from orchestrator.cli.endings import end_well

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def in_a_bare_except():
    try:
        interrupt()
        time.sleep(60)
    except:
        pass

def in_a_callback():
    thing = type("Thing", (), {})()
    kept = weakref.ref(thing, lambda _: interrupt())
    del thing

def beside_a_lock_of_imports():
    done = []
    of_imports = compile("def enter():\\n    interrupt()\\n    done.append(1)", "<frozen importlib._bootstrap>", "exec")
    names = {"interrupt": interrupt, "done": done}
    exec(of_imports, names)
    names["enter"]()
    assert done, "interrupted between a lock and its try"

def command(standalone_mode):
    WHERE()
    time.sleep(60)

end_well(command)
"""


@pytest.mark.parametrize("where", ["in_a_bare_except", "in_a_callback", "beside_a_lock_of_imports"])
def test_a_signal_that_somebody_swallows_ends_the_command_all_the_same(where: str) -> None:
    """MLflow's and Ray's imports swallow some; in importlib's own frames one would leave every import waiting."""
    script = SWALLOWED.replace("WHERE", where)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith("interrupted\n")


def test_without_the_tracking_server_no_work_begins(user: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    uri = "http://somebody:${PASSWORD}@127.0.0.1:9"  # the port that discards; nobody listens
    setting = f"tracking.uri='{uri}'"
    done = run("run", "recipe.yaml", "--out", out, "-o", setting, cwd=user, environment={"PASSWORD": "secret"})
    assert done.returncode == 4, done.stderr
    assert "MLflow at http://127.0.0.1:9 does not answer" in done.stderr
    assert "secret" not in done.stderr and "Traceback" not in done.stderr
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {path.name for path in written} <= {"recipe.yaml", "run.json", ".lock"}
    assert not any("secret" in path.read_text() for path in written)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A model folder from elsewhere whose config would run a command."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    save_file({}, folder / "model.safetensors")
    arguments = {"command": f"touch {tmp_path / 'it_ran'}"}
    config = {"format": 1, "model": "os:system", "arguments": arguments, "classes": ["a", "b"], "preprocess": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_folder_that_names_foreign_code_is_refused_by_run_and_by_predict(
    hostile: Path, user: Path, tmp_path: Path
) -> None:
    teacher = ["-o", f"teachers.mine={{kind: checkpoint, path: {hostile}}}"]
    (tmp_path / "rows.csv").write_text("x\n1\n")
    for arguments, code in [
        (["run", "recipe.yaml", "--out", tmp_path / "out", *teacher], 2),
        (["predict", hostile, tmp_path / "rows.csv"], 1),
    ]:
        done = run(*arguments, cwd=user)
        assert done.returncode == code, done.stderr
        assert "'os:system', not of Collegium's own architectures" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "it_ran").exists()
