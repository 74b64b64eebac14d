"""What Ray's processes find around them: quiet, private, authenticated, with a dashboard and process groups of their own."""

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import local

DASHBOARD = "RAY_API_SERVER_ADDRESS"
TEMPORARY = "/tmp"
SOCKET = "/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
LONGEST_SOCKET = 103
"""Bytes of a socket's path on macOS; Linux takes a few more."""


def set_environment() -> None:
    """Quiet, private and authenticated, unless the user's environment says otherwise. Best before ray is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # reports and failures are seen that often
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "600")  # the default waits for ever for a rank that is gone
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that outlives its cluster must not start another
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # answers that nobody waits for when a run has failed
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # it would take SIGTERM over, and print a stack
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if "RAY_AUTH_MODE" not in os.environ and not _has_started():
        os.environ["RAY_AUTH_MODE"] = "token"
        if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file())
        if (raylet := sys.modules.get("ray._raylet")) is not None:
            raylet.Config.initialize(
                ""
            )  # a script that imported ray before: it knows the mode of then, its processes the one of now


def _has_started() -> bool:
    """Whether this process has joined a Ray already, whose mode is what it is."""
    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())


def _token_file() -> Path:
    """`~/.ray/auth_token`, made with mode 0600 when it is not there."""
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
    return path


def own_dashboard() -> int:
    """A free port for the dashboard of a Ray that is started here, which all of its processes then ask.

    Left to themselves they ask whatever cluster was last started on this machine: one that is gone costs every trainer
    12 seconds at its end, and another one says that our controllers are dead.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    os.environ[DASHBOARD] = f"http://127.0.0.1:{port}"
    return port


_forks = local()


@contextmanager
def in_groups_of_their_own() -> Iterator[None]:
    """What this thread starts in the meantime with a `preexec_fn`, as Ray does, is no part of this process's group.

    A signal to the group (Ctrl-C, `timeout`, a batch system) then reaches us alone: a Ray that dies at the same moment
    takes this process along before it has said how the run ended. Left alone on macOS, where Ray ends what it has
    started by its group.
    """
    if not hasattr(_forks, "apart") and sys.platform == "linux":
        os.register_at_fork(after_in_child=_leave_the_group)  # nothing takes that back
    _forks.apart = sys.platform == "linux"
    try:
        yield
    finally:
        _forks.apart = False


def _leave_the_group() -> None:
    if getattr(_forks, "apart", False):
        os.setpgid(0, 0)


def ray_folder(variables: Mapping[str, str], platform: str) -> Path:
    """Where Ray keeps what runs on this machine: by its own rule, in which TMPDIR counts on Linux alone."""
    linux = variables.get("TMPDIR", TEMPORARY) if platform.startswith("linux") else TEMPORARY
    return Path(variables.get("RAY_TMPDIR", linux), "ray")


def use_short_folder() -> None:
    """Let a Ray that is started here work in /tmp where TMPDIR is too long for the sockets that it makes there."""
    sockets = len(os.fsencode(ray_folder(os.environ, sys.platform))) + len(SOCKET)
    if "RAY_TMPDIR" not in os.environ and sockets > LONGEST_SOCKET:
        os.environ["RAY_TMPDIR"] = TEMPORARY
