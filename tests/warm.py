"""Processes of their own that have nothing to import: forked from one that has imported it all.

Starting Python and importing torch takes seconds of a processor, for each of some hundred commands and ranks. `run` gives
what `subprocess.run` of `collegium` would, `side_by_side` calls functions. Whatever is about a fresh interpreter (what is
imported, how fast, signals) starts one itself.
"""

import atexit
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PRELOADED = (
    "matplotlib.figure",
    "pandas",
    "scipy.stats",
    "sklearn.ensemble",
    "torch",
    "orchestrator.cli.main",
    "orchestrator.planning.planning",
    "orchestrator.planning.rehearsal",
    "orchestrator.reporting.document",
    "orchestrator.running.run",
    "students",
    "students.fitting.rehearsal",
    "teachers.models.adapters",
    "teachers.preparing.look",
)
"""Not ray, nor mlflow: what they find in the environment is that of the command."""
_server: "Server | None" = None
FRESH = multiprocessing.get_context("forkserver")
"""Of processes that call a function; MLflow is imported there and was never used."""
FRESH.set_forkserver_preload(
    [
        "hypothesis",
        "mlflow.store.tracking.sqlalchemy_store",
        "polars",
        "pyarrow.dataset",
        "pytest",
        "students.fitting.fit",
        "students.fitting.ranks",
        "torch.distributed",
    ]
)


class Server:
    """Of one session of tests: the process that forks, and the socket on which it hears what."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self.lines = ours.makefile("rw")

    def ask(self, **request: Any) -> int:
        """The exit code of a command; negative: the signal that ended it."""
        self.lines.write(json.dumps(request) + "\n")
        self.lines.flush()
        return int(self.lines.readline())


def run(arguments: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """`collegium` with these arguments, in this folder and environment, to its end."""
    global _server
    if _server is None:
        _server = Server()
        atexit.register(_server.process.kill)
    command = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder, name)) for name in ("stdout", "stderr")}
        code = _server.ask(arguments=command, cwd=str(cwd), env=dict(env), **files)
        said = {name: Path(path).read_text() for name, path in files.items()}
    return subprocess.CompletedProcess(command, code, **said)


def process(target: Callable[..., None], *arguments: Any) -> "multiprocessing.process.BaseProcess":
    """Not started yet: `target`, a module's function, in the environment of now; its server was started in another."""
    return FRESH.Process(target=_in_environment, args=(dict(os.environ), target, arguments))


def _in_environment(environment: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def side_by_side(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call `target`, a module's function, with each of `arguments`, in processes that run at once; raises what one has raised."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(number)) for number in range(len(arguments))]
        calls = zip(arguments, files, strict=True)
        started = [process(_call, target, given, file) for given, file in calls]
        for each in started:
            each.start()
        for each, file in zip(started, files, strict=True):
            each.join()
            assert each.exitcode == 0, file.read_text()[-3000:] if file.exists() else each.exitcode


def _call(target: Callable[..., None], arguments: tuple[Any, ...], file: Path) -> None:
    try:
        target(*arguments)
    except BaseException:
        file.write_text(traceback.format_exc())
        raise


def serve(connection: socket.socket) -> None:
    """Fork for every line; ends with whoever asks."""
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    lines = connection.makefile("rw")
    for line in lines:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        lines.write(f"{os.waitstatus_to_exitcode(status)}\n")
        lines.flush()


def become(*, arguments: list[str], cwd: str, env: dict[str, str], stdout: str, stderr: str) -> None:
    """What a command is that was just started; does not return."""
    code = 1
    try:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        tempfile.tempdir = None
        for number, path in ((0, os.devnull), (1, stdout), (2, stderr)):
            opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        sys.argv = ["collegium", *arguments]
        from orchestrator.cli.main import main

        main()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
