"""Stages: a key of what decides, reuse of what is sealed, repair of what is damaged."""

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.stages.locks import folder_lock
from orchestrator.stages.reasons import flat
from orchestrator.stages.stages import Stage, Stages
from teachers.errors import EnvironmentUnfit, StoreError
from teachers.process.waiting import GivenUp, SideBySide
from teachers.storage.checking import check_seal
from teachers.storage.seal import Seal, inside, publish, read_seal, write_seal


def stage(**config: object) -> Stage:
    return Stage("label", "wide", {"temperature": 1.0, **config}, {"teacher weights": "abc"})


def fill(folder: Path) -> tuple[Seal, dict[str, object]]:
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a" / "x.bin").write_bytes(b"x" * 100)
    (folder / "y.bin").write_bytes(b"y" * 100)
    return write_seal(folder, ["a/x.bin", "y.bin"]), {}


def opened(path: Path) -> Stages:
    stages = Stages(path)
    stages.open()
    return stages


def test_a_key_depends_on_what_decides_and_on_nothing_else() -> None:
    assert stage().key == Stage("label", "other_name", {"temperature": 1.0}, {"teacher weights": "abc"}, "part").key
    assert stage().key != stage(temperature=2.0).key
    assert stage().key != Stage("label", "wide", {"temperature": 1.0}, {"teacher weights": "abd"}).key


def called(name: str) -> Stage:
    return Stage("label", name, {"temperature": 1.0}, {"teacher weights": "abc"})


def test_a_stage_is_found_by_its_key_whatever_it_was_called(tmp_path: Path) -> None:
    first = opened(tmp_path).build(called("wide"), fill)
    second = opened(tmp_path).build(called("broad"), lambda _: pytest.fail("built twice"))
    assert second.reused and second.folder == first.folder and first.folder.name.startswith("wide-")
    assert second.record()["name"] == "broad"
    (first.folder / "y.bin").write_bytes(b"bad")
    again = opened(tmp_path).build(called("broad"), fill)
    assert again.reason.startswith("repaired") and again.folder == first.folder


def test_an_interrupted_stage_is_continued_under_another_name_and_a_whole_one_is_preferred(tmp_path: Path) -> None:
    def die(folder: Path) -> tuple[Seal, dict[str, object]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path).build(called("wide"), die)
    whole = tmp_path / called("deep").folder
    whole.mkdir()
    fill(whole)
    assert opened(tmp_path).build(called("wide"), lambda _: pytest.fail("built twice")).folder == whole
    (whole / "SEAL.json").unlink()
    assert opened(tmp_path).build(called("wide"), fill).folder.name.startswith("wide-")


def test_stages_of_one_key_are_built_once_and_each_has_its_name(tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    stages = Stages(tmp_path, lambda stage, folder, built: told.append((stage.name, built is not None)))
    stages.open()
    asked = [called("wide"), stage(temperature=2.0), called("broad")]

    def build(folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, dict[str, object]]]:
        assert len(folders) == 2
        return {each: fill(folder) for each, folder in folders.items()}

    built = stages.build_together(asked, build)
    assert [*map(built.__getitem__, asked)][2].digest == built[asked[0]].digest
    assert [built[each].reused for each in asked] == [False, False, True]
    assert built[asked[2]].reason == "shared with label/wide"
    assert ("broad", True) in told and ("broad", False) not in told


def test_a_value_without_a_stable_form_has_no_key() -> None:
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises((TypeError, ValueError)):
            _ = stage(extra=value).key


def test_a_sealed_stage_is_reused_and_an_unsealed_one_is_built(tmp_path: Path) -> None:
    first = opened(tmp_path).build(stage(), fill)
    second = opened(tmp_path).build(stage(), lambda _: pytest.fail("built twice"))
    assert (first.reused, second.reused) == (False, True)
    assert first.digest == second.digest
    assert first.reason == "not built before"


def test_the_reason_names_what_changed(tmp_path: Path) -> None:
    stages = opened(tmp_path)
    stages.build(stage(), fill)
    assert stages.build(stage(temperature=4.0), fill).reason == "temperature: 1.0 -> 4.0"
    other = Stage("label", "wide", {"temperature": 4.0}, {"teacher weights": "new"})
    assert stages.build(other, fill).reason == "teacher weights changed"


