"""Batches on their way to a GPU and answers on their way back, while the GPU computes others; on a CPU nothing moves.

Inputs go through pinned memory on a stream of their own, answers come back into pinned memory on another. The values are those of
plain copies. Knows nothing of teachers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.folded import Said
from ..models.scores import tensor_of

AHEAD = 1
"""Batches that are sent and asked about while an answer is waited for."""


class Lane:
    """To one device, of one thread. `ahead`: 0 on a CPU, which computes when it is asked."""

    def __init__(self, device: torch.device | None) -> None:
        self.device = device if device is not None and device.type == "cuda" else None
        self.ahead = 0 if self.device is None else AHEAD
        if self.device is not None:
            self.going, self.coming = torch.cuda.Stream(self.device), torch.cuda.Stream(self.device)

    def send(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """The same on the device, but for text; whatever is computed on it there waits for it."""
        if self.device is None:
            return batch
        with self._on(self.going, waits=False):
            sent = {
                name: self._sent(column) if column.dtype.kind in "biuf" else column for name, column in batch.items()
            }
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(self.going)
        for column in sent.values():
            if isinstance(column, Tensor):
                column.record_stream(now)  # its memory was taken on the other stream
        return sent

    def _sent(self, column: np.ndarray) -> Tensor:
        return tensor_of(column).pin_memory().to(self.device, non_blocking=True)

    def fetch(self, said: Said) -> Callable[[], Said]:
        """Begin to copy an answer; who calls what is returned waits for it."""
        if self.device is None:
            return lambda: said
        with self._on(self.coming, waits=True):
            here = Said(self._fetched(said.scores), {name: self._fetched(each) for name, each in said.more.items()})
            done = self.coming.record_event()

        def arrived() -> Said:
            done.synchronize()
            return here

        return arrived

    def _fetched(self, values: Any) -> Any:
        if not isinstance(values, Tensor) or not values.is_cuda:
            return values
        values.record_stream(self.coming)
        here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return here.copy_(values.detach(), non_blocking=True)

    @contextmanager
    def _on(self, stream: torch.cuda.Stream, *, waits: bool) -> Iterator[None]:
        """`waits`: for what has been computed."""
        if waits:
            stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            yield
