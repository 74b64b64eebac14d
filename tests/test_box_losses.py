"""What a detector is taught: losses beside true boxes and beside those of teachers, and which place learns which box."""

import numpy as np
import pytest
import torch

from students.objective.losses.assignment import PLACES, assignment
from students.objective.losses.detection import generalised_iou, hard, pseudo, quality_focal
from teachers.tasks.boxes import CLASS, SCORE
from teachers.tasks.overlap import overlaps
from teachers.tasks.places import LOGITS

CLASSES, GRID = 2, 8


def cells(rows=1, seed=0, grid=GRID):
    """A grid of cells that say something, f32 `[rows, grid^2, 8]`."""
    draw = torch.Generator().manual_seed(seed)
    at = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(at, at, indexing="ij")
    points = torch.stack([x, y], -1).reshape(1, -1, 2).expand(rows, -1, -1)
    low, high = (0.05 + 0.2 * torch.rand(rows, grid * grid, 2, generator=draw) for _ in range(2))
    logits = torch.randn(rows, grid * grid, CLASSES, generator=draw) - 2
    return torch.cat([points - low, points + high, points, logits], -1)


def labels(*boxes, room=4):
    """f32 `[1, room * 8]` of (x1, y1, x2, y2, counts, class)."""
    out = torch.zeros(room, 8)
    out[:, CLASS] = -1
    out[:, 6:] = 100
    for place, box in enumerate(boxes):
        out[place, :6] = torch.tensor(box)
    return out.reshape(1, -1)


def said(*boxes, room=4):
    """f32 `[1, room * 6]` of (x1, y1, x2, y2, score, class)."""
    return labels(*boxes, room=room).reshape(1, room, 8)[..., :6].reshape(1, -1)


def asked(given, *boxes):
    """What each place is given of (x1, y1, x2, y2, score, class)."""
    wanted = torch.tensor([boxes], dtype=torch.float32).reshape(1, -1, 6)
    corners, number, score = wanted[..., :4], wanted[..., 5].long(), wanted[..., 4]
    return assignment(given[..., :4], given[..., 4:6], given[..., LOGITS:], corners, number, score)


BOX = (0.2, 0.2, 0.6, 0.7)


def test_a_row_of_its_own_loss_whatever_is_beside_it():
    given, targets = (
        cells(3),
        torch.cat([labels((*BOX, 1, 0)), labels(), labels((*BOX, 1, 1), (0.1, 0.7, 0.3, 0.9, 1, 0))]),
    )
    together = hard(given, targets)
    alone = torch.cat([hard(given[n : n + 1], targets[n : n + 1]) for n in range(3)])
    assert together.shape == (3,)
    torch.testing.assert_close(together, alone)


def test_padding_says_nothing():
    given = cells()
    torch.testing.assert_close(hard(given, labels((*BOX, 1, 0))), hard(given, labels((*BOX, 1, 0), room=30)))


def test_a_student_that_says_all_perfectly_has_no_loss_and_no_gradient():
    given = cells()
    inside = ((given[0, :, 4:6] > 0.2) & (given[0, :, 4:6] < 0.6)).all(-1)
    given[0, :, LOGITS:] = -40
    given[0, inside, :4] = torch.tensor([0.2, 0.2, 0.6, 0.6])
    best = inside.nonzero()[:, 0]
    given[0, best, LOGITS] = 40
    assert 0 < len(best) <= PLACES
    given.requires_grad_()
    loss = hard(given, labels((0.2, 0.2, 0.6, 0.6, 1, 0)))
    loss.sum().backward()
    assert loss.item() < 1e-6
    assert given.grad.abs().max() < 1e-5


def test_an_image_without_a_box_teaches_that_nothing_is_there():
    given = cells().requires_grad_()
    hard(given, labels()).sum().backward()
    assert (given.grad[..., LOGITS:] >= 0).all() and given.grad[..., LOGITS:].max() > 0
    assert (given.grad[..., :LOGITS] == 0).all()


def test_a_row_without_a_label_is_finite_and_so_is_its_gradient():
    given = cells().requires_grad_()
    value = hard(given, torch.full((1, 32), torch.nan))
    value.sum().backward()
    assert value.isfinite().all() and given.grad.isfinite().all()