def test_an_unfinished_stage_is_continued_in_its_folder(tmp_path: Path) -> None:
    def die(folder: Path) -> tuple[Seal, dict[str, object]]:
        (folder / "kept").write_bytes(b"1")
        raise KeyboardInterrupt

    stages = opened(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stages.build(stage(), die)
    built = stages.build(stage(), fill)
    assert built.reason.startswith("continued")
    assert (built.folder / "kept").exists()


@pytest.mark.parametrize("damage", [b"z" * 100, b"short", None])
def test_a_damaged_output_is_quarantined_rebuilt_and_said(tmp_path: Path, damage: bytes | None) -> None:
    built = opened(tmp_path).build(stage(), fill)
    victim = built.folder / "a" / "x.bin"
    victim.unlink()
    if damage is not None:
        victim.write_bytes(damage)
    again = opened(tmp_path).build(stage(), fill)
    assert again.reason.startswith("repaired: a/x.bin")
    assert again.digest == built.digest
    assert list((tmp_path / "quarantine").iterdir())
    assert not check_seal(again.folder, again.seal, hashes=True)


def test_only_the_innermost_sealed_part_is_rebuilt(tmp_path: Path) -> None:
    def two_parts(folder: Path) -> tuple[Seal, dict[str, object]]:
        for part in ("one", "two"):
            if read_seal(folder / part) is None:
                (folder / part).mkdir(exist_ok=True)
                (folder / part / "data").write_bytes(part.encode())
                (folder / part / "when").write_bytes(str(time.time_ns()).encode())
                write_seal(folder / part, ["data"])
        return write_seal(folder, ["one/data", "one/SEAL.json", "two/data", "two/SEAL.json"]), {}

    built = opened(tmp_path).build(stage(), two_parts)
    kept = (built.folder / "two" / "when").read_bytes()
    (built.folder / "one" / "data").write_bytes(b"bad")
    again = opened(tmp_path).build(stage(), two_parts)
    assert again.digest == built.digest
    assert (again.folder / "two" / "when").read_bytes() == kept


def test_a_seal_that_was_cut_short_is_rebuilt(tmp_path: Path) -> None:
    built = opened(tmp_path).build(stage(), fill)
    (built.folder / "SEAL.json").write_text('{"format": 1, "dig')
    assert opened(tmp_path).build(stage(), fill).digest == built.digest


def test_a_newer_format_is_refused_naming_both(tmp_path: Path) -> None:
    (tmp_path / "SEAL.json").write_text(json.dumps({"format": 99, "outputs": [], "digest": ""}))
    with pytest.raises(StoreError, match="format 99, this program reads 1; update Collegium"):
        read_seal(tmp_path)


def test_the_first_writer_of_a_file_wins(tmp_path: Path) -> None:
    assert publish(tmp_path / "x", b"first")
    assert not publish(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "link/x"])
def test_a_record_cannot_name_a_file_outside_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="leaves the folder"):
        inside(tmp_path / "inner", path)


def test_an_out_that_cannot_be_written_is_unfit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentUnfit, match="cannot be written"):
        Stages(tmp_path / "file" / "out").open()


def _slow_builder(out: str, log: str) -> None:
    def build(folder: Path) -> tuple[Seal, dict[str, object]]:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return fill(folder)

    opened(Path(out)).build(stage(), build)


def test_two_runs_in_one_out_build_a_stage_once_and_a_dead_ones_lock_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    log.touch()
    runs = [context.Process(target=_slow_builder, args=(str(tmp_path / "out"), str(log))) for _ in range(3)]
    for process in runs:
        process.start()
    while not log.read_text():
        time.sleep(0.01)
    first = int(log.read_text().splitlines()[0])
    os.kill(first, signal.SIGKILL)
    for process in runs:
        process.join()
    assert len(log.read_text().splitlines()) == 2  # the killed one, and one of those that waited
    assert sum(process.exitcode == 0 for process in runs) == 2
    assert not check_seal(tmp_path / "out" / stage().folder, read_seal(tmp_path / "out" / stage().folder), hashes=True)  # type: ignore[arg-type]


def test_flat_names_every_leaf() -> None:
    assert flat({"a": [{"b": 1}, 2], "c": {}}) == {"a.0.b": 1, "a.1": 2, "c": {}}


def test_who_waits_for_another_runs_stage_says_so_and_since_when_and_ends_with_its_own_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def build() -> None:
        opened(tmp_path).build(stage(), fill)

    def fail() -> None:
        time.sleep(7)
        raise ValueError("another stage")

    caplog.set_level("INFO")
    (tmp_path / stage().folder).mkdir(parents=True)
    with folder_lock(tmp_path / stage().folder, "label/wide"):
        with pytest.raises(ValueError, match="another stage"), SideBySide("test", 2) as threads:
            waiting = threads.start(build)
            threads.start(fail)
            threads.outcome(waiting)
        assert isinstance(waiting.exception(), GivenUp)
    told = r"waiting since \d\d:\d\d:\d\d \(\d+ s\): another run is building label/wide"
    assert re.search(told, caplog.text)
