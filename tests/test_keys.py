"""What is in a stage's key and what is not: names, neighbours and seeds of others are not."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from orchestrator.recipe.deciding import deciding
from orchestrator.recipe.model import Recipe
from orchestrator.stages import keys
from orchestrator.stages.stages import Stage
from orchestrator.stages.trainings import training_stages
from students.delivering.export import licences_in

TREES = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier"}
LINEAR = {"kind": "sklearn", "model": "sklearn.linear_model:LogisticRegression"}
MEMBER = {"model": "students.models:mlp", "arguments": {"hidden": 8}}
WEIGHTED = {
    "loss": "soft",
    "teachers": ["trees", "linear"],
    "combine": "weighted",
    "teacher_weights": {"linear": 2, "trees": 1},
}


def recipe(**changes: Any) -> Recipe:
    """Two teachers, a student of both, a cohort of two; `changes` by dotted path, with `__` for the dot."""
    document: dict[str, Any] = {
        "format": 1,
        "name": "digits",
        "transfer_set": {"source": {"kind": "csv", "path": "rows.csv"}, "inputs": "x", "label": "y"},
        "teachers": {"linear": LINEAR, "trees": TREES},
        "students": {
            "small": {
                **MEMBER,
                "teachers": ["linear", "trees"],
                "objective": [WEIGHTED, {"loss": "hard", "weight": 0.1}],
                "train": {"steps": 10, "seeds": [0, 1]},
            }
        },
        "cohorts": {
            "duo": {
                "method": "online_teacher",
                "members": {"big": {**MEMBER, "role": "deep_teacher"}, "little": {**MEMBER, "role": "student"}},
                "teachers": ["trees"],
                "train": {"steps": 10, "seeds": [0]},
            }
        },
    }
    document = deepcopy(document)
    for path, value in changes.items():
        *above, last = path.split("__")
        at = document
        for name in above:
            at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
        at[last] = value
    return Recipe.model_validate(document)


def renamed(document: Any, names: Mapping[str, str]) -> Any:
    """The recipe's document with other names for those who teach and learn."""
    if isinstance(document, dict):
        return {names.get(key, key): renamed(value, names) for key, value in document.items()}
    if isinstance(document, list):
        return [renamed(value, names) for value in document]
    return names.get(document, document) if isinstance(document, str) else document


NAMES = {"linear": "plain", "trees": "forest", "small": "tiny", "duo": "pair"}
LABELS = {"linear": "1a", "trees": "7e"}


def trainings(recipe: Recipe, name: str, labels: Mapping[str, str] = LABELS) -> dict[str, str]:
    """Keys by part."""
    return {stage.part: stage.key for stage in training_stages(recipe, name, "da7a", labels).values()}


def test_a_changed_loss_weight_is_another_student_and_the_same_control() -> None:
    before, after = trainings(recipe(), "small"), trainings(recipe(students__small__objective__1__weight=0.2), "small")
    assert {part for part in before if before[part] != after[part]} == {"student/seed-0", "student/seed-1"}


@pytest.mark.parametrize("change", ["teachers", "labels", "control off"])
def test_nothing_of_its_teachers_is_in_the_key_of_a_control(change: str) -> None:
    before = trainings(recipe(), "small")
    if change == "teachers":
        objective = [{"loss": "soft", "temperature": 4.0}, {"loss": "hard"}]
        after = trainings(recipe(students__small__teachers=["trees"], students__small__objective=objective), "small")
    elif change == "labels":
        after = trainings(recipe(), "small", {"linear": "2b", "trees": "7e"})
    else:
        after = trainings(recipe(students__small__control=False), "small")
        assert {part: before[part] for part in after} == after and not any("control" in part for part in after)
        return
    assert {part for part in before if before[part] != after[part]} == {"student/seed-0", "student/seed-1"}


def test_a_control_with_settings_of_its_own_is_another_control_and_the_same_student() -> None:
    before = trainings(recipe(), "small")
    after = trainings(recipe(students__small__control={"learning_rate": 0.5}), "small")
    assert {part for part in before if before[part] != after[part]} == {"control/seed-0", "control/seed-1"}


