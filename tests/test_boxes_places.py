"""From what a network of detection gives to what it says, and how that is kept; beside a slow oracle."""

import numpy as np
import pytest
import torch

from teachers.soft_targets.alignment import Alignment
from teachers.soft_targets.encodings.table import ENCODINGS, bytes_per_row, decode
from teachers.tasks.boxes import BOX, CLASS, SCORE, boxes_of, num_valid
from teachers.tasks.overlap import overlaps
from teachers.tasks.places import LEAST_SCORE, OVERLAP, renumbered, resized, said_of_places
from teachers.tasks.said import is_given
from teachers.tasks.space import Space

CLASSES = 3
SPACE = Space("detection", ("a", "b", "c"), max_boxes=6)


def places(rows=4, count=30, seed=0, spread=0.25):
    """Random cells: boxes, points that are not their middles, logits."""
    draw = torch.Generator().manual_seed(seed)
    middle, sides = (
        torch.rand(rows, count, 2, generator=draw),
        spread * torch.rand(rows, count, 2, generator=draw) + 0.02,
    )
    logits = 2 * torch.randn(rows, count, CLASSES, generator=draw) - 1
    return torch.cat([middle - sides, middle + sides, middle + 0.01, logits], -1)


def slow_iou(one, other):
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    area = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, other)]
    return width * height / (sum(area) - width * height)


def slowly(row, max_boxes, overlap):
    """Greedy suppression, a class at a time, box by box."""
    kept = []
    for number in range(CLASSES):
        boxes = []
        for place in row.tolist():
            score = 1 / (1 + np.exp(-place[6 + number]))
            corners = [min(max(value, 0.0), 1.0) for value in place[:4]]
            if score >= LEAST_SCORE and corners[2] > corners[0] and corners[3] > corners[1]:
                boxes.append((*corners, score, float(number)))
        for box in sorted(boxes, key=lambda box: -box[4]):
            if all(slow_iou(box, other) <= overlap for other in kept if other[5] == box[5]):
                kept.append(box)
    return sorted(kept, key=lambda box: -box[4])[:max_boxes]


@pytest.mark.parametrize("overlap", [0.3, OVERLAP])
@pytest.mark.parametrize("spread", [0.05, 0.25])
def test_cells_say_what_a_slow_greedy_suppression_leaves(overlap, spread):
    given = places(rows=20, spread=spread)
    said = boxes_of(said_of_places(given, 40, overlap).numpy())
    for row, boxes in zip(given, said, strict=True):
        wanted = slowly(row, 40, overlap)
        found = boxes[boxes[:, CLASS] >= 0]
        assert len(found) == len(wanted)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_best_come_first_and_no_more_than_there_is_room_for():
    said = boxes_of(said_of_places(places(), 5).numpy())
    assert said.shape == (4, 5, 6)
    assert (np.diff(said[..., SCORE]) <= 0).all()


def test_where_nothing_is_sure_enough_nothing_is_said():
    given = places()
    given[..., 6:] = -20
    assert (num_valid(boxes_of(said_of_places(given, 5).numpy())) == 0).all()


def test_a_row_does_not_depend_on_those_beside_it():
    given = places(rows=40)
    alone = torch.cat([said_of_places(row[None], 7) for row in given])
    assert torch.equal(said_of_places(given, 7), alone)


def test_queries_say_each_of_their_boxes_however_they_overlap():
    given = places(rows=2, count=5)
    given[..., :4] = torch.tensor([0.1, 0.1, 0.5, 0.5])
    given[..., 4:6] = 0.3
    given[..., 6:] = torch.tensor([2.0, -20, -20])
    assert (num_valid(boxes_of(said_of_places(given, 9).numpy())) == 5).all()


def encoded(said):
    """A network's output that says these boxes."""
    each = said.reshape(len(said), -1, len(BOX))
    logits = torch.full((*each.shape[:2], CLASSES), -30.0)
    number = each[..., CLASS].clamp_min(0).long()[..., None]
    own = torch.where(each[..., CLASS] >= 0, torch.logit(each[..., SCORE].clamp(1e-6, 1 - 1e-6)), -30.0)
    logits.scatter_(2, number, own[..., None])
    middle = (each[..., :2] + each[..., 2:4]) / 2
    return torch.cat([each[..., :4], middle, logits], -1)


