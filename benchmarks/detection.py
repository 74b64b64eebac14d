"""What it costs to work with boxes.

    python benchmarks/detection.py [--images 1525] [--repeat 3]

One thread, seconds of its processor, the median; both sides take their turns on the same boxes. Three detectors say at most 100 boxes
of an image: they see most of what is there, now and then twice, and much else that they are not sure of. The last line
printed is one JSON object:

    boxes                   that all three say of all images
    wbf_seconds             weighted fusion of all images at once, from what stores keep to one target
    ensemble_boxes_seconds  the same image by image by the package of its authors, given its own lists of arrays
    wbf_speedup             the second over the first
    judge_seconds           COCO's figures of the fused boxes: matches, and the average precision of all overlaps
    bootstrap_seconds       the average precision again, of images that are drawn anew 200 times
    int8_size               bytes of `students.models:tiny_detector` of 0.9 million parameters in 8 bits over its float32 graph
    int8_latency            the same of the median time of an image of 256 pixels on one thread of onnxruntime
    int8_size_small         both of 0.2 million parameters
    int8_latency_small
"""

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import finish, with_record
from students.delivering.cost import cost_of
from students.delivering.forms import to_onnx
from students.delivering.int8 import quantised
from students.tasks.average_precision import BoxesMeter
from students.tasks.resampling import resampled
from teachers.config.preprocess import Preprocess
from teachers.models.folder import LoadedModel, ModelConfig
from teachers.models.modules import network_for
from teachers.models.preprocess import Preprocessor
from teachers.soft_targets.combine.boxes import wbf
from teachers.tasks.boxes import BOX, CLASS, HEIGHT, LABEL, SCORE, boxes_of, labels_of, no_boxes
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

Array = NDArray[Any]
CLASSES, MAX_BOXES, TEACHERS = 3, 100, 3


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1525)
    parser.add_argument("--repeat", type=int, default=3)
    with_record(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # boxes that another package corrects
    finish("detection", measured(given.images, given.repeat), keep=given.record)


if __name__ == "__main__":
    main()