@pytest.mark.parametrize("rule", ["mean_probability", "mean_logits"])
def test_the_rule_that_null_means_is_one_key_with_null_and_another_is_not(rule: str) -> None:
    soft = {"loss": "soft", "teachers": ["trees", "linear"]}
    null, written = (
        recipe(students__small__objective=[soft | more, {"loss": "hard"}]) for more in ({}, {"combine": rule})
    )
    evaluations, exports = (
        {keys.evaluate_stage(each, "small", "da7a", "5", LABELS).key for each in (null, written)},
        {keys.export_stage(each, "small", ["5"], "e").key for each in (null, written)},
    )
    same = rule == "mean_probability"
    assert (trainings(null, "small") == trainings(written, "small")) == same
    assert len(evaluations) == len(exports) == (1 if same else 2)


def test_one_more_seed_leaves_the_others_as_they_are() -> None:
    before, after = trainings(recipe(), "small"), trainings(recipe(students__small__train__seeds=[2, 0, 1]), "small")
    assert {part: after[part] for part in before} == before
    assert {*after} - {*before} == {"student/seed-2", "control/seed-2"}
    assert len({*after.values()}) == 6


def test_the_budget_and_the_network_are_in_both_keys() -> None:
    before = trainings(recipe(), "small")
    for change in ({"students__small__train__steps": 11}, {"students__small__arguments__hidden": 9}):
        assert not {*trainings(recipe(**change), "small").values()} & {*before.values()}


def test_students_of_one_network_and_budget_share_their_controls() -> None:
    small = recipe().students["small"].model_dump(mode="json")
    two = recipe(students__hot={**small, "objective": [{"loss": "soft", "temperature": 9.0}]})
    small_keys, hot_keys = trainings(two, "small"), trainings(two, "hot")
    assert {part for part in small_keys if small_keys[part] == hot_keys[part]} == {"control/seed-0", "control/seed-1"}


def test_of_a_cohort_each_seed_control_and_offline_twin_is_a_stage() -> None:
    before = trainings(recipe(), "duo")
    assert {*before} == {"seed-0", "control/seed-0", "offline/seed-0"}
    objective = [{"loss": "peer", "weight": 2.0}, {"loss": "hard"}, {"loss": "soft"}]
    same = [{"loss": "peer", "weight": 1.0}, {"loss": "hard"}, {"loss": "soft"}]
    heard = [trainings(recipe(cohorts__duo__objective=each), "duo") for each in (same, objective)]
    assert {part for part in before if heard[0][part] != heard[1][part]} == {"seed-0"}
    apart = trainings(recipe(cohorts__duo__deliver="all", cohorts__duo__wire="float16"), "duo")
    assert {part for part in before if apart[part] != before[part]} == {"seed-0"}
    seldom = trainings(recipe(cohorts__duo__teachers_every=2), "duo")
    assert not {*seldom.values()} & {*before.values()}  # a member that takes fewer steps is trained less alone, too


def every_key(recipe: Recipe, names: Mapping[str, str]) -> list[str]:
    """Keys of all that hears or learns, whatever it is called."""
    teachers = [names.get(name, name) for name in LABELS]
    labels = dict(zip(teachers, LABELS.values(), strict=True))
    stages: list[Stage] = [keys.train_teacher_stage(recipe, name, "da7a") for name in teachers]
    stages.append(keys.evaluate_teachers_stage(recipe, "da7a", labels))
    for name in (names.get(name, name) for name in ("small", "duo")):
        stages += training_stages(recipe, name, "da7a", labels).values()
        stages.append(keys.evaluate_stage(recipe, name, "da7a", "5d", labels))
    return [stage.key for stage in stages]


def test_what_a_users_arguments_are_called_is_the_users() -> None:
    """Though a part of the recipe has a key of that name."""
    named = recipe(students__small__arguments={"hidden": 8, "preprocess": "lower"})
    assert trainings(named, "small") != trainings(recipe(), "small")


def test_names_of_teachers_and_students_are_in_no_key() -> None:
    other = Recipe.model_validate(renamed(recipe().model_dump(mode="json"), NAMES))
    assert other.students["tiny"].teachers == ["plain", "forest"]
    assert every_key(other, NAMES) == every_key(recipe(), {})


def test_teachers_that_change_places_are_heard_otherwise() -> None:
    swapped = recipe(students__small__teachers=["trees", "linear"])
    before, after = trainings(recipe(), "small"), trainings(swapped, "small")
    assert {part for part in before if before[part] != after[part]} == {"student/seed-0", "student/seed-1"}


