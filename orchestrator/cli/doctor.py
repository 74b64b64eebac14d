"""Looks at the machine: is everything there that a run needs? Each finding comes with its cure."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.storage import anew
from teachers.storage.place import remote_of
from teachers.users_code.imports import check_own_packages

PACKAGES = ("ray", "torch", "pyarrow", "mlflow", "pydantic", "click", "scikit-learn", "skops", "safetensors")
LOW_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """`cure` is empty where nothing is wrong; `is_slow`: runs are whole with it, and take longer."""

    subject: str
    found: str
    cure: str = ""
    is_slow: bool = False


def examine(out: Path, tracking_uri: str | None) -> Iterator[Finding]:
    """One finding after the other, the quick ones first."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _own_packages,
        _packages,
        _bytecode,
        _processors,
        lambda: _storage(out),
        lambda: _mlflow(out, tracking_uri),
        _ray,
    ]
    for check in checks:
        yield from check()


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    yield Finding("Python", version, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")


def _own_packages() -> Iterator[Finding]:
    try:
        check_own_packages()
        yield Finding("packages teachers, students, orchestrator", "Collegium's own")
    except EnvironmentUnfit as error:
        yield Finding("packages teachers, students, orchestrator", "hidden", str(error))


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"pip install {name}, or install Collegium again")


def _bytecode() -> Iterator[Finding]:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin or Path(importlib.util.cache_from_source(spec.origin)).exists():
        return
    if sys.dont_write_bytecode:  # else the first import keeps it
        cure = f"unset PYTHONDONTWRITEBYTECODE, or once: {sys.executable} -m compileall -q -j 0 {Path(spec.origin).parents[1]}"
        yield Finding(
            "bytecode of packages", "missing, and not kept: each process compiles torch for seconds", cure, is_slow=True
        )


def _processors() -> Iterator[Finding]:
    import torch

    yield Finding(
        "CPU cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    )
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    hidden = bool(shutil.which("nvidia-smi")) and not names
    cure = "there is an NVIDIA driver, but torch sees no GPU: install a CUDA build of torch" if hidden else ""
    yield Finding("GPUs", ", ".join(names) or "none", cure)


def _storage(out: Path) -> Iterator[Finding]:
    if (remote := remote_of(out)) is not None:
        try:
            anew.check(out)
            yield Finding(f"storage {remote}", "readable and writable")
        except CollegiumError as error:
            yield Finding(f"storage {remote}", "not usable", str(error))
        return
    at = out.resolve()
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free
    if not os.access(at, os.W_OK):
        yield Finding(f"storage {out}", "not writable", "choose another --out")
    else:
        cure = "less than 2 GiB are free: choose another --out or make room" if free < LOW_DISK_BYTES else ""
        yield Finding(f"storage {out}", f"writable, {free / 2**30:.0f} GiB free", cure)


def _mlflow(out: Path, tracking_uri: str | None) -> Iterator[Finding]:
    from ..tracking.server import check_reachable, resolve_uri

    uri = resolve_uri(tracking_uri, out)
    try:
        check_reachable(uri)
        yield Finding("MLflow", "reachable" if uri.startswith("http") else "SQLite under --out")
    except CollegiumError as error:
        yield Finding("MLflow", "not reachable", str(error))


def _ray() -> Iterator[Finding]:
    from ..cluster.cluster import cluster

    try:
        with cluster() as joined:
            nodes = len(joined.nodes)
            found = f"{nodes} node{'s' * (nodes > 1)}, {joined.total('CPU'):g} CPUs, {joined.total('GPU'):g} GPUs"
        yield Finding("Ray", found)
    except CollegiumError as error:
        yield Finding("Ray", "did not start", str(error))
