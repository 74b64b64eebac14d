"""Boxes of several detectors together are those of `ensemble-boxes` where both are defined, and what is worked out by hand elsewhere."""

import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from students.config.combining import OF_BOXES, options_of
from students.config.terms import SoftTerm
from students.objective.combination import Combination
from teachers.soft_targets.combine.boxes import fuse
from teachers.soft_targets.combine.rules import COMBINE, check_combined
from teachers.tasks.boxes import BOX, CLASS, NO_CLASS, SCORE
from tests.boxes import near, said_of, some_boxes

os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # so few boxes are not worth a compiler
RULES = {name: COMBINE["boxes"][name] for name in OF_BOXES}
BEST = COMBINE["boxes"]["best"]


def several(numbers, teachers, rows, classes, max_boxes, apart=False, empty=0.2):
    """f32 [K, B, M * 6] of teachers that see the same things, more or less well; `apart`: nobody says two boxes of one thing."""
    said = np.empty((teachers, rows, max_boxes * len(BOX)), np.float32)
    for row in range(rows):
        corners = some_boxes(numbers, int(numbers.integers(1, max_boxes)), 0.1, 0.4)
        if apart:
            corners = np.concatenate([some_boxes(numbers, 1, 0.18, 0.2) / 4 + [x, y, x, y] for x in (0, 0.25, 0.5, 0.75) for y in (0, 0.25, 0.5, 0.75)])[: max_boxes]  # fmt: skip
        number = numbers.integers(0, classes, len(corners))
        for teacher in range(teachers):
            seen = numbers.random(len(corners)) < 0.7
            if numbers.random() < empty:
                seen[:] = False
            again = np.flatnonzero(seen) if apart else np.flatnonzero(seen).repeat(numbers.integers(1, 3, seen.sum()))
            again = again[:max_boxes]
            moved = near(numbers, corners[again], 0.05).astype(np.float32)
            said[teacher, row] = said_of([(moved, numbers.random(len(again)), number[again])], max_boxes)[0]
    return torch.from_numpy(said)


def roomy(said, room=48):
    """The same with room for all boxes of everybody."""
    nothing = torch.zeros(*said.shape[:2], room, len(BOX))
    nothing[..., CLASS] = NO_CLASS
    return torch.cat([said, nothing.flatten(2)], 2)


def known_of(said):
    return ~said.isnan()


def combined(name, said, **keywords):
    target, weights = RULES[name](said.nan_to_num(), temperature=1.0, known=known_of(said), **keywords)
    assert target.shape == said.shape[1:] and target.dtype == torch.float32
    check_combined((target, weights), said, name, known_of(said))
    return target


def each_of(target):
    """Of every row its boxes, f64 [n, 6], which are sorted and stand before those that are none."""
    found = []
    for row in target.reshape(len(target), -1, len(BOX)).double().numpy():
        count = (row[:, CLASS] >= 0).sum()
        assert (row[:count, CLASS] >= 0).all() and (np.diff(row[:count, SCORE]) <= 0).all()
        assert (row[count:] == [0, 0, 0, 0, 0, NO_CLASS]).all()
        assert (row[:, SCORE] >= 0).all() and (row[:, SCORE] <= 1).all()
        found.append(row[:count])
    return found


def sorted_rows(boxes):
    return boxes[np.lexsort(boxes.round(5).T)]


