"""Labels that are boxes: from a column of the source to a transfer set, and what cannot be used."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from teachers.errors import DataError, RecipeError
from teachers.preparing.count import count, count_prepared
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.tasks.boxes import CLASS, HEIGHT, SCORE, WIDTH, labels_of, num_valid
from teachers.tasks.labels import has_label, num_strata, per_name, strata
from teachers.tasks.space import Space
from teachers.transfer_set.images import upright_size
from teachers.transfer_set.transfer_set import SPLITS, TransferSet
from tests import shapes


def box(*corners, of="disc", crowd=False):
    return {**dict(zip(("x1", "y1", "x2", "y2"), map(float, corners), strict=True)), "class": of, "crowd": crowd}


def with_boxes(*boxes, row=3, rows=40):
    """The table in which one row has these boxes."""
    table = shapes.table(rows)
    labels = table.column("boxes").to_pylist()
    labels[row] = None if boxes == (None,) else list(boxes)
    return table.set_column(1, "boxes", pa.array(labels, shapes.BOXES))


def all_labels(transfer_set):
    """By id."""
    return {
        name: label
        for segment in transfer_set.segments
        for name, label in zip(transfer_set.ids(segment).to_pylist(), transfer_set.labels(segment), strict=True)
    }


def test_every_box_of_the_source_is_there_in_shares_of_its_image(tmp_path):
    table = shapes.table(40, without_label=5)
    made = shapes.prepared(tmp_path, table)
    assert made.space == Space("detection", shapes.KINDS, max_boxes=shapes.MOST)
    found = [label for _, label in sorted(all_labels(made).items(), key=lambda item: int(item[0].rpartition("#")[2]))]
    scale = np.array([shapes.WIDTH, shapes.HEIGHT] * 2)
    for label, boxes in zip(found, table.column("boxes").to_pylist(), strict=True):
        if boxes is None:
            assert np.isnan(label).all()
            continue
        each = labels_of(label)
        assert num_valid(each) == len(boxes)
        assert (each[:, HEIGHT] == shapes.HEIGHT).all() and (each[:, WIDTH] == shapes.WIDTH).all()
        for mine, given in zip(each, boxes, strict=False):
            np.testing.assert_allclose(mine[:4] * scale, [given[name] for name in ("x1", "y1", "x2", "y2")], atol=1e-3)
            assert made.classes[int(mine[CLASS])] == given["class"] and mine[SCORE] == 1


def test_a_set_is_the_same_when_it_is_opened_and_counted(tmp_path):
    made = shapes.prepared(tmp_path)
    opened = TransferSet.open(made.folder)
    assert opened.space == made.space and made.report["labelled"]["train"] > 0
    counted, config = count_prepared(opened), shapes.config(tmp_path / "rows.parquet")
    before = count(config, look(config))
    assert before is not None
    for split in SPLITS:
        assert counted.of_class(split) == before.of_class(split)
    table = shapes.table().column("boxes").to_pylist()
    for kind in shapes.KINDS:
        images = sum(any(each["class"] == kind for each in boxes) for boxes in table)
        assert sum(counted.of_class(split)[kind] for split in SPLITS) == images


def test_no_box_is_a_label_and_null_is_none(tmp_path):
    made = shapes.prepared(tmp_path, with_boxes(None, row=4).slice(0, 20))
    labels = np.stack([*all_labels(made).values()])
    assert has_label(labels).sum() == 19
    assert (num_valid(labels_of(labels))[has_label(labels)] == 0).any()


def test_a_crowd_is_kept_and_counts_for_no_class(tmp_path):
    made = shapes.prepared(tmp_path, with_boxes(box(1, 1, 30, 30, crowd=True)))
    (label,) = [each for name, each in all_labels(made).items() if name.endswith("#3")]
    assert labels_of(label)[0, SCORE] == 0 and labels_of(label)[0, CLASS] == 0
    assert per_name(label[None], 2, "detection").tolist() == [0, 0]


def lying(pixels):
    """A JPEG that is stored on its side, as cameras do."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_the_size_is_that_of_the_upright_image(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    assert upright_size(shapes.png(pixels)) == (40, 60)
    assert upright_size(lying(pixels)) == (60, 40)
    table = with_boxes(box(0, 0, 20, 60))
    images = table.column("image").to_pylist()
    images[3] = {"bytes": lying(pixels), "path": None}
    table = table.set_column(0, "image", pa.array(images, shapes.IMAGE))
    made = shapes.prepared(tmp_path, table, image_size=32)
    (label,) = [each for name, each in all_labels(made).items() if name.endswith("#3")]
    np.testing.assert_allclose(labels_of(label)[0], [0, 0, 0.5, 1, 1, 0, 60, 40])


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        ([box(1, 1, 100, 20)], r"boxes\[0\]: 1 1 100 20 lies outside the image of 64 x 48"),
        ([box(1, 1, 9, 9), box(70, 1, 90, 20)], r"boxes\[1\]: 70 1 90 20 lies outside"),
        ([box(5, 5, 5, 20)], r"boxes\[0\]: corners 5 5 5 20 have no area"),
        ([box(9, 5, 5, 20)], "have no area"),
        ([box(1, 1, 9, 9), box(1, 1, 9, 9)], r"boxes\[1\]: corners 1 1 9 9 of 'disc' are there twice"),
        ([box(1, float("nan"), 9, 9)], r"boxes\[0\]: corners 1 nan 9 9, expected four numbers"),
        ([{**box(1, 1, 9, 9), "class": None}], r"boxes\[0\]: it has no class"),
        (
            [box(n, 1, n + 5, 9) for n in range(9)],
            "has 9 boxes, more than max_boxes 8; raise it, or say `truncate: true`",
        ),
    ],
)
def test_a_box_that_cannot_be_used_is_a_bad_row_with_its_place(tmp_path, boxes, told):
    table = with_boxes(*boxes)
    with pytest.raises(DataError, match=rf"rows.parquet#3: .*{told}"):
        shapes.prepared(tmp_path, table)
    made = shapes.prepared(tmp_path, table, on_bad_row="skip")
    assert made.report["bad_rows"] == 1 and sum(made.report["rows"].values()) == 39


