"""Labelling of images that stay encoded by a teacher that does nothing, beside the decoder alone.

    python benchmarks/decode.py [--rounds 5] [--images 512] [--width 640] [--height 480] [--size 320] [--folder FOLDER]

JPEG images (quality 90; of smooth noise, or those of FOLDER) are prepared with `decode: on_read`. `decoder`: threads on all
cores decode them from memory at the size that is asked for, and do nothing else. `labelling`: a replica's own code reads
its shards, asks a teacher that gives zeros, and writes its store, two shards in flight as it has them. `plain`: Pillow's own
calls in one thread, to see what the threads are worth. Sides take turns; figures are medians. The last line printed is one
JSON object:

    decode_share     the decoder's time over labelling's: what of labelling is decoding
    thread_speedup   the plain loop's time over the decoder's
    images_per_s     of each side
"""

import argparse
import io
import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.record import finish, settings, with_record
from benchmarks.turns import CLOCKS, in_turn, ratio, with_clock
from teachers.config.teacher import CallableTeacher
from teachers.config.transfer_set import SplitConfig, TableSource, TransferSetConfig
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.decoding import num_threads, pool
from teachers.transfer_set.images import Resize, decode_image

CLASSES = ("0", "1")
ROWS_PER_SHARD = 64
IN_FLIGHT = 2
"""Shards that a replica has in hand at once."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="of images, in place of noise")
    with_clock(parser)
    with_record(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    payloads = of_folder(arguments.folder) if arguments.folder else noise(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), payloads, arguments)
    finish(
        "decode", found | {"settings": settings(arguments) | {"folder": str(arguments.folder)}}, keep=arguments.record
    )


def of_folder(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def noise(arguments: argparse.Namespace) -> list[bytes]:
    """JPEG files that compress about as photographs do."""
    found = []
    for row in range(arguments.images):
        numbers = np.random.default_rng(row)
        coarse = Image.fromarray(
            numbers.integers(0, 256, (arguments.height // 8, arguments.width // 8, 3), dtype=np.uint8)
        )
        whole = np.asarray(coarse.resize((arguments.width, arguments.height), Image.Resampling.BICUBIC), np.int16)
        whole = (whole + numbers.integers(-8, 9, whole.shape)).clip(0, 255).astype(np.uint8)
        sink = io.BytesIO()
        Image.fromarray(whole).save(sink, "JPEG", quality=90)
        found.append(sink.getvalue())
    return found


def measured(folder: Path, payloads: list[bytes], arguments: argparse.Namespace) -> dict[str, Any]:
    images = pa.array([{"bytes": payload, "path": None} for payload in payloads], IMAGE)
    pq.write_table(
        pa.table({"image": images, "label": [row % 2 for row in range(len(payloads))]}), folder / "rows.parquet"
    )
    source = TableSource(kind="parquet", path=str(folder / "rows.parquet"))
    split = SplitConfig(validation=0.01, test=0.01, stratify=True)
    prepared = prepare(
        TransferSetConfig(
            source=source, inputs="image", label="label", split=split, image_size=arguments.size, decode="on_read"
        ),
        folder / "prepared",
    )
    (segment,) = prepared.of("train")
    held = [bytes(payload) for payload in prepared.inputs(segment, as_stored=True)["image"]]
    resize = Resize(arguments.size)

    def decode(payload: bytes) -> int:
        return decode_image(payload, channels=3, resize=resize).nbytes

    rounds = itertools.count()
    sides = {
        "decoder": lambda _: [*pool().map(decode, held)],
        "labelling": lambda _: label(folder, prepared.folder, segment, next(rounds)),
        "plain": lambda _: [decode(payload) for payload in held],
    }
    times = in_turn(sides, steps=len(held), rounds=arguments.rounds, clock=CLOCKS[arguments.clock])
    return {
        "decode_share": round(ratio(times["decoder"], times["labelling"]), 3),
        "thread_speedup": round(ratio(times["plain"], times["decoder"]), 2),
        "images_per_s": {name: round(1 / median(each), 1) for name, each in times.items()},
        "threads": num_threads(),
        "bytes_per_image": round(sum(map(len, held)) / len(held)),
    }


def zeros(batch: dict[str, np.ndarray]) -> np.ndarray:
    """A teacher that does nothing."""
    return np.zeros((len(batch["image"]), len(CLASSES)), np.float32)


def label(folder: Path, transfer_set: Path, segment: Any, number: int) -> None:
    """Fill a store, as a replica does."""
    spec = Spec("zeros", "d", segment.name, segment.digest, "dense", CLASSES, segment.num_rows, ROWS_PER_SHARD)
    store = SoftTargetStore.create(folder / f"store-{number}", spec)
    config = CallableTeacher(
        kind="callable", function="benchmarks.decode:zeros", version="1", output="logits", batch_size=ROWS_PER_SHARD
    )
    teacher = TeacherSpec("zeros", config, None, (), Path.cwd())
    labeller = Labeller(teacher, [LabelTask(transfer_set, segment.name, store.folder)], "cpu")
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        for _ in threads.map(lambda shard: labeller.label(0, shard), range(store.num_shards)):
            pass


if __name__ == "__main__":
    main()