def test_what_is_said_of_a_network_that_says_it_is_the_same():
    said = said_of_places(places(rows=6), 6)
    torch.testing.assert_close(said_of_places(encoded(said), 6), said, atol=1e-5, rtol=0)


def test_iou_is_that_of_two_boxes():
    one, other = places(1, 8)[0, :, :4], places(1, 5, seed=1)[0, :, :4]
    wanted = [[slow_iou(a, b) for b in other.tolist()] for a in one.tolist()]
    np.testing.assert_allclose(overlaps(one, other), wanted, atol=1e-6)


def test_a_store_gives_back_boxes_and_what_is_unknown():
    said = said_of_places(places(rows=5), 6)
    said[1] = torch.nan
    said[2] = said_of_places(
        places(rows=1)[:, :, :] * torch.tensor([1.0] * 6 + [0.0] * 3) - torch.tensor([0.0] * 6 + [30.0] * 3), 6
    )[0]
    encoding = ENCODINGS["boxes"]["dense"]
    fields = encoding.encode(said.clone())
    found = decode("dense", fields, width=36, answer="boxes")
    assert torch.equal(found.isnan(), said.isnan()) and found[1].isnan().all()
    same = torch.arange(5) != 1
    assert (num_valid(boxes_of(found.numpy()))[2]) == 0 and int(fields["num_valid"][2]) == 0
    torch.testing.assert_close(found[same], said[same], atol=5e-4, rtol=0)
    corners = found.reshape(5, 6, 6)[same][..., :4]
    assert torch.equal(corners, said.reshape(5, 6, 6)[same][..., :4])
    assert (
        sum(field.nbytes for field in encoding.fields(36)) + 8 == bytes_per_row("dense", 36, "boxes") == 8 + 6 * 20 + 2
    )


def test_room_is_made_or_taken_at_the_end():
    said = said_of_places(places(), 6)
    said[3] = torch.nan
    more = resized(said, 9)
    torch.testing.assert_close(more[:, :36], said, equal_nan=True)
    assert (boxes_of(more[:3].numpy())[:, 6:, CLASS] == -1).all() and more[3].isnan().all()
    torch.testing.assert_close(resized(more, 6), said, equal_nan=True)
    torch.testing.assert_close(resized(said, 2), said[:, :12], equal_nan=True)


def test_classes_become_those_of_the_transfer_set_and_some_take_no_part():
    said = said_of_places(places(), 6)
    said[1] = torch.nan
    alignment = Alignment.of(("c", "x", "a"), SPACE, {"x": None}, 1e-3)
    assert alignment.known.all() and alignment.known.shape == (36,)
    found, before = (boxes_of(each.numpy()) for each in (alignment(said), said))
    assert np.isnan(found[1]).all()
    for row in (0, 2, 3):
        kept = before[row][(before[row][:, CLASS] >= 0) & (before[row][:, CLASS] != 1)]
        kept[:, CLASS] = np.array([2, -1, 0])[kept[:, CLASS].astype(int)]
        there = found[row][found[row][:, CLASS] >= 0]
        np.testing.assert_array_equal(there, kept)
        assert (found[row][len(there) :, CLASS] == -1).all()


def test_classes_in_order_stay_as_they_are():
    said = said_of_places(places(), 6)
    assert torch.equal(Alignment.of(("a", "b", "c"), SPACE, None)(said), said)
    assert torch.equal(renumbered(said, torch.arange(3)), said)


@pytest.mark.parametrize(("shape", "fits"), [((2, 9, 9), True), ((2, 9, 8), False), ((2, 36), False), ((3, 9, 9), False), ((2, 0, 9), False)])  # fmt: skip
def test_what_a_network_of_three_classes_gives_of_two_rows(shape, fits):
    assert is_given(shape, 2, SPACE) == fits