def test_a_class_that_is_not_among_the_named_ones_is_a_bad_row(tmp_path):
    with pytest.raises(DataError, match=r"#3: label boxes\[0\]: 'ring' is not among the classes"):
        shapes.prepared(tmp_path, with_boxes(box(1, 1, 9, 9, of="ring")), classes=["disc", "square"])


def test_the_same_box_of_two_classes_is_no_mistake(tmp_path):
    made = shapes.prepared(tmp_path, with_boxes(box(1, 1, 9, 9), box(1, 1, 9, 9, of="square")))
    assert made.report["bad_rows"] == 0


def test_what_reaches_a_pixel_over_the_edge_is_cut_off(tmp_path):
    made = shapes.prepared(tmp_path, with_boxes(box(-1, 0, 65, 48)))
    (label,) = [each for name, each in all_labels(made).items() if name.endswith("#3")]
    np.testing.assert_allclose(labels_of(label)[0, :4], [0, 0, 1, 1])


def test_ten_thousand_boxes_are_cut_to_the_largest_where_that_is_said(tmp_path):
    boxes = [box(n % 60, n // 300, n % 60 + 1 + n / 10_000, n // 300 + 1) for n in range(10_000)]
    table = with_boxes(*boxes)
    with pytest.raises(DataError, match="has 10,000 boxes"):
        shapes.prepared(tmp_path, table)
    made = shapes.prepared(tmp_path, table, truncate=True)
    (label,) = [each for name, each in all_labels(made).items() if name.endswith("#3")]
    widths = (labels_of(label)[:, 2] - labels_of(label)[:, 0]) * shapes.WIDTH
    np.testing.assert_allclose(np.sort(widths), [1 + n / 10_000 for n in range(9_992, 10_000)], atol=1e-4)
    assert made.report["truncated_labels"] == 1 and made.report["bad_rows"] == 0


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([1] * 40), "'boxes' is int64, expected a list of boxes"),
        (pa.array([[{"x1": 1.0}]] * 40), "expected a list of boxes"),
        (pa.array([[1.0, 2.0]] * 40), "expected a list of boxes"),
    ],
)
def test_a_column_of_something_else_is_told(tmp_path, column, told):
    with pytest.raises(RecipeError, match=rf"transfer_set.label: .*{told}"):
        shapes.prepared(tmp_path, shapes.table(40).set_column(1, "boxes", column))


def test_boxes_lie_in_one_image(tmp_path):
    with pytest.raises(RecipeError, match=r"transfer_set.inputs: boxes lie in one image"):
        shapes.prepared(tmp_path, shapes.table(40).append_column("x", pa.array(range(40))), inputs=["image", "x"])


def test_images_without_any_box_are_of_the_stratum_behind_the_last_class():
    labels = np.zeros((4, 2, 8), np.float32)
    labels[..., CLASS] = -1
    labels[0, 0, [SCORE, CLASS]] = [1, 0]
    labels[1, :, SCORE], labels[1, :, CLASS] = 1, [0, 1]
    labels[3] = np.nan
    found = strata(labels.reshape(4, -1), "detection", 3)
    assert found.tolist() == [0, 1, 3, -1]  # class 1 is the rarest of the second row
    assert num_strata("detection", 3) == 4


def test_labels_are_stratified_over_the_splits(tmp_path):
    made = shapes.prepared(tmp_path, shapes.table(120), labelled=20, split={"stratify": True})
    (segment,) = made.of("train")
    assert made.labelled(segment).sum() == made.num_labelled == 20
    assert min(count_prepared(made).labelled["train"]) >= 5


def test_who_learns_one_class_sees_its_boxes_alone(tmp_path):
    made = shapes.prepared(tmp_path)
    squares = made.of_classes(["square"])
    (segment,) = made.of("train")
    whole, mine = (labels_of(each.labels(segment)) for each in (made, squares))
    assert (whole[..., CLASS] == 0).any() and squares.space.max_boxes == shapes.MOST
    np.testing.assert_array_equal(mine[..., CLASS] == 0, whole[..., CLASS] == 1)
    assert mine[..., CLASS].max() == 0 and squares.num_labelled == made.num_labelled


def test_two_preparations_are_one_whatever_the_chunks(tmp_path):
    whole = shapes.prepared(tmp_path)
    again = prepare(shapes.config(tmp_path / "rows.parquet"), tmp_path / "again", chunk_rows=7)
    assert again.manifest() == whole.manifest()
    for segment in whole.segments:
        np.testing.assert_array_equal(again.labels(segment), whole.labels(segment))
