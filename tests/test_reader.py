"""Whatever memory, workers or interruptions there are, training sees the same batches: laws of the reader."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from teachers.errors import DataError, StoreError
from teachers.rows.epoch import EpochReader
from teachers.rows.rows import Merged, Rows, map_columns
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore

WHOLE = 1 << 30
sizes = st.integers(1, 400)
windows = st.none() | st.integers(1, 500)


def a_store(folder: Path, num_rows: int = 300, rows_per_shard: int = 64) -> tuple[SoftTargetStore, np.ndarray]:
    spec = Spec("wide", "4ea1", "train-0", "51de", "dense", tuple("abcdefg"), num_rows, rows_per_shard)
    store = SoftTargetStore.create(folder, spec)
    logits = np.random.default_rng(2).normal(scale=4, size=(num_rows, 7)).astype(np.float32)
    for number in store.missing():
        first, num = store.shard_rows(number)
        keys = np.arange(first, first + num, dtype=np.uint64) * 1000
        store.commit(number, keys, {"logits": logits[first : first + num]})
    return store, logits


def cut(array: np.ndarray, num_parts: int) -> Rows:
    return Rows([part for part in np.array_split(array, num_parts) if len(part)])


def some_columns(num_rows: int, num_parts: int = 5) -> dict[str, Rows | Tensor]:
    """Every column says in its own way which row it is: keys, images, fields of two shapes, and a tensor."""
    number = np.arange(num_rows)
    return {
        "sample_key": cut(number.astype(np.uint64) << 33, num_parts),
        "image": cut(np.repeat(number[:, None], 6, 1).astype(np.uint8).reshape(-1, 2, 3, 1), num_parts + 2),
        "wide.value": cut(np.stack([number, -number, number], 1).astype(np.float16), num_parts),
        "wide.offset": cut(number.astype(np.float32) / 2, num_parts),
        "row": torch.arange(num_rows),
    }


def a_reader(num_rows: int, **settings: object) -> EpochReader:
    asked = {"batch_size": 8, "seed": 0, "window": None, "memory_bytes": WHOLE, "device": "cpu"} | settings
    return EpochReader(some_columns(num_rows), **asked)


def epoch_order(seed: int, epoch: int, num_rows: int, window: int | None) -> Tensor:
    """The rows of an epoch in the order of use: those of a batch that holds all of them."""
    asked = {"batch_size": num_rows, "seed": seed, "window": window}
    reader = EpochReader({"row": torch.arange(num_rows)}, **asked, memory_bytes=WHOLE, device="cpu")
    [batch] = reader.batches(epoch)
    return batch["row"]


def same(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> bool:
    def bits(tensor: Tensor) -> Tensor:
        return tensor.view(torch.int64) if tensor.dtype == torch.uint64 else tensor

    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(bits(a[n]), bits(b[n])) for n in a)
        for a, b in zip(left, right, strict=True)
    )


@given(st.integers(0, 2**31), st.integers(0, 100), sizes, windows)
def test_an_epoch_uses_every_row_once(seed: int, epoch: int, num_rows: int, window: int | None):
    order = epoch_order(seed, epoch, num_rows, window)
    assert torch.equal(order.sort().values, torch.arange(num_rows))
    assert torch.equal(order, epoch_order(seed, epoch, num_rows, window))


@given(sizes, st.integers(1, 500))
def test_a_window_is_used_up_before_the_next_is_begun(num_rows: int, window: int):
    number = epoch_order(0, 1, num_rows, window) // window
    assert len(number.unique_consecutive()) == len(number.unique())


@settings(max_examples=100, deadline=None)
@given(
    num_rows=st.integers(8, 400),
    num_segments=st.integers(1, 4),
    window=windows,
    memory_rows=st.integers(0, 300),
    data=st.data(),
)
def test_rows_that_came_in_several_segments_give_the_batches_of_rows_that_came_at_once(
    num_rows: int, num_segments: int, window: int | None, memory_rows: int, data: st.DataObject
):
    of = np.array(data.draw(st.lists(st.integers(0, num_segments - 1), min_size=num_rows, max_size=num_rows)))
    segments = [np.flatnonzero(of == number) for number in range(num_segments)]
    order = np.argsort(np.concatenate(segments), kind="stable")
    asked = {"batch_size": 8, "seed": 1, "window": window, "device": "cpu", "memory_bytes": memory_rows * 24}
    at_once = some_columns(num_rows)
    arrays = {name: column.owned() for name, column in at_once.items() if isinstance(column, Rows)}
    merged = {
        name: Merged([cut(array[rows].numpy(), 3) for rows in segments if len(rows)], order)
        for name, array in arrays.items()
    }
    grown = EpochReader({**at_once, **merged}, **asked)
    assert same(list(grown.batches(1)), list(EpochReader(at_once, **asked).batches(1)))


def test_no_window_and_a_window_of_everything_are_the_same():
    assert torch.equal(epoch_order(3, 1, 100, None), epoch_order(3, 1, 100, 100))


def test_epochs_and_seeds_are_ordered_differently():
    orders = [epoch_order(seed, epoch, 1000, window) for seed in (0, 1) for epoch in (0, 1) for window in (None, 64)]
    for number, order in enumerate(orders):
        for other in orders[:number]:
            assert (order == other).float().mean() < 0.02


def test_every_row_comes_to_every_place_equally_often():
    places = torch.stack([epoch_order(0, epoch, 16, None).argsort() for epoch in range(4000)])
    counts = torch.stack([places[:, row].bincount(minlength=16) for row in range(16)])
    chi_square = ((counts - 250) ** 2 / 250).sum()
    assert chi_square < 225 + 5 * (2 * 225) ** 0.5


@settings(max_examples=150, deadline=None)
@given(
    num_rows=sizes,
    share=st.integers(1, 12) | st.just(32),  # several of 32 rows are gathered at once
    world=st.integers(1, 4),
    window=windows,
    memory_rows=st.integers(0, 300),
    data=st.data(),
)
def test_batches_depend_on_neither_memory_nor_workers_nor_the_batch_one_starts_at(
    num_rows: int, share: int, world: int, window: int | None, memory_rows: int, data: st.DataObject
):
    batch_size = min(share, num_rows // world) * world
    if not batch_size:
        return
    asked = {"batch_size": batch_size, "window": window, "seed": 3}
    expected = list(a_reader(num_rows, **asked).batches(2))
    assert len(expected) == num_rows // batch_size
    start = data.draw(st.integers(0, len(expected)))
    ranks = [
        list(a_reader(num_rows, memory_bytes=memory_rows * 24, rank=rank, world=world, **asked).batches(2, start))
        for rank in range(world)
    ]
    together = [
        {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        for batches in zip(*ranks, strict=True)
    ]
    assert same(together, expected[start:])


@pytest.mark.parametrize("memory_bytes", [WHOLE, 5000, 0])
@pytest.mark.parametrize("window", [None, 50])
def test_columns_of_a_batch_are_of_the_same_rows_in_the_order_of_the_epoch(window: int | None, memory_bytes: int):
    reader = a_reader(333, window=window, memory_bytes=memory_bytes)
    batches = list(reader.batches(4))
    rows = torch.cat([batch["row"] for batch in batches])
    assert torch.equal(rows, epoch_order(0, 4, 333, window)[: 333 // 8 * 8])
    assert reader.num_batches == len(batches) == 41
    for batch in batches:
        row = batch["row"]
        assert torch.equal(batch["sample_key"].view(torch.int64), row << 33)
        assert torch.equal(batch["image"], (row % 256).to(torch.uint8)[:, None, None, None].expand(8, 2, 3, 1))
        assert torch.equal(batch["wide.value"], torch.stack([row, -row, row], 1).half())
        assert torch.equal(batch["wide.offset"], row / 2)


@pytest.mark.parametrize("memory_bytes", [WHOLE, 5000, 0])
def test_readers_of_one_buffer_do_not_disturb_each_other(memory_bytes: int):
    reader = a_reader(333, window=50, memory_bytes=memory_bytes)
    first, second = list(reader.batches(0)), list(reader.batches(1))
    one, other = reader.batches(0), reader.batches(1)
    mixed = [(next(one), next(other)) for _ in range(reader.num_batches)]
    assert same([a for a, _ in mixed], first)
    assert same([b for _, b in mixed], second)


@pytest.mark.parametrize("memory_bytes", [WHOLE, 5000, 0])
def test_what_is_kept_of_a_batch_stays_as_it_was_and_what_is_not_kept_is_used_again(memory_bytes: int):
    """Of batches of 128 KiB and more."""
    reader = EpochReader(
        {"image": torch.rand(333, 4200)}, batch_size=8, seed=0, window=50, memory_bytes=memory_bytes, device="cpu"
    )
    expected = [batch["image"].clone() for batch in reader.batches(0)]
    kept = [batch["image"][2:] for number, batch in enumerate(reader.batches(0)) if number % 7 == 0]
    assert all(torch.equal(a, b[2:]) for a, b in zip(kept, expected[::7], strict=True))
    assert len({batch["image"].untyped_storage().data_ptr() for batch in reader.batches(0)}) <= 3


def reading_threads() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.startswith("collegium-reader"))


def test_a_closed_or_exhausted_iterator_leaves_no_thread():
    reader = a_reader(333, window=50, memory_bytes=5000)
    batches = reader.batches(0)
    next(batches)
    assert any(reading_threads())
    batches.close()
    assert not any(reading_threads())
    for _ in reader.batches(0):
        pass
    assert not any(reading_threads())
    next(reader.batches(0))  # nobody holds this iterator any more
    assert not any(reading_threads())


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="one length"):
        EpochReader(
            {"a": torch.zeros(3), "b": torch.zeros(4)}, batch_size=1, seed=0, window=None, memory_bytes=0, device="cpu"
        )
    with pytest.raises(ValueError, match="not divisible by the 3 workers"):
        a_reader(100, world=3)
    with pytest.raises(DataError, match="a batch takes 128 rows, there are 100"):
        a_reader(100, batch_size=128)
    with pytest.raises(ValueError, match="batch 13 of 12"):
        next(a_reader(100).batches(0, 13))
    with pytest.raises(ValueError, match="one shape and dtype"):
        Rows([np.zeros((2, 3)), np.zeros((2, 4))])


@settings(deadline=None)
@given(sizes, st.integers(1, 9), st.data())
def test_rows_copy_and_gather_like_one_array(num_rows: int, num_parts: int, data: st.DataObject):
    array = np.random.default_rng(0).integers(0, 255, (num_rows, 5), dtype=np.uint8)
    rows = cut(array, num_parts)
    assert (rows.num_rows, rows.shape, rows.dtype, rows.nbytes) == (num_rows, (5,), torch.uint8, array.nbytes)
    first = data.draw(st.integers(0, num_rows))
    num = data.draw(st.integers(0, num_rows - first))
    copied = torch.empty(num, 5, dtype=torch.uint8)
    rows.copy(first, copied)
    assert np.array_equal(copied, array[first : first + num])
    chosen = np.sort(data.draw(st.lists(st.integers(0, num_rows - 1), unique=True).map(np.array))).astype(np.int64)
    gathered = torch.empty(len(chosen), 5, dtype=torch.uint8)
    rows.gather(chosen, gathered)
    assert np.array_equal(gathered, array[chosen])
    assert np.array_equal(rows.owned(), array)


def test_soft_targets_read_back_what_the_teacher_said(tmp_path: Path):
    store, logits = a_store(tmp_path)
    store.seal()
    soft_targets = SoftTargets.open(tmp_path)
    assert soft_targets.spec == store.spec
    assert np.array_equal(soft_targets.keys(), np.arange(300, dtype=np.uint64) * 1000)
    assert (soft_targets.said() - torch.from_numpy(logits)).abs().max() < 0.02
    rows = soft_targets.rows()
    assert {name: (column.shape, column.dtype) for name, column in rows.items()} == {
        "value": ((7,), torch.float16),
        "offset": ((), torch.float32),
    }
    assert all(not part.flags.owndata and not part.flags.writeable for part in rows["value"].parts), (
        "mapped, not copied"
    )


def test_an_incomplete_or_shortened_store_is_refused(tmp_path: Path):
    store, _ = a_store(tmp_path)
    shard = store.shard_file(1)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"1 of 5 shards are missing \(\[1\]\)"):
        SoftTargets.open(tmp_path)


def test_a_mapped_store_holds_no_file_open(tmp_path: Path):
    a_store(tmp_path)
    held = [SoftTargets.open(tmp_path) for _ in range(3)]
    open_files = {str(path.resolve()) for path in Path("/proc/self/fd").iterdir()}
    assert not [path for path in open_files if path.startswith(str(tmp_path))]
    assert all(len(one.keys()) == 300 for one in held)


def test_mapped_columns_outlive_their_file(tmp_path: Path):
    store, _ = a_store(tmp_path)
    columns = map_columns(store.shard_file(4))
    store.shard_file(4).unlink()
    assert columns["sample_key"].tolist() == [row * 1000 for row in range(256, 300)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("memory_bytes", [WHOLE, 5000, 0])
def test_a_gpu_gets_the_same_batches(memory_bytes: int):
    expected = list(a_reader(333, window=50).batches(1))
    found = list(a_reader(333, window=50, memory_bytes=memory_bytes, device="cuda").batches(1))
    assert all(tensor.is_cuda for batch in found for tensor in batch.values())
    assert same([{name: tensor.cpu() for name, tensor in batch.items()} for batch in found], expected)
