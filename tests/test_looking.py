"""What there is to look at in boxes: images in dispute, who says what, curves; and how they are drawn."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from orchestrator.reporting.by_box import box_pictures, legend
from orchestrator.reporting.by_box import sheet as drawn
from students.tasks.looking import TRUTH, curves, sheet, taken
from students.tasks.task import Model
from teachers.soft_targets.combine.dispute import in_dispute
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


SVG = "{http://www.w3.org/2000/svg}"


def test_every_box_of_everybody_is_drawn_where_it_is_and_an_image_is_in_the_page_once():
    space = space_of(2, 4)
    labels = torch.from_numpy(labels_of_rows([([LEFT], [0], [False])], 4, [(120, 240)]))
    wide = Model([said([(LEFT, 0.9, 0), (RIGHT, 0.5, 1)])])
    everybody = {"<wide>": wide, "thin": Model([said([])]), "ensemble": wide, "student": wide}
    ((_, found),) = sheet(everybody, labels, space, 1)
    assert found["size"] == [240, 120]
    ((caption, picture),) = drawn([{"id": "a&b.png", "jpeg": "QUJD", **found}], space.names, "small")
    assert caption == "a&b.png: 0.7 boxes in dispute"  # (0.9 + 0.5) / 2
    root = ET.fromstring(picture)
    (image,) = root.iter(f"{SVG}image")
    assert (image.get("width"), image.get("height")) == ("240", "120") and picture.count("QUJD") == 1
    panels = root.findall(f"{SVG}g")
    told = [panel.findtext(f"{SVG}text") for panel in panels]
    assert told == ["what is there", "<wide>", "thin", "teachers together", "the student"]
    assert [len(panel.findall(f"{SVG}rect")) for panel in panels] == [1, 2, 0, 2, 2]
    first, second = panels[1].findall(f"{SVG}rect")
    assert [float(first.get(each)) for each in ("x", "y", "width", "height")] == pytest.approx(
        [24, 12, 48, 24], abs=0.1
    )
    assert first.findtext(f"{SVG}title") == "class 0 0.90"
    assert [first.get("stroke"), second.get("stroke")] == [colour for _, colour in legend(space.names)]
    assert float(first.get("stroke-width")) > float(second.get("stroke-width"))


def test_curves_and_shares_are_drawn_of_whoever_has_them():
    space = space_of(2, 4)
    labels = torch.from_numpy(labels_of_rows([([LEFT, TOP], [0, 1], [False] * 2)], 4, [(100, 200)]))
    wide = Model([said([(LEFT, 0.9, 0), (RIGHT, 0.8, 1), (TOP, 0.9, 1)])])
    everybody = {"wide": wide, "thin": Model([said([(LEFT, 0.8, 0)])]), "student": wide}
    student = {"precision_at_recall": curves(everybody, labels, space), "taken": taken(everybody, labels, space)}
    (_, precision), (_, shares) = box_pictures(student, "small")
    assert {"wide", "thin", "student"} <= {each.text for each in ET.fromstring(precision).iter() if each.text}
    told = {each.text.strip() for each in ET.fromstring(shares).iter() if each.text}
    assert {"1 say it", "all agree", "wide alone", "without thin", "50 %", "none"} <= told
    assert [*box_pictures({"taken": None, "precision_at_recall": {}}, "small")] == []
