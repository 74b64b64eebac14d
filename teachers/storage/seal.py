"""Proof that a stage is whole: `SEAL.json`, create-only, written last. Data first, proof last, each in one step.

Knows nothing of what is sealed. A reader trusts what a verified seal lists and nothing else.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from ..errors import StoreError
from . import mirror
from .bucket import Expected
from .place import remote_of
from .room import forget

FORMAT = 1
NAME = "SEAL.json"


@dataclass(frozen=True)
class Output:
    """One file that a seal vouches for; `path` is relative to the sealed folder, with forward slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Seal:
    """`digest` names the content: no time, host, writer or absolute path takes part in it."""

    outputs: tuple[Output, ...]
    digest: str


@dataclass(frozen=True)
class Damage:
    """A file that is not what its record says. `path` is relative to the checked folder."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no white space, no NaN. Raises TypeError or ValueError without one."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_draft(folder: Path, payload: bytes | memoryview) -> Path:
    """A synced file of `payload` in `folder`, under a name that nobody reads."""
    draft = folder / f".draft-{uuid4().hex}"
    if remote_of(folder) is not None:  # made on another machine, perhaps
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # the disk is full, and a part of the file would only fill it more
        draft.unlink(missing_ok=True)
        error.filename = str(folder)  # a failed write does not say where
        raise
    return draft


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody reads. What is written there takes its place in one step, or is gone after an error."""
    draft = path.parent / f".draft-{uuid4().hex}"
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)  # a rename between two links of one file does nothing
    sync_folder(path.parent)


def publish(path: Path, payload: bytes | memoryview) -> bool:
    """Create `path` in one step, or leave the one that is already there: the first writer wins. True if it was us."""
    draft = write_draft(path.parent, payload)
    if remote_of(path) is not None:
        return _publish_remote(path, draft)
    try:
        os.link(draft, path)
        won = True
    except FileExistsError:
        won = False
    except OSError:  # a file system without hard links: atomic all the same, but the last writer wins
        os.replace(draft, path)
        won = True
    with suppress(FileNotFoundError):
        draft.unlink()
    sync_folder(path.parent)
    return won


def _publish_remote(path: Path, draft: Path) -> bool:
    """The storage decides who was first; here lies what it has."""
    try:
        won = mirror.create(path, draft)
        if won:
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return won


def replace(path: Path, payload: bytes | memoryview) -> None:
    """Write `path` in one step, over whatever was there."""
    draft = write_draft(path.parent, payload)
    try:
        mirror.put(path, draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_seal(folder: Path, outputs: Iterable[str], digest: str | None = None) -> Seal:
    """Seal `outputs` (paths relative to `folder`); without `digest` their paths and hashes decide it.

    If the folder is already sealed that seal stays and is returned: the first one wins.
    """
    listed = list_outputs(folder, outputs)
    mirror.complete(folder, {output.path: output.bytes for output in listed})
    digest = digest or digest_of([[output.path, output.sha256] for output in listed])
    publish(folder / NAME, spell(Seal(listed, digest)))
    seal = read_seal(folder)
    assert seal is not None
    return seal


def list_outputs(folder: Path, outputs: Iterable[str]) -> tuple[Output, ...]:
    return tuple(_output(folder, path) for path in sorted(outputs))


def _output(folder: Path, path: str) -> Output:
    here = local(folder, path)
    found = Output(path, here.stat().st_size, sha256_file(here))
    forget(here)
    return found


def spell(seal: Seal) -> bytes:
    """The one spelling of a seal on disk."""
    document = {"format": FORMAT, "digest": seal.digest, "outputs": [vars(output) for output in seal.outputs]}
    return json.dumps(document, indent=1).encode()


def read_seal(folder: Path) -> Seal | None:
    """The seal of `folder`, or None without one. Raises StoreError for one that cannot be read or is newer than this program."""
    mirror.refresh(folder / NAME)
    return _read(folder)


def _read(folder: Path) -> Seal | None:
    try:
        document = read_document(folder / NAME, FORMAT, "remove it, and the stage is rebuilt")
    except FileNotFoundError:
        return None
    try:
        outputs = tuple(Output(**output) for output in document["outputs"])
        return Seal(outputs, document["digest"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder / NAME}: not a seal ({error!r}); remove it, and the stage is rebuilt") from error


def inside(folder: Path, relative: str) -> Path:
    """`folder / relative`. Raises StoreError when that would leave `folder`, links included."""
    pure = PurePosixPath(relative)
    path = folder / pure
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except RuntimeError as error:  # Python's word for it
        raise StoreError(f"{relative!r} is a link that leads to itself") from error
    if pure.is_absolute() or ".." in pure.parts or not stays:
        raise StoreError(f"{relative!r} leaves the folder {folder}; whoever wrote this record is not to be trusted")
    return path


def expected(output: Output) -> Expected:
    return Expected(output.bytes, "sha256", output.sha256)


def local(folder: Path, relative: str) -> Path:
    """`inside(folder, relative)`; of a mirror the file is brought here, and must be what the innermost seal above it says.

    Raises StoreError for a path that leaves `folder`, and for an object that is damaged.
    """
    path = inside(folder, relative)
    if remote_of(path) is not None:
        mirror.bring(path, _vouched(folder, path))
    return path


def _vouched(folder: Path, path: Path) -> Expected | None:
    """What the innermost seal says of a file; None where no seal lists it."""
    for above in path.parents:
        if (above / NAME).is_file():
            state = (above / NAME).stat()
            return _listed(above, state.st_mtime_ns, state.st_ino).get(path)
        if above == folder:
            break
    seal = read_seal(folder)  # of another machine
    return next((expected(output) for output in seal.outputs if folder / output.path == path), None) if seal else None


@lru_cache(maxsize=64)
def _listed(folder: Path, changed_ns: int, inode: int) -> dict[Path, Expected]:
    """By path, what the seal in `folder` lists; the other arguments say which seal."""
    seal = _read(folder)
    return {inside(folder, output.path): expected(output) for output in seal.outputs} if seal is not None else {}


def read_document(path: Path, known: int, cure: str) -> dict[str, Any]:
    """A JSON mapping of format `known`. Raises FileNotFoundError, or StoreError for what is damaged or of another format."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}); {cure}") from error
    except ValueError as error:
        raise StoreError(f"{path}: not readable as JSON ({error}); {cure}") from error
    check_format(document, known, path)
    return document


def check_format(document: Mapping[str, Any], known: int, path: Path) -> None:
    """Raise StoreError unless `document` has the format that this program reads."""
    found = document.get("format") if isinstance(document, Mapping) else None
    if found != known:
        newer = isinstance(found, int) and found > known
        cure = "update Collegium" if newer else "remove its folder and run the recipe again to rebuild it"
        raise StoreError(f"{path}: format {found!r}, this program reads {known}; {cure}")
