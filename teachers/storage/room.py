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
from collections import Counter, deque
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
MANIFEST = "MANIFEST.arrow"
"""The table of a folder's many files; it stays, whatever becomes of these."""

COUNT_EVERY_S = 10.0
"""Other processes fill the same disk."""
COUNTING_SHARE = 20
"""So many times as long as counting takes, at least, passes before it is done again."""

_lock = threading.Lock()
"""Of what is known below; nobody holds it while the disk is looked through."""
_counting = threading.Lock()
_held, _count_at = 0, 0.0
_oldest: deque[tuple[float, int, Path]] = deque()
"""(when it was last used, size, path) of what may go."""
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
    """Make room for a file of `num_bytes` at `path`. While one thread counts the others go on with what is known."""
    global _held
    if num_bytes < 1 << 16:
        return
    if time.monotonic() >= _count_at and _counting.acquire(blocking=False):
        try:
            _count()
        finally:
            _counting.release()
    with _lock:
        _held += num_bytes
        excess = _held - limit(_held - num_bytes)
        while excess > 0 and _oldest:
            used, size, old = _oldest.popleft()
            gone = size if old not in _used and _pinned[old] <= 0 else 0  # what is in use the next count finds again
            with suppress(FileNotFoundError):
                if gone and (now := old.stat().st_mtime) > used:
                    _oldest.append((now, size, old))
                    gone = 0
                elif gone:
                    old.unlink()
            _held, excess = _held - gone, excess - gone
        if path.suffix in MAY_GO and path.name != MANIFEST:
            _oldest.append((time.time(), num_bytes, path))


def _count() -> None:
    global _held, _count_at
    began = time.monotonic()
    files = sorted(_files())
    with _lock:
        _held, ended = sum(size for _, size, _ in files), time.monotonic()
        _oldest.clear()
        _oldest.extend(files)
        _count_at = ended + max(COUNT_EVERY_S, COUNTING_SHARE * (ended - began))


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


def _files() -> Iterator[tuple[float, int, Path]]:
    """(when it was last used, size, path) of what may go."""
    for mirror in cache().glob("*"):
        if QUOTED.fullmatch(mirror.name):
            for folder, _, names in os.walk(mirror):
                for name in names:
                    if os.path.splitext(name)[1] in MAY_GO and name != MANIFEST:
                        with suppress(FileNotFoundError):
                            state = os.stat(path := os.path.join(folder, name))
                            yield state.st_mtime, state.st_size, Path(path)


def write(path: Path, payload: bytes) -> None:
    """A small file, in one step."""
    draft = path.parent / f".draft-{uuid4().hex}"
    draft.write_bytes(payload)
    os.replace(draft, path)
