"""Memory that costs little to fill. Knows nothing of what is put there.

Fresh pages are dear: the kernel clears each and faults on it. So large buffers lie on huge pages, and the memory of
batches is used again.
"""

import math
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

HUGE = 8 << 20
"""Bytes from which a buffer lies on huge pages."""
PAGES = 128 << 10
"""Bytes from which the C library takes fresh pages for a buffer; what is smaller it hands out again by itself, for less."""
IDLE = 3
"""References to an array that only its pool, the loop and the question hold."""


def empty(num_rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A buffer [num_rows, *shape] on the CPU; a large one on huge pages, which take a third of the time to fill."""
    num_bytes = num_rows * math.prod(shape) * dtype.itemsize
    if num_bytes < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(num_rows, *shape, dtype=dtype)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(num_rows, *shape)


class Recycled:
    """Tensors like a row of `like`, `num_rows` of them each, whose memory is used again once nobody holds them.

    To whoever takes one it is a fresh tensor: a tensor made of a NumPy array keeps a reference to it for as long as
    any view of it lives, so an array without further references is free. On a GPU, torch's own allocator does this.
    """

    def __init__(self, num_rows: int, like: Tensor) -> None:
        self.like, self.shape = like.new_empty(0), (num_rows, *like.shape[1:])
        self.arrays: list[np.ndarray] = []
        num_bytes = math.prod(self.shape) * like.dtype.itemsize
        if num_bytes >= PAGES and like.device.type == "cpu" and like.dtype != torch.bfloat16:
            self.arrays = [torch.empty(self.shape, dtype=like.dtype).numpy() for _ in range(3)]

    def take(self) -> Tensor:
        for array in self.arrays:
            if sys.getrefcount(array) == IDLE:
                return torch.from_numpy(array)
        return self.like.new_empty(self.shape)
