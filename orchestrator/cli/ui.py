"""`collegium ui`: the light MLflow server on loopback."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from teachers.errors import EnvironmentUnfit, RecipeError

from .interrupts import Interrupted

START_S = 120.0
"""In which the server must answer."""


def serve(out: Path, port: int, *, tell: Callable[[str], None]) -> None:
    """Start the server, print the deep link of the experiment, wait until it ends or is interrupted."""
    from ..tracking.server import experiment_link, ui_command

    if not (out / "mlflow.db").is_file():
        raise RecipeError(
            f"{out} holds no mlflow.db; `collegium run RECIPE --out {out}` makes one, unless a server is named"
        )
    _check_free(port)
    command, environment = ui_command(out, port)
    server = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(server, port)
        tell(f"{experiment_link(out, f'http://127.0.0.1:{port}')}\nCtrl-C stops the server")
        server.wait()
    except Interrupted as stop:  # which is how it is meant to end
        stop.is_heard = True
        tell("server stopped")
    finally:
        server.terminate()
        server.wait()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise EnvironmentUnfit(f"port {port} is taken; choose another with --port") from None


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise EnvironmentUnfit(f"the MLflow server did not answer on port {port}; `collegium doctor` looks closer")
