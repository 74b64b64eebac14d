"""How boxes are judged beside figures, and what a recipe of `task: detection` may say."""

import json

import numpy as np
import pytest
import torch

from orchestrator.recipe.load import load_recipe
from orchestrator.stages.keys import prepare_stage
from students.tasks.detection import DETECTION, best_thresholds, judged
from students.tasks.figure import BESIDE, TABLES, UNJUDGED
from students.tasks.task import Model
from teachers.errors import CollegiumError
from teachers.tasks.boxes import BOX, CLASS, LABEL, SCORE, no_boxes
from teachers.tasks.space import Space
from teachers.transfer_set.answer_columns import ANSWER_COLUMNS
from tests.shapes import said_of_labels

SPACE = Space("detection", ("cat", "dog"), max_boxes=4)
HERE, THERE = (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)


def labels(*rows):
    """Rows of boxes (corners, class); None: no label."""
    out = no_boxes(len(rows), len(LABEL), 4).reshape(len(rows), 4, len(LABEL))
    out[..., 6:] = 100
    for row, boxes in enumerate(rows):
        if boxes is None:
            out[row] = np.nan
        for place, (corners, number) in enumerate(boxes or ()):
            out[row, place, :6] = [*corners, 1, number]
    return torch.from_numpy(out.reshape(len(rows), -1))


def said(*rows):
    """Rows of boxes (corners, score, class); None: unknown."""
    out = no_boxes(len(rows), len(BOX), 4).reshape(len(rows), 4, len(BOX))
    for row, boxes in enumerate(rows):
        if boxes is None:
            out[row] = np.nan
        for place, (corners, score, number) in enumerate(boxes or ()):
            out[row, place] = [*corners, score, number]
    return torch.from_numpy(out.reshape(len(rows), -1))


def test_the_merit_of_an_image_is_the_average_precision_of_its_list():
    so = labels([(HERE, 0), (THERE, 1)], [(HERE, 0), (THERE, 1)], [(HERE, 0)], [], [], None)
    given = said(
        [(HERE, 0.9, 0), (THERE, 0.8, 1)],
        [(HERE, 0.9, 1), (THERE, 0.8, 1)],
        [],
        [],
        [(HERE, 0.7, 0)],
        [(HERE, 0.9, 0)],
    )
    # of the second the first box is of the wrong class, and one of two is found at the second place
    np.testing.assert_allclose(DETECTION.merits(given, so, SPACE), [1, 0.25, 0, 1, 0.3, 0], atol=1e-6)


def test_thresholds_give_the_best_f1_of_each_class():
    so = labels([(HERE, 0)], [(HERE, 0)], [])
    given = said([(HERE, 0.8, 0)], [(HERE, 0.6, 0)], [(THERE, 0.3, 0)])
    assert best_thresholds(given, so, SPACE) == pytest.approx((0.45, 0.5))


def test_teachers_and_student_that_say_the_same_boxes_agree():
    given = said([(HERE, 0.9, 0), (THERE, 0.8, 1)], [(HERE, 0.7, 1)])
    assert DETECTION.beside(given, given, SPACE) == {"agreement": 1.0, "found": 1.0}
    less = said([(HERE, 0.9, 0)], [(HERE, 0.1, 1)])
    assert DETECTION.beside(less, given, SPACE) == {"agreement": pytest.approx(2 / 4), "found": pytest.approx(1 / 3)}
    assert DETECTION.beside(given, said(None, None), SPACE) == {"agreement": None, "found": None}


def test_its_document_has_what_its_tables_promise():
    so = labels([(HERE, 0), (THERE, 1)], [(HERE, 0)], [])
    given = said([(HERE, 0.9, 0), (THERE, 0.4, 1)], [(THERE, 0.8, 0)], [])
    model = Model([given], thresholds=[(0.5, 0.3)])
    found = DETECTION.tables({"student": model}, model, so, SPACE)
    assert {*found} | {"sheet"} == {*TABLES["detection"]}
    table = found["by_class"]
    assert table["classes"] == ["cat", "dog"] and table["support"] == [2, 1] and table["images"] == [2, 1]
    assert table["said"]["student"] == [2, 1] and table["recall"]["student"] == [0.5, 1.0]
    assert table["precision"]["student"] == [0.5, 1.0] and table["threshold"]["student"] == [0.5, 0.3]
    json.dumps(found, allow_nan=False)
    assert set(DETECTION.unjudged(given, SPACE)) == {each.key for each in UNJUDGED["detection"]} | {"said"}
    assert set(DETECTION.beside(given, given, SPACE)) == {each.key for each in BESIDE["detection"]}


