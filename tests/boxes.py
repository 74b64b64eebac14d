"""Boxes at random, as what is said and as labels, for tests of whatever is done with them."""

import numpy as np

from teachers.tasks.boxes import BOX, CLASS, HEIGHT, LABEL, SCORE, WIDTH, no_boxes
from teachers.tasks.space import Space


def space_of(classes, max_boxes):
    return Space("detection", tuple(f"class {number}" for number in range(classes)), max_boxes=max_boxes)


def some_boxes(numbers, count, least=0.02, most=0.5):
    """Corners f64 [count, 4] in 0 to 1."""
    sides = numbers.uniform(least, most, (count, 2))
    begins = numbers.uniform(0, 1 - sides)
    return np.concatenate([begins, begins + sides], 1)


def near(numbers, corners, by=0.1):
    """The same boxes, each corner moved by some of its box's sides."""
    sides = np.tile(corners[:, 2:] - corners[:, :2], 2)
    moved = (corners + numbers.normal(0, by, corners.shape) * sides).clip(0, 1)
    return np.where((moved[:, 2:] > moved[:, :2] + 1e-3).all(1)[:, None], moved, corners)


def said_of(rows, max_boxes):
    """f32 [rows, max_boxes * 6] of (corners [n, 4], scores [n], classes [n]) a row, the best first."""
    out = no_boxes(len(rows), len(BOX), max_boxes).reshape(len(rows), max_boxes, len(BOX))
    for row, (corners, score, number) in zip(out, rows, strict=True):
        order = np.argsort(-np.asarray(score), kind="stable")[:max_boxes]
        row[: len(order), :SCORE] = np.asarray(corners).reshape(-1, 4)[order]
        row[: len(order), SCORE], row[: len(order), CLASS] = np.asarray(score)[order], np.asarray(number)[order]
    return out.reshape(len(rows), -1)


def labels_of_rows(rows, max_boxes, sizes):
    """f32 [rows, max_boxes * 8] of (corners, classes, whether it is a region) a row; `sizes`: (height, width) of each."""
    out = no_boxes(len(rows), len(LABEL), max_boxes).reshape(len(rows), max_boxes, len(LABEL))
    for row, (corners, number, region), (height, width) in zip(out, rows, sizes, strict=True):
        count = len(number)
        row[:count, :4], row[:count, CLASS] = np.asarray(corners).reshape(-1, 4), number
        row[:count, SCORE] = 1 - np.asarray(region, float)
        row[:, HEIGHT], row[:, WIDTH] = height, width
    return out.reshape(len(rows), -1)


def images(numbers, rows, classes, max_boxes, empty=0.2, regions=0.1, sure=0.0):
    """(said, labels): of each image some true boxes, some of them regions, and boxes near them, beside them, of other classes."""
    truths, answers = [], []
    for _ in range(rows):
        count = 0 if numbers.random() < empty else int(numbers.integers(1, max(2, max_boxes // 2)))
        corners, number = some_boxes(numbers, count), numbers.integers(0, classes, count)
        truths.append((corners, number, numbers.random(count) < regions))
        again = numbers.integers(0, count, numbers.integers(0, max_boxes // 2 + 1)) if count else np.zeros(0, int)
        strange = some_boxes(numbers, int(numbers.integers(0, max_boxes // 3 + 1)))
        found = np.concatenate([near(numbers, corners[again], numbers.choice([0.02, 0.1])), strange])
        of_class = np.concatenate([number[again], numbers.integers(0, classes, len(strange))])
        wrong = numbers.random(len(found)) < 0.1
        of_class[wrong] = numbers.integers(0, classes, wrong.sum())
        score = numbers.random(len(found)) + np.repeat([sure, 0], [len(again), len(strange)])
        answers.append((found, score / (1 + sure), of_class))
    sizes = numbers.integers(100, 800, (rows, 2))
    return said_of(answers, max_boxes), labels_of_rows(truths, max_boxes, sizes)
