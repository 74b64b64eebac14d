"""Files of a run that are cut short, and clocks that are off: each costs that run at most, and no other."""

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.tracking.late import Late, replay
from orchestrator.tracking.ledger import Ledger
from orchestrator.tracking.server import experiment_link, resolve_uri
from orchestrator.tracking.tracker import Tracker
from orchestrator.watching import journal
from orchestrator.watching.status import Looker
from teachers.process import log_lines

from .test_status import begun, until
from .test_tracking import client, recipe

HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def nothing_was_told() -> None:
    log_lines.once.cache_clear()


def cut_short(path: Path) -> None:
    payload = path.read_bytes()
    path.write_bytes(payload[: len(payload) // 2])


def a_run(out: Path, name: str) -> Path:
    """A run that has ended; its folder."""
    with begun(out, name) as written, Tracker.start(recipe(), out, written.file.parent):
        pass
    return written.file.parent


@pytest.mark.parametrize("damage", ["cut short", "of another shape", "not text"])
def test_a_damaged_ledger_costs_that_runs_curves_and_is_told_once_a_command(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = a_run(tmp_path, "1") / "tracking.json"
    if damage == "cut short":
        cut_short(file)
    else:
        file.write_bytes(b'{"format": 1}' if damage == "of another shape" else b"\xff\xfe")
    with caplog.at_level(logging.WARNING):
        folder = a_run(tmp_path, "2")
        assert replay(tmp_path) == []
    assert "tracking.json" in caplog.text and len(caplog.records) == 1
    assert Ledger.open(folder).experiment_id in experiment_link(tmp_path, "http://page")


def test_a_journal_that_is_cut_short_is_passed_over_and_told(tmp_path: Path) -> None:
    cut_short(a_run(tmp_path, "1") / "run.json")
    ledger = json.loads((tmp_path / "runs" / "1" / "tracking.json").read_bytes())
    (tmp_path / "runs" / "1" / "tracking.json").write_text(json.dumps({**ledger, "closed": False}))
    a_run(tmp_path, "2")
    assert replay(tmp_path) == []
    found = Looker(str(tmp_path)).look()
    assert [run["id"] for run in found["runs"]] == ["2"]
    assert CliRunner().invoke(collegium, ["status", str(tmp_path)]).exit_code == 0


def test_a_report_that_is_cut_short_leaves_those_before_it(tmp_path: Path) -> None:
    from orchestrator.reporting.document import FORMAT
    from orchestrator.reporting.kept import newest_report

    for name in ("1", "2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "report.json").write_text(json.dumps({"format": FORMAT, "recipe": name}))
    cut_short(tmp_path / "runs" / "2" / "report.json")
    assert newest_report(tmp_path)[0].name == "1"
    cut_short(tmp_path / "runs" / "1" / "report.json")
    done = CliRunner().invoke(collegium, ["report", str(tmp_path)])
    assert "holds no finished run" in str(done.exception)


def test_a_stage_whose_record_is_cut_short_is_left_out_of_the_list(tmp_path: Path) -> None:
    from orchestrator.stages.stages import FORMAT

    for name in ("whole", "torn"):
        (tmp_path / "students" / f"{name}-123").mkdir(parents=True)
        (tmp_path / "students" / f"{name}-123" / "STAGE.json").write_text(
            json.dumps({"format": FORMAT, "name": name, "part": ""})
        )
    cut_short(tmp_path / "students" / "torn-123" / "STAGE.json")
    done = CliRunner().invoke(collegium, ["students", "ls", str(tmp_path), "--json"])
    assert done.exit_code == 0 and "whole-123" in done.stdout and "torn-123" not in done.stdout


class Elsewhere:
    """A run of a machine whose clock is off by `off_s`: it beats, or has died. Its ledger is open, as while it goes on."""

    def __init__(self, out: Path, off_s: float, *, beats: bool) -> None:
        self.folder, self.off_s, self.over = a_run(out, "elsewhere"), off_s, threading.Event()
        ledger = json.loads((self.folder / "tracking.json").read_bytes())
        (self.folder / "tracking.json").write_text(json.dumps({**ledger, "closed": False}))
        self.beat()
        self.thread = threading.Thread(target=self.go_on)
        if beats:
            self.thread.start()

    def beat(self) -> None:
        document = json.loads((self.folder / journal.NAME).read_bytes())
        said = {"processes": "of another machine", "state": "running", "ended": None, "beat": time.time() + self.off_s}
        draft = self.folder / ".draft"
        draft.write_text(json.dumps({**document, **said}))
        draft.replace(self.folder / journal.NAME)

    def go_on(self) -> None:
        while not self.over.wait(0.2):
            self.beat()

    def end(self) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()

    @property
    def is_closed(self) -> bool:
        return Ledger.open(self.folder).closed


@pytest.fixture
def elsewhere(tmp_path: Path) -> Any:
    made: list[Elsewhere] = []

    def make(off_s: float, *, beats: bool) -> Elsewhere:
        made.append(Elsewhere(tmp_path, off_s, beats=beats))
        return made[-1]

    yield make
    for run in made:
        run.end()


OFF = pytest.mark.parametrize("off_s", [-HOUR_S, HOUR_S], ids=["behind", "ahead"])


@OFF
def test_a_run_elsewhere_that_beats_goes_on_whatever_its_clock_says(
    tmp_path: Path, elsewhere: Any, off_s: float
) -> None:
    run = elsewhere(off_s, beats=True)
    assert Looker(str(tmp_path), patience_s=30).look()["run"]["state"] == "running"
    assert replay(tmp_path, patience_s=30) == [] and not run.is_closed
    late = Late(tmp_path, resolve_uri(None, tmp_path), silent_s=1.0)
    for _ in range(12):
        assert late.close_abandoned() == 0
        time.sleep(0.25)


@OFF
def test_a_run_elsewhere_that_has_died_is_ended_whatever_its_clock_says(
    tmp_path: Path, elsewhere: Any, off_s: float
) -> None:
    run = elsewhere(off_s, beats=False)
    assert Looker(str(tmp_path), patience_s=1.0).look()["run"]["state"] == "killed"
    late = Late(tmp_path, resolve_uri(None, tmp_path), silent_s=1.0)
    assert late.close_abandoned() == 0, "it may beat yet"
    until(late.close_abandoned)
    assert run.is_closed and len([*late.send()]) == 1
    uri, ids = resolve_uri(None, tmp_path), Ledger.open(run.folder)
    assert client(uri).get_run(ids.run_id).info.status == "KILLED"


def test_a_report_ends_a_run_elsewhere_that_does_not_beat_while_it_looks(tmp_path: Path, elsewhere: Any) -> None:
    run = elsewhere(-HOUR_S, beats=False)
    assert "sent" in replay(tmp_path, patience_s=1.0)[0] and run.is_closed


def test_a_run_elsewhere_that_dies_meanwhile_is_ended_by_one_that_goes_on(tmp_path: Path, elsewhere: Any) -> None:
    run = elsewhere(-HOUR_S, beats=True)
    with begun(tmp_path, "mine") as mine, Tracker.start(recipe(), tmp_path, mine.file.parent, silent_s=1.0):
        time.sleep(2.0)
        assert not run.is_closed
        run.end()
        until(lambda: run.is_closed)