def test_the_worst_image_comes_first_with_what_is_there_and_what_is_said():
    so = labels([(HERE, 0)], [(HERE, 0), (THERE, 0)], [])
    given = said([(HERE, 0.9, 0)], [(THERE, 0.8, 1)], [(HERE, 0.6, 1)])
    found = DETECTION.mistakes(Model([given]), given, so, SPACE, 5)
    assert [row for row, _ in found] == [1, 2]
    assert found[0][1] == {"label": "2 cat", "said": "1 dog", "error": 1.0, "ensemble": "1 dog"}
    assert found[1][1]["label"] == "no box"


def test_a_teacher_that_knows_stands_and_one_that_says_nothing_does_not():
    numbers = np.random.default_rng(0)
    rows = [
        [(tuple(np.array([x, y, x + 0.2, y + 0.3])), n % 2)] for n, (x, y) in enumerate(numbers.random((40, 2)) * 0.6)
    ]
    so = labels(*rows)
    knows = torch.from_numpy(said_of_labels(so.numpy(), shift=0.05))
    known = torch.ones_like(knows, dtype=torch.bool)
    assert DETECTION.standing(knows, so, known, so, SPACE)["stands"] == "better"
    nothing = said(*[[]] * 40)
    assert DETECTION.standing(nothing, so, known, so, SPACE)["stands"] == "no better"
    some = known.clone()
    some[5:] = False
    assert DETECTION.standing(knows, so, some, so, SPACE)["rows"] == 5


def test_rows_that_nobody_judges_count_nowhere():
    so, given = labels([(HERE, 0)], None, [(HERE, 1)]), said([(HERE, 0.9, 0)], [(HERE, 0.9, 0)], None)
    found = judged(given, so, SPACE)
    assert found.rows.tolist() == [True, False, False] and found.true.tolist() == [[1, 0]]


def test_saying_nothing_is_what_costs_nothing():
    so = labels([(HERE, 0)], [])
    assert DETECTION.commonest(so, so, SPACE)["figures"]["ap"] == 0


def test_boxes_leave_as_lists_for_people():
    columns = ANSWER_COLUMNS["boxes"]
    so, given = labels([(HERE, 0), (THERE, 1)], [], None), said([(HERE, 0.9, 1)], [], None)
    found = columns.labels(so.numpy(), SPACE.names)
    assert found.type == columns.label(SPACE.names)
    first, second, third = found.to_pylist()
    assert [box["class"] for box in first] == ["cat", "dog"] and second == [] and third is None
    assert first[0]["height"] == 100
    answers = columns.answers(given, SPACE.names, True)["boxes"]
    assert answers.type == columns.said(SPACE.names, True)["boxes"]
    assert answers.to_pylist()[0] == [{"x1": pytest.approx(0.1), "y1": pytest.approx(0.1), "x2": pytest.approx(0.4), "y2": pytest.approx(0.4), "score": pytest.approx(0.9), "class": "dog"}]  # fmt: skip
    assert answers.to_pylist()[1:] == [[], None]
    assert SCORE < CLASS


# ---------------------------------------------------------------- recipes

RECIPE = """
format: 1
name: shapes
task: detection
transfer_set:
  source: {kind: import, function: "tests.shapes:many"}
  inputs: image
  label: boxes
  TRANSFER
teachers:
  big:
    kind: module
    model: students.models:tiny_detector
    train: {steps: 5}
    TEACHER
students:
  small:
    model: students.models:tiny_detector
    teachers: [big]
    objective: [{loss: pseudo}, {loss: hard}]
    train: {steps: 5}
    STUDENT
MORE
"""


def recipe(tmp_path, *, transfer="", teacher="", student="", more="", replace=()):
    text = RECIPE.replace("TRANSFER", transfer).replace("TEACHER", teacher).replace("STUDENT", student)
    for old, new in (*replace, ("MORE", more)):
        text = text.replace(old, new)
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(line for line in text.splitlines() if line.strip()))
    return load_recipe(path)


