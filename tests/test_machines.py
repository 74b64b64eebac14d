"""What differs from machine to machine: where Ray lives on it, how much it may take, and how places and sizes are written."""

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.out import for_smoke
from orchestrator.cluster.environment import SOCKET, ray_folder, use_short_folder
from orchestrator.cluster.joining import _on_this_machine
from orchestrator.cluster.object_store import object_store_bytes
from orchestrator.recipe.load import load_recipe
from teachers.errors import EnvironmentUnfit, RecipeError
from teachers.process.identity import BOOT, is_process, this_process
from teachers.storage import anew, room
from teachers.storage.place import CACHE, is_uri, place, remote_of, spoken

ROOT = Path(__file__).parents[1]
SETTINGS = [
    {},
    {"TMPDIR": "/var/folders/zz/x"},
    {"RAY_TMPDIR": "/r"},
    {"RAY_TMPDIR": "/r", "TMPDIR": "/var/folders/zz/x"},
]


def test_on_macos_rays_store_is_at_most_what_ray_takes_there() -> None:
    live = load_recipe(ROOT / "recipes" / "digits.yaml", ["teachers.wide.mode=live"])
    room_here = 64 << 30
    assert object_store_bytes(live, platform="darwin", room=room_here) == 2 << 30
    assert object_store_bytes(live, platform="linux", room=room_here) == 8 << 30
    assert object_store_bytes(live, platform="darwin", room=1 << 30) == 1 << 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Ray itself is asked, on the system that it runs on")
@pytest.mark.parametrize("variables", SETTINGS, ids=lambda found: "+".join(found) or "nothing")
def test_ray_is_looked_for_where_it_puts_itself(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.utils import get_default_ray_temp_dir

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ray_folder(variables, "linux") == Path(get_default_ray_temp_dir())


@pytest.mark.parametrize("variables", SETTINGS, ids=lambda found: "+".join(found) or "nothing")
def test_on_macos_tmpdir_says_nothing_of_where_ray_is(variables: dict[str, str]) -> None:
    assert ray_folder(variables, "darwin") == Path(variables.get("RAY_TMPDIR", "/tmp"), "ray")


def test_a_cluster_that_was_started_on_this_machine_is_found_by_what_it_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert _on_this_machine() == "10.0.0.1:6379"


def test_a_temporary_folder_that_is_too_long_for_rays_sockets_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("RAY_TMPDIR", "given")  # so that it is as it was afterwards
    for length in (30, 33, 34, 100):
        monkeypatch.delenv("RAY_TMPDIR")
        monkeypatch.setenv("TMPDIR", "/" + "x" * (length - 1))
        use_short_folder()
        assert len(os.fsencode(ray_folder(os.environ, "linux"))) + len(SOCKET) <= 103
        assert ("RAY_TMPDIR" in os.environ) == (length + len("/ray") + len(SOCKET) > 103)
        os.environ.setdefault("RAY_TMPDIR", "")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize("prefix", ["", "/x", "/x/y z"])
def test_a_path_that_was_made_of_an_address_is_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, prefix: str
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    uri = f"{scheme}://box{prefix}"
    assert place(Path(uri)) == place(uri)
    assert str(remote_of(place(Path(uri)))) == spoken(place(uri)) == uri


def test_run_tune_and_plan_take_a_bucket_as_text_and_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import plan, run, tune

    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(ROOT / "recipes" / "search.yaml")
    for call in (run, tune, plan):
        for out in ("s3://no bucket:1/x", Path("s3://no bucket:1/x")):
            with pytest.raises(RecipeError, match=r"--out s3://no bucket:1/x: names no place"):
                call(recipe, out)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("out", ["s3://me:hid/den@box/x", "s3://me:hid@den@box/x", "s3://hidden@box/x"])
def test_credentials_in_an_out_are_refused_and_not_said(out: str) -> None:
    with pytest.raises(RecipeError, match="credentials do not belong") as found:
        place(out)
    assert "hid" not in str(found.value)


def test_a_folder_is_no_address() -> None:
    for folder in ("out/x", "/shared/s3/x", "s3", "s3x:/y", "C:/x"):
        assert not is_uri(folder) and not is_uri(Path(folder))


SIZES = {
    "1000": 1000, "10GB": 10 * 10**9, "10 GB": 10 * 10**9, "10G": 10 * 10**9, "10GiB": 10 << 30, "512Mi": 512 << 20,
    "1.5TB": 1500 * 10**9, "64kB": 64_000, "64 KiB": 64 << 10, "7b": 7, " 5MB ": 5 * 10**6, "0": 0,
}  # fmt: skip


@pytest.mark.parametrize("said", SIZES)
def test_a_size_is_understood_as_people_write_it(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(room.LIMIT, said)
    assert room.limit(held=123) == SIZES[said]


@given(st.integers(0, 2**60), st.sampled_from([("", 1), ("KiB", 2**10), ("MB", 10**6), ("Gi", 2**30)]))
def test_a_whole_number_of_a_unit_is_exact(number: int, unit: tuple[str, int]) -> None:
    found = room.SIZE.fullmatch(f"{number}{unit[0]}")
    assert found is not None and room.in_bytes(found) == number * unit[1]


@pytest.mark.parametrize("said", ["much", "10 elephants", "-1", "10GB of it", "1e9", "0x10"])
def test_what_is_no_size_is_refused_before_anything_is_done(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setenv(room.LIMIT, said)
    with pytest.raises(EnvironmentUnfit, match=rf"COLLEGIUM_CACHE_BYTES is '{said}'; expected .* 10GB"):
        anew.check(place("s3://box/x"))


def test_a_smoke_run_has_a_place_of_its_own_and_never_another_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    assert for_smoke(tmp_path / "out") == tmp_path / "out-smoke"
    assert str(remote_of(for_smoke(place("s3://box/out")))) == "s3://box/out-smoke"
    assert str(remote_of(for_smoke(place("s3://box")))) == "s3://box/smoke"


@pytest.mark.skipif(not BOOT.exists(), reason="Linux alone says when a process began without a clock")
def test_a_process_is_known_by_what_no_clock_changes() -> None:
    import psutil

    me = this_process()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 0 < me["process_start"] <= since_boot
    assert abs(time.time() - psutil.Process().create_time() - (since_boot - me["process_start"])) < 1.0
    assert is_process(me["pid"], me["process_start"]) and not is_process(me["pid"], me["process_start"] - 5)
    assert not is_process(2**22 + 1, me["process_start"])
