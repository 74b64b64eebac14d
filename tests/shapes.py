"""Images of squares and discs whose boxes are known: sources, sets and stores of boxes for tests."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from teachers.config.transfer_set import TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.boxes import BOX, CLASS, SCORE, boxes_of, labels_of, no_boxes

KINDS = ("disc", "square")
HEIGHT, WIDTH = 48, 64
BOXES = pa.list_(
    pa.struct(
        [(name, pa.float64()) for name in ("x1", "y1", "x2", "y2")] + [("class", pa.string()), ("crowd", pa.bool_())]
    )
)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MOST = 8


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(numbers, height=HEIGHT, width=WIDTH, most=4):
    """(u8 [H, W, 3], boxes): 0 to `most` bright shapes on a dark noisy ground that do not overlap."""
    pixels = numbers.integers(0, 40, (height, width, 3), np.uint8)
    boxes, taken = [], np.zeros((height, width), bool)
    y, x = np.mgrid[:height, :width] + 0.5
    for _ in range(int(numbers.integers(0, most + 1))):
        side = int(numbers.integers(9, 19))
        left, top = int(numbers.integers(0, width - side)), int(numbers.integers(0, height - side))
        if taken[top : top + side, left : left + side].any():
            continue
        taken[top : top + side, left : left + side] = True
        kind = KINDS[int(numbers.integers(2))]
        inside = (x - left - side / 2) ** 2 + (y - top - side / 2) ** 2 <= (side / 2) ** 2
        if kind == "square":
            inside = (x > left) & (x < left + side) & (y > top) & (y < top + side)
        pixels[inside] = numbers.integers(150, 255, 3)
        corners = {"x1": left, "y1": top, "x2": left + side, "y2": top + side}
        boxes.append({**{name: float(value) for name, value in corners.items()}, "class": kind, "crowd": False})
    return pixels, boxes


def table(rows=60, seed=0, without_label=0, **size):
    """Of `image` and `boxes`; the last `without_label` have none."""
    numbers = np.random.default_rng(seed)
    found = [picture(numbers, **size) for _ in range(rows)]
    labels = [boxes if at < rows - without_label else None for at, (_, boxes) in enumerate(found)]
    images = [{"bytes": png(pixels), "path": None} for pixels, _ in found]
    return pa.table({"image": pa.array(images, IMAGE), "boxes": pa.array(labels, BOXES)})


def many(rows=60, seed=0, without_label=0):
    """A source of `kind: import`."""
    return table(rows, seed, without_label)


def config(path, **more):
    about = {"source": {"kind": "parquet", "path": str(path)}, "inputs": "image", "label": "boxes", "task": "detection"}
    return TransferSetConfig.model_validate({**about, "max_boxes": MOST, **more})


def prepared(folder, rows=None, **more):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table() if rows is None else rows, folder / "rows.parquet")
    return prepare(config(folder / "rows.parquet", **more), folder / "prepared")


def said_of_labels(labels, *, score=0.9, shift=0.0, seed=0, forget=0.0):
    """f32 [rows, M * 6] of who knows the boxes of labels [rows, M * 8], but for some and a shift of their sides' size."""
    numbers, true = np.random.default_rng(seed), labels_of(np.nan_to_num(labels, nan=-1.0))
    said = no_boxes(len(labels), len(BOX), true.shape[1]).reshape(len(labels), -1, len(BOX))
    for row, boxes in enumerate(true):
        mine = [box for box in boxes if box[CLASS] >= 0 and numbers.random() >= forget]
        for place, box in enumerate(mine):
            sides = np.tile(box[2:4] - box[:2], 2)
            corners = (box[:SCORE] + shift * sides * numbers.uniform(-1, 1, 4)).clip(0, 1)
            said[row, place] = [*corners, score - 0.01 * place, box[CLASS]]
    return said.reshape(len(labels), -1).astype(np.float32)


def make_store(folder, transfer_set, *, split="train", name="wide", **how):
    (segment,) = transfer_set.of(split)
    said, keys = said_of_labels(transfer_set.labels(segment), **how), transfer_set.keys(segment)
    space = transfer_set.space
    about = segment.name, segment.digest, "dense", space.names, segment.num_rows, 64, "boxes", (), space.max_boxes
    store = SoftTargetStore.create(folder, Spec(name, f"{name}-{how}", *about))
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {"boxes": said[first : first + num]})
    store.seal()
    return folder


def scores_of(said):
    return boxes_of(said)[..., SCORE]
