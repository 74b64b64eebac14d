"""SHA-256 of large files that do not change, remembered on this machine: who hashed a source once need not read it again for that.

A file is known by where it lies, its inode, size and times. One that is younger than its file system's clock is fine is not remembered:
it may change once more without looking so. Knows nothing of what files are.
"""

import json
import os
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from .place import cache
from .seal import sha256_file

FOLDER = "sha256"
LARGE = 4 * 2**20
"""Bytes from which on looking up is cheaper than hashing."""
SETTLED_NS = 2 * 10**9
"""Two changes of a file within so much time may look like one."""


def remembered_sha256(path: Path) -> str:
    """As `sha256_file`."""
    before = _state(path)
    if before["bytes"] < LARGE:
        return sha256_file(path)
    note = cache() / FOLDER / sha256(os.fsencode(path.resolve())).hexdigest()
    with suppress(OSError, ValueError, AttributeError):
        known = json.loads(note.read_bytes())
        if {**known, "sha256": None} == {**before, "sha256": None}:
            return str(known["sha256"])
    asked = time.time_ns()
    found = sha256_file(path)
    if _state(path) == before and max(before["mtime_ns"], before["ctime_ns"]) < asked - SETTLED_NS:
        with suppress(OSError):  # a disk that is full, or a home that nobody may write to
            _put_down(note, {**before, "sha256": found})
    return found


def _state(path: Path) -> dict[str, int]:
    found = path.stat()
    return {
        "device": found.st_dev,
        "inode": found.st_ino,
        "bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def _put_down(note: Path, known: dict[str, int | str]) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    draft = note.with_name(f".draft-{uuid4().hex}")
    draft.write_text(json.dumps(known))
    os.replace(draft, note)