def test_the_reason_calls_labels_by_the_name_of_this_recipe() -> None:
    stages = training_stages(recipe(), "small", "da7a", LABELS)
    assert stages["student", 0].called == {
        "labels of teacher 0": "labels of linear",
        "labels of teacher 1": "labels of trees",
    }


def exported(recipe: Recipe, name: str = "small") -> str:
    return keys.export_stage(recipe, name, ["beef"], "e7a1").key


@pytest.mark.parametrize(
    "change",
    [
        {"teachers__trees__replicas": 4},
        {"teachers__trees__batch_size": 7},
        {"teachers__trees__resources": {"cpus": 2}},
        {"students__small__resources": {"cpus": 2}},
        {"students__small__require": {"accuracy": 0.1}},
        {"students__other": {**MEMBER, "teachers": ["trees"]}},
        {"cohorts__duo__deliver": "all"},
        {"cohorts": {}},
        {"teachers__third": TREES},
        {"teachers__trees__require": None},
        {"tracking": {"uri": "http://elsewhere", "system_metrics": True}},
        {"trust": ["somebody.elses:model"]},
        {"transfer_set__source__path": "moved/rows.csv"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_cannot_change_a_model_makes_no_new_one(change: dict[str, Any]) -> None:
    assert exported(recipe(**change)) == exported(recipe())
    if "transfer_set__source__path" not in change:  # told, and in no key
        assert deciding(recipe(**change), "small") == deciding(recipe(), "small")


@pytest.mark.parametrize(
    "change",
    [
        {"students__small__train__learning_rate": 0.5},
        {"teachers__trees__arguments": {"max_depth": 3}},
        {"transfer_set__labelled": 5},
        {"name": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_a_model_stands_in_its_folder_and_key(change: dict[str, Any]) -> None:
    assert exported(recipe(**change)) != exported(recipe())
    assert deciding(recipe(**change), "small") != deciding(recipe(), "small")


def test_other_networks_or_figures_are_another_model() -> None:
    first = keys.export_stage(recipe(), "small", ["beef"], "e7a1").key
    assert first != keys.export_stage(recipe(), "small", ["bee5"], "e7a1").key
    assert first != keys.export_stage(recipe(), "small", ["beef"], "e7a2").key


def test_a_teachers_name_makes_no_new_model_and_the_students_own_does() -> None:
    document = recipe().model_dump(mode="json")
    of_teachers = Recipe.model_validate(renamed(document, {"linear": "plain", "trees": "forest"}))
    assert exported(of_teachers) == exported(recipe())
    assert exported(Recipe.model_validate(renamed(document, NAMES)), "tiny") != exported(recipe())  # its card says so


def test_a_control_is_known_before_any_teacher_has_labelled() -> None:
    known = {stage.part: stage.key for stage in training_stages(recipe(), "small", "da7a", None).values()}
    assert known == {part: key for part, key in trainings(recipe(), "small").items() if part.startswith("control")}


def test_a_prepared_set_says_of_which_source_it_is_whatever_kind_that_has() -> None:
    for source in ({"kind": "csv", "path": "rows.csv"}, {"kind": "import", "function": "sklearn.datasets:load_iris"}):
        assert keys.prepare_stage(recipe(transfer_set__source=source), "5001").inputs["source"] == "5001"


def test_a_licence_that_is_declared_makes_another_card_and_nothing_else() -> None:
    plain, told = recipe(), recipe(transfer_set__licence="CC-BY-4.0", teachers__trees__licence="AGPL-3.0")
    assert keys.prepare_stage(plain, "5e7").key == keys.prepare_stage(told, "5e7").key
    labels = [keys.label_stage(each.teachers["trees"], "trees", ("train", "0"), "w", ["a"], "s").key for each in (plain, told)]  # fmt: skip
    trained = [keys.train_teacher_stage(each, "trees", "da7a").key for each in (plain, told)]
    assert labels[0] == labels[1] and trained[0] == trained[1]
    assert trainings(plain, "small") == trainings(told, "small")
    assert keys.export_stage(plain, "small", ["n"], "e").key != keys.export_stage(told, "small", ["n"], "e").key
    assert licences_in(deciding(told, "small")) == {"data": "CC-BY-4.0", "teacher trees": "AGPL-3.0"}
