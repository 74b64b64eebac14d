"""What benchmarks train on: Fashion-MNIST or noise of its shape, and what a teacher says of it in a store."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from students.runs.run import Source
from teachers.config.transfer_set import NumpySource, TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec, rows_per_shard
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

FASHION = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist" / "train.parquet"
SHAPE = (1, 28, 28)
CLASSES = 10


def fashion(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first so many images, u8 [rows, 28, 28, 1], and labels."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(FASHION).slice(0, num_rows)
    print(f"data: {len(table)} rows of Fashion-MNIST")
    pixels = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table.column("image").to_pylist()]
    return np.stack(pixels)[..., None], table.column("label").to_numpy()


def noise(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """As much of noise: time does not depend on what is seen."""
    print(f"data: {num_rows} rows of noise in the shape of Fashion-MNIST")
    random = np.random.default_rng(0)
    return random.integers(0, 256, (num_rows, 28, 28, 1), dtype=np.uint8), random.integers(0, CLASSES, num_rows)


def prepared(folder: Path, images: np.ndarray, labels: np.ndarray) -> TransferSet:
    np.savez(folder / "images.npz", image=images, label=labels)
    source = NumpySource(kind="numpy", path=str(folder / "images.npz"))
    return prepare(TransferSetConfig(source=source, inputs="image", label="label"), folder / "prepared")


def stored(folder: Path, transfer_set: TransferSet, ask: Callable[[int, int], np.ndarray]) -> Source:
    """A full store of the training rows; `ask`: logits of so many rows from a first one on."""
    (segment,), name, classes = transfer_set.of("train"), folder.name, transfer_set.classes
    per_shard = rows_per_shard(segment.num_rows, 12 + 2 * len(classes))
    spec = Spec(name, "0", segment.name, segment.digest, "dense", classes, segment.num_rows, per_shard)
    store, keys = SoftTargetStore.create(folder, spec), transfer_set.keys(segment)
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {"logits": ask(first, num)})
    store.seal()
    return Source(name, {segment.name: store.folder})
