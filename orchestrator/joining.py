"""Addresses of clusters to join, and what is said when one cannot be joined. Imports no Ray."""

import importlib.metadata
import os
import platform
import re
import socket
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from threading import Thread

from teachers.errors import EnvironmentUnfit

PATIENCE_S = 8.0
"""For a cluster's first sign of life, name look-up included."""


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
    host, _, port = address.rpartition(":")
    if address != "auto" and (reason := _unreachable(host, port)):
        raise EnvironmentUnfit(
            f"no cluster answers at {address} ({reason}); is it running, and is this its head (HEAD:6379)?"
        )


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
