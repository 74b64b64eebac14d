"""Objects of one bucket, moved whole between it and files: by pyarrow's file systems, and by the provider's client where
a write has a condition. Knows nothing of what the objects are."""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol
from uuid import uuid4

import xxhash

from ..errors import StorageError
from . import gcs, s3
from .place import Remote

CHUNK_BYTES = 1 << 20
LARGEST_WHOLE_BYTES = 4 << 30
"""Of one PUT, which can have a condition; larger files go in parts and the last writer wins."""
TRIES = 3
"""At an object that arrives otherwise than its record says."""
HASHES: dict[str, Any] = {"sha256": hashlib.sha256, "xxh3_128": xxhash.xxh3_128}


@dataclass(frozen=True)
class Expected:
    """What a record says of a file."""

    bytes: int
    algorithm: Literal["sha256", "xxh3_128"]
    digest: str

    def is_of(self, path: Path) -> bool:
        """Whether the file is there, whole."""
        try:
            with path.open("rb") as file:
                whole = os.fstat(file.fileno()).st_size == self.bytes
                return whole and hashlib.file_digest(file, HASHES[self.algorithm]).hexdigest() == self.digest
        except FileNotFoundError:
            return False


class Spoiled(Exception):
    """An object is not what its record says; the message is what was found."""


@dataclass(frozen=True)
class Entry:
    """One object of a listing; `time` in seconds since the epoch, by the storage's clock."""

    key: str
    bytes: int
    time: float


class Conditions(Protocol):
    """Requests that a provider's own client does; see `s3.Conditions`."""

    def read(self, key: str) -> tuple[bytes, str] | None: ...
    def chunks(self, key: str, size: int) -> Iterator[bytes]: ...
    def create(self, key: str, body: BinaryIO) -> str | None: ...
    def swap(self, key: str, payload: bytes, version: str) -> str | None: ...
    def remove(self, keys: Iterable[str]) -> None: ...
    def list(self, prefix: str, passing: Collection[str] = ()) -> Iterator[tuple[str, int, float]]: ...
    def copy(self, source: str, target: str) -> None: ...
    def check(self, prefix: str) -> None: ...


class Bucket:
    """One bucket as this process sees it. Safe to use from several threads."""

    def __init__(self, scheme: str, name: str) -> None:
        provider = {"s3": s3, "gs": gcs}[scheme]
        self.name = name
        self.uri = f"{scheme}://{name}"
        self.conditions: Conditions = provider.Conditions(name)
        self._provider = provider
        self._files: Any = None

    @property
    def files(self) -> Any:
        """pyarrow's file system; made when it is first needed, since that may ask the provider for the region."""
        if self._files is None:
            with self._told(""):
                self._files = self._provider.file_system(self.name)
        return self._files

    def put(self, key: str, file: Path) -> None:
        """Write the object in one step, over whatever is there."""
        with self._told(key), file.open("rb") as source, self.files.open_output_stream(f"{self.name}/{key}") as sink:
            while chunk := source.read(CHUNK_BYTES):
                sink.write(chunk)

    def create(self, key: str, file: Path) -> bool:
        """Create the object, or leave the one that is there. Where a bucket knows no conditions the last writer wins."""
        if file.stat().st_size <= LARGEST_WHOLE_BYTES:
            with suppress(NotImplementedError), file.open("rb") as body:
                return self.conditions.create(key, body) is not None
        self.put(key, file)
        return True

    def get(self, key: str, target: Path, expected: Expected | None = None) -> None:
        """Bring an object whole to `target`, in one step. Raises FileNotFoundError, or Spoiled for other bytes than expected."""
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".draft-{uuid4().hex}"
        found = ""
        try:
            for _ in range(TRIES):
                found = self._download(key, draft, expected.algorithm if expected else "sha256")
                if expected is None or found == expected.digest:
                    os.replace(draft, target)
                    return
        finally:
            draft.unlink(missing_ok=True)
        assert expected is not None
        raise Spoiled(f"{expected.algorithm} {found[:16]}")

    def _download(self, key: str, draft: Path | None, algorithm: str) -> str:
        """Its digest; without `draft` it is kept nowhere."""
        hashed = HASHES[algorithm]()
        with self._told(key), (draft or Path(os.devnull)).open("wb") as sink:
            for chunk in self.conditions.chunks(key, CHUNK_BYTES):
                hashed.update(chunk)
                sink.write(chunk)
        return str(hashed.hexdigest())

    def digest(self, key: str, algorithm: str) -> str | None:
        """Of an object that is read once and kept nowhere; None where there is none."""
        try:
            return self._download(key, None, algorithm)
        except FileNotFoundError:
            return None

    def list(self, prefix: str, passing: Collection[str] = ()) -> Iterator[Entry]:
        """What lies below `prefix` but in folders named `passing`, as far as the storage knows at this moment, a page at a time: a hint, never a proof."""
        for key, size, time_s in self.conditions.list(prefix, passing):
            yield Entry(key, size, time_s)

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """pyarrow's errors as one line."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except OSError as error:
            if error.filename:  # of this machine's disk
                raise
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise StorageError(f"{self.uri}/{key}: {reason}; the same command goes on from here") from error


@cache
def bucket(scheme: str, name: str) -> Bucket:
    """The one of this process."""
    return Bucket(scheme, name)


def bucket_of(remote: Remote) -> Bucket:
    return bucket(remote.scheme, remote.bucket)
