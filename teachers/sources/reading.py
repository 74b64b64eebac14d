"""A reader's boundary: what it raises on a damaged or foreign file is one line that names the file, what it is, the cure.

Knows nothing of columns or rows.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from ..errors import CollegiumError, DataError
from .files import File, printable

UNREADABLE = (pa.ArrowException, OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""What readers of tables and arrays raise on damaged or foreign files; `zipfile` of one with a password the last."""
MAGIC = {
    b"\x1f\x8b": "it is compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd; unpack it",
    b"BZh": "it is compressed by bzip2; unpack it",
    b"\xfd7zXZ": "it is compressed by xz; unpack it",
    b"\xff\xfe\0\0": "it is text in UTF-32; save it as UTF-8",
    b"\xff\xfe": "it is text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is text in UTF-16; save it as UTF-8",
    b"PAR1": "it is a Parquet file; say `kind: parquet`",
    b"ARROW1": "it is an Arrow file; say `kind: arrow`",
    b"SQLite format 3": "it is a SQLite database; write its rows to Parquet or CSV",
    b"\x89HDF": "it is an HDF5 file; write its arrays with numpy.savez",
    b"\x93NUMPY": "it is a NumPy array; say `kind: numpy`",
    b"PK\x03\x04": "it is a zip archive (a spreadsheet is one); unpack it, or export it as CSV",
}
"""What a file is by its first bytes, and what to do with it."""
LOOKED_AT = 4096
"""Bytes that say whether a file is text."""
NO_TEXT = "its name is not UTF-8; rename the file or its folder"
OWN_MAGIC = {"parquet": (b"PAR1",), "arrow": (b"ARROW1",), "numpy": (b"PK\x03\x04", b"\x93NUMPY")}


@contextmanager
def reading(file: File) -> Iterator[None]:
    """Turn what a reader raises on a damaged or foreign file into a DataError that names it."""
    try:
        yield
    except CollegiumError:  # it says already what is wrong
        raise
    except UNREADABLE as error:
        raise DataError(f"{file.title}: cannot be read as {file.source.kind}: {why_unreadable(file, error)}") from error


def why_unreadable(file: File, error: Exception) -> str:
    """In one line: what the file looks like, else what its reader said."""
    if (known := told_by_magic(file)) is not None:
        return known
    if file.root is not None and printable(str(file.path)) != str(file.path):
        return NO_TEXT
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{reason}; save it as UTF-8" if "utf8" in reason.lower() or isinstance(error, UnicodeError) else reason


def told_by_magic(file: File) -> str | None:
    """What a file is, where its first bytes say that it is not of its source's kind."""
    try:
        with file.path.open("rb") as opened:
            start = opened.read(16)
    except OSError:
        return None
    own = OWN_MAGIC.get(file.source.kind, ())
    return next((what for magic, what in MAGIC.items() if magic not in own and start.startswith(magic)), None)


def check_text(file: File) -> None:
    """Raise DataError for a file that holds no text."""
    with reading(file), file.path.open("rb") as opened:
        holds_nul = b"\0" in opened.read(LOOKED_AT).partition(b"\n")[0]
    if (known := told_by_magic(file)) is None and holds_nul:
        known = "its first line holds NUL bytes, so it is UTF-16 or no text; save it as UTF-8"
    if known is not None:
        raise DataError(f"{file.title}: cannot be read as {file.source.kind}: {known}")