def oracle(function, said, **keywords):
    """Of every row the boxes that a function of `ensemble-boxes` gives."""
    found = []
    for row in said.unbind(1):
        each = [one[one[:, CLASS] >= 0].double().numpy() for one in row.reshape(len(row), -1, len(BOX))]
        corners, scores, numbers = ([one[:, part] for one in each] for part in (slice(4), SCORE, CLASS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            corners, scores, numbers = function(corners, scores, numbers, **keywords)
        found.append(np.column_stack([corners, scores, numbers]) if len(corners) else np.zeros((0, len(BOX))))
    return found


def assert_same(found, expected, within=1e-6):
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine) == len(theirs)
        np.testing.assert_allclose(sorted_rows(mine), sorted_rows(theirs), atol=within)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("weights", [None, [2.0, 1.0, 0.5]])
def test_fused_boxes_are_those_of_ensemble_boxes(seed, weights):
    from ensemble_boxes import weighted_boxes_fusion

    numbers = np.random.default_rng(seed)
    said = several(numbers, 3, 6, int(numbers.integers(1, 4)), 16, apart=True)
    expected = oracle(weighted_boxes_fusion, said, iou_thr=0.5, skip_box_thr=0.1, weights=weights)
    found = combined("wbf", roomy(said), iou=0.5, skip_below=0.1, teacher_weights=weights)
    assert_same(each_of(found), expected)


@pytest.mark.parametrize("seed", range(8))
def test_the_other_rules_are_those_of_ensemble_boxes_too(seed):
    from ensemble_boxes import nms, non_maximum_weighted
    from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float

    said = several(np.random.default_rng(seed), 3, 6, 2, 16, empty=0.0)
    assert_same(each_of(combined("nms", roomy(said), iou=0.5)), oracle(nms, said, iou_thr=0.5))
    weights = [2.0, 1.0, 0.5]
    expected = oracle(non_maximum_weighted, said, iou_thr=0.5, skip_box_thr=0.05, weights=weights)
    found = combined("nmw", roomy(said), iou=0.5, skip_below=0.05, teacher_weights=weights)
    assert_same(each_of(found), expected)

    def soft(corners, scores, numbers, method):
        """With the scores as they were lowered, where `soft_nms` of that package gives them as they were before."""
        corners, scores, numbers = map(np.concatenate, (corners, scores, numbers))
        kept = []
        for number in np.unique(numbers):
            own, lowered = corners[numbers == number], scores[numbers == number].copy()
            order = cpu_soft_nms_float(own.copy(), lowered, Nt=0.5, sigma=0.5, thresh=0.001, method=method)
            kept.append(np.column_stack([own[order], lowered[lowered > 0.001], np.full(len(order), number)]))
        kept = np.concatenate(kept)
        return kept[:, :4], kept[:, 4], kept[:, 5]

    for method, decay in ((1, "linear"), (2, "gaussian")):
        found = each_of(combined("soft_nms", roomy(said), iou=0.5, decay=decay))
        assert_same(found, oracle(soft, said, method=method))


def row_of(*teachers, room=4):
    """What several teachers say of one row: lists of (corners, score, class)."""
    each = [([b for b, _, _ in one], [s for _, s, _ in one], [n for _, _, n in one]) for one in teachers]
    return torch.from_numpy(np.stack([said_of([one], room) for one in each]))


LEFT, RIGHT, NEAR = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8], [0.1, 0.1, 0.3, 0.32]


def test_who_saw_nothing_lowers_a_score_and_who_was_not_asked_does_not():
    said = row_of([(LEFT, 0.8, 0), (RIGHT, 0.6, 1)], [(NEAR, 0.4, 0)], [])
    left, right = sorted(each_of(combined("wbf", said))[0].tolist(), key=lambda box: box[CLASS])
    assert left == pytest.approx([0.1, 0.1, 0.3, (0.8 * 0.3 + 0.4 * 0.32) / 1.2, 1.2 / 3, 0], abs=1e-6)
    assert right == pytest.approx([*RIGHT, 0.2, 1], abs=1e-6)
    asked = torch.tensor([[True, True], [True, False], [False, True]])
    left, right = sorted(each_of(combined("wbf", said, asked=asked))[0].tolist(), key=lambda box: box[CLASS])
    assert (left[SCORE], right[SCORE]) == pytest.approx((0.6, 0.3))
    weighted = combined("wbf", said, asked=asked, teacher_weights=[3.0, 1.0, 1.0])
    left, right = sorted(each_of(weighted)[0].tolist(), key=lambda box: box[CLASS])
    assert (left[SCORE], right[SCORE]) == pytest.approx(((3 * 0.8 + 0.4) / 4, 3 * 0.6 / 4))


def test_what_a_teacher_says_of_a_class_that_it_was_not_asked_for_is_not_heard():
    said = row_of([(LEFT, 0.8, 0)], [(RIGHT, 0.9, 1), (LEFT, 0.6, 0)])
    for name in RULES:
        (found,) = each_of(combined(name, said, asked=torch.tensor([[True, True], [True, False]])))
        assert {box[CLASS] for box in found.tolist()} == {0}


