"""A quote in CSV that is opened and never closed: the rows behind it would silently be one value of one row.

Looks at bytes as they are read, with NumPy where quotes are as they should be. Knows nothing of columns.
"""

from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError

QUOTE, NEWLINE, RETURN, SPACE = b'"'[0], b"\n"[0], b"\r"[0], b" "[0]
HIDDEN = 255
"""Arrow's parser overlooks a delimiter behind a NUL, which is why that passes as a byte that no UTF-8 holds."""
HIDES = bytes.maketrans(b"\0\xff", b"\xff\xfe")
Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]


class Watched:
    """A file as `pyarrow.PythonFile` reads it. Raises DataError that names the line of a quote that is not closed.

    A quote opens a value at its beginning only; in a value two of them are one. Where text stands behind a closing quote
    and the value is of several lines, the quote that opened it was not meant to hold so much.
    """

    def __init__(self, file: BinaryIO, title: str, delimiter: str) -> None:
        self.file, self.title = file, title
        self.ends = np.array([ord(delimiter) if ord(delimiter) < 128 else NEWLINE, NEWLINE, RETURN], np.uint8)
        self.line, self.opened_in = 1, 0
        """The line of the next byte; the line of the quote that is open, 0 for none."""
        self.before, self.held = NEWLINE, b""
        """The byte before the next one; what was read, and what follows it is not known yet."""
        self.closed = self.hides_nul = False

    def read(self, size: int = -1) -> bytes:
        found = self.file.read(size)
        self._look(found)
        if b"\0" in found or b"\xff" in found:
            self.hides_nul, found = True, found.translate(HIDES)
        return found

    def unhidden(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Columns of text that were parsed, with the NULs that they had."""
        return (
            pa.record_batch([_unhidden(array) for array in batch.columns], schema=batch.schema)
            if self.hides_nul
            else batch
        )

    def close(self) -> None:
        self.closed = True
        self.file.close()

    def told(self, why: str) -> DataError:
        return DataError(
            f"{self.title}: line {self.opened_in}: a quote is opened there, {why}; close it, or write it twice where it is meant"
        )

    def _look(self, found: bytes) -> None:
        """At all but the last byte, and quotes before it, which are kept until what follows them is known; at the end at those, too."""
        whole = self.held + found
        part = whole[:-1].rstrip(b'"') if found else whole
        self.held = whole[len(part) :]
        following = np.frombuffer(whole[1 : len(part) + 1] if found else whole[1:] + b"\n", np.uint8)
        self._look_at(np.frombuffer(part, np.uint8), following)
        if not found and self.opened_in:
            raise self.told("and the file ends before it is closed: all rows after it would be one value")

    def _look_at(self, part: Bytes, following: Bytes) -> None:
        quotes = np.flatnonzero(part == QUOTE)
        if len(quotes):
            before = np.append(np.uint8(self.before), part[:-1])[quotes]
            if self._are_as_they_should_be(quotes, before, following[quotes]):
                self._skip(part, quotes, before)
            else:
                self._step(part, quotes, before, following)
        if len(part):
            self.line += int((part == NEWLINE).sum())
            self.before = int(part[-1])

    def _are_as_they_should_be(self, quotes: Places, before: Bytes, following: Bytes) -> bool:
        """Whether every second quote opens at the beginning of a value, and the others close at its end; two are one."""
        opens = np.arange(len(quotes)) % 2 == bool(self.opened_in)
        begins = np.isin(before, [*self.ends, QUOTE])
        ends = np.isin(following, [*self.ends, QUOTE])
        return bool(np.where(opens, begins, ends).all())

    def _skip(self, part: Bytes, quotes: Places, before: Bytes) -> None:
        if (len(quotes) + bool(self.opened_in)) % 2 == 0:
            self.opened_in = 0
            return
        opening = quotes[1 if self.opened_in else 0 :: 2][::-1]
        was = before[1 if self.opened_in else 0 :: 2][::-1]
        if len(first := opening[was != QUOTE]):
            self.opened_in = self.line + int((part[: first[0]] == NEWLINE).sum())

    def _step(self, part: Bytes, quotes: Places, before: Bytes, following: Bytes) -> None:
        """Quote by quote, as Arrow's parser has it."""
        lines = self.line + np.concatenate([[0], np.cumsum(part == NEWLINE)])[quotes]
        doubled = -1
        for at, last, line in zip(quotes.tolist(), before.tolist(), lines.tolist(), strict=True):
            if at == doubled:
                continue
            if not self.opened_in:
                if last in self.ends:
                    self.opened_in = line
            elif following[at] == QUOTE:
                doubled = at + 1
            elif following[at] in self.ends or line == self.opened_in or self._only_spaces(following[at:]):
                self.opened_in = 0
            else:
                raise self.told(
                    f"and text goes on behind the next one, in line {line}: the rows between would be one value"
                )

    def _only_spaces(self, following: Bytes) -> bool:
        """Whether spaces are all that stands before the end of the value, as far as is read."""
        rest = following[following != SPACE]
        return bool(following[0] == SPACE and (not len(rest) or rest[0] in self.ends))


def _unhidden(array: pa.Array) -> pa.Array:
    validity, offsets, held = array.buffers()
    if held is None:
        return array
    found = np.frombuffer(held, np.uint8)
    whole = pa.py_buffer(np.where(found == HIDDEN, np.uint8(0), found))
    return pa.Array.from_buffers(array.type, len(array), [validity, offsets, whole], offset=array.offset)
