"""What it costs to work with boxes.

    python benchmarks/detection.py [--images 1525] [--repeat 3] [--rounds 5] [--edge 256]

One thread, seconds of its processor, the median; both sides take their turns on the same boxes. Three detectors say at most 100 boxes
of an image: they see most of what is there, now and then twice, and much else that they are not sure of. A step trains a
`tiny_detector` of 0.2 million parameters on 8 images of `--edge` pixels. The last line printed is one JSON object:

    boxes                   that all three say of all images
    wbf_seconds             weighted fusion of all images at once, from what stores keep to one target
    ensemble_boxes_seconds  the same image by image by the package of its authors, given its own lists of arrays
    wbf_speedup             the second over the first
    judge_seconds           COCO's figures of the fused boxes: matches, and the average precision of all overlaps
    bootstrap_seconds       the average precision again, of images that are drawn anew 200 times
    cached_over_plain       a step of a student from the three detectors' stores, by the engine, over a step of a plain loop with the
                            same images, fused boxes, true boxes, losses and optimiser
    plain_step_ms           the latter
    int8_size               bytes of `students.models:tiny_detector` of 0.9 million parameters in 8 bits over its float32 graph
    int8_latency            the same of the median time of an image of 256 pixels on one thread of onnxruntime
    int8_size_small         both of 0.2 million parameters
    int8_latency_small
"""

import argparse
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.record import finish, with_record
from benchmarks.turns import in_turn, ratio, repeated
from students.config.terms import HardTerm, PseudoTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.delivering.cost import cost_of
from students.delivering.forms import to_onnx
from students.delivering.int8 import quantised
from students.objective.losses.detection import hard, pseudo
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.tasks.average_precision import BoxesMeter
from students.tasks.resampling import resampled
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.config.transfer_set import SplitConfig, TableSource, TransferSetConfig
from teachers.models.folder import LoadedModel, ModelConfig
from teachers.models.modules import network_for
from teachers.models.preprocess import Preprocessor
from teachers.preparing.prepare import prepare
from teachers.soft_targets.combine.boxes import wbf
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.boxes import BOX, CLASS, HEIGHT, LABEL, SCORE, boxes_of, labels_of, no_boxes
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from teachers.transfer_set.transfer_set import TransferSet

