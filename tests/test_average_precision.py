"""What boxes are judged by is what pycocotools says, over chunks, over ranks and under integer weights of images."""

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from students.tasks.average_precision import KEYS, BoxesMeter
from students.tasks.matching import matched
from teachers.tasks.boxes import CLASS, HEIGHT, SCORE, WIDTH, boxes_of, labels_of
from tests.boxes import images, labels_of_rows, near, said_of, some_boxes, space_of

BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd" / "BCCD"
PLACES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "ar100": 8}
"""Of pycocotools' twelve numbers."""


def as_coco(said, labels, classes, true_pixels):
    """(dataset, results) with the same boxes in pixels; `true_pixels`: those of labels, as their file has them."""
    dataset = {"images": [], "annotations": [], "categories": [{"id": 1 + each} for each in range(classes)]}
    results = []
    for row, (boxes, true) in enumerate(
        zip(boxes_of(said).astype(float), labels_of(labels).astype(float), strict=True)
    ):
        dataset["images"].append({"id": row + 1})
        pixels = true[0, [WIDTH, HEIGHT, WIDTH, HEIGHT]]
        for place, each in enumerate(true[true[:, CLASS] >= 0]):
            x1, y1, x2, y2 = each[:4] * pixels if true_pixels is None else true_pixels[row][place]
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(each[SCORE] == 0)}
            number = len(dataset["annotations"]) + 1
            dataset["annotations"].append(
                {"id": number, "image_id": row + 1, "category_id": int(each[CLASS]) + 1, **box}
            )
        for each in boxes[boxes[:, CLASS] >= 0]:
            x1, y1, x2, y2 = each[:4] * pixels
            of = {"image_id": row + 1, "category_id": int(each[CLASS]) + 1, "score": each[SCORE]}
            results.append({**of, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    return dataset, results


def pycocotools(said, labels, classes, true_pixels=None):
    """Its figures by our keys; None where it has -1. And average precision f64 [T, C] with -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset, results = as_coco(said, labels, classes, true_pixels)
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = dataset
        true.createIndex()
        found = COCO()
        if results:
            found = true.loadRes(results)
        else:
            found.dataset = {**dataset, "annotations": []}
            found.createIndex()
        judged = COCOeval(true, found, "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    figures = {key: None if judged.stats[place] < 0 else judged.stats[place] for key, place in PLACES.items()}
    return figures, judged.eval["precision"][..., 0, 2].mean(1), judged.evalImgs


def metered(said, labels, space):
    meter = BoxesMeter(space)
    meter.update(torch.from_numpy(said), torch.from_numpy(labels))
    return meter


def figures_of(meter, weights=None):
    weights = None if weights is None else torch.from_numpy(weights)
    return {key: meter._figure(key, weights) for key in KEYS}


def same(found, expected, within=1e-6):
    for key, value in expected.items():
        assert (found[key] is None) == (value is None), key
        assert value is None or found[key] == pytest.approx(value, abs=within), key


@pytest.mark.parametrize("seed", range(12))
def test_figures_are_those_of_pycocotools_with_regions_and_empty_images(seed):
    numbers = np.random.default_rng(seed)
    classes, max_boxes = int(numbers.integers(1, 5)), int(numbers.choice([4, 12, 40]))
    said, labels = images(numbers, 25, classes, max_boxes, regions=numbers.choice([0.0, 0.3]), sure=numbers.random())
    meter = metered(said, labels, space_of(classes, max_boxes))
    expected, by_class, _ = pycocotools(said, labels, classes)
    same(figures_of(meter), expected)
    found = [-1 if each is None else each for each in meter.by_class("ap")]
    np.testing.assert_allclose(found, by_class.mean(0), atol=1e-6)
    assert meter.figures().keys() == {"ap", "ap50", "ap75", "ar100", "false_positives"}
    assert json.dumps(meter.details(), allow_nan=False)


@pytest.mark.parametrize("seed", range(4))
def test_false_positives_are_what_pycocotools_matches_with_nothing_from_each_class_s_threshold_on(seed):
    numbers = np.random.default_rng(seed)
    said, labels = images(numbers, 25, 3, 12, regions=0.3, sure=numbers.random())
    thresholds, weights = numbers.uniform(0.2, 0.8, 3), numbers.integers(0, 4, 25)
    wrong = np.zeros(25)
    for each in pycocotools(said, labels, 3)[2]:
        if each is not None and each["aRng"] == [0, 1e10]:
            is_said = np.array(each["dtScores"]) >= thresholds[each["category_id"] - 1]
            taken = (each["dtMatches"][0] > 0) | each["dtIgnore"][0].astype(bool)
            wrong[each["image_id"] - 1] += (is_said & ~taken).sum()
    meter = BoxesMeter(space_of(3, 12), thresholds.tolist())
    meter.update(torch.from_numpy(said), torch.from_numpy(labels))
    assert wrong.sum() > 0
    assert meter.figures()["false_positives"] == pytest.approx(wrong.mean())
    found = meter.figures(torch.from_numpy(weights), keys=["false_positives"])
    assert found["false_positives"] == pytest.approx((weights * wrong).sum() / weights.sum())


def test_at_most_a_hundred_boxes_of_a_class_are_looked_at():
    numbers = np.random.default_rng(0)
    said, labels = images(numbers, 6, 1, 300, empty=0.0)
    assert (boxes_of(said)[..., CLASS] >= 0).sum(1).max() > 120
    same(figures_of(metered(said, labels, space_of(1, 300))), pycocotools(said, labels, 1)[0])


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), max_size=3))
@settings(max_examples=30, deadline=None)
def test_figures_under_weights_and_over_chunks_are_those_of_repeated_images(seed, cuts):
    numbers = np.random.default_rng(seed)
    said, labels = images(numbers, 12, 3, 8)
    labels[numbers.random(12) < 0.2] = np.nan
    weights, space = numbers.integers(0, 4, 12), space_of(3, 8)
    judged = ~np.isnan(labels).any(1)
    parts = BoxesMeter(space)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 12], strict=True):
        parts.join(metered(said[first:last], labels[first:last], space).parts())
    again = metered(said.repeat(weights, 0), labels.repeat(weights, 0), space)
    assert len(parts.parts()["score"]) == judged.sum()
    same(figures_of(parts, weights[judged]), figures_of(again), within=1e-12)


def test_a_box_that_is_copied_from_a_label_is_found_at_every_overlap_and_one_of_another_class_at_none():
    space, begins = space_of(2, 5), np.arange(5)[:, None] / 5
    corners = np.concatenate([begins, begins, begins + 0.2, begins + 0.2], 1)
    labels = labels_of_rows([(corners, [0, 0, 0, 1, 1], [False] * 5)], 5, [(480, 640)])
    right = metered(said_of([(corners, [0.9, 0.8, 0.7, 0.6, 0.5], [0, 0, 0, 1, 1])], 5), labels, space).figures()
    assert right == {**dict.fromkeys(right, 1.0), "false_positives": 0.0}
    wrong = metered(said_of([(corners, [0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 1, 0, 0])], 5), labels, space).figures()
    assert wrong == {**dict.fromkeys(wrong, 0.0), "false_positives": 5.0}


def test_boxes_in_whole_pixels_overlap_as_exactly_as_they_did_before_they_were_shares_of_the_image():
    sides = [(height, width) for height in range(301, 1301, 37) for width in (333, 641, 999)]
    pixels = np.array([1, 1, 1, 1])[None] * [[7, 11, 17, 31], [7, 11, 17, 21]]  # the second is half of the first
    truth = [(pixels[:1] / [width, height, width, height], [0], [False]) for height, width in sides]
    said = [(pixels[1:] / [width, height, width, height], [0.5], [0]) for height, width in sides]
    found = matched(said_of(said, 1), labels_of_rows(truth, 1, sides))
    assert found.right[:, 0, 0, 0].all()
    assert not found.right[:, 0, 0, 1].any()


def test_nothing_is_defined_without_a_true_box_and_nothing_is_found_where_nothing_is_said():
    numbers, space = np.random.default_rng(2), space_of(2, 4)
    empty = labels_of_rows([([], [], [])] * 3, 4, [(100, 100)] * 3)
    some = said_of([(some_boxes(numbers, 2), [0.5, 0.4], [0, 1])] * 3, 4)
    found = metered(some, empty, space).figures()
    assert found.pop("false_positives") == 1.0 and set(found.values()) == {None}
    assert set(BoxesMeter(space).figures().values()) == {None}
    labels = labels_of_rows([(some_boxes(numbers, 1), [1], [False])] * 3, 4, [(100, 100)] * 3)
    meter = metered(said_of([([], [], [])] * 3, 4), labels, space)
    assert meter.figures() == dict.fromkeys(meter.figures(), 0.0)
    assert meter.by_class("ap") == [None, 0.0]


def test_an_image_without_a_label_and_one_that_nobody_was_asked_of_count_nowhere():
    said, labels = images(np.random.default_rng(3), 10, 2, 6)
    meter = metered(said[:6], labels[:6], space_of(2, 6))
    labels[6:8], said[8:] = np.nan, np.nan
    everybody = metered(said, labels, space_of(2, 6))
    assert everybody.figures() == meter.figures()
    assert len(everybody.parts()["score"]) == 6


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no data at {BCCD}")
def test_figures_of_blood_cells_are_those_of_pycocotools():
    numbers, classes = np.random.default_rng(0), ["RBC", "WBC", "Platelets"]
    truths, answers, sizes, pixels = [], [], [], []
    for path in sorted((BCCD / "Annotations").glob("*.xml"))[:150]:
        page = ET.parse(path).getroot()
        width, height = (int(page.findtext(f"size/{each}")) for each in ("width", "height"))
        boxes = [
            (
                [float(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")],
                item.findtext("name"),
            )
            for item in page.iter("object")
        ]
        boxes = [(box, name) for box, name in boxes if box[2] > box[0] and box[3] > box[1]]
        corners = np.array([box for box, _ in boxes]) / [width, height, width, height]
        number = np.array([classes.index(name) for _, name in boxes])
        there = numbers.random(len(number)) < 0.8
        strange = some_boxes(numbers, 5, 0.05, 0.3)
        found = np.concatenate([near(numbers, corners[there], 0.08), strange])
        scores = np.concatenate([numbers.uniform(0.3, 1, there.sum()), numbers.uniform(0, 0.7, 5)])
        truths.append((corners, number, [False] * len(number)))
        answers.append((found, scores, [*number[there], *numbers.integers(0, 3, 5)]))
        sizes.append((height, width))
        pixels.append([box for box, _ in boxes])
    said, labels = said_of(answers, 60), labels_of_rows(truths, 60, sizes)
    expected, *_ = pycocotools(said, labels, 3, pixels)
    assert 0.2 < expected["ap"] < 0.9
    same(figures_of(metered(said, labels, space_of(3, 60))), expected, within=1e-5)
