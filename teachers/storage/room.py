"""How much of this machine's disk the mirrors take: COLLEGIUM_CACHE_BYTES, else half of what the disk has for them.

Above it the files that were used least recently go, whatever mirror they are of: shards, parts and weights alone, which lie
in the storage and come again when they are needed. What this process uses stays; a file that another process has mapped
lives on in its memory.
"""

import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

from ..errors import EnvironmentUnfit
from .place import QUOTED, cache

LIMIT = "COLLEGIUM_CACHE_BYTES"
SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?:(?P<prefix>[kKMGTP])(?P<binary>i)?)?[bB]?")
MAY_GO = {".arrow", ".safetensors", ".skops", ".pt"}

COUNT_EVERY_S = 10.0
"""Other processes fill the same disk."""

_lock = threading.Lock()
_free, _counted = 0, 0.0
_used: set[Path] = set()
_pinned: Counter[Path] = Counter()


def use(path: Path) -> None:
    """This process reads `path` from now on."""
    _used.add(path)
    touch(path)


def touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


def forget(path: Path) -> None:
    """This process has read `path`."""
    _used.discard(path)


@contextmanager
def pinned(paths: Iterable[Path]) -> Iterator[None]:
    """None of `paths` goes while this lasts."""
    with _lock:
        _pinned.update(list(paths))
    try:
        yield
    finally:
        with _lock:
            _pinned.subtract(list(paths))


def make(path: Path, num_bytes: int) -> None:
    """Make room for a file of `num_bytes` at `path`."""
    global _free, _counted
    if num_bytes < 1 << 16:
        return
    with _lock:
        _free -= num_bytes
        if _free >= 0 and time.monotonic() - _counted < COUNT_EVERY_S:
            return
        files = sorted(_files(), key=lambda found: found[1])
        held = sum(size for size, _, _ in files)
        excess = held + num_bytes - limit(held)
        _free, _counted = max(0, -excess), time.monotonic()
        for size, _, old in files:
            if excess <= 0:
                return
            if old not in _used and _pinned[old] <= 0:
                old.unlink(missing_ok=True)
                excess -= size


def limit(held: int) -> int:
    """In bytes; `held`: what the mirrors take now."""
    if (given := given_limit()) is not None:
        return given
    cache().mkdir(parents=True, exist_ok=True)
    return (shutil.disk_usage(cache()).free + held) // 2


def given_limit() -> int | None:
    """What COLLEGIUM_CACHE_BYTES says. Raises EnvironmentUnfit for what is no size."""
    if not (said := os.environ.get(LIMIT, "").strip()):
        return None
    found = SIZE.fullmatch(said)
    if found is None:
        raise EnvironmentUnfit(f"{LIMIT} is {said!r}; expected is a number of bytes, or a size such as 10GB or 512MiB")
    return in_bytes(found)


def in_bytes(size: re.Match[str]) -> int:
    """Of what SIZE has found: GB and G are 10^9, GiB and Gi are 2^30."""
    unit = (1024 if size["binary"] else 1000) ** " KMGTP".index((size["prefix"] or " ").upper())
    return int(Decimal(size["number"]) * unit)


def _files() -> list[tuple[int, float, Path]]:
    """(size, when it was last used, path) of what may go."""
    found = []
    for mirror in cache().glob("*"):
        if QUOTED.fullmatch(mirror.name):
            for folder, _, names in os.walk(mirror):
                for name in names:
                    if Path(name).suffix in MAY_GO:
                        with suppress(FileNotFoundError):
                            path = Path(folder) / name
                            state = path.stat()
                            found.append((state.st_size, state.st_mtime, path))
    return found


def write(path: Path, payload: bytes) -> None:
    """A small file, in one step."""
    draft = path.parent / f".draft-{uuid4().hex}"
    draft.write_bytes(payload)
    os.replace(draft, path)