def test_a_plain_recipe_of_boxes_is_one(tmp_path):
    made = recipe(tmp_path)
    assert made.transfer_set.boxes == 100 and made.students["small"].objective[0].keep_above == 0.3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"transfer": "image_size: 64\n  fit: pad"}, "transfer_set.fit: `pad` moves boxes"),
        ({"replace": [("train: {steps: 5}\n    \nstudents", "train: {steps: 5, folds: 3}\nstudents")]}, "teachers.big.train.refit: boxes of several parts"),
        ({"replace": [("kind: module\n    model: students.models:tiny_detector\n    train: {steps: 5}", "kind: sklearn\n    model: sklearn.tree:DecisionTreeClassifier\n    train: {}")]}, "teachers.big.kind: `sklearn` says no boxes"),
        ({"replace": [("{loss: pseudo}", "{loss: soft}")]}, "objective.0.loss: is 'soft'; the task detection has hard, pseudo"),
        ({"replace": [("{loss: pseudo}", "{loss: pseudo, keep_above: 0.05}")]}, "objective.0: ignore_above is 0.1, more than keep_above 0.05"),
        ({"replace": [("{loss: pseudo}", "{loss: pseudo, combine: vote}")]}, "objective.0.combine: is 'vote'; the task detection has wbf"),
        ({"replace": [("train: {steps: 5}\n    STUDENT", "train: {steps: 5, augment: affine}")], "student": ""}, "train.augment: boxes cannot follow `affine`"),
        ({"replace": [("train: {steps: 5}\n    STUDENT", "train: {steps: 5, mix: {kind: mixup}}")], "student": ""}, "train.mix: two images as one would hold the boxes of both"),
        ({"replace": [("train: {steps: 5}\n    STUDENT", "train: {steps: 5, balanced: class}")], "student": ""}, "train.balanced: images hold boxes of many classes"),
        ({"student": "energy: {}"}, "energy: detectors say boxes"),
        ({"replace": [("train: {steps: 5}\n    STUDENT", "train: {steps: 5, class_weights: balanced}")]}, "train.class_weights: images hold boxes"),
        ({"student": "hints: [{teacher: big, layers: [[head, head]], loss: mse}]"}, "hints"),
        ({"teacher": "encoding: label"}, "teachers.big.encoding: `label` is nothing that `task: detection` has"),
        ({"transfer": "max_boxes: 0"}, "max_boxes"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_boxes_is_told_before_work(tmp_path, given, told):
    given["replace"] = [(old.replace("\n    STUDENT", ""), new) for old, new in given.get("replace", ())]
    with pytest.raises(CollegiumError) as error:
        recipe(tmp_path, **given)
    assert told in str(error.value)


def test_room_for_boxes_is_of_detection_alone(tmp_path):
    with pytest.raises(CollegiumError, match=r"transfer_set\.max_boxes: only `task: detection` has boxes"):
        recipe(tmp_path, transfer="max_boxes: 7", replace=[("task: detection", "task: classification"), ("{loss: pseudo}, ", "{loss: soft}, ")])  # fmt: skip


def test_keys_of_recipes_without_boxes_know_nothing_of_them(tmp_path):
    plain = recipe(tmp_path, replace=[("task: detection", "task: classification"), ("{loss: pseudo}, ", "{loss: soft}, ")])  # fmt: skip
    document = prepare_stage(plain, "source").document()
    assert "max_boxes" not in str(document) and "truncate" not in str(document)
    assert "ema" not in plain.students["small"].train.model_dump()
    boxes = [recipe(tmp_path, transfer=given) for given in ("", "max_boxes: 100", "max_boxes: 101")]
    keys = [prepare_stage(each, "source").key for each in boxes]
    assert keys[0] == keys[1] != keys[2]


def test_thresholds_that_are_chosen_on_validation_hear_teachers_there(tmp_path):
    from orchestrator.building.context import segments_heard
    from orchestrator.recipe.detecting import rows_to_choose_by
    from orchestrator.stages.stages import Built, Stage
    from tests import shapes

    made = shapes.prepared(tmp_path / "rows", shapes.table(60))
    built = Built(Stage("prepare", "transfer_set", {}, {}), made.folder, None, False, "", 0.0)
    plain = recipe(tmp_path)
    chosen = recipe(tmp_path, replace=[("{loss: pseudo}", "{loss: pseudo, keep_above: auto}")])
    assert segments_heard(plain, built, plain.students["small"]) == ["train-0"]
    assert segments_heard(chosen, built, chosen.students["small"]) == ["train-0", "validation-0"]
    labelled = {"train": 9, "validation": 0, "test": 9}
    assert [*rows_to_choose_by(plain, labelled)] == []
    (told,) = rows_to_choose_by(chosen, labelled)
    assert told.startswith("students.small.objective.0.keep_above: `auto` chooses on labelled validation images")
