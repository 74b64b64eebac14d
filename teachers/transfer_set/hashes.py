"""Row keys hashed anew for one purpose, and hashes of text. Knows nothing of what is decided by them."""

from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from .arrow_columns import text_bytes

Keys = NDArray[np.uint64]
HASHED_AT_ONCE = 2**20
"""Bytes of text; a longer row is hashed by itself."""


def mixed(keys: Keys, purpose: str, seed: int) -> Keys:
    """Keys hashed anew for one purpose: splitmix64's finaliser (Steele et al., 2014) after a seeded offset."""
    values = keys ^ np.uint64(xxhash.xxh3_64_intdigest(f"{purpose}:{seed}".encode()))
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def text_hashes(values: NDArray[Any]) -> Keys:
    """A 64-bit hash of each `str` [rows], u64 [rows], of its UTF-8 and its length. No Python per row."""
    ends, held = text_bytes(values)
    out = np.empty(len(ends), np.uint64)
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, start + HASHED_AT_ONCE, side="right")))
        out[first:last] = _hashes(ends[first:last] - start, held[start : int(ends[last - 1])])
        first = last
    return out


def _hashes(ends: NDArray[np.int64], held: NDArray[np.uint8]) -> Keys:
    """Each row is cut into words of 8 bytes, which are mixed, multiplied by odd numbers of their places, and summed."""
    lengths = np.diff(ends, prepend=0)
    words = np.maximum(-(-lengths // 8), 1)
    firsts = np.cumsum(words) - words
    place = np.arange(int(words.sum())) - np.repeat(firsts, words)
    at = np.repeat(ends - lengths, words) + 8 * place
    aligned = np.zeros(len(held) // 8 + 3, "<u8")
    aligned.view(np.uint8)[: len(held)] = held
    shift = (at % 8 * 8).astype(np.uint64)
    low, high = aligned[at // 8] >> shift, aligned[at // 8 + 1] << (np.uint64(63) - shift) << np.uint64(1)
    unused = (8 * np.clip(8 * (place + 1) - np.repeat(lengths, words), 0, 7)).astype(np.uint64)  # bits of the last word
    lanes = np.where(np.repeat(lengths, words) > 0, (low | high) << unused, np.uint64(0))
    odd = mixed(np.arange(2 * int(words.max()), dtype=np.uint64), "text", 0) | np.uint64(1)
    lanes = (lanes ^ (lanes >> np.uint64(32))) * odd[2 * place]
    lanes ^= lanes >> np.uint64(29)
    lanes *= odd[2 * place + 1]
    sums = np.add.reduceat(lanes, firsts)
    return mixed(sums + lengths.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), "text", 1)