def test_places_outside_of_a_box_learn_none():
    given = cells()
    found = asked(given, (*BOX, 1.0, 1))
    learns = found.weight[0] > 0
    x, y = given[0, :, 4], given[0, :, 5]
    assert 0 < learns.sum() <= PLACES
    assert ((x >= 0.2) & (x <= 0.6) & (y >= 0.2) & (y <= 0.7))[learns].all()
    assert (found.number[0, learns] == 1).all() and (found.number[0, ~learns] == 0).all()


def test_a_box_in_which_no_point_lies_is_learnt_at_the_nearest():
    found = asked(cells(), (0.48, 0.48, 0.52, 0.52, 1.0, 0))
    assert found.weight.sum() == 1


def test_a_place_that_two_boxes_want_learns_the_one_that_it_overlaps_most():
    given = cells()
    large, small = (0.1, 0.1, 0.9, 0.9), (0.4, 0.4, 0.6, 0.6)
    found = asked(given, (*large, 1.0, 0), (*small, 1.0, 1))
    iou = overlaps(torch.tensor([large, small]), given[0, :, :4])
    both = [at for at in (found.weight[0] > 0).nonzero()[:, 0].tolist() if found.number[0, at] == 1]
    assert both and all(iou[1, at] >= iou[0, at] or iou[1, at] > 0 for at in both)
    assert {*found.number[0, found.weight[0] > 0].tolist()} == {0, 1}


def test_what_is_taught_is_how_well_a_box_lies_and_at_most_its_score():
    given = cells()
    found = asked(given, (*BOX, 0.6, 0))
    iou = overlaps(torch.tensor([BOX]), given[0, :, :4])[0]
    learns = found.weight[0] > 0
    assert (found.quality[0, learns] <= 0.6 * iou[learns].max() + 1e-6).all()
    assert found.quality.max() == pytest.approx(0.6 * float(iou[learns].max()), rel=1e-4) or found.quality.max() > 0
    assert (found.weight[0, learns] == 0.6).all()


def test_each_query_learns_one_box_by_the_least_cost():
    from scipy.optimize import linear_sum_assignment

    draw = torch.Generator().manual_seed(3)
    low = torch.rand(1, 7, 2, generator=draw) * 0.6
    corners = torch.cat([low, low + 0.1 + 0.2 * torch.rand(1, 7, 2, generator=draw)], -1)
    given = torch.cat(
        [corners, (corners[..., :2] + corners[..., 2:]) / 2, torch.randn(1, 7, CLASSES, generator=draw)], -1
    )
    boxes = [(*(corners[0, n] + 0.02).tolist(), 1.0, n % 2) for n in (5, 1, 3)]
    found = asked(given, *boxes)
    assert (found.weight[0] > 0).sum() == 3
    wanted = torch.tensor(boxes)
    cost = 5 * torch.cdist(wanted[:, :4], corners[0], p=1) - 2 * overlaps(wanted[:, :4], corners[0])
    cost -= 2 * given[0, :, LOGITS:].sigmoid().T[wanted[:, 5].long()]
    _, place = linear_sum_assignment(cost.numpy())
    assert sorted(place) == (found.weight[0] > 0).nonzero()[:, 0].tolist()


def test_a_region_in_which_nothing_is_judged_punishes_nobody():
    given = cells()
    given[..., LOGITS:] = 3
    quiet = given.clone().requires_grad_()
    hard(quiet, labels((*BOX, 0, 1))).sum().backward()
    x, y = given[0, :, 4], given[0, :, 5]
    inside = (x >= 0.2) & (x <= 0.6) & (y >= 0.2) & (y <= 0.7)
    assert (quiet.grad[0, inside, LOGITS + 1] == 0).all()
    assert (quiet.grad[0, inside, LOGITS] > 0).all() and (quiet.grad[0, ~inside, LOGITS:] > 0).all()


def test_teachers_that_are_sure_teach_as_true_boxes_do():
    given = cells()
    torch.testing.assert_close(pseudo(given, said((*BOX, 1.0, 1)), keep_above=0.3), hard(given, labels((*BOX, 1, 1))))


