"""Shuffled batches of columns whose rows belong together, from memory or window by window from mapped files.

Knows nothing of what the columns mean. The order of the rows is decided by seed, epoch and window alone, so neither
memory, workers nor a resumed run change a batch.
"""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle

import torch
import xxhash
from torch import Tensor

from ..errors import DataError
from .buffers import Recycled, empty
from .rows import Among, Rows


def _windows(seed: int, epoch: int, num_rows: int, window: int | None) -> list[tuple[int, int]]:
    """(first row, rows) of the windows of an epoch, in the order of use: permuted, as are the rows inside of each."""
    window = window or max(num_rows, 1)
    order = torch.randperm(-(-num_rows // window), generator=_generator(seed, epoch, -1))
    return [(number * window, min(window, num_rows - number * window)) for number in order.tolist()]


def _window_order(seed: int, epoch: int, first_row: int, num_rows: int) -> Tensor:
    dtype = torch.int32 if first_row + num_rows < 1 << 31 else torch.int64  # half the memory, twice the speed
    return torch.randperm(num_rows, generator=_generator(seed, epoch, first_row), dtype=dtype).add_(first_row)


def _generator(*decided_by: int) -> torch.Generator:
    return torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(repr(decided_by).encode()) >> 1)


@dataclass(frozen=True)
class _Piece:
    """Consecutive rows of one rank's order, few enough to lie in one buffer."""

    rows: Tensor
    """The row numbers in the order of use, integers [n]."""
    window: tuple[int, int] | None
    """First row and number of rows, to load the whole window; None: load just the rows of the piece."""


@dataclass
class _Slot:
    """A buffer for each mapped column. `host` is where files are read to, `held` where batches are gathered from."""

    host: dict[str, Tensor]
    held: dict[str, Tensor]
    used: torch.cuda.Event | None = None
    """On a GPU: happens when the last batch from `held` is gathered."""


@dataclass(frozen=True)
class _Loaded:
    rows: Tensor
    """The row numbers in the order of use, integers [n]."""
    places: Tensor
    """Where these rows lie in `held`, integers [n]."""
    held: dict[str, Tensor | Among]


class EpochReader:
    """Shuffled batches of columns whose rows belong together.

    Data within `memory_bytes` is held as one buffer on `device`. Otherwise two buffers, together at most that large (but
    never smaller than two batches), are filled in turn by a background thread: with whole windows where they fit, else
    with the rows of some batches. The batches are the same either way, and for any number of ranks the slices of one
    global batch. Tensors among the columns stay where they are, on `device`, and do not count, nor do columns among others.
    """

    def __init__(
        self,
        columns: Mapping[str, Rows | Tensor | Among],
        *,
        batch_size: int,
        seed: int,
        window: int | None,
        memory_bytes: int,
        device: torch.device | str,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        lengths = {name: c.num_rows if isinstance(c, Rows) else len(c) for name, c in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns of one length expected, found {lengths}")
        if batch_size % world:
            raise ValueError(f"batch_size {batch_size} is not divisible by the {world} workers")
        self.num_rows = next(iter(lengths.values()))
        if batch_size > self.num_rows:
            raise DataError(f"a batch takes {batch_size} rows, there are {self.num_rows}; lower batch_size")
        self.batch_size, self.seed, self.window = batch_size, seed, window
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self.num_batches = self.num_rows // batch_size
        self._held: dict[str, Tensor | Among] = {
            name: c.to(device) if isinstance(c, Among) else c.contiguous().to(device)
            for name, c in columns.items()
            if not isinstance(c, Rows)
        }
        self._mapped = {name: c for name, c in columns.items() if isinstance(c, Rows)}
        self._names = tuple(columns)
        row_bytes = sum(c.nbytes for c in self._mapped.values()) // self.num_rows
        if row_bytes * self.num_rows <= memory_bytes:
            self._held |= {name: c.owned().to(device) for name, c in self._mapped.items()}
            self._mapped = {}
        self._capacity = max(memory_bytes // max(2 * row_bytes, 1), batch_size // world)
        self._whole_windows = world == 1 and min(window or self.num_rows, self.num_rows) <= self._capacity
        self._spare: list[tuple[_Slot, _Slot]] = []

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """This rank's slice of each global batch of an epoch, from batch `start` on: {name: [batch_size / world, ...]}.

        A short last batch is dropped. The tensors are fresh: they stay valid.
        """
        if not 0 <= start <= self.num_batches:
            raise ValueError(f"batch {start} of {self.num_batches}")
        pieces = self._pieces(epoch, start)
        with closing(self._prefetched(pieces) if self._mapped else self._whole(pieces)) as loaded:
            yield from self._cut(loaded)

    def _pieces(self, epoch: int, start: int) -> Iterator[_Piece]:
        """This rank's rows from batch `start` on, in order."""
        first, last = start * self.batch_size, self.num_batches * self.batch_size
        position = 0
        for first_row, num_rows in _windows(self.seed, epoch, self.num_rows, self.window):
            begin, end = max(first - position, 0), min(last - position, num_rows)
            if begin < end:
                rows = _window_order(self.seed, epoch, first_row, num_rows)[begin:end]
                rows = self._share_of(rows, position + begin)
                if self._whole_windows:
                    yield _Piece(rows, (first_row, num_rows))
                else:
                    yield from (_Piece(part, None) for part in torch.split(rows, self._capacity) if len(part))
            position += num_rows

    def _share_of(self, rows: Tensor, position: int) -> Tensor:
        """Those of the rows at `position` and after it in the order that lie in this rank's slices of the batches."""
        if self.world == 1:
            return rows
        at = torch.arange(position, position + len(rows)) % self.batch_size
        return rows[at // (self.batch_size // self.world) == self.rank]

    def _whole(self, pieces: Iterator[_Piece]) -> Generator[_Loaded]:
        rows = [piece.rows for piece in pieces]
        if rows:
            order = torch.cat(rows).to(self.device)
            yield _Loaded(order, order, self._held)

    def _prefetched(self, pieces: Iterator[_Piece]) -> Generator[_Loaded]:
        """The pieces, loaded by a thread of its own into two slots in turn: one is filled while the other is used."""
        slots = self._spare.pop() if self._spare else (self._new_slot(), self._new_slot())
        with ThreadPoolExecutor(1, thread_name_prefix="collegium-reader") as thread:
            waiting = deque(thread.submit(self._load_next, pieces, slot) for slot in slots)
            for slot in cycle(slots):
                loaded = waiting.popleft().result()
                if loaded is None:
                    break
                try:
                    yield loaded
                finally:
                    if self.device.type == "cuda":
                        slot.used = torch.cuda.current_stream(self.device).record_event()
                waiting.append(thread.submit(self._load_next, pieces, slot))
        self._spare.append(slots)

    def _load_next(self, pieces: Iterator[_Piece], slot: _Slot) -> _Loaded | None:
        piece = next(pieces, None)
        if piece is None:
            return None
        if piece.window:
            first_row, num_rows = piece.window
            places = piece.rows - first_row
            for name, column in self._mapped.items():
                column.copy(first_row, slot.host[name][:num_rows])
        else:
            num_rows = len(piece.rows)
            ascending, order = piece.rows.sort()
            places = torch.empty_like(order).scatter_(0, order, torch.arange(num_rows))
            for name, column in self._mapped.items():
                column.gather(ascending.numpy(), slot.host[name][:num_rows])
        self._hand_over(slot, num_rows)
        return _Loaded(piece.rows, places, {**self._held, **slot.held})

    def _hand_over(self, slot: _Slot, num_rows: int) -> None:
        """On a GPU: copy what was read to it, once the batches of the slot's last piece are gathered."""
        if self.device.type != "cuda":
            return
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            if slot.used is not None:
                slot.used.synchronize()
            for name, host in slot.host.items():
                slot.held[name][:num_rows].copy_(host[:num_rows], non_blocking=True)
            stream.synchronize()

    def _new_slot(self) -> _Slot:
        on_gpu = self.device.type == "cuda"
        num_rows = min(self.num_rows, (self.window or self.num_rows) if self._whole_windows else self._capacity)
        host = {
            name: torch.empty(num_rows, *c.shape, dtype=c.dtype, pin_memory=True)
            if on_gpu
            else empty(num_rows, c.shape, c.dtype)
            for name, c in self._mapped.items()
        }
        return _Slot(
            host, {name: torch.empty_like(t, device=self.device) for name, t in host.items()} if on_gpu else host
        )

    def _cut(self, pieces: Iterator[_Loaded]) -> Iterator[dict[str, Tensor]]:
        """Cut the pieces into batches; one may begin in a piece and end in a later one."""
        share = self.batch_size // self.world
        memory: dict[str, Recycled] = {}
        batches: dict[str, Tensor] = {}
        """Of each column the rows of several."""
        filled, full = 0, share
        for piece in pieces:
            rows, places = piece.rows.to(self.device), piece.places.to(self.device)
            if not memory:
                full = share * _at_once(share, [_tensor(piece.held[name]) for name in self._names])
                memory = {name: Recycled(full, _tensor(piece.held[name])) for name in self._names}
            taken, length = 0, len(rows)
            while taken < length:
                num = min(full - filled, length - taken)
                here = rows[taken : taken + num]
                there = here if places is rows else places[taken : taken + num]
                batches = batches or {name: recycled.take() for name, recycled in memory.items()}
                for name, out in batches.items():
                    whole = out if num == full else out[filled : filled + num]
                    _gather(piece.held[name], there if name in self._mapped else here, whole)
                given, taken, filled = filled // share * share, taken + num, filled + num
                if (until := filled // share * share) == given:
                    continue
                cut = [out[given:until].split(share) for out in batches.values()]
                if filled == full:
                    batches, filled = {}, 0
                for batch in zip(*cut, strict=True):
                    yield dict(zip(self._names, batch, strict=True))


MOST_AT_ONCE, AT_ONCE = 16, 1 << 20
"""Batches, and bytes of them, that are gathered together: of a tiny network's step a tenth is what a gather takes beside its copying."""
ALIGNED = 64
"""Bytes at a multiple of which memory of its own begins."""


def _at_once(share: int, columns: Sequence[Tensor]) -> int:
    """How many batches of `share` rows are gathered together. One alone where the next would begin elsewhere than memory of its own
    does: what is made of it could differ in its last digits."""
    sizes = [share * each[:1].nbytes for each in columns]
    return 1 if any(size % ALIGNED for size in sizes) else max(1, min(MOST_AT_ONCE, AT_ONCE // sum(sizes)))


SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _tensor(column: Tensor | Among) -> Tensor:
    return column.held if isinstance(column, Among) else column


def _gather(source: Tensor | Among, index: Tensor, out: Tensor) -> None:
    """The rows `index` of `source`, into `out`. torch selects no unsigned numbers: their bits pass as signed ones."""
    if isinstance(source, Among):
        index = source.numbers.index_select(0, index)
        source = source.held
    if signed := SIGNED.get(source.dtype):
        source, out = source.view(signed), out.view(signed)
    torch.index_select(source, 0, index, out=out)