def test_two_boxes_of_one_teacher_in_a_place_count_once():
    once = row_of([(LEFT, 0.8, 0)], [(NEAR, 0.4, 0)])
    twice = row_of([(LEFT, 0.8, 0), (NEAR, 0.7, 0)], [(NEAR, 0.4, 0)])
    assert torch.equal(combined("wbf", twice), combined("wbf", once))


@pytest.mark.parametrize("name", RULES)
def test_an_image_in_which_nobody_sees_anything_has_no_boxes_and_one_that_nobody_knows_is_unknown(name):
    empty = row_of([], [])
    assert each_of(combined(name, empty)) == [pytest.approx(np.zeros((0, 6)))]
    said = torch.cat([empty, torch.full_like(empty, torch.nan), row_of([(LEFT, 0.8, 0)], [])], 1)
    said[1, 2] = torch.nan
    target, weights = RULES[name](said, temperature=1.0, known=known_of(said))
    assert weights.tolist() == [[0.5, 0, 1], [0.5, 0, 0]]
    assert target[1].isnan().all() and not target[[0, 2]].isnan().any()
    np.testing.assert_allclose(each_of(target[2:])[0], [[*LEFT, 0.8, 0]], atol=1e-6)


def test_a_box_is_of_those_who_say_it():
    said = row_of([(LEFT, 0.8, 0), (RIGHT, 0.6, 1)], [(NEAR, 0.4, 0)], [(LEFT, 0.3, 1)])
    for name in ("wbf", "nms", "nmw", "soft_nms"):
        found = fuse(said, known_of(said), name)
        number, of = found.boxes[0, :, CLASS], found.of[:, 0].T.tolist()
        by_class = {(int(n), tuple(each)) for n, each in zip(number, of, strict=True) if n >= 0}
        assert (0, (True, True, False)) in by_class and (1, (False, False, True)) in by_class
        assert (1, (True, False, False)) in by_class
        assert not found.of[:, 0, number < 0].any()


def test_a_row_has_the_best_boxes_where_there_is_no_room_for_all():
    boxes = [([x, 0.0, x + 0.1, 0.1], 0.9 - x, 0) for x in (0.0, 0.2, 0.4, 0.6)]
    said = row_of(boxes[::2], boxes[1::2], room=2)
    assert each_of(combined("nms", said))[0][:, SCORE] == pytest.approx([0.9, 0.7])


def test_no_target_depends_on_how_many_rows_are_combined_at_once():
    said = several(np.random.default_rng(0), 2, 600, 2, 4)
    for name in RULES:
        assert torch.equal(combined(name, said)[500:], combined(name, said[:, 500:]))


@st.composite
def detectors(draw):
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    said = several(numbers, draw(st.integers(1, 4)), 3, draw(st.integers(1, 3)), 8)
    if draw(st.booleans()):  # as a store keeps them: many scores are equal
        boxes = said.reshape(*said.shape[:2], -1, len(BOX))
        boxes[..., SCORE] = (boxes[..., SCORE] * 4).round() / 4
    said[torch.from_numpy(numbers.random(said.shape[:2]) < 0.1)] = torch.nan
    return said, numbers


