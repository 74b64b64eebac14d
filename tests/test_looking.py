"""What there is to look at in boxes: images in dispute, who says what, curves; and how they are drawn."""

import numpy as np
import pytest
import torch

from students.tasks.looking import TRUTH, curves, in_dispute, sheet, taken
from students.tasks.task import Model
from tests.boxes import images, labels_of_rows, said_of, space_of

LEFT, RIGHT, TOP = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8], [0.4, 0.0, 0.6, 0.2]


def said(*rows, room=4):
    """f32 [rows, room * 6] of lists of (corners, score, class)."""
    each = [([b for b, _, _ in one], [s for _, s, _ in one], [n for _, _, n in one]) for one in rows]
    return torch.from_numpy(said_of(each, room))


def test_what_all_say_alike_is_in_no_dispute_and_what_one_of_three_says_is():
    both, nothing = [(LEFT, 0.9, 0)], []
    a = said(both, both, nothing, both)
    b = said(both, nothing, nothing, [(LEFT, 0.3, 0)])
    c = said(both, nothing, nothing, [(LEFT, 0.6, 0)])
    assert in_dispute([a, b, c]).tolist() == pytest.approx([0, 0.6, 0, 0.3], abs=1e-6)
    a[0], b[0] = torch.nan, torch.nan
    assert in_dispute([a, b, c])[0] == pytest.approx(0)
    assert in_dispute([a]).tolist() == pytest.approx([0] * 4)


def test_the_sheet_begins_with_the_image_that_is_most_in_dispute_and_has_everybodys_boxes():
    space = space_of(2, 4)
    labels = torch.from_numpy(labels_of_rows([([LEFT, TOP], [0, 1], [False, True])] * 2, 4, [(100, 200)] * 2))
    wide = Model([said([(LEFT, 0.9, 0)], [(LEFT, 0.9, 0), (RIGHT, 0.8, 1), (TOP, 0.1, 1)])])
    thin = Model([said([(LEFT, 0.9, 0)], [(LEFT, 0.9, 0)])])
    everybody = {"wide": wide, "thin": thin, "ensemble": thin, "student": thin, "control": thin}
    (first, most), (second, least) = sheet(everybody, labels, space, 12)
    assert (first, second) == (1, 0) and most["in_dispute"] == 0.45 and least["in_dispute"] == 0
    assert [*most["boxes"]] == [TRUTH, "wide", "thin", "ensemble", "student"]
    assert most["boxes"]["wide"] == [[*LEFT, 0.9, "class 0"], [*RIGHT, 0.8, "class 1"]]
    assert most["boxes"][TRUTH] == [[*LEFT, 1.0, "class 0"]]
    alone = {"wide": wide, "student": thin}
    assert [row for row, _ in sheet(alone, labels, space, 1)] == [1]
    assert sheet({"student": thin}, labels, space, 3)[0][1]["in_dispute"] == 0


def test_what_the_fusion_takes_is_counted_by_who_says_it_and_whether_it_is_right():
    space = space_of(2, 4)
    labels = torch.from_numpy(labels_of_rows([([LEFT, TOP], [0, 1], [False] * 2)], 4, [(100, 200)]))
    wide = Model([said([(LEFT, 0.9, 0), (RIGHT, 0.8, 1), (TOP, 0.9, 1)])])
    thin = Model([said([(LEFT, 0.8, 0)])])
    found = taken({"wide": wide, "thin": thin, "student": thin}, labels, space)
    assert found == {
        "agree": [{"boxes": 2, "right": 1}, {"boxes": 1, "right": 1}],
        "teachers": {
            "wide": {
                "has": {"boxes": 3, "right": 2},
                "alone": {"boxes": 2, "right": 1},
                "lacks": {"boxes": 0, "right": 0},
            },
            "thin": {
                "has": {"boxes": 1, "right": 1},
                "alone": {"boxes": 0, "right": 0},
                "lacks": {"boxes": 2, "right": 1},
            },
        },
    }
    assert taken({"wide": wide, "student": thin}, labels, space) is None


def test_curves_fall_and_their_mean_is_the_average_precision():
    from students.tasks.average_precision import BoxesMeter

    answers, labels = (torch.from_numpy(each) for each in images(np.random.default_rng(0), 40, 3, 10, sure=1.0))
    space = space_of(3, 10)
    found = curves({"student": Model([answers]), "nobody": Model([said(*[[]] * 40, room=10)])}, labels, space)
    meter = BoxesMeter(space)
    meter.update(answers, labels)
    assert np.mean(found["student"]) == pytest.approx(meter.figures()["ap50"], abs=1e-3)
    assert (np.diff(found["student"]) <= 0).all() and set(found["nobody"]) == {0.0}
    without = torch.from_numpy(labels_of_rows([([], [], [])] * 40, 10, [(9, 9)] * 40))
    assert curves({"student": Model([answers])}, without, space) == {"student": None}
