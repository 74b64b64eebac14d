"""Shuffled epochs through the store's reader, beside a gather from RAM and beside other formats.

    python benchmarks/store.py [--rounds 5] [--megabytes 200] [--device cuda]

A store of random soft targets is written and opened as training does it. One epoch is every row once, in batches of
1024. `ram` is torch.randperm and torch.index_select from one tensor of the same bytes in memory. The reader's copies
are part of its time. `resident`: the data fits, and the one copy at the start is spread over SPREAD epochs; otherwise
the reader may hold half of the data: `windowed` shuffles windows of four shards and copies them in every epoch,
`global` shuffles everything. All sides run in this process, in turn, with one torch thread; the reader's copying thread
is its own, so CPU time over CPU time is given too. On a GPU `ram` is its memory, batches are of 8192 rows, windows come
through pinned memory of the host, and the other formats, which know of no GPU, are left out. A figure is the median over rounds. The last line printed is one
JSON object:

    shuffled_over_ram        the worst time over `ram`'s of resident and windowed, rows of 200 bytes and more
    shuffled_over_ram_global the same of global, what a recipe without `shuffle_window` does with data that does not fit
    ranges                   least and greatest of global and of the other formats
    cases                    per row size: resident, windowed, global, and the others' factors over `ram`; `select` is
                             index_select alone, the permutation given
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import torch
from torch import Tensor

from benchmarks.record import finish, with_record
from teachers.rows.epoch import EpochReader
from teachers.soft_targets.encodings.table import bytes_per_row
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec, rows_per_shard
from teachers.soft_targets.store import SoftTargetStore

BATCH = {"cpu": 1024, "cuda": 8192}
EPOCHS = 5
"""Epochs that are timed in a round."""
SPREAD = 20
"""Epochs of a training that shares one copy of resident data."""
ROW_BYTES = (60, 200, 252, 2000)
IN_THE_KEY = 200
"""Smallest rows that count for `shuffled_over_ram`."""
MAX_ROWS = 1_000_000
OURS = ("resident", "windowed", "global")
OTHERS = {"np.memmap": 50, "Hugging Face datasets": 5, "Parquet": 1}
"""Batches that another format is asked for: enough to time it, few enough to end."""

Timed = tuple[float, float]
"""Seconds and CPU seconds of one batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=200, help="size of each store")
    parser.add_argument("--device", choices=BATCH, default="cpu")
    with_record(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {}
    for row_bytes in ROW_BYTES:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(Path(folder), row_bytes, arguments.megabytes << 20, torch.device(arguments.device))
            cases[row_bytes] = case.measure(arguments.rounds)
        show(row_bytes, cases[row_bytes])
    large = [case for row_bytes, case in cases.items() if row_bytes >= IN_THE_KEY]
    worst = {kind: max(case[kind]["time"] for case in large) for kind in OURS}
    result = {
        "shuffled_over_ram": max(worst["resident"], worst["windowed"]),
        "shuffled_over_ram_global": worst["global"],
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "ranges": {name: _range(cases, name) for name in ("global", *(OTHERS if arguments.device == "cpu" else ()))},
        "cases": cases,
    }
    finish("store" if arguments.device == "cpu" else "store-cuda", result, keep=arguments.record)


def _range(cases: dict[int, dict[str, Any]], name: str) -> tuple[float, float]:
    """The least and the greatest factor of the sizes that count."""
    factors = [case[name]["time"] for row_bytes, case in cases.items() if row_bytes >= IN_THE_KEY and name in case]
    return min(factors), max(factors)


class Case:
    """One row size: the store, the same bytes in RAM, and the other formats' files."""

    def __init__(self, folder: Path, row_bytes: int, num_bytes: int, device: torch.device) -> None:
        self.folder, self.row_bytes, self.device, self.batch_size = folder, row_bytes, device, BATCH[device.type]
        num_rows = min(num_bytes // row_bytes, MAX_ROWS) // self.batch_size * self.batch_size
        self.soft_targets = SoftTargets.open(write_store(folder / "store", row_bytes, num_rows))
        self.num_rows, self.num_batches = num_rows, num_rows // self.batch_size
        self.columns = self.soft_targets.rows()
        value, offset = (self.columns[name].owned() for name in ("value", "offset"))
        self.ram = torch.cat([value, offset[:, None].view(torch.float16)], 1).to(device)
        assert self.ram.shape[1] * 2 == row_bytes

    def measure(self, rounds: int) -> dict[str, Any]:
        """Time and CPU time of a batch over `ram`'s, and the microseconds of one from `ram`."""
        readers = {kind: self._reader_side(kind) for kind in OURS}
        others = dict(self._other_formats()) if self.device.type == "cpu" else {}
        ram_us, ours = compare(self.from_ram, readers | {"select": self.select}, rounds)
        return {"rows": self.num_rows, "ram_us": ram_us, **ours, **compare(self.from_ram, others, rounds)[1]}

    def from_ram(self) -> Timed:
        return self._epochs_from_ram(self.permutation)

    def select(self) -> Timed:
        order = self.permutation()
        return self._epochs_from_ram(lambda: order)

    def permutation(self) -> Tensor:
        return torch.randperm(self.num_rows, device=self.device)

    def _epochs_from_ram(self, permutation: Callable[[], Tensor]) -> Timed:
        out = self.ram.new_empty(self.batch_size, self.ram.shape[1])
        clock = Clock()
        for _ in range(EPOCHS):
            for index in permutation().split(self.batch_size):
                torch.index_select(self.ram, 0, index, out=out)
        return clock.per_batch(EPOCHS * self.num_batches)

    def _reader_side(self, kind: str) -> Callable[[], Timed]:
        window = 4 * self.soft_targets.spec.rows_per_shard
        memory_bytes = self.num_rows * self.row_bytes // (1 if kind == "resident" else 2)

        def side() -> Timed:
            clock = Clock()
            reader = EpochReader(
                self.columns,
                batch_size=self.batch_size,
                seed=0,
                window=window if kind == "windowed" else None,
                memory_bytes=memory_bytes,
                device=self.device,
            )
            copy = clock.per_batch(SPREAD * self.num_batches)
            clock = Clock()
            for epoch in range(EPOCHS):
                for _ in reader.batches(epoch):
                    pass
            epochs = clock.per_batch(EPOCHS * self.num_batches)
            return copy[0] + epochs[0], copy[1] + epochs[1]

        return side

    def _other_formats(self) -> Iterator[tuple[str, Callable[[], Timed]]]:
        batches = [index.numpy() for index in torch.randperm(self.num_rows).split(self.batch_size)]
        np.save(self.folder / "rows.npy", self.ram.numpy())
        memmap = np.load(self.folder / "rows.npy", mmap_mode="r")
        yield "np.memmap", lambda: ask(batches[: OTHERS["np.memmap"]], lambda rows: memmap[rows])
        table = self._table()
        yield from self._hugging_face(table, batches)
        pa.parquet.write_table(
            table, self.folder / "rows.parquet", row_group_size=self.soft_targets.spec.rows_per_shard
        )
        parquet = pa.dataset.dataset(self.folder / "rows.parquet")
        yield "Parquet", lambda: ask(batches[: OTHERS["Parquet"]], parquet.take)

    def _table(self) -> pa.Table:
        files = sorted((self.folder / "store" / "shards").glob("*.arrow"))
        return pa.dataset.dataset(files, format="ipc").to_table(columns=["logits.value", "logits.offset"])

    def _hugging_face(self, table: pa.Table, batches: list[np.ndarray]) -> Iterator[tuple[str, Callable[[], Timed]]]:
        try:
            import datasets
        except ImportError:
            return
        with pa.OSFile(str(self.folder / "rows.stream"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        rows = datasets.Dataset.from_file(str(self.folder / "rows.stream")).with_format("torch")
        name = "Hugging Face datasets"
        yield name, lambda: ask(batches[: OTHERS[name]], lambda index: rows[index.tolist()])


class Clock:
    """From here on, and up to what the GPU was told before it was asked."""

    def __init__(self) -> None:
        synchronise()
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def per_batch(self, num_batches: int) -> Timed:
        synchronise()
        seconds, cpu_seconds = time.perf_counter() - self.began, time.process_time() - self.cpu_began
        return seconds / num_batches, cpu_seconds / num_batches


def synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def compare(
    ram: Callable[[], Timed], sides: dict[str, Callable[[], Timed]], rounds: int
) -> tuple[float, dict[str, dict[str, float]]]:
    """Microseconds of a batch from `ram`, and each side's medians over its; the first round warms up and does not count."""
    timed = [[side() for side in (ram, *sides.values())] for _ in range(rounds + 1)][1:]
    (seconds, cpu_seconds), *others = [
        tuple(median(column) for column in zip(*times, strict=True)) for times in zip(*timed, strict=True)
    ]
    factors = [{"time": round(s / seconds, 3), "cpu": round(c / cpu_seconds, 3)} for s, c in others]
    return round(seconds * 1e6, 1), dict(zip(sides, factors, strict=True))


def ask(batches: list[np.ndarray], take: Callable[[np.ndarray], Any]) -> Timed:
    clock = Clock()
    for rows in batches:
        take(rows)
    return clock.per_batch(len(batches))


def write_store(folder: Path, row_bytes: int, num_rows: int) -> Path:
    """A sealed dense store whose rows take `row_bytes` without their keys."""
    num_classes = (row_bytes - 4) // 2
    shard_rows = rows_per_shard(num_rows, bytes_per_row("dense", num_classes))
    classes = tuple(map(str, range(num_classes)))
    store = SoftTargetStore.create(folder, Spec("noise", "0", "train-0", "0", "dense", classes, num_rows, shard_rows))
    rng = np.random.default_rng(0)
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        logits = rng.random((num, num_classes), dtype=np.float32)
        store.commit(number, np.arange(first, first + num, dtype=np.uint64), {"logits": logits})
    store.seal()
    return folder


def show(row_bytes: int, case: dict[str, Any]) -> None:
    print(f"\nrows of {row_bytes} bytes, {case['rows']:,} of them: {case['ram_us']} us a batch from RAM", flush=True)
    for name, over in case.items():
        if isinstance(over, dict):
            print(f"    {name:<24} {over['time']:>10.2f} x the time {over['cpu']:>10.2f} x the CPU time", flush=True)


if __name__ == "__main__":
    main()
