"""What the storage itself has and can do, past the mirror of this machine: for who checks it, or repairs what others found damaged."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote
from uuid import uuid4

from ..errors import EnvironmentUnfit, StorageError
from . import room
from .bucket import bucket_of
from .mirror import SPOILED, pull, put, remove
from .place import remote_of, root_of


def check(folder: Path, *, writes: bool = True) -> None:
    """Raise EnvironmentUnfit for a storage that does not exist, refuses, or (`writes`) does not do what a run needs."""
    if (remote := remote_of(folder)) is None:
        return
    room.given_limit()
    (bucket := bucket_of(remote)).conditions.check(remote.key)
    if not writes:
        return
    probe = folder / f".probe-{uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        put(probe)
        bucket.get(f"{remote.key}/{probe.name}", probe)
        remove(probe)
    except StorageError as error:
        raise EnvironmentUnfit(f"--out {remote}: {error}") from error
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def apart(folder: Path) -> Iterator[Path]:
    """`folder` in an empty mirror of its own, for who wants to see what the storage has; itself where it is in none."""
    if remote_of(folder) is None:
        yield folder
        return
    root_of(folder).parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="collegium-", dir=root_of(folder).parent) as scratch:
        empty = Path(scratch) / folder.relative_to(root_of(folder).parent)
        pull(empty)
        yield empty


def heed_marks(folder: Path, listed: Iterable[str]) -> None:
    """Forget own copies of what is marked as damaged, and the marks: for who looks at it next, and repairs it."""
    for marker in [PurePosixPath(name) for name in listed if SPOILED in PurePosixPath(name).parts[:-1]]:
        below = PurePosixPath(unquote(marker.name))
        if ".." not in below.parts and not below.is_absolute():
            (folder / marker.parents[1] / below).unlink(missing_ok=True)
        remove(folder / marker)
