"""Images that stay encoded, decoded when they are read: by threads, which Pillow lets run side by side.

The pixels are those that `decode_image` gives, whoever asks and however many at once.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import StoreError
from .images import BadRow, Pixels, Resize, decode_image


def num_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Of this process; a child that was forked has none of its parent's threads."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="decode")


def pool() -> ThreadPoolExecutor:
    return _pool(os.getpid())


def decoded(
    payloads: Sequence[Any] | pa.Array, shape: tuple[int, ...], resize: Resize, out: Pixels | None = None
) -> Pixels:
    """u8 `[rows, *shape]` of encoded images, into `out` where it is given. Raises StoreError for what is no such image any more."""
    pixels = np.empty((len(payloads), *shape), np.uint8) if out is None else out

    def decode(row: int) -> None:
        payload = payloads[row]
        held = payload.as_buffer() if isinstance(payload, pa.Scalar) else payload
        try:
            pixels[row] = decode_image(held, channels=shape[-1], resize=resize, to_grey=True)
        except BadRow as error:
            raise StoreError(f"an image that could be decoded when it was prepared cannot any more: {error}") from error

    if len(payloads) == 1:  # no thread to wait for
        decode(0)
        return pixels
    for _ in pool().map(decode, range(len(payloads))):
        pass
    return pixels