Array = NDArray[Any]
CLASSES, MAX_BOXES, TEACHERS = 3, 100, 3
TRAINED_ON, BATCH, STEPS = 160, 8, 4
"""Images of the training that is timed, those of a step, and its steps in a turn."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def seen(numbers: np.random.Generator, images: int) -> tuple[Array, Array]:
    """What the detectors say, f32 `[K, images, M * 6]`, and labels, f32 `[images, M * 8]`."""
    said = no_boxes(TEACHERS * images, len(BOX), MAX_BOXES).reshape(TEACHERS, images, -1)
    labels = no_boxes(images, len(LABEL), MAX_BOXES)
    for image in range(images):
        count = int(numbers.integers(0, 26))
        corners, number = corners_of(numbers, count), numbers.integers(0, CLASSES, count)
        true = labels_of(labels)[image]
        true[:count, :4], true[:count, SCORE], true[:count, CLASS] = corners, 1, number
        true[:, HEIGHT:] = 480, 640
        for teacher in range(TEACHERS):
            boxes = detected(numbers, corners, number)
            boxes_of(said)[teacher, image, : len(boxes)] = boxes
    return said, labels


def corners_of(numbers: np.random.Generator, count: int) -> Array:
    sides = numbers.uniform(0.05, 0.3, (count, 2))
    begins = numbers.uniform(0, 1 - sides)
    return np.concatenate([begins, begins + sides], 1)


def detected(numbers: np.random.Generator, corners: Array, number: Array) -> Array:
    """`[n, 6]` of one detector and image, the best first."""
    times = numbers.choice(3, len(corners), p=[0.2, 0.65, 0.15])
    again = np.arange(len(corners)).repeat(times)
    sides = np.tile(corners[again, 2:] - corners[again, :2], 2)
    found = (corners[again] + numbers.normal(0, 0.06, sides.shape) * sides).clip(0, 1)
    strange = corners_of(numbers, int(numbers.integers(5, 60)))
    scores = np.concatenate([numbers.uniform(0.2, 1, len(again)), numbers.uniform(0.01, 0.3, len(strange))])
    classes = np.concatenate([number[again], numbers.integers(0, CLASSES, len(strange))])
    boxes = np.column_stack([np.concatenate([found, strange]), scores, classes])
    return boxes[np.argsort(-scores, kind="stable")][:MAX_BOXES].astype(np.float32)


def by_ensemble_boxes(said: Array) -> Callable[[], None]:
    """Image by image, of lists that are made beforehand."""
    from ensemble_boxes import weighted_boxes_fusion

    each = [[row[row[:, CLASS] >= 0] for row in boxes_of(image)] for image in said.swapaxes(0, 1)]
    asked = [[[one[:, part] for one in image] for part in (slice(4), SCORE, CLASS)] for image in each]

    def fuse() -> None:
        for lists in asked:
            weighted_boxes_fusion(*lists, iou_thr=0.55)

    return fuse


def seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def in_8_bits(width: int, repeat: int, edge: int = 256) -> tuple[float, float]:
    """(size, time of a row, the median of as many turns) of a detector in 8 bits over its graph; what it has learnt changes neither."""
    images = np.random.default_rng(1).integers(0, 256, (16, edge, edge, 3), np.uint8)
    column = Column("image", "image", (edge, edge, 3), (0.5,) * 3, (0.25,) * 3)
    ready, network, arguments = Preprocessor(Preprocess(), (column,)), "students.models:tiny_detector", {"width": width}
    space = Space("detection", tuple(map(str, range(CLASSES))), max_boxes=MAX_BOXES)
    module = network_for(ready, network, arguments, num_classes=CLASSES)
    graph = to_onnx(LoadedModel(module, ModelConfig(network, arguments, space, ready.resolved()), ready))
    smaller = quantised(graph, [{"image": images}])
    turns = [[cost_of(each, {"image": images[:1]})["p50_ms"] for each in (smaller, graph)] for _ in range(repeat)]
    return len(smaller) / len(graph), median(after / before for after, before in turns)


def measured(images: int, repeat: int) -> dict[str, Any]:
    said, labels = seen(np.random.default_rng(0), images)
    tensor, space = torch.from_numpy(said), Space("detection", tuple(map(str, range(CLASSES))), max_boxes=MAX_BOXES)
    known = torch.ones_like(tensor, dtype=torch.bool)
    theirs = by_ensemble_boxes(said)

    def ours() -> torch.Tensor:
        return wbf(tensor, temperature=1.0, known=known)[0]

    fused = ours()
    turns = [(seconds(ours), seconds(theirs)) for _ in range(repeat)]
    fast, slow = (median(each) for each in zip(*turns, strict=True))
    meter = BoxesMeter(space)

    def judged() -> None:
        meter.update(fused, torch.from_numpy(labels))
        meter.figures()

    judge = seconds(judged)
    (small_size, small_latency), (size, latency) = (in_8_bits(width, repeat) for width in (16, 35))
    return {
        "boxes": int((boxes_of(said)[..., CLASS] >= 0).sum()),
        "wbf_seconds": round(fast, 3),
        "ensemble_boxes_seconds": round(slow, 3),
        "wbf_speedup": round(slow / fast, 2),
        "judge_seconds": round(judge, 3),
        "bootstrap_seconds": round(seconds(lambda: resampled(meter, "ap")), 3),
        "ap": meter.figures()["ap"],
        "int8_size": round(size, 3),
        "int8_latency": round(latency, 3),
        "int8_size_small": round(small_size, 3),
        "int8_latency_small": round(small_latency, 3),
    }


def images_with_boxes(folder: Path, edge: int) -> TransferSet:
    """Noise in which boxes are said to be: a step takes as long as on photographs."""
    numbers = np.random.default_rng(0)
    _, labels = seen(numbers, TRAINED_ON)
    images, boxes = [], []
    for each in labels_of(labels):
        sink = io.BytesIO()
        Image.fromarray(numbers.integers(0, 256, (edge, edge, 3), np.uint8)).save(sink, "PNG", compress_level=1)
        images.append({"bytes": sink.getvalue(), "path": None})
        there = each[each[:, CLASS] >= 0].astype(float)
        corners = [dict(zip(("x1", "y1", "x2", "y2"), (edge * box[:4]).tolist(), strict=True)) for box in there]
        boxes.append([at | {"class": str(int(box[CLASS]))} for at, box in zip(corners, there, strict=True)])
    pq.write_table(pa.table({"image": pa.array(images, IMAGE), "boxes": boxes}), folder / "rows.parquet")
    source = TableSource(kind="parquet", path=str(folder / "rows.parquet"))
    split = SplitConfig(validation=0.05, test=0.05)
    about = {"inputs": "image", "label": "boxes", "split": split, "max_boxes": MAX_BOXES, "task": "detection"}
    return prepare(TransferSetConfig.model_validate({"source": source, **about}), folder / "prepared")


def stored(folder: Path, transfer_set: TransferSet, said: Array) -> tuple[Source, ...]:
    """Stores of what the detectors say of the training rows."""
    (segment,) = transfer_set.of("train")
    keys, sources = transfer_set.keys(segment), []
    for number, boxes in enumerate(said):
        names, rows = transfer_set.space.names, segment.num_rows
        spec = Spec(f"{number}", "d", segment.name, segment.digest, "dense", names, rows, 64, "boxes", (), MAX_BOXES)
        store = SoftTargetStore.create(folder / f"{number}", spec)
        for shard in range(store.num_shards):
            first, num = store.shard_rows(shard)
            store.commit(shard, keys[first : first + num], {"boxes": boxes[first : first + num]})
        store.seal()
        sources.append(Source(f"{number}", {segment.name: store.folder}))
    return tuple(sources)


def steps(edge: int, rounds: int) -> dict[str, float]:
    """A student's step from the stores over a plain one."""
    with tempfile.TemporaryDirectory() as name:
        folder, session = Path(name), PlainSession()
        transfer_set = images_with_boxes(folder, edge)
        said, _ = seen(np.random.default_rng(1), transfer_set.of("train")[0].num_rows)
        run = Run(
            name="student",
            folder=folder / "student",
            stage=folder,
            stage_name="benchmark",
            model="students.models:tiny_detector",
            arguments={},
            preprocess=Preprocess(),
            objective=(PseudoTerm(loss="pseudo", weight=0.5), HardTerm(loss="hard", weight=0.5)),
            train=TrainConfig(steps=10**6, batch_size=BATCH, learning_rate=1e-3),
            seed=0,
            transfer_set=transfer_set.folder,
            sources=stored(folder, transfer_set, said),
        )
        (data,) = SharedData().of([run], session)
        cached, plain = Training(run, session, data), Training(run, session, data).stepper
        batches = Batches(data.rows, run, session).from_step(0)
        inputs, labels = (data.rows.columns[name] for name in ("input.", "label"))
        assert isinstance(inputs, Tensor) and isinstance(labels, Tensor)
        known = torch.ones(said.shape, dtype=torch.bool)
        fused, _ = wbf(torch.from_numpy(said), temperature=1.0, known=known)

        def step() -> None:
            index = torch.randint(len(inputs), (BATCH,))
            found = plain.module(inputs[index])
            loss = 0.5 * pseudo(found, fused[index]).mean() + 0.5 * hard(found, labels[index]).mean()
            loss.backward()
            plain.optimizer.step()
            plain.optimizer.zero_grad()

        sides = {"cached": repeated(lambda: cached.advance(next(batches))), "plain": repeated(step)}
        times = in_turn(sides, steps=STEPS, rounds=rounds, clock=time.process_time)
    return {
        "cached_over_plain": round(ratio(times["cached"], times["plain"]), 4),
        "plain_step_ms": round(1e3 * median(times["plain"]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1525)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="of steps")
    parser.add_argument("--edge", type=int, default=256)
    with_record(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # boxes that another package corrects
    found = measured(given.images, given.repeat) | steps(given.edge, given.rounds)
    finish("detection", found, keep=given.record)


if __name__ == "__main__":
    main()
