"""Addresses of clusters to join, whom they let in, and what is said when one cannot be joined. Imports no Ray."""

import importlib.metadata
import logging
import os
import platform
import re
import socket
import sys
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from contextlib import suppress
from pathlib import Path
from threading import Thread

from teachers.errors import EnvironmentUnfit

from .environment import ray_folder

log = logging.getLogger(__name__)

PATIENCE_S = 8.0
"""For a cluster's first sign of life, name look-up included."""
TOKEN_FILE = Path(".ray") / "auth_token"
FIRST_QUESTION = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""Of whoever joins a cluster; it needs nothing but a token."""


def check_address(given: str | None) -> None:
    """Raise EnvironmentUnfit for an address (or RAY_ADDRESS) where no cluster can be joined, within seconds.

    Ray would wait for minutes.
    """
    address = given or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        return
    if "://" in address:
        kind = "a dashboard, which takes jobs" if address.startswith("http") else "not the address of a cluster"
        raise EnvironmentUnfit(
            f"{address} is {kind}; `collegium submit --address http://HEAD:8265` works from anywhere, "
            f"to join give HEAD:6379, or `auto` on one of the nodes"
        )
    if address == "auto":
        address = _on_this_machine()
    if address == "auto":
        return
    begun = time.monotonic()
    host, _, port = address.rpartition(":")
    if reason := _unreachable(host, port) or _turned_away(address, begun + PATIENCE_S - time.monotonic()):
        raise EnvironmentUnfit(
            f"no cluster answers at {address} ({reason}); is it running, and is this its head (HEAD:6379)?"
        )


def _on_this_machine() -> str:
    """What `auto` means to Ray, where a cluster that was started here has noted its address; else `auto`."""
    if "RAY_ADDRESS" not in os.environ:
        with suppress(OSError):
            noted = ray_folder(os.environ, sys.platform) / "ray_current_cluster"
            return noted.read_text("utf-8").strip() or "auto"
    return "auto"


def _unreachable(host: str, port: str) -> str | None:
    """Why nothing can be connected to there; None when it can."""
    if not host or not port.isdigit():
        return "expected HOST:PORT"
    answer: Future[str | None] = Future()
    Thread(target=_connect, args=(host.strip("[]"), int(port), answer), daemon=True).start()
    try:
        return answer.result(PATIENCE_S)
    except OutOfTime:
        return f"nothing within {PATIENCE_S:g} s"


def _connect(host: str, port: int, answer: "Future[str | None]") -> None:
    try:
        socket.create_connection((host, port), timeout=PATIENCE_S).close()
        answer.set_result(None)
    except (OSError, OverflowError) as error:
        answer.set_result(str(getattr(error, "strerror", None) or error))


def _turned_away(address: str, patience_s: float) -> str | None:
    """Why what takes connections there is no head of a cluster; None when it answers as one.

    Raises EnvironmentUnfit when it does not take our token: Ray would try for half a minute.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode not in ("token", "disabled") or os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return None  # what only Ray can speak
    import grpc

    key, place = token() if mode == "token" else (None, "")
    sent = [("authorization", f"Bearer {key}")] if key else []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(FIRST_QUESTION)(b"", timeout=max(patience_s, 1.0), metadata=sent)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise not_let_in(address, key, place or f"RAY_AUTH_MODE={mode}") from None
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return f"nothing within {PATIENCE_S:g} s"
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return "what is there is no head of a Ray cluster"
    return None


def token() -> tuple[str | None, str]:
    """The token for clusters, and where it comes from or would be looked for."""
    if (given := os.environ.get("RAY_AUTH_TOKEN")) is not None:
        return given.strip(), "RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / TOKEN_FILE)
    try:
        text = path.read_text("utf-8").strip()
    except OSError:
        return None, str(path)
    if path.stat().st_mode & 0o077:
        log.warning("%s can be read by others on this machine; `chmod 600 %s`", path, path)
    return text or None, str(path)


def not_let_in(where: str, key: str | None, place: str) -> EnvironmentUnfit:
    """By the cluster at `where`, with what `token` gave."""
    if key is not None:
        return EnvironmentUnfit(
            f"the cluster at {where} does not take the token from {place}; it must be the one that its head has"
        )
    if place.startswith("RAY_AUTH_MODE"):
        return EnvironmentUnfit(f"the cluster at {where} asks for a token, and with {place} none is sent; unset that")
    return EnvironmentUnfit(
        f"the cluster at {where} asks for a token, and there is none in RAY_AUTH_TOKEN or {place}; "
        f"copy the head's token there, with mode 0600"
    )


def check_versions(where: str, ray: str, python: str | None) -> None:
    """Raise EnvironmentUnfit when a cluster has another Ray, or another minor version of Python, than this process."""
    ours, here = importlib.metadata.version("ray"), platform.python_version()
    other_python = python is not None and python.split(".")[:2] != here.split(".")[:2]
    if ray != ours or other_python:
        raise other_versions(where, ray, python)


def other_versions(where: str, ray: str, python: str | None) -> EnvironmentUnfit:
    """Both sides named, and what to do."""
    ours, here = importlib.metadata.version("ray"), platform.python_version()
    return EnvironmentUnfit(
        f"the cluster at {where} has Ray {ray}{f' and Python {python}' if python else ''}, "
        f"here are Ray {ours} and Python {here}; use an environment with the cluster's versions, or change the cluster's"
    )


def told(address: str, error: Exception) -> EnvironmentUnfit:
    """What Ray raised when it did not join, in our words."""
    text = str(error)
    versions = re.search(r"Ray: (\S+)\s+Python: (\S+)", text)
    if "ersion mismatch" in text and versions:
        return other_versions(address, versions[1], versions[2])
    if address == "auto":
        return EnvironmentUnfit(
            "--address auto: no Ray cluster runs on this machine; go to one of its nodes, or `collegium submit` from here"
        )
    first = (text.strip().splitlines() or [type(error).__name__])[0]
    if re.search(r"token|unauthenticated|unauthorized", text, re.IGNORECASE):
        return EnvironmentUnfit(
            f"the cluster at {address} does not let this process in ({first}); "
            f"RAY_AUTH_TOKEN or the file RAY_AUTH_TOKEN_PATH must hold its head's token"
        )
    return EnvironmentUnfit(
        f"Ray did not start at {address} ({first}); is it running, is this machine one of its nodes, "
        f"and is its token in RAY_AUTH_TOKEN_PATH? `collegium submit` works from anywhere"
    )