@pytest.mark.parametrize("name", RULES)
@given(detectors())
@settings(max_examples=20, deadline=None)
def test_neither_the_order_of_teachers_nor_that_of_boxes_matters_and_scores_stay_in_0_to_1(name, drawn):
    said, numbers = drawn
    weights = numbers.uniform(0.1, 2, len(said))
    target = combined(name, said, teacher_weights=weights)
    known = ~target.isnan().any(1)
    each_of(target[known])
    teachers, places = numbers.permutation(len(said)), numbers.permutation(8)
    boxes = said.reshape(*said.shape[:2], -1, len(BOX))[teachers][:, :, places]
    again = combined(name, boxes.flatten(2), teacher_weights=weights[teachers])
    torch.testing.assert_close(again, target, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", ["wbf", "nms"])
@given(detectors())
@settings(max_examples=15, deadline=None)
def test_one_teacher_gives_its_own_boxes_but_those_that_a_better_one_of_the_class_overlaps(name, drawn):
    said = drawn[0][:1]
    target = combined(name, said)
    torch.testing.assert_close(target, combined("nms", said), rtol=0, atol=0, equal_nan=True)
    own = said[0].reshape(-1, 8, len(BOX)).tolist()
    for mine, given_ in zip(target.reshape(-1, 8, len(BOX)).tolist(), own, strict=True):
        assert {tuple(box) for box in mine if box[CLASS] >= 0} <= {tuple(box) for box in given_}
    torch.testing.assert_close(combined(name, target[None]), target, rtol=0, atol=0, equal_nan=True)


def test_a_term_says_how_boxes_are_combined_and_what_it_does_not_say_is_not_in_its_document():
    term = SoftTerm(loss="soft", combine="nms", iou=0.4, skip_below=0.5, teacher_weights={"a": 2, "b": 1})
    assert {"iou", "skip_below"} <= term.model_dump().keys() and not {"decay", "sigma"} & term.model_dump().keys()
    said = row_of([(LEFT, 0.8, 0), (RIGHT, 0.4, 0)], [([0.1, 0.1, 0.3, 0.2], 0.7, 0)])  # half of the first box
    combination = Combination(("a", "b"), "nms", (2.0, 1.0), 1.0, answer="boxes", options=options_of(term))
    target, weights = combination.target(said, known_of(said))
    assert weights.flatten().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert each_of(target)[0].tolist() == [pytest.approx([*LEFT, 0.8, 0])]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"combine": "mean_logits", "iou": 0.5}, "`iou` is of `combine: wbf or nms or soft_nms or nmw`"),
        ({"skip_below": 0.1}, "`skip_below` is of `combine: wbf"),
        ({"combine": "wbf", "decay": "linear"}, "`decay` is of `combine: soft_nms`"),
        ({"combine": "soft_nms", "sigma": 0.5}, "`sigma` is of `decay: gaussian`"),
        ({"combine": "wbf", "iou": 1.0}, "less than 1"),
        ({"combine": "wbf", "teacher_weights": {"a": 0, "b": 0}}, "teacher_weights are all 0"),
        (
            {"combine": "mean_logits", "teacher_weights": {"a": 1}},
            "`combine: weighted` and `teacher_weights` go together",
        ),
    ],
)
def test_an_option_that_is_of_no_such_rule_is_refused(said, told):
    with pytest.raises(ValueError, match=told):
        SoftTerm(loss="soft", **said)


def test_of_each_image_the_boxes_of_the_best_teacher_that_knows_it_are_heard_as_they_are():
    said = several(np.random.default_rng(0), 3, 6, 2, 8, empty=0.0)
    said[1, 0], said[:, 1] = torch.nan, torch.nan
    target, weights = BEST(said.nan_to_num(), temperature=1.0, known=known_of(said), merits=(0.3, 0.5, 0.4))
    check_combined((target, weights), said, "best", known_of(said))
    assert weights.argmax(0).tolist() == [2, 0, 1, 1, 1, 1] and weights.sum(0).tolist() == [1, 0, 1, 1, 1, 1]
    assert target[1].isnan().all()
    for row, teacher in ((0, 2), (2, 1), (5, 1)):
        own = said[teacher, row].reshape(-1, len(BOX)).double().numpy()
        assert_same(each_of(target[row : row + 1]), [own[own[:, CLASS] >= 0]])


def test_of_a_class_that_the_best_teacher_was_not_asked_for_the_next_best_is_heard():
    said = several(np.random.default_rng(1), 2, 5, 3, 8, empty=0.0)
    asked = torch.tensor([[True, False, True], [True, True, False]])
    target, weights = BEST(said, temperature=1.0, known=known_of(said), merits=(0.9, 0.1), asked=asked)
    own = said.reshape(2, 5, -1, len(BOX)).double().numpy()
    wanted = [np.concatenate([own[0, row][np.isin(own[0, row, :, CLASS], (0, 2))], own[1, row][own[1, row, :, CLASS] == 1]]) for row in range(5)]  # fmt: skip
    assert_same(each_of(target), [boxes[np.argsort(-boxes[:, SCORE])][:8] for boxes in wanted])
    torch.testing.assert_close(weights, torch.tensor([[2 / 3], [1 / 3]]).expand(2, 5))
