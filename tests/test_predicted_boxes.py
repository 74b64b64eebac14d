"""Boxes that exist: COCO results, YOLO's text and VOC's XML find their rows by name; nothing is invented, what does not fit is named."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from orchestrator.planning.answers import prediction_problems
from orchestrator.recipe.model import Recipe
from orchestrator.stages.keys import label_stage, teacher_digest
from teachers.config.predictions import PredictionsTeacher
from teachers.errors import RecipeError, TeacherError
from teachers.labelling.predicted_boxes import Matched
from teachers.labelling.predictions import fill
from teachers.labelling.shard import LabelTask
from teachers.models.predicted_boxes import read_boxes
from teachers.models.row_names import Names
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.boxes import CLASS, SCORE, boxes_of, num_valid
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet

from .shapes import HEIGHT, KINDS, MOST, WIDTH, config, prepared, table

ROWS = 12
NAMES = [f"img_{number:03}.png" for number in range(ROWS)]
SPACE = Space("detection", KINDS, max_boxes=MOST)
Said = dict[str, list[tuple[list[float], float, int]]]


def some(seed: int = 0) -> Said:
    """By image, boxes in whole pixels, their scores and classes; of the first image none."""
    rng, found = np.random.default_rng(seed), dict[str, list[Any]]()
    for at, name in enumerate(NAMES):
        low = rng.integers(0, [WIDTH // 2, HEIGHT // 2], (at and int(rng.integers(1, 5)), 2))
        corners = np.concatenate([low, low + rng.integers(3, 20, low.shape)], 1)
        found[name] = [
            ([float(v) for v in box], round(float(rng.uniform(0.1, 0.9)), 3), int(rng.integers(2))) for box in corners
        ]
    return found


SAID = some()


def coco(folder: Path, said: Said = SAID, named: list[str] | None = None, **image: Any) -> dict[str, Any]:
    named = NAMES if named is None else named
    images = [
        {"id": 7 * at, "file_name": f"val/{name}", "width": WIDTH, "height": HEIGHT, **image}
        for at, name in enumerate(named)
    ]
    categories = [{"id": 3, "name": KINDS[1]}, {"id": 1, "name": KINDS[0]}]
    (folder / "images.json").write_text(json.dumps({"images": images, "categories": categories}))
    results = [
        {"image_id": 7 * at, "category_id": (1, 3)[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for at, name in enumerate(named)
        for (x1, y1, x2, y2), score, label in said.get(name, [])
    ]
    (folder / "results.json").write_text(json.dumps(results))
    return {"format": "coco", "path": str(folder / "results.json"), "images": str(folder / "images.json")}


def yolo(folder: Path, said: Said = SAID, *, with_score: bool = True) -> dict[str, Any]:
    (folder / "labels").mkdir()
    for name, boxes in said.items():
        lines = [
            f"{label} {(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} {(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT} {score if with_score else ''}"
            for (x1, y1, x2, y2), score, label in boxes
        ]
        (folder / "labels" / f"{Path(name).stem}.txt").write_text("\n".join(lines))
    return {"format": "yolo", "path": str(folder / "labels")}


def voc(folder: Path, said: Said = SAID) -> dict[str, Any]:
    (folder / "Annotations").mkdir()
    for name, boxes in said.items():
        objects = "".join(
            f"<object><name>{KINDS[label]}</name><score>{score}</score><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), score, label in boxes
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        (folder / "Annotations" / f"{Path(name).stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return {"format": "voc", "path": str(folder / "Annotations")}


WRITTEN = {"coco": coco, "yolo": yolo, "voc": voc}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    folder = tmp_path_factory.mktemp("rows")
    return prepared(folder, table(ROWS).append_column("name", pa.array(NAMES)), id="name")


def a_teacher(about: dict[str, Any], **more: Any) -> PredictionsTeacher:
    return PredictionsTeacher.model_validate({"kind": "predictions", "output": "boxes", **about, **more})


def filled(data: TransferSet, how: PredictionsTeacher, folder: Path) -> dict[str, NDArray[np.float32]]:
    """What the stores say, {name: f32 [M, 6]}."""
    tasks = []
    for segment in data.segments:
        about = (segment.name, segment.digest, "dense", KINDS, segment.num_rows, 64, "boxes")
        store = SoftTargetStore.create(folder / segment.name, Spec("theirs", "digest", *about, max_boxes=MOST))
        tasks.append(LabelTask(data.folder, segment.name, store.folder))
    fill("theirs", how, tasks, config("nowhere.parquet"))
    found = {}
    for segment, task in zip(data.segments, tasks, strict=True):
        SoftTargetStore.open(task.store).seal()
        reader = SoftTargets.open(task.store)
        fields = {name: torch.from_numpy(np.concatenate(values.parts)) for name, values in reader.rows().items()}
        output = reader.spec.answered
        said = boxes_of(output.encodes.decode(fields, output.width, 1e-3).numpy())
        found |= dict(zip(data.ids(segment).to_pylist(), said, strict=True))
    return found


def check(said: NDArray[np.float32], boxes: list[tuple[list[float], float, int]]) -> None:
    wanted = sorted(boxes, key=lambda each: -each[1])
    own = said[said[:, CLASS] >= 0]
    assert len(own) == len(wanted)
    for row, (corners, score, label) in zip(own, wanted, strict=True):
        expected = (np.array(corners) / [WIDTH, HEIGHT, WIDTH, HEIGHT]).clip(0, 1)
        np.testing.assert_allclose(row[:SCORE], expected, atol=1e-6)
        assert row[SCORE] == pytest.approx(score, abs=1e-3) and row[CLASS] == label


@pytest.mark.parametrize("form", WRITTEN)
def test_every_form_of_the_same_boxes_is_the_same_in_a_store(rows: TransferSet, tmp_path: Path, form: str) -> None:
    found = filled(rows, a_teacher(WRITTEN[form](tmp_path)), tmp_path / "out")
    assert set(found) == set(NAMES)
    for name, boxes in SAID.items():
        check(found[name], boxes)
    assert num_valid(found[NAMES[0]]) == 0 and not np.isnan(found[NAMES[0]]).any()  # empty, not unknown


@pytest.mark.parametrize("form", WRITTEN)
def test_an_image_that_nobody_names_is_unknown_and_one_without_boxes_is_empty(
    rows: TransferSet, tmp_path: Path, form: str
) -> None:
    some_of = {name: boxes for name, boxes in SAID.items() if name not in NAMES[3:5]}
    given = coco(tmp_path, some_of, NAMES[:4] + NAMES[5:]) if form == "coco" else WRITTEN[form](tmp_path, some_of)
    if form != "coco":  # nothing was found in the fourth, so that it has no file
        (tmp_path / "asked.txt").write_text("\n".join(f"/data/images/{name}" for name in NAMES[:4] + NAMES[5:]))
        told = rf"{given['path']} says nothing of 2 of 12 rows .*the first: 'img_003.png', 'img_004.png'\).*named in `images`"
        with pytest.raises(TeacherError, match=told):
            filled(rows, a_teacher(given), tmp_path / "refused")
        given["images"] = str(tmp_path / "asked.txt")
    with pytest.raises(
        TeacherError, match=r"says nothing of 1 of 12 rows .*the first: 'img_004.png'\), and max_missing is 0"
    ):
        filled(rows, a_teacher(given), tmp_path / "refused too")
    found = filled(rows, a_teacher(given, max_missing=0.1), tmp_path / "out")
    assert np.isnan(found[NAMES[4]]).all() and num_valid(found[NAMES[3]]) == 0
    check(found[NAMES[5]], SAID[NAMES[5]])


def test_files_of_other_images_are_named_with_the_first_of_both(rows: TransferSet, tmp_path: Path) -> None:
    others = {f"photo_{name}": boxes for name, boxes in SAID.items()}
    with pytest.raises(TeacherError) as error:
        filled(rows, a_teacher(yolo(tmp_path, others)), tmp_path / "out")
    assert "12 of 12 rows of the transfer set (the first: 'img_" in str(error.value)
    assert "12 of its images are none of these rows (the first: 'photo_img_000.txt', 'photo_img_001.txt'" in str(
        error.value
    )


def test_boxes_without_a_score_count_as_1_and_that_is_told(
    rows: TransferSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    total = sum(map(len, SAID.values()))
    with caplog.at_level(logging.WARNING):
        found = filled(rows, a_teacher(yolo(tmp_path, with_score=False)), tmp_path / "out")
    assert f"{total} of {total} boxes have no score, which counts as 1" in caplog.text
    assert {float(score) for said in found.values() for score in said[said[:, CLASS] >= 0][:, SCORE]} == {1.0}


def test_more_boxes_than_there_is_room_for_are_the_best_ones_and_that_is_told(
    rows: TransferSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = {**SAID, NAMES[1]: [([1.0, 1.0, 9.0, 9.0], round(0.9 - at / 20_000, 6), 0) for at in range(10_000)]}
    with caplog.at_level(logging.WARNING):
        found = filled(rows, a_teacher(coco(tmp_path, many)), tmp_path / "out")
    assert (
        f"{10_000 - MOST} boxes are left out, being beyond the best {MOST} of their image (transfer_set.max_boxes)"
        in caplog.text
    )
    check(found[NAMES[1]], many[NAMES[1]][:MOST])


def test_names_are_found_by_path_or_by_the_end_of_it() -> None:
    names = Names(["train/a.jpg", "val/a.jpg", "images/b.png#0", "c.jpeg", "deep/down/c.v2.png"])
    assert names.like("val/a") == [1] and names.like("/data/val/a.jpg") == [1] and names.like("a.png") == [0, 1]
    assert names.like("labels/b.txt") == [2] and names.like("c.txt") == [3] and names.like("c.v2.txt") == [4]
    assert names.like("elsewhere/c.xml") == [3] and names.like("d.txt") == [] and names.like("test/a.jpg") == []


def test_a_name_that_fits_two_rows_and_a_row_that_two_names_fit_are_told(tmp_path: Path) -> None:
    how = a_teacher(yolo(tmp_path, {"a.jpg": []}))
    with pytest.raises(
        TeacherError, match=r"a.txt: 'a.txt' may be 'train/a.jpg' or 'val/a.jpg'; name images with the folders"
    ):
        Matched.of(how, SPACE, ["train/a.jpg", "val/a.jpg"])
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "a.txt").write_text("")
    with pytest.raises(TeacherError, match=r"of 'a.jpg' something is said twice, as 'a.txt' .* and as 'val/a.txt'"):
        Matched.of(how, SPACE, ["a.jpg"])


LINES = {
    "0 0.5 0.5 0.2": r"img_001.txt, line 1 has 4 values; expected class, centre x",
    "0 0.5 0.5 0.2 cat": r"line 1: .* where 5 numbers are expected",
    "2 0.5 0.5 0.2 0.2": r"class 2 is none of the 2 classes disc, square; name what it says in `classes`",
    "0.5 0.5 0.5 0.2 0.2": r"class 0.5 is none of the 2 classes",
    "0 0.5 0.5 -0.2 0.2": r"line 1: a box with corners in another order",
    "0 30 40 12 10": r"line 1: a box far outside its image",
    "0 0.5 nan 0.2 0.2": r"where 5 numbers are expected",
    "0 0.5 0.5 0.2 0.2 1.5": r"line 1: a score of 1.5, expected 0 to 1",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_box_is_named(tmp_path: Path, line: str) -> None:
    how = a_teacher(yolo(tmp_path))
    (tmp_path / "labels" / "img_001.txt").write_text(line)
    with pytest.raises(TeacherError, match=LINES[line]):
        read_boxes(how, SPACE)


def test_results_of_other_images_categories_and_forms_are_named(tmp_path: Path) -> None:
    how = a_teacher(coco(tmp_path))
    path = tmp_path / "results.json"

    def told(results: Any, error: type[Exception], match: str) -> None:
        path.write_text(json.dumps(results))
        with pytest.raises(error, match=match):
            read_boxes(how, SPACE)

    good = {"image_id": 7, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}
    told(
        [good, {**good, "image_id": 5}],
        TeacherError,
        "result 1 is of image 5, which is none of the 12 in .*; 1 of 2 results are so",
    )
    told([{**good, "category_id": 2}], TeacherError, "result 0: category 2 is none of those in")
    told([{**good, "bbox": [1, 1, 5]}], TeacherError, "result 0: .* where 4 numbers are expected")
    told([{**good, "bbox": [5, 5, -3, 2]}], TeacherError, "result 0: a box with corners in another order")
    told([{**good, "score": -2}], TeacherError, "result 0: a score of -2")
    told({"annotations": []}, RecipeError, "is no list of results")
    path.write_text("[")
    with pytest.raises(RecipeError, match=r"path: .* is not readable as JSON"):
        read_boxes(how, SPACE)
    (tmp_path / "images.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "disc"}]})
    )
    with pytest.raises(RecipeError, match="has no `images` with file_name, height, id, width"):
        read_boxes(a_teacher({**how.model_dump(), "path": str(path)}), SPACE)
    (tmp_path / "images.json").write_text(json.dumps({"images": []}))
    with pytest.raises(RecipeError, match="has no `categories`"):
        read_boxes(how, SPACE)


def test_xml_that_is_none_or_says_another_class_is_named(tmp_path: Path) -> None:
    how = a_teacher(voc(tmp_path))
    file = tmp_path / "Annotations" / "img_001.xml"
    good = file.read_text()
    for text, match in (
        (good.replace("disc", "cow").replace("square", "cow"), r"object 0: 'cow' is none of the classes disc, square"),
        (good[:40], "is not readable as XML"),
        (good.replace("<width>64</width>", ""), "size: .* where 2 numbers are expected"),
        (good.replace("<xmin>", "<xmin>9999", 1), "object 0: a box with corners in another order"),
    ):
        file.write_text(text)
        with pytest.raises(TeacherError, match=match):
            read_boxes(how, SPACE)


def test_classes_are_the_recipes_else_the_files_own_else_the_transfer_sets(tmp_path: Path) -> None:
    how = yolo(tmp_path)
    assert read_boxes(a_teacher(how), SPACE).classes == KINDS
    (tmp_path / "labels" / "classes.txt").write_text("round\nangular\n")
    assert read_boxes(a_teacher(how), SPACE).classes == ("round", "angular")
    assert read_boxes(a_teacher(how, classes=["x", "y"]), SPACE).classes == ("x", "y")
    given = coco(tmp_path)
    assert read_boxes(a_teacher(given), SPACE).classes == KINDS  # by the ids of categories, wherever they stand
    with pytest.raises(RecipeError, match=r"classes: 3 are named, .* has 2 categories: disc, square"):
        read_boxes(a_teacher(given, classes=["x", "y", "z"]), SPACE)


def recipe(data: TransferSet, teacher: dict[str, Any]) -> Recipe:
    rows = config(data.folder.parent / "rows.parquet", id="name").model_dump(exclude={"task"}, exclude_defaults=True)
    about = {"format": 1, "name": "r", "task": "detection", "transfer_set": rows, "teachers": {"theirs": teacher}}
    return Recipe.model_validate(about)


def test_a_plan_tells_what_does_not_fit_before_and_after_rows_are_prepared(rows: TransferSet, tmp_path: Path) -> None:
    given = {"kind": "predictions", "output": "boxes", **yolo(tmp_path)}
    fits, data = recipe(rows, given), rows
    assert not [*prediction_problems(fits, SPACE, data)] and not [*prediction_problems(fits, SPACE, None)]
    (tmp_path / "labels" / "img_001.txt").write_text("0 1 1")
    for there in (data, None):
        [told] = prediction_problems(fits, SPACE, there)
        assert told.startswith("teachers.theirs: ") and "img_001.txt, line 1 has 3 values" in told
    (tmp_path / "labels" / "img_001.txt").unlink()
    [told] = prediction_problems(fits, SPACE, data)
    assert "says nothing of 1 of 12 rows of the transfer set (the first: 'img_001.png')" in told


def test_what_counts_is_what_the_files_hold_and_not_where_they_lie(rows: TransferSet, tmp_path: Path) -> None:
    def keys(given: dict[str, Any]) -> list[str]:
        made = recipe(rows, {"kind": "predictions", "output": "boxes", **given})
        digest = teacher_digest(made, "theirs", None, "source")
        about = ("train", "rows"), digest, list(KINDS), "statistics", "boxes"
        return [digest, label_stage(made.teachers["theirs"], "theirs", *about).key]

    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    first = keys(coco(tmp_path / "one"))
    assert keys(coco(tmp_path / "two")) == first
    assert all(a != b for a, b in zip(keys(coco(tmp_path / "three", named=NAMES[:-1])), first, strict=True))
    assert keys(coco(tmp_path / "three", width=2 * WIDTH)) != first


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"output": "boxes"}, "`output: boxes` and `format` .* go together"),
        ({"output": "probabilities", "format": "yolo"}, "go together"),
        ({"output": "boxes", "format": "coco"}, "`format: coco` needs `images`"),
        ({"output": "boxes", "format": "yolo", "id": "name"}, "found by their names: leave `id`"),
        ({"output": "boxes", "format": "voc", "scores": "s"}, "files of boxes have no columns"),
        ({"output": "logits", "id": "name", "images": "x.txt"}, "`images` names the images of boxes"),
    ],
)
def test_what_makes_no_sense_of_files_of_boxes_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PredictionsTeacher.model_validate({"kind": "predictions", "path": "x", **more})
