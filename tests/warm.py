"""`collegium` as a process of its own that has nothing to import: forked from one that has imported it all.

Starting Python and importing torch takes seconds of a processor, for each of some hundred commands. `run` gives what
`subprocess.run` would. Whatever is about a fresh interpreter (what is imported, how fast, signals) starts one itself.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
