"""An OUT in an object store, as the folder that mirrors it here. Every verb is harmless for a path in no mirror.

What is written goes to the storage first, then takes its name here: whatever lies in a mirror lay in the storage. What is
read is brought whole, verified against its record, then renamed into place. Listings are hints: a proof is always read.
Knows nothing of stages or stores.
"""

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import cast
from urllib.parse import quote

from ..errors import StoreError
from . import room
from .at_once import at_once
from .bucket import Entry, Expected, Spoiled, bucket_of
from .place import Remote, remote_of, root_of

SMALL_BYTES = 1 << 20
CURVES_BYTES = 256 << 20
SMALL = {".json": SMALL_BYTES, ".yaml": SMALL_BYTES, ".jsonl": CURVES_BYTES}
"""By suffix, how large a file may be that `pull` brings."""
PROOFS = ("SEAL.json", "STAGE.json", "spec.json", "study.json", "trials.jsonl")
SPOILED = "spoiled"
REMOVED_AT_ONCE = 1000
JUST_WRITTEN_S = 60.0
"""A proof that another process of this machine may have written since a listing was made."""
PASSING = ("attempts", "quarantine", SPOILED)
"""Folders that `pull` leaves alone, beside those with a leading dot."""
MANY = ("shards",)
"""Folders of large files, by the million perhaps, that come one by one: where small ones are looked for these are not even listed."""


def create(path: Path, draft: Path) -> bool:
    """Create the object of `path` with the bytes of `draft`; the first writer wins, and who is not has its bytes here."""
    if (remote := remote_of(path)) is None:
        return True
    room.use(path)
    while not bucket_of(remote).create(remote.key, draft):
        with suppress(FileNotFoundError):  # the first one has been removed meanwhile
            bucket_of(remote).get(remote.key, path)
            return False
    return True


def put(path: Path, file: Path | None = None) -> None:
    """Write the object of `path` with the bytes of `file`, or of the path itself."""
    if (remote := remote_of(path)) is not None:
        bucket_of(remote).put(remote.key, file or path)


def put_folder(folder: Path) -> None:
    """Every file below `folder` but drafts and locks, as it is now."""
    if remote_of(folder) is not None:
        files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
        _side_by_side(put, files)


def refresh(path: Path) -> None:
    """Read a small file anew: what the storage has, or has no more, is what lies here. Needed for proofs alone."""
    if (remote := remote_of(path)) is None:
        return
    found = bucket_of(remote).conditions.read(remote.key)
    if found is None:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != found[0]:
        path.parent.mkdir(parents=True, exist_ok=True)
        room.write(path, found[0])


def refresh_all(paths: Iterable[Path]) -> None:
    _side_by_side(refresh, paths)


def bring(path: Path, expected: Expected | None = None) -> None:
    """Make sure that `path` lies here, of the expected size; what comes is verified. Stays away when there is none.

    Raises StoreError for an object that is not what its record says; the next run then looks at it.
    """
    if (remote := remote_of(path)) is None:
        return
    room.use(path)
    if path.is_file() and (expected is None or path.stat().st_size == expected.bytes):
        return
    try:
        _get(path, remote, expected)
    except Spoiled as error:
        mark(path)
        assert expected is not None
        raise StoreError(
            f"{path}: damaged in the storage (found {error}, expected {expected.digest[:16]}); run the same command "
            f"again: it finds and rebuilds what is damaged"
        ) from None


def bring_all(wanted: Mapping[Path, Expected]) -> None:
    """`bring`, side by side."""
    _side_by_side(lambda path: bring(path, wanted[path]), wanted)


@contextmanager
def brought(wanted: Mapping[Path, Expected], *, hashes: bool, listed: bool = False) -> Iterator[dict[Path, str | None]]:
    """`bring` side by side, where a file here counts only with the right bytes (`hashes`) or size; all stay meanwhile.

    With `listed` large files do not come when a listing of their folder has them. What is not here afterwards though the
    storage has it: what was found instead of the right bytes, or None for a large file that is listed rightly.
    """
    if not wanted or remote_of(next(iter(wanted))) is None:
        yield {}
        return
    found: dict[Path, str | None] = {}
    large = {path for path, expected in wanted.items() if listed and expected.bytes > SMALL_BYTES}
    hints = entries(Path(os.path.commonpath([path.parent for path in large]))) if large else {}
    sizes = {entry.key: entry.bytes for entry in hints.values()}

    def one(path: Path) -> None:
        expected, remote = wanted[path], remote_of(path)
        assert remote is not None
        if expected.is_of(path) if hashes else _size(path) == expected.bytes:
            room.touch(path)
        elif path in large and sizes.get(remote.key) == expected.bytes:
            found[path] = None
        else:
            path.unlink(missing_ok=True)
            try:
                _get(path, remote, expected)
            except Spoiled as error:
                found[path] = str(error)

    with room.pinned(wanted):
        _side_by_side(one, wanted)
        yield found


def _get(path: Path, remote: Remote, expected: Expected | None) -> None:
    room.make(path, expected.bytes if expected else 0)
    with suppress(FileNotFoundError):
        bucket_of(remote).get(remote.key, path, expected)


