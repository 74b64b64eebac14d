"""The command as a person meets it: help, exit codes, messages without tracebacks."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from teachers.transfer_set.transfer_set import TransferSet
from tests import warm

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).parent / "collegium"


def run(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return warm.run(arguments, cwd, os.environ | environment)


def commands(group=collegium, path=()):  # type: ignore[no-untyped-def]
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(
    "path,command", list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_and_every_option_too(path: tuple[str, ...], command: object) -> None:
    done = CliRunner().invoke(collegium, [*path, "--help"])
    assert done.exit_code == 0
    assert command.help and all(getattr(p, "help", "x") for p in command.params if p.param_type_name == "option")  # type: ignore[attr-defined]


def test_a_mistyped_command_is_told_the_nearest(tmp_path: Path) -> None:
    done = run("distil", cwd=tmp_path)
    assert (done.returncode, "distill" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "arguments,code,message",
    [
        (["run", "nowhere.yaml"], 2, "no such file"),
        (["plan", "digit"], 2, "did you mean digits?"),
        (["plan", "-o", "students.small.train.stps=1"], 2, "did you mean steps?"),
        (["plan", "-o", "teachers.wide.model=not_there:net"], 2, "no module 'not_there'"),
        (["plan", "-o", "teachers.wide.model=teachers.zoo:convnet"], 2, "has no 'convnet'"),
        (["plan", "fashion", "-o", "transfer_set.source.path=not/here"], 2, "no such file or folder 'not/here'"),
        (
            [
                "plan",
                "--check",
                "-o",
                "students.small.model=teachers.zoo:conv_net",
                "-o",
                "students.small.arguments={width: x}",
            ],
            2,
            "students.small",
        ),
        (["plan", "-o", "teachers.wide.classes=[a, b]"], 2, "teachers.wide"),
        (["run", "--out", "/proc/nothing"], 4, "cannot be written"),
        (["plan", "--out", "/etc/hostname"], 2, "is a file"),
        (["report", "."], 2, "no finished run"),
        (["store", "ls", "."], 1, "no soft-target store"),
    ],
)
def test_a_users_mistake_is_one_message_and_an_exit_code(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_writes_nothing(tmp_path: Path) -> None:
    done = run("plan", "--json", "--check", "--out", "out", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["stages"][0]["action"] == "build"
    assert [each["who"] for each in told["memory"]] == ["teachers.wide", "teachers.deep", "students.small"]
    assert not list(tmp_path.iterdir())


def test_init_writes_a_recipe_that_plan_accepts_and_never_overwrites(tmp_path: Path) -> None:
    assert run("init", cwd=tmp_path).returncode == 0
    planned = run("plan", "recipe.yaml", cwd=tmp_path)
    assert planned.returncode == 0
    assert re.search(r"^about [1-9][0-9.]* KiB of [0-9,.]+ MiB free", planned.stdout, re.MULTILINE)
    assert run("init", cwd=tmp_path).returncode == 2
    told = run("init", "not/here.yaml", cwd=tmp_path)
    assert (told.returncode, "there is no folder not; make it first" in told.stderr) == (2, True)


def test_init_lists_jobs_and_recipes_and_every_one_can_be_taken(tmp_path: Path) -> None:
    listed = [
        line.split()[0] for line in run("init", "--list", cwd=tmp_path).stdout.splitlines() if line.startswith("  ")
    ]
    assert {"image_folder", "table", "answers", "digits"} <= set(listed)
    assert run("init", "rows.yaml", "--from", "table", cwd=tmp_path).returncode == 0
    told = run("plan", "rows.yaml", cwd=tmp_path)
    assert told.returncode == 2 and "no such file or folder 'table.csv'" in told.stderr


@pytest.mark.slow
def test_a_server_that_is_interrupted_says_that_it_stopped_and_leaves_nobody(tmp_path: Path) -> None:
    from orchestrator.tracking.server import connect

    connect(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, "digits")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [COMMAND, "ui", str(tmp_path), "--port", str(port)]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ui.stdout is not None and f":{port}" in ui.stdout.readline()
    ui.send_signal(signal.SIGINT)
    said, complained = ui.communicate()
    assert (ui.returncode, said.splitlines()[-1], complained) == (0, "server stopped", "")
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_help_is_quick_next_to_importing_torch(tmp_path: Path) -> None:
    """No time limit: as a ratio, in one run, of the same machine."""

    def seconds(command: list[str]) -> float:
        begun = time.perf_counter()
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        return time.perf_counter() - begun

    pairs = [(seconds([str(COMMAND), "--help"]), seconds([sys.executable, "-c", "import torch"])) for _ in range(3)]
    assert min(ours for ours, _ in pairs) < min(torch for _, torch in pairs)


def test_no_line_of_help_is_wider_than_a_terminal(tmp_path: Path) -> None:
    for path, _ in commands():
        for line in CliRunner().invoke(collegium, [*path, "--help"], terminal_width=110).output.splitlines():
            assert len(line) <= 110 and not re.search(r"\t", line)


def test_stores_are_listed_verified_and_exported(digits: TransferSet, tmp_path: Path) -> None:
    from teachers.soft_targets.schema import Spec
    from teachers.soft_targets.store import SoftTargetStore

    segment = digits.of("test")[0]
    spec = Spec("wide", "0" * 64, segment.name, segment.digest, "dense", digits.classes, segment.num_rows, 64)
    store = SoftTargetStore.create(tmp_path / "store", spec)
    for number in range(store.num_shards):
        first, rows = store.shard_rows(number)
        logits = np.random.default_rng(number).normal(size=(rows, 10)).astype(np.float32)
        store.commit(number, digits.keys(segment)[first : first + rows], {"logits": logits})
    store.seal()
    assert "wide" in run("store", "ls", "store", cwd=tmp_path).stdout
    assert run("store", "verify", "store", cwd=tmp_path).returncode == 0
    assert run("store", "gc", "store", cwd=tmp_path).stdout == "0 files removed\n"
    assert run("store", "export", "store", "--parquet", "a.parquet", cwd=tmp_path).returncode == 0
    assert pq.read_table(tmp_path / "a.parquet").num_rows == segment.num_rows
    shard = next((tmp_path / "store" / "shards").iterdir())
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    damaged = run("store", "verify", "store", cwd=tmp_path)
    assert (damaged.returncode, shard.name in damaged.stdout) == (1, True)


def test_the_data_of_scikit_learn_is_named_without_importing_it() -> None:
    code = (
        "import sys; from teachers.config.transfer_set import SklearnSource; from teachers.sources.arrays import sklearn_digest; "
        "print(sklearn_digest(SklearnSource(kind='sklearn', name='digits')), 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"digits@scikit-learn=={version('scikit-learn')}", "False"]


def test_help_imports_nothing_that_only_the_commands_need() -> None:
    code = (
        "import sys; from orchestrator.cli.main import collegium; collegium(['--help'], standalone_mode=False); "
        "print([name for name in ('pydantic', 'yaml', 'psutil', 'numpy', 'pyarrow', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_file_where_a_model_folder_is_meant_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"x")
    done = run("plan", "-o", "teachers.wide={kind: checkpoint, path: m.safetensors}", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "teachers.wide.path: m.safetensors" in done.stderr and "no config.json" in done.stderr
