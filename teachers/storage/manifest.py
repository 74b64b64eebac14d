"""`MANIFEST.arrow`: of a stage whose files are too many for its seal, a table of them. The seal lists the manifest, and so vouches for
what that lists: `path` (relative to the folder, with forward slashes), `bytes` and `xxh3_128` of every file, in any order.

Whoever wrote a file has hashed it. It is checked in parts, by tasks where the files lie. Knows nothing of what is in them.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from ..errors import StoreError
from . import mirror
from .at_once import at_once
from .bucket import Expected, bucket_of
from .place import here, remote_of
from .room import MANIFEST
from .seal import Damage, inside, read_seal

PART_BYTES, PART_FILES = 1 << 30, 1024
"""Of files that one task checks."""
NO_FILE = "no file"


@dataclass(frozen=True)
class Part:
    """Some files of a folder that are to be checked; `first`: the place of the first of them in the whole table.

    `kept`: what comes from a storage for it stays in the mirror.
    """

    folder: Path
    first: int
    files: pa.RecordBatch
    kept: bool = True


Found = list[tuple[int, Damage]]
"""Places of files in their table, and what is wrong with each."""
Run = Callable[[Callable[[Part], Found], Iterable[Part]], Iterator[Found]]
"""`map` that has its work done somewhere."""


def in_threads(work: Callable[[Part], Found], parts: Iterable[Part]) -> Iterator[Found]:
    """Here. A disk is slower than xxh3, which takes no lock of Python's."""
    return at_once(work, parts, os.cpu_count() or 1)


def mapped(path: Path) -> pa.Table:
    """A manifest that lies here, mapped. Raises FileNotFoundError, or StoreError for what is no table of files."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise StoreError(f"{path}: not a manifest ({error})") from error
    if not {"path", "bytes", "xxh3_128"} <= set(table.schema.names):
        raise StoreError(f"{path}: not a manifest, it has {', '.join(table.schema.names)}")
    return table


def bring(folder: Path) -> bool:
    """The manifest of a sealed folder lies here, byte for byte as its seal says. Raises StoreError for a damaged one; False without one."""
    sealed = read_seal(folder)
    output = next((each for each in sealed.outputs if each.path == MANIFEST), None) if sealed else None
    if output is None:
        return False
    path, expected = folder / MANIFEST, Expected(output.bytes, "sha256", output.sha256)
    with mirror.brought({path: expected}, hashes=True) as elsewhere:
        if elsewhere:
            raise StoreError(
                f"{path}: found {elsewhere[path]}, expected {output.sha256[:16]}; run the recipe again to repair it"
            )
    return True


def damages_in(folder: Path, files: pa.Table, *, hashes: bool, run: Run = in_threads, kept: bool = True) -> Found:
    """What is wrong with `files` [path, bytes, xxh3_128]: sizes always, every byte of them by `run` when `hashes`."""
    if not hashes:
        files, places = files.take(doubtful := lacking(folder, files)), doubtful
    else:
        places = np.arange(len(files))
    parts = parts_of(folder, files, kept=kept)
    few = list(islice(parts, 2))
    run = run if len(few) > 1 else in_threads  # one part is not worth a task
    found = [each for some in run(check, chain(few, parts)) for each in some]
    return [(int(places[at]), damage) for at, damage in found]


def parts_of(folder: Path, files: pa.Table, *, kept: bool = True) -> Iterator[Part]:
    files = files.select(["path", "bytes", "xxh3_128"])
    ends, first = np.cumsum(files["bytes"].to_numpy()), 0
    while first < len(files):
        before = ends[first - 1] if first else 0
        stop = max(first + 1, min(first + PART_FILES, int(np.searchsorted(ends, before + PART_BYTES, side="right"))))
        (batch,) = files.slice(first, stop - first).combine_chunks().to_batches()
        yield Part(folder, first, batch, kept)
        first = stop


def check(part: Part) -> Found:
    """Every byte of the files of one part, on whatever machine."""
    folder, found = here(part.folder), Found()
    wanted = {
        inside(folder, path): (part.first + at, path, Expected(size, "xxh3_128", digest))
        for at, (path, size, digest) in enumerate(zip(*map(pa.Array.to_pylist, part.files.columns), strict=True))
    }
    if remote_of(folder) is not None and not part.kept:
        return [each for each in at_once(_passed_by, wanted.items()) if each is not None]
    with mirror.brought({path: expected for path, (_, _, expected) in wanted.items()}, hashes=True) as elsewhere:
        for path, (at, name, expected) in wanted.items():
            if wrong := elsewhere.get(path) or _wrong(path, expected, hashed=remote_of(folder) is not None):
                found.append((at, Damage(name, wrong, _told(expected, wrong))))
    return found


def _passed_by(wanted: tuple[Path, tuple[int, str, Expected]]) -> tuple[int, Damage] | None:
    """Of an object, read once and kept nowhere."""
    path, (at, name, expected) = wanted
    remote = remote_of(path)
    assert remote is not None
    digest = bucket_of(remote).digest(remote.key, expected.algorithm)
    if digest == expected.digest:
        return None
    wrong = NO_FILE if digest is None else f"xxh3_128 {digest[:16]}"
    return at, Damage(name, wrong, _told(expected, wrong))


def _wrong(path: Path, expected: Expected, *, hashed: bool) -> str:
    """`hashed`: when it came here."""
    if not path.is_file():
        return NO_FILE
    if (size := path.stat().st_size) != expected.bytes:
        return f"{size} bytes"
    return "" if hashed or (found := hash_file(path)) == expected.digest else f"xxh3_128 {found[:16]}"


def hash_file(path: Path) -> str:
    """xxh3_128, as a manifest says it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _told(expected: Expected, wrong: str) -> str:
    return expected.digest[:16] if wrong.startswith("xxh3") else f"{expected.bytes} bytes"


def lacking(folder: Path, files: pa.Table) -> NDArray[np.int64]:
    """Places of those files that are not plainly there in their size, by listing their folders."""
    names, sizes = files["path"].combine_chunks(), files["bytes"].to_numpy()
    right = np.zeros(len(files), bool)
    for below in pc.unique(pc.replace_substring_regex(names, "/?[^/]*$", "")).to_pylist():
        for there, found in _listed(folder, below):
            at = pc.index_in(names, value_set=there)
            known = np.asarray(at.is_valid())
            right[known] = found[at.drop_null().to_numpy()] == sizes[known]
    return np.flatnonzero(~right)


def _listed(folder: Path, below: str) -> Iterator[tuple[pa.Array, NDArray[np.int64]]]:
    """Names, with their folder, and sizes of the files in a folder, some at a time."""
    names, sizes, prefix = [], [], f"{below}/" if below else ""
    for name, size in entries(inside(folder, below)):
        names.append(prefix + name)
        sizes.append(size)
        if len(names) == 1 << 16:
            yield pa.array(names, pa.string()), np.array(sizes)
            names, sizes = [], []
    if names:
        yield pa.array(names, pa.string()), np.array(sizes)


def entries(folder: Path) -> Iterator[tuple[str, int]]:
    """Names and sizes of the files in a folder, of a mirror as the storage lists them; links have none."""
    if remote_of(folder) is not None:
        yield from ((name, entry.bytes) for name, entry in mirror.listed(folder))
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_symlink():
                    yield entry.name, entry.stat().st_size
    except FileNotFoundError:
        return
