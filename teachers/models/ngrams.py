"""Hashed n-grams of text, by array arithmetic on the code points of all rows at once: no Python for a row or a run.

Needs NumPy and nothing else, and no file: who is given a model elsewhere makes the same ids in a few lines. That is why the
hash is splitmix64 over code points, which arrays can do, and none over strings.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.preprocess import Ngrams
from ..transfer_set.derived import Derived
from .text import PADDING, TextTransform

U64 = NDArray[np.uint64]
BEGIN, END = 0x110000, 0x110001
"""Stand around each word; no code point is as large."""
LETTERS_END = 0x32400
"""No code point from here on is a letter, mark or digit, but for variants of glyphs."""
BY_THEMSELVES = ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, LETTERS_END))
"""Kana and Han, which are written without spaces: each is a word, as BERT's tokenizer has it."""
IN_A_WORD, ALONE = 1, 2
GOLDEN = 0x9E3779B97F4A7C15
"""What the state of splitmix64 grows by with each number."""
OF_CHARACTERS = 128
"""Added to the length of a run of characters: its tag; that of a run of words is its length."""
AT_ONCE = 1 << 18
"""Code points; a longer text is taken by itself. Bounds memory, and nothing depends on it."""


@dataclass(frozen=True)
class HashedNgrams(TextTransform):
    """Ids i32 `[rows, max_length]` from 0 to `buckets` - 1, -1 behind the last, in the order in which runs begin.

    A word is a run of Unicode letters, marks and digits; one of Kana or Han is a word of its own. Runs of words, `words`
    long, do not leave their text; runs of characters, `characters` long, lie within a word between the marks of its ends. A
    run of x_0 .. x_n-1 has the number h = mix(sum of mix(x_k + k G) + tag G + mix(column)) with splitmix64's finaliser and increment G
    (Steele et al., 2014), and the id (h >> 32) * buckets >> 32. x is a code point, or a word's own such sum; `tag` tells words from
    characters, and lengths, apart; of several text columns the runs of one stand behind those of the one before.
    """

    names: tuple[str, ...]
    words: tuple[int, ...]
    characters: tuple[int, ...]
    buckets: int
    max_length: int
    lowercase: bool

    kind = "ngrams"

    @classmethod
    def of(cls, config: Ngrams, names: tuple[str, ...]) -> Self:
        return cls.of_document({**config.model_dump(), "names": names})

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` gave, without `kind`."""
        lengths = {key: tuple(sorted(set(document[key]))) for key in ("words", "characters")}
        return cls(**{**document, **lengths})

    @property
    def outputs(self) -> tuple[Derived, ...]:
        return (Derived("ngrams", (self.max_length,), np.dtype(np.int32)),)

    @property
    def vocabulary_size(self) -> int:
        return self.buckets

    def document(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {name: list(found[name]) for name in ("names", "words", "characters")}
        return {"kind": self.kind, **found, **lists}

    def counted(self, texts: Sequence[NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], int]:
        flat = np.stack([np.asarray(each, object) for each in texts], 1).ravel().tolist()
        flat = [*map(str.lower, flat)] if self.lowercase else flat
        width = len(texts)
        lengths = np.fromiter(map(len, flat), np.int64, len(flat))
        ids = np.full((len(flat) // width, self.max_length), PADDING, np.int32)
        num_cut = 0
        for rows in _portions(lengths.reshape(-1, width).sum(1)):
            some = slice(rows.start * width, rows.stop * width)
            num_cut += self._fill(ids[rows], "".join(flat[some]), lengths[some], width)
        return {"ngrams": ids}, num_cut

    def _fill(self, ids: NDArray[np.int32], text: str, lengths: NDArray[np.int64], width: int) -> int:
        """Of some rows, whose texts (`width` a row) stand one behind another in `text`; of how many the end was cut off."""
        words = _Words.of(text, lengths, width)
        runs = [*self._runs(words)]
        begins = np.zeros(len(words.marked) + 1, np.int64)
        for at, _ in runs:
            begins[at + 1] += 1
        before = np.cumsum(begins)  # runs that begin before each place
        first_word = np.searchsorted(words.row, np.arange(len(ids) + 1))
        edges = np.append(words.begin, len(words.marked))[first_word]
        before_row = before[edges]
        for at, hashes in runs:
            row = words.row[words.word[at]]
            place = before[at] - before_row[row]
            before[at] += 1  # the next kind of run that begins here comes behind this one
            kept = place < self.max_length
            ids[row[kept], place[kept]] = (hashes[kept] >> 32) * np.uint64(self.buckets) >> 32
        return int((np.diff(before_row) > self.max_length).sum())

    def _runs(self, words: "_Words") -> Iterator[tuple[NDArray[np.int64], U64]]:
        """(where runs begin among marked characters, ascending; the hash of each), by kind and length."""
        of_words, of_characters = max(self.words, default=0), max(self.characters, default=0)
        mixed = [_mix(words.hashes + _step(k)) for k in range(of_words)]
        for n in self.words:
            whole = np.flatnonzero(_ends_meet(words.text, n))
            yield words.begin[whole], _hash(mixed[:n], whole, words.column[whole], n)
        mixed = [_mix(words.marked + _step(k)) for k in range(of_characters)]
        for n in self.characters:
            inside = _ends_meet(words.word, n)
            whole = np.flatnonzero(inside & (words.marked < BEGIN) if n == 1 else inside)
            yield whole, _hash(mixed[:n], whole, words.column[words.word[whole]], OF_CHARACTERS + n)


@dataclass(frozen=True)
class _Words:
    """The words of some texts, one behind another."""

    marked: U64
    """Their characters, each word between BEGIN and END."""
    word: NDArray[np.int64]
    """The number of the word that each of these belongs to."""
    begin: NDArray[np.int64]
    """Of each word: where its BEGIN stands."""
    text: NDArray[np.int64]
    """Of each word: the number of its text."""
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    hashes: U64

    @classmethod
    def of(cls, text: str, lengths: NDArray[np.int64], width: int) -> Self:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        kinds = _kinds()[np.minimum(points, LETTERS_END)]
        kept = np.flatnonzero(kinds)
        points, kinds = points[kept].astype(np.uint64), kinds[kept]
        of_text = np.repeat(np.arange(len(lengths)), lengths)[kept]
        starts = np.ones(len(kept), bool)
        starts[1:] = (np.diff(kept) > 1) | (np.diff(of_text) > 0) | (kinds[1:] == ALONE) | (kinds[:-1] == ALONE)
        first = np.flatnonzero(starts)
        in_word = np.diff(first, append=len(kept))
        own = np.repeat(np.arange(len(first)), in_word)
        begin = first + 2 * np.arange(len(first))
        marked = np.full(len(kept) + 2 * len(first), END, np.uint64)
        marked[begin] = BEGIN
        marked[np.arange(len(kept)) + 2 * own + 1] = points
        place = (np.arange(len(kept)) - first[own]).astype(np.uint64)
        sums = np.add.reduceat(_mix(points + place * np.uint64(GOLDEN)), first) if len(first) else points
        word, of_text = np.repeat(np.arange(len(first)), in_word + 2), of_text[first]
        return cls(marked, word, begin, of_text, of_text // width, of_text % width, sums)


def _ends_meet(of: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Where n consecutive ones are of the same, bool [len(of)]."""
    found = np.zeros(len(of), bool)
    found[: max(len(of) - n + 1, 0)] = of[: max(len(of) - n + 1, 0)] == of[n - 1 :]
    return found


def _hash(mixed: Sequence[U64], whole: NDArray[np.int64], column: NDArray[np.int64], tag: int) -> U64:
    """Of the runs that begin at `whole`, from their mixed parts."""
    total = sum((each[whole + k] for k, each in enumerate(mixed)), _step(tag) + _mix(column.astype(np.uint64)))
    return _mix(total)


def _step(number: int) -> np.uint64:
    return np.uint64(number * GOLDEN % 2**64)


def _mix(values: U64) -> U64:
    """The finaliser of splitmix64, in place."""
    values ^= values >> 30
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> 27
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> 31
    return values


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.uint8]:
    """By code point: 0 stands between words, IN_A_WORD, ALONE; the last is of all that are larger."""
    known = [unicodedata.category(chr(point))[0] in "LMN" for point in range(LETTERS_END)]
    kinds = np.array([*known, False], np.uint8) * np.uint8(IN_A_WORD)
    for first, end in BY_THEMSELVES:
        kinds[first:end] *= np.uint8(ALONE)
    return kinds


def word_pattern() -> str:
    """A regular expression that finds the words of a text one by one, where there are no arrays: `re.findall`."""

    def of(kind: int) -> str:
        points = np.flatnonzero(_kinds() == kind)
        parts = np.split(points, np.flatnonzero(np.diff(points) > 1) + 1)
        return "".join(f"\\U{part[0]:08x}-\\U{part[-1]:08x}" for part in parts)

    return f"[{of(ALONE)}]|[{of(IN_A_WORD)}]+"


def _portions(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Consecutive rows of about AT_ONCE code points."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, start + AT_ONCE, side="right")))
        yield slice(first, stop)
        first = stop