@pytest.mark.parametrize(("score", "like"), [(0.05, "nothing"), (0.2, "region"), (0.4, "box")])
def test_a_score_says_whether_a_box_is_learnt_ignored_or_nothing(score, like):
    given = cells()
    value = pseudo(given, said((*BOX, score, 1)), keep_above=0.3, ignore_above=0.1)
    wanted = {"nothing": labels(), "region": labels((*BOX, 0, 1))}
    if like == "box":
        assert value != hard(given, labels()) and value != hard(given, wanted["region"])
    else:
        torch.testing.assert_close(value, hard(given, wanted[like]))


def test_an_unsure_box_excuses_no_further_boxes_of_what_a_sure_one_says_but_those_of_another_class():
    given = cells()
    given[..., LOGITS:] = 3
    given.requires_grad_()
    pseudo(given, said((*BOX, 0.9, 1), (0.1, 0.1, 0.7, 0.8, 0.2, 1), (*BOX, 0.2, 0)), keep_above=0.3).sum().backward()
    x, y = given.detach()[0, :, 4], given.detach()[0, :, 5]
    sure = (x >= 0.2) & (x <= 0.6) & (y >= 0.2) & (y <= 0.7)
    unsure = (x >= 0.1) & (x <= 0.7) & (y >= 0.1) & (y <= 0.8)
    assert (given.grad[0, sure, LOGITS + 1] > 0).sum() >= sure.sum() - PLACES > 0
    assert (given.grad[0, unsure & ~sure, LOGITS + 1] == 0).all() and (given.grad[0, ~unsure, LOGITS + 1] > 0).all()
    assert (given.grad[0, sure, LOGITS] == 0).all() and (given.grad[0, ~sure, LOGITS] > 0).all()


@pytest.mark.parametrize("score", [0.31, 0.8])
def test_where_scores_are_not_taught_what_is_kept_is_learnt_as_true_boxes_are(score):
    given = cells()
    value = pseudo(given, said((*BOX, score, 1), (0.1, 0.7, 0.3, 0.9, 0.05, 0)), keep_above=0.3, soft=False)
    torch.testing.assert_close(value, hard(given, labels((*BOX, 1, 1))))
    assert value != pseudo(given, said((*BOX, score, 1)), keep_above=0.3)


def test_each_class_has_a_threshold_of_its_own():
    given, boxes = cells(), said((*BOX, 0.4, 0), (0.1, 0.7, 0.3, 0.9, 0.4, 1))
    one = pseudo(given, boxes, keep_above=(0.3, 0.5), ignore_above=0.5)
    torch.testing.assert_close(one, pseudo(given, said((*BOX, 0.4, 0)), keep_above=0.3, ignore_above=0.1))


def test_a_surer_box_counts_more():
    given = cells().requires_grad_()
    steps = []
    for score in (0.4, 0.8):
        given.grad = None
        (pseudo(given, said((*BOX, score, 0))) * 1.0).sum().backward()
        steps.append(given.grad[..., :4].abs().sum())
    assert steps[1] >= steps[0]


def test_quality_focal_loss_is_its_formula():
    logits, taught = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    sigma = logits.sigmoid()
    wanted = -((taught - sigma).abs() ** 2) * ((1 - taught) * torch.log(1 - sigma) + taught * torch.log(sigma))
    torch.testing.assert_close(quality_focal(logits, taught), wanted)


def test_generalised_iou_is_its_formula_and_ends_at_minus_one_and_one():
    draw = np.random.default_rng(0)
    for _ in range(50):
        one, other = (np.sort(draw.random((2, 2)), 0) for _ in range(2))
        union_box = np.prod(np.maximum(one[1], other[1]) - np.minimum(one[0], other[0]))
        common = np.prod(np.clip(np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]), 0, None))
        union = np.prod(one[1] - one[0]) + np.prod(other[1] - other[0]) - common
        found = generalised_iou(torch.tensor(one.reshape(-1)), torch.tensor(other.reshape(-1)))
        assert float(found) == pytest.approx(common / union - (union_box - union) / union_box, abs=1e-9)
        assert -1 <= float(found) <= 1
    same = torch.tensor([0.1, 0.2, 0.5, 0.9])
    assert float(generalised_iou(same, same)) == pytest.approx(1)


def test_scores_are_read_where_labels_say_what_counts():
    assert SCORE == 4  # `counts` of a label stands where the score of what is said does