def mark(path: Path) -> None:
    """Tell the next run that this object is damaged: its own copy may be whole."""
    if remote_of(path) is None:
        return
    root = root_of(path)
    marked = root / SPOILED / quote(path.relative_to(root).as_posix(), safe="")
    marked.parent.mkdir(parents=True, exist_ok=True)
    marked.touch()
    put(marked)


def listed(folder: Path, passing: Collection[str] = ()) -> Iterator[tuple[str, Entry]]:
    """What the storage lists below `folder` but in folders named `passing`, by the path below it, a page at a time: a hint.

    Names that would leave it are passed over.
    """
    if (remote := remote_of(folder)) is None:
        return
    for entry in bucket_of(remote).list(remote.key, passing):
        below = PurePosixPath(entry.key.removeprefix(remote.key).lstrip("/"))
        if below.parts and ".." not in below.parts:
            yield str(below), entry


def entries(folder: Path, passing: Collection[str] = ()) -> dict[str, Entry]:
    """`listed`, all of it."""
    return dict(listed(folder, passing))


def pull(folder: Path, *, without: str = "") -> dict[str, Entry]:
    """Bring the small files below `folder` that are not here, or of another size, and forget proofs that are gone.

    Returns what the storage lists there but in folders of MANY. Folders named `without` are left alone.
    """
    if remote_of(folder) is None:
        return {}
    begun, there = time.time(), entries(folder, MANY)
    small = ((folder / n, entry) for n, entry in there.items() if _is_small(PurePosixPath(n), entry.bytes, without))
    stale = {path: entry.bytes for path, entry in small if _is_stale(path, entry.bytes)}
    _side_by_side(lambda path: _bring_anew(path, stale[path]), stale)
    for path in _proofs(folder):
        old = begun - path.stat().st_mtime > JUST_WRITTEN_S
        if old and path.relative_to(folder).as_posix() not in there:
            path.unlink(missing_ok=True)
    return there


def _bring_anew(path: Path, size: int) -> None:
    if size <= SMALL_BYTES:
        refresh(path)
        return
    path.unlink(missing_ok=True)
    bring(path)


def _proofs(folder: Path) -> Iterator[Path]:
    for at, below, names in os.walk(folder):
        below[:] = [name for name in below if name not in MANY]
        is_records = os.path.basename(at) == "commits"
        yield from (Path(at, name) for name in names if name in PROOFS or (is_records and name.endswith(".json")))


def pull_all(folder: Path) -> None:
    """Bring everything below `folder` that is not here."""
    _side_by_side(bring, (folder / name for name, _ in listed(folder)))


def complete(folder: Path, outputs: Mapping[str, int]) -> None:
    """Put what the storage does not list in this size: what a seal vouches for must lie there."""
    if remote_of(folder) is None:
        return
    parts = {part for name in outputs for part in PurePosixPath(name).parts}
    there = entries(folder, [name for name in MANY if name not in parts])
    _side_by_side(put, (folder / n for n, size in outputs.items() if n not in there or there[n].bytes != size))


def keep(path: Path, payload: bytes) -> None:
    """What another machine has just written to the object of `path`, as it said itself: it need not come from there."""
    if remote_of(path) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        room.write(path, payload)


def remove(path: Path) -> None:
    """A file, here and in the storage."""
    remove_all([path])


def remove_all(paths: Iterable[Path]) -> None:
    """Files of one mirror, or of none, here and in the storage: there many by one request."""
    left = iter(paths)
    while some := list(islice(left, REMOVED_AT_ONCE)):
        for path in some:
            path.unlink(missing_ok=True)
        if keys := [remote.key for remote in map(remote_of, some) if remote is not None]:
            bucket_of(cast(Remote, remote_of(some[0]))).conditions.remove(keys)


def remove_folder(folder: Path) -> None:
    """A folder with all that is in it, here and in the storage; its seal goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    if (remote := remote_of(folder)) is not None:
        keys = sorted((entry.key for entry in entries(folder).values()), key=lambda key: not key.endswith("SEAL.json"))
        bucket_of(remote).conditions.remove(keys)


def move(path: Path, target: Path) -> None:
    """A file or folder, here and in the storage; nothing where there is none."""
    if path.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    if (remote := remote_of(path)) is None:
        return
    to = remote_of(target)
    assert to is not None
    conditions = bucket_of(remote).conditions
    for key in [remote.key, *(entry.key for entry in entries(path).values())]:
        with suppress(FileNotFoundError):
            conditions.copy(key, f"{to.key}{key.removeprefix(remote.key)}")
            conditions.remove([key])


def there(path: Path) -> bool:
    """Whether a file lies here, or comes from the storage."""
    bring(path)
    return path.is_file()


def _is_stale(path: Path, size: int) -> bool:
    """What only grows is ahead of the storage while somebody here adds to it."""
    here = _size(path)
    return here < size if path.suffix == ".jsonl" else here != size


def _is_small(name: PurePosixPath, size: int, without: str) -> bool:
    passing = any(part.startswith(".") or part in (*PASSING, without) for part in name.parts)
    return not passing and size <= SMALL.get(name.suffix, -1)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def _side_by_side(work: Callable[[Path], None], items: Iterable[Path]) -> None:
    """`work` on every item, a bounded number at once."""
    deque(at_once(work, items), maxlen=0)
