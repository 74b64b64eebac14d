"""Hints in a recipe: what is in keys, and what is refused before anything is read."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.planning.rehearsal import rehearse
from orchestrator.recipe.deciding import without_names
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.space import applied, shared_with_control
from orchestrator.stages import keys
from orchestrator.stages.trainings import training_stages
from teachers.errors import RecipeError
from teachers.preparing.sample import Sample
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

MODULE = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": 4}, "train": {"steps": 10}}
TREES = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier"}
HINT = {"loss": "hint", "teacher": "wide", "output": "hidden", "layer": "1"}
LABELS = {"wide": "1a", "deep": "7e"}
SMALL = {
    "model": "students.models:mlp",
    "arguments": {"hidden": 8},
    "teachers": ["deep", "wide"],
    "train": {"steps": 10, "seeds": [0]},
}


def recipe(*hints: dict[str, Any], task: str = "classification", **more: Any) -> Recipe:
    document: dict[str, Any] = {
        "format": 1,
        "name": "hints",
        "task": task,
        "transfer_set": {"source": {"kind": "csv", "path": "rows.csv"}, "inputs": "x", "label": "y"},
        "teachers": {
            "wide": {
                **MODULE,
                "outputs": {"hidden": {"layer": "1"}, "late": {"layer": "2"}, "vector": {"layer": "2", "pool": "mean"}},
            },
            "deep": MODULE,
            "trees": TREES,
        },
        "students": {"small": {**SMALL, **({"hints": [*hints]} if hints else {})}},
    }
    return Recipe.from_dict(deepcopy({**document, **more}))


def trainings(made: Recipe, labels: dict[str, str] = LABELS) -> dict[str, str]:
    return {stage.part: stage.key for stage in training_stages(made, "small", "da7a", labels).values()}


def test_hints_are_in_the_key_of_the_student_and_not_in_that_of_its_control() -> None:
    plain, with_one, heavier = trainings(recipe()), trainings(recipe(HINT)), trainings(recipe({**HINT, "weight": 3.0}))
    assert len({each["student/seed-0"] for each in (plain, with_one, heavier)}) == 3
    assert len({each["control/seed-0"] for each in (plain, with_one, heavier)}) == 1


def test_an_empty_list_of_hints_is_none() -> None:
    empty = recipe(students={"small": {**SMALL, "hints": []}})
    assert trainings(empty) == trainings(recipe())
    assert without_names(empty, "small") == without_names(recipe(), "small")
    assert "hints" not in without_names(recipe(), "small")["learner"]


def test_a_hint_names_its_teacher_by_its_place() -> None:
    made = recipe(HINT)
    other = recipe({**HINT, "teacher": "broad"}, teachers={"broad": made.teachers["wide"].model_dump(mode="json"), "deep": MODULE},
                   students={"small": {**SMALL, "teachers": ["deep", "broad"], "hints": [{**HINT, "teacher": "broad"}]}})  # fmt: skip
    assert trainings(made) == trainings(other, {"broad": "1a", "deep": "7e"})
    exports = [keys.export_stage(each, "small", ["5"], "e").key for each in (made, other)]
    assert exports[0] == exports[1]
    assert without_names(made, "small")["learner"]["hints"][0]["teacher"] == 1


REFUSED = [
    ({**HINT, "output": "hiden"}, r"students\.small\.hints\.0\.output: teacher 'wide' gives no output 'hiden'; it gives hidden, late, vector, did you mean hidden\?"),
    ({**HINT, "teacher": "deep"}, r"hints\.0\.output: teacher 'deep' gives no output 'hidden'; it gives none: name it under `teachers\.deep\.outputs`"),
    ({**HINT, "loss": "fitnets"}, r"hints\.0: loss 'fitnets' is not one of hint, attention"),
    ({**HINT, "wieght": 2}, r"hints\.0\.wieght: unknown key, did you mean weight\?"),
    ({**HINT, "output": ["hidden", "late"], "layer": ["1", "2"], "loss": "contrastive"}, r"students\.small\.hints\.0: .*compares one layer with one output, here are 2"),
    *(
        ({"loss": loss, "teacher": "wide", "output": "vector"}, rf"hints\.0\.output: the loss '{loss}' compares maps, and 'vector' is one vector")
        for loss in ("attention", "channel_wise", "review")
    ),
    ({**HINT, "output": "vector", "projector": "conv1x1"}, r"hints\.0\.output: conv1x1 makes maps, and 'vector' is one vector"),
    ({**HINT, "teacher": "nobody"}, r"names 'nobody', which is not among the teachers"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "told"), REFUSED)
def test_what_no_teacher_gives_is_told_in_one_line_with_what_there_is(hint: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told) as error:
        recipe(hint)
    assert "\n" not in str(error.value)


def test_what_a_live_teacher_gives_is_not_standardised_and_without_it_keys_say_nothing_of_it() -> None:
    live = {
        **recipe().model_dump(mode="json")["teachers"],
        "wide": {**recipe().model_dump(mode="json")["teachers"]["wide"], "mode": "live"},
    }
    with pytest.raises(
        RecipeError, match=r"small\.hints\.0\.standardise: goes by all training rows, and what the live teacher 'wide'"
    ):
        recipe({**HINT, "standardise": "phi_s"}, teachers=live)
    assert "standardise" not in recipe(HINT).model_dump(mode="json")["students"]["small"]["hints"][0]
    assert trainings(recipe(HINT)) != trainings(recipe({**HINT, "standardise": "phi_s"}))


def test_a_teacher_without_layers_gives_no_hints() -> None:
    student = {**SMALL, "teachers": ["trees"], "hints": [{**HINT, "teacher": "trees"}]}
    with pytest.raises(RecipeError, match=r"hints\.0\.output: teacher 'trees' is of kind sklearn, which has no layers"):
        recipe(students={"small": student})


def test_an_assistant_gives_no_outputs() -> None:
    student = {**SMALL, "teachers": ["wide", "middle"], "hints": [{**HINT, "teacher": "middle"}]}
    with pytest.raises(RecipeError, match=r"'middle' is trained here as a student, and only `teachers` give outputs"):
        recipe(students={"middle": SMALL, "small": student})


def test_estimators_and_cohorts_take_no_hints() -> None:
    tree = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier", "teachers": ["wide"], "hints": [HINT]}
    with pytest.raises(RecipeError, match=r"students\.small: hints are of students that are networks") as error:
        recipe(students={"small": tree})
    assert "\n" not in str(error.value)
    members = {name: {"model": "students.models:mlp"} for name in "ab"}
    with pytest.raises(RecipeError, match=r"cohorts\.duo: hints are of students that are networks") as error:
        recipe(cohorts={"duo": {"method": "mutual", "members": members, "teachers": ["wide"], "hints": [HINT]}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_relaxed_positives_need_one_class_a_row(task: str) -> None:
    hint = {**HINT, "loss": "contrastive", "positive": "relax"}
    teachers = {
        "wide": {
            **MODULE,
            "outputs": {"hidden": {"layer": "1"}},
            **({"output": "values"} if task == "regression" else {}),
        }
    }
    student = {**SMALL, "teachers": ["wide"], "hints": [hint]}
    rows = {"source": {"kind": "csv", "path": "rows.csv"}, "inputs": "x", "label": ["y", "z"]}
    with pytest.raises(RecipeError, match=rf"hints\.0\.positive: `relax` goes by the one class.*{task}.*say `exact`"):
        recipe(task=task, teachers=teachers, students={"small": student}, transfer_set=rows)


def test_a_trial_without_a_teacher_has_none_of_its_hints() -> None:
    document = recipe(HINT).students["small"].model_dump(mode="json")
    assert applied(document, {"hints.0.weight": 7.0})["hints"][0]["weight"] == 7.0
    assert applied(document, {"teachers": ["deep"]})["hints"] == []
    assert shared_with_control({"hints.0.weight": 7.0, "arguments.hidden": 4}) == {"arguments.hidden": 4}


SHAPES = {"wide": {"hidden": (6, 4, 4), "late": (20,)}}
TRIED = [
    ({**HINT, "layer": "1"}, None),
    ({**HINT, "output": "late", "layer": "by_stage", "alone": 0.9}, None),
    (
        {**HINT, "layer": "4"},
        "students.small.hints.0.projector: '4' and 'hidden': the student's layer gives [64] of a row and the teacher's output "
        "[6, 4, 4], and no projector joins them; name layers of one kind (maps [C, H, W], as many positions [L, D], vectors [D]), "
        "or `pool: mean` for the output",
    ),
    (
        {**HINT, "layer": "feature"},
        "students.small.hints.0.layer: a Sequential has no layer 'feature'; the nearest of 6 are ",
    ),
]


@pytest.mark.parametrize(("hint", "told"), TRIED)
def test_plan_with_check_tries_each_hint_and_tells_what_does_not_fit(hint: dict[str, Any], told: str | None) -> None:
    image = Column("image", "image", (8, 8, 1), (0.5,), (0.5,))
    pixels = np.random.default_rng(0).integers(0, 255, (32, 8, 8, 1)).astype(np.uint8)
    sample = Sample((image,), Space("classification", ("a", "b")), {"image": pixels}, np.arange(32, dtype=np.int32) % 2)
    small = {**SMALL, "model": "students.models:small_conv_net", "arguments": {}, "hints": [hint]}
    rows = {"source": {"kind": "csv", "path": "rows.csv"}, "inputs": "image", "label": "y"}
    found = rehearse(recipe(students={"small": small}, transfer_set=rows), sample, Path.cwd(), SHAPES)
    assert len(found.problems) == (told is not None)
    assert told is None or (found.problems[0].startswith(told) and "\n" not in found.problems[0])
