"""What a detector's scores are worth, learnt from labelled images: a calibrated score is how often such a box is right."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from students.objective.calibration import FITS
from students.tasks.matching import matched
from teachers.tasks.boxes import BOX, CLASS, SCORE
from tests.boxes import labels_of_rows, said_of

FIT = FITS["boxes"]


def judged(seed, rows=400, sharper=3.0):
    """(said, labels) of one box an image and class, right with a probability that its score overstates: its logit by `sharper`, for
    class 0 alone."""
    numbers = np.random.default_rng(seed)
    truths, answers = [], []
    for _ in range(rows):
        places = np.array([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
        chance = numbers.uniform(0.05, 0.95, 2)
        right = numbers.random(2) < chance
        score = expit(logit(chance) * [sharper, 1.0])
        truths.append((places[right], np.arange(2)[right], [False] * right.sum()))
        answers.append((places, score, [0, 1]))
    said, labels = said_of(answers, 3), labels_of_rows(truths, 3, [(100, 100)] * rows)
    return torch.from_numpy(said), torch.from_numpy(labels)


def fitted(name, said, labels, floor=1e-4):
    return FIT[name](said, labels, torch.ones(said.shape[1], dtype=torch.bool), floor)


def each_of(said):
    boxes = said.reshape(len(said), -1, len(BOX))
    return boxes[boxes[..., CLASS] >= 0]


def test_a_temperature_of_each_class_takes_back_what_it_overstates():
    calibrated = fitted("temperature", *judged(0, 3000))(judged(1)[0])
    boxes, before = each_of(calibrated), each_of(judged(1)[0])
    for number, sharper in ((0, 3.0), (1, 1.0)):
        found, given = (np.sort(each[each[:, CLASS] == number, SCORE].double()) for each in (boxes, before))
        assert found == pytest.approx(expit(logit(given) / sharper), abs=0.03)


def test_a_rising_curve_of_each_class_is_that_of_scikit_learn():
    said, labels = judged(2)
    calibrated = fitted("isotonic", said, labels, 0.0)(said)
    right = matched(said.numpy(), labels.numpy()).right[..., 0, 0]
    boxes = said.reshape(len(said), -1, len(BOX)).numpy()
    for number in (0, 1):
        own = boxes[..., CLASS] == number
        expected = IsotonicRegression(out_of_bounds="clip").fit_transform(
            boxes[own][:, SCORE], right[own].astype(float)
        )
        found = each_of(calibrated)
        found = found[found[:, CLASS] == number, SCORE]
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-5)


@pytest.mark.parametrize("name", FIT)
def test_boxes_stay_where_they_are_and_the_best_come_first(name):
    said, _ = judged(3)
    said[5] = torch.nan
    calibrated = fitted(name, *judged(4))(said)
    assert calibrated[5].isnan().all() and not calibrated[:5].isnan().any()
    known = [each for each in range(len(said)) if each != 5]
    before, after = (each[known].reshape(len(known), -1, len(BOX)) for each in (said, calibrated))
    for old, new in zip(before.tolist(), after.tolist(), strict=True):
        assert sorted([*box[:SCORE], box[CLASS]] for box in old) == sorted([*box[:SCORE], box[CLASS]] for box in new)
    assert (after[..., SCORE].diff(dim=1) <= 0).all() and (after[:, -1, CLASS] == -1).all()


@pytest.mark.parametrize("name", FIT)
def test_a_class_of_few_boxes_has_the_curve_of_all_together(name):
    said, labels = judged(5, 60)
    rare = said.clone().reshape(60, -1, len(BOX))
    rare[:10, 0, CLASS] = torch.where(rare[:10, 0, CLASS] == 0, 2.0, rare[:10, 0, CLASS])
    calibrate = fitted(name, rare.flatten(1), labels)
    assert 2 not in calibrate.curves and calibrate.of_all is not None
    scores = torch.linspace(0.1, 0.9, 5)
    alone = torch.tensor([[[0.1, 0.1, 0.3, 0.3, float(score), 2.0]] for score in scores]).flatten(1)
    assert calibrate(alone).reshape(5, 6)[:, SCORE].tolist() == calibrate.of_all(scores).tolist()


@pytest.mark.parametrize("name", FIT)
def test_a_box_in_a_region_where_nothing_is_judged_teaches_nothing(name):
    said, labels = judged(6)
    with_region = labels.clone().reshape(len(labels), -1, 8)
    with_region[::2, -1] = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 100.0, 100.0])
    found = matched(said.numpy(), with_region.flatten(1).numpy())
    ignored = torch.from_numpy(found.ignored[..., 0, 0])
    assert ignored.any()
    without = said.clone().reshape(len(said), -1, len(BOX))
    without[ignored] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
    other = judged(8)[0]
    taught = fitted(name, said, with_region.flatten(1))(other)
    assert torch.equal(taught, fitted(name, without.flatten(1), labels)(other))


@pytest.mark.parametrize("name", FIT)
def test_of_nothing_nothing_is_learnt(name):
    said = torch.from_numpy(said_of([([], [], [])] * 4, 3))
    labels = torch.from_numpy(labels_of_rows([([], [], [])] * 4, 3, [(10, 10)] * 4))
    other = judged(7, 5)[0]
    assert torch.equal(fitted(name, said, labels)(other), other)
