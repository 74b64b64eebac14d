"""What `collegium status` says, from files that a run would write; no Ray, and no run."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.search.study import Study, Trial
from orchestrator.stages.stages import Stage
from orchestrator.watching import journal
from orchestrator.watching.journal import Journal
from orchestrator.watching.pulse import SILENT_S
from orchestrator.watching.status import Looker
from orchestrator.watching.status_lines import lines, one_line
from orchestrator.watching.status_stages import Curves
from teachers.process.identity import BOOT, this_process
from tests import warm

PLANNED = ["prepare/transfer_set", "label/wide", "distill/small", "evaluate/small"]
LABELS = Stage("label", "wide", {}, {}, part="train-0")
TRAINING = Stage("distill", "small", {}, {})
STUDENT, CONTROL = "student/seed-0", "control/seed-0"


def begun(out: Path, name: str = "20260101-000000-aaaa", planned: list[str] = PLANNED) -> Journal:
    folder = out / "runs" / name
    folder.mkdir(parents=True)
    return Journal(folder, command="run", recipe="digits", planned=planned)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[Path, Journal]]:
    with begun(tmp_path) as written:
        yield tmp_path, written


def until(condition: Any) -> Any:
    """Wait for what must come; the limit only ends a test that would never."""
    end = time.monotonic() + 60
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    assert found
    return found


def stage(out: Path, title: str) -> dict[str, Any]:
    found = Looker(str(out)).look()
    return next(each for each in found["stages"] if f"{each['stage']}/{each['name']}" == title)


def seen(out: Path, written: Journal, stage: Stage) -> Path:
    """The journal has told that a stage is being built."""
    written.seen(stage, out / stage.folder, None)
    until(lambda: stage.title in journal.read(out / "runs" / "20260101-000000-aaaa")["stages"])  # type: ignore[index]
    folder = out / stage.folder
    folder.mkdir(parents=True)
    return folder


def store(
    folder: Path, *, rows: int, rows_per_shard: int, committed: range, ages: dict[int, float] | None = None
) -> None:
    (folder / "spec.json").write_text(json.dumps({"num_rows": rows, "rows_per_shard": rows_per_shard}))
    (folder / "commits").mkdir()
    for number in committed:
        record = folder / "commits" / f"{number:06d}.json"
        record.touch()  # empty: only names and times are looked at
        if ages:
            os.utime(record, (time.time() - ages[number],) * 2)


def append(path: Path, *points: tuple[str, str, int, float], ago: float = 0.0) -> None:
    with path.open("a") as file:
        for name, key, step, value in points:
            record = {"stage": "distill/small", "run": name, "step": step, "key": key, "value": value}
            file.write(json.dumps({**record, "time": time.time() - ago}) + "\n")


def test_a_run_says_how_it_ended(tmp_path: Path) -> None:
    for name, error, state in [
        ("a", None, "finished"),
        ("b", ValueError, "failed"),
        ("c", KeyboardInterrupt, "interrupted"),
    ]:
        try:
            with begun(tmp_path, name):
                assert Looker(str(tmp_path)).look()["run"]["state"] == "running"
                if error:
                    raise error("no such thing\nand more")
        except (ValueError, KeyboardInterrupt):
            pass
        found = Looker(str(tmp_path), name).look()
        assert found["run"]["state"] == state
        assert found["run"]["error"] == ("no such thing" if state == "failed" else None)
        assert {each["state"] for each in found["stages"]} == {"not begun"}
    assert [each["id"] for each in Looker(str(tmp_path)).look()["runs"]] == ["c", "b", "a"]


def begin_and_die(out: Path) -> None:
    with begun(out):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_whose_process_is_gone_is_killed_not_running(tmp_path: Path) -> None:
    process = warm.process(begin_and_die, tmp_path)
    process.start()
    process.join()
    found = Looker(str(tmp_path)).look()
    assert found["run"]["state"] == "killed" and found["eta_s"] is None
    assert "the same command goes on" in next(lines(found))


@pytest.mark.parametrize(("silent_s", "state"), [(1.0, "running"), (2 * SILENT_S, "killed")])
def test_a_run_on_another_machine_is_believed_as_long_as_it_beats(tmp_path: Path, silent_s: float, state: str) -> None:
    with begun(tmp_path) as written:
        document = json.loads(written.file.read_bytes())
    elsewhere = {"processes": "elsewhere", "state": "running", "beat": time.time() - silent_s}
    written.file.write_text(json.dumps({**document, **elsewhere}))
    assert Looker(str(tmp_path), patience_s=0.5).look()["run"]["state"] == state


@pytest.mark.skipif(not BOOT.exists(), reason="Linux alone gives each start of a machine a name")
def test_machines_of_one_name_are_told_apart() -> None:
    assert BOOT.read_text().strip() in this_process()["processes"]


def test_a_running_run_is_shown_before_a_newer_one_that_has_ended(tmp_path: Path) -> None:
    with begun(tmp_path, "older"):
        with begun(tmp_path, "newer"):
            pass
        assert Looker(str(tmp_path)).look()["run"]["id"] == "older"
        assert Looker(str(tmp_path), "newer").look()["run"]["id"] == "newer"


def test_shards_are_counted_by_the_names_of_their_records(run: tuple[Path, Journal]) -> None:
    out, written = run
    folder = seen(out, written, LABELS)
    assert stage(out, "label/wide")["state"] == "running"  # before there is a store
    store(folder, rows=99_990, rows_per_shard=10, committed=range(9_998))
    (folder / "commits" / ".draft-0").touch()
    found = stage(out, "label/wide")
    assert (found["shards"], found["num_shards"]) == (9_998, 9_999)
    assert (found["rows"], found["num_rows"]) == (99_980, 99_990)


def test_the_last_shard_may_be_short(run: tuple[Path, Journal]) -> None:
    out, written = run
    folder = seen(out, written, LABELS)
    store(folder, rows=25, rows_per_shard=10, committed=range(1, 3))
    assert stage(out, "label/wide")["rows"] == 15
    (folder / "SEAL.json").touch()
    found = stage(out, "label/wide")
    assert (found["state"], found["rows"], found["shards"]) == ("done", 25, 3)


def test_speed_is_of_the_last_minute_of_this_run_and_falls_when_nothing_comes(run: tuple[Path, Journal]) -> None:
    out, written = run
    folder = seen(out, written, LABELS)
    document = json.loads(written.file.read_bytes())
    document["stages"][LABELS.title]["since"] = time.time() - 45
    ages = {0: 3600.0, 1: 50.0} | {number: float(42 - 2 * number) for number in range(2, 22)}  # the newest is now
    store(folder, rows=1000, rows_per_shard=10, committed=range(22), ages=ages)
    written.file.write_text(json.dumps(document))
    found = stage(out, "label/wide")
    assert found["shards_per_s"] == pytest.approx(0.5, rel=0.05)
    assert found["rows_per_s"] == pytest.approx(5, rel=0.05)
    assert found["eta_s"] == pytest.approx((1000 - 220) / 5, rel=0.05)
    for number in range(2, 22):
        os.utime(folder / "commits" / f"{number:06d}.json", (time.time() - 44 + number / 10,) * 2)
    assert stage(out, "label/wide")["shards_per_s"] < 0.5


def test_trainings_say_step_epoch_and_what_is_left(run: tuple[Path, Journal]) -> None:
    out, written = run
    folder = seen(out, written, TRAINING)
    budget = {"steps": 100, "batch_size": 32, "rows": 640, "folder": TRAINING.folder}
    written.work("distill/small", workers=2, gpus=0.5, trainings={STUDENT: budget, CONTROL: budget})
    until(lambda: "trainings" in stage(out, "distill/small"))
    for step in (10, 20):
        append(folder / "metrics.jsonl", (STUDENT, "train.loss", step, 1 / step), ago=30 - step)
    append(folder / "metrics.jsonl", (STUDENT, "validation.nll", 20, float("nan")))
    found = stage(out, "distill/small")
    student, control = found["trainings"]
    assert (student["step"], student["epoch"], student["epochs"]) == (20, 1.0, 5.0)
    assert student["metrics"] == {"train.loss": 1 / 20, "validation.nll": None}
    assert (control["step"], control["done"]) == (0, False)
    assert found["steps_per_s"] == pytest.approx(0.5, rel=0.1)
    assert found["eta_s"] == pytest.approx(180 / 0.5, rel=0.1)
    (folder / STUDENT).mkdir(parents=True)
    (folder / STUDENT / "SEAL.json").touch()
    assert stage(out, "distill/small")["trainings"][0]["done"]
    done = CliRunner().invoke(collegium, ["status", str(out), "--json"])
    assert json.loads(done.stdout, parse_constant=pytest.fail)["format"] == 1


def test_what_a_resumed_training_says_again_changes_nothing(tmp_path: Path) -> None:
    path, once = tmp_path / "metrics.jsonl", tmp_path / "once.jsonl"
    points = [(f"student/seed-{seed}", key, step, step / 7) for seed in range(2) for key in "ab" for step in range(50)]
    append(once, *points)
    draw, read_on = random.Random(0), Curves(path)
    for first in range(0, 200, 20):
        append(path, *points[max(0, first - draw.randrange(40)) : first + 20])
        read_on.read_on()
    with path.open("a") as file:
        file.write('{"stage": "distill/sm')  # killed in the middle of a line
    whole, at_once = Curves(once), Curves(path)
    whole.read_on(), at_once.read_on(), read_on.read_on()

    def values(curves: Curves) -> dict[str, Any]:
        return {
            name: {key: (r["step"], r["value"]) for key, r in newest.items()} for name, newest in curves.newest.items()
        }

    assert values(whole) == values(at_once) == values(read_on)


def test_a_study_says_how_many_trials_of_how_many(tmp_path: Path) -> None:
    with begun(tmp_path, planned=["tune/small"]) as written:
        assert stage(tmp_path, "tune/small")["state"] == "waiting"
        written.work("tune/small", trials=4, control_trials=2, metric="validation.accuracy", direction="max")
        until(lambda: stage(tmp_path, "tune/small")["state"] == "running")
        study = Study.open(tmp_path / "studies" / "small", {"recipe": "digits"})
        for number, (who, state) in enumerate(
            [("control", "finished"), ("student", "finished"), ("student", "pruned")]
        ):
            values = {"validation.accuracy": 0.9 + number / 100, "validation.nll": 0.1}
            study.add(Trial(number, who, {"t": number}, state, values, time=time.time() - 5 + number))  # type: ignore[arg-type]
        found = stage(tmp_path, "tune/small")
        assert (found["trials"], found["num_trials"], found["control_trials"]) == (2, 4, 1)
        assert (found["finished"], found["pruned"], found["failed"]) == (2, 1, 0)
        assert found["best"] == {"trial": 1, "value": pytest.approx(0.91), "params": {"t": 1}}
        assert found["eta_s"] is not None
        written.work("tune/small", done=True)
        until(lambda: stage(tmp_path, "tune/small")["state"] == "done")


def test_the_page_fits_a_terminal_and_a_line_says_what_goes_on(run: tuple[Path, Journal]) -> None:
    out, written = run
    store(seen(out, written, LABELS), rows=1797, rows_per_shard=64, committed=range(12))
    folder = seen(out, written, TRAINING)
    trainings = {STUDENT: {"steps": 1600, "batch_size": 64, "rows": 1258, "folder": TRAINING.folder}}
    written.work("distill/small", workers=2, gpus=1.0, trainings=trainings)
    written.work("label/wide", replicas=4, ready=3, gpus=0.25)
    written.on([{"Resources": {"CPU": 8.0, "GPU": 2.0}}] * 2)
    figures = {"train.loss": 0.31234, "train.learning_rate": 0.00231, "train.wait_s": 0.01, "validation.nll": 0.5871}
    figures["validation.accuracy"] = 0.9142
    append(folder / "metrics.jsonl", *((STUDENT, key, 350, value) for key, value in figures.items()))
    until(lambda: stage(out, "label/wide").get("ready") == 3)
    found = {**Looker(str(out)).look(), "out": "out/digits"}
    found["run"]["cluster"] = found["run"]["cluster"] or {"nodes": 2, "cpus": 16, "gpus": 4}
    page = [*lines(found)]
    assert max(map(len, page)) <= 80, page
    text = "\n".join(page)
    assert "12/29 shards" in text and "3/4 replicas ready" in text and "validation.accuracy 0.9142" in text
    assert "step 350/1600" in one_line(found) and "\n" not in one_line(found)


def test_watching_ends_with_the_run(tmp_path: Path) -> None:
    written = begun(tmp_path)

    def go() -> None:
        with written:
            until(lambda: told)

    told: list[object] = []
    thread = threading.Thread(target=go)
    thread.start()
    until(lambda: written.file.exists())
    threading.Timer(0.5, told.append, [None]).start()
    done = CliRunner().invoke(collegium, ["status", str(tmp_path), "--watch"])
    thread.join()
    assert done.exit_code == 0 and "finished" in done.stdout and "0/4 stages" in done.stdout


def test_without_a_run_there_is_one_line_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in [([], "collegium run"), (["."], "holds no run"), (["nowhere"], "no folder")]:
        done = warm.run(["status", *arguments], tmp_path, os.environ)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_an_out_the_one_with_the_run_that_goes_on_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with begun(tmp_path / "out" / "old"), begun(tmp_path / "out" / "new"):
        pass
    assert json.loads(CliRunner().invoke(collegium, ["status", "--json"]).stdout)["out"] == "out/new"
    with begun(tmp_path / "out" / "old", "again"), begun(tmp_path / "out" / "newest"):
        pass
    document = tmp_path / "out" / "old" / "runs" / "again" / journal.NAME
    document.write_text(json.dumps({**json.loads(document.read_bytes()), "state": "running"}))
    assert json.loads(CliRunner().invoke(collegium, ["status", "--json"]).stdout)["out"] == "out/old"


def test_looking_needs_none_of_the_heavy_packages(run: tuple[Path, Journal]) -> None:
    code = (
        "import sys; from orchestrator.cli.main import collegium; "
        f"collegium(['status', {str(run[0])!r}], standalone_mode=False); "
        "sys.exit(bool({'torch', 'ray', 'mlflow', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")
