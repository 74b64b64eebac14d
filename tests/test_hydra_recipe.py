"""A head for each teacher, as a recipe says it: what is refused, what stands in keys, and what a comparison makes of it."""

import copy

import pytest

from orchestrator.recipe.fewer import heard_by
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.space import applied, shared_with_control
from orchestrator.recipe.variants import by_method, by_teachers, lacks, with_objective_of
from orchestrator.stages.trainings import training_stages
from students.config.hydra import Hydra
from teachers.errors import RecipeError
from tests.test_variants import DIGITS, recipe

COHORT = {"method": "mutual", "members": {name: {"model": "students.models:mlp"} for name in "ab"}}
ESTIMATOR = {
    "kind": "sklearn",
    "model": "sklearn.tree:DecisionTreeClassifier",
    "teachers": ["wide", "deep"],
    "hydra": {},
}


def with_heads(**changes):
    return recipe(**({"objective": [{"loss": "soft"}, {"loss": "hard"}], "hydra": {}} | changes))


def test_a_head_for_each_teacher_is_a_word():
    student = with_heads().students["small"]
    assert student.hydra == Hydra(layer=None, phase_one=0.5)
    assert Recipe.from_dict(with_heads().model_dump(mode="json")) == with_heads()
    assert "hydra" not in recipe().model_dump(mode="json")["students"]["small"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"teachers": ["wide"]},
            "students.small: hydra: has a head for each teacher, and there is one teacher, 'wide'",
        ),
        (
            {"teachers": [], "objective": [{"loss": "ps_kd"}]},
            "hydra: has a head for each teacher, and there is no teacher",
        ),
        (
            {"objective": [{"loss": "label_smoothing_teacher"}]},
            "hydra: no term of the objective listens to the teachers",
        ),
        (
            {"objective": [{"loss": "soft", "teachers": ["wide", "deep"]}]},
            "objective.0.teachers is ['wide', 'deep']: every teacher has its own head",
        ),
        (
            {"objective": [{"loss": "hard"}, {"loss": "soft", "level": "losses"}]},
            "objective.1.level: `hydra` has one target",
        ),
        ({"objective": [{"loss": "soft", "drop": 1}]}, "objective.0.drop: every teacher has its own head"),
        (
            {"objective": [{"loss": "soft", "combine": "entropy"}], "hydra": {"phase_one": 0}},
            "objective.0.combine is 'entropy', which makes the one target of the first phase, and `hydra.phase_one` is 0",
        ),
        ({"generations": 2}, "hydra: has a head for each teacher, and each of the `generations` but the first has one"),
        ({"hydra": {"phase_one": 1.0}}, "students.small.hydra.phase_one: "),
        ({"hydra": {"head": "5"}}, "students.small.hydra.head: "),
        (
            {"hints": [{"loss": "hint", "teacher": "wide", "output": "x", "alone": 0.6}]},
            "hydra.phase_one: is 0.5 of the steps, and in the first 0.6 of them hints train alone",
        ),
    ],
)
def test_what_contradicts_a_head_for_each_teacher_is_refused_in_one_line(changes, told):
    with pytest.raises(RecipeError) as error:
        with_heads(**changes)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_neither_an_estimator_nor_a_cohort_has_heads():
    document = copy.deepcopy(DIGITS)
    for kind, config in (("students", ESTIMATOR), ("cohorts", COHORT | {"hydra": {}})):
        with pytest.raises(RecipeError, match=f"{kind}.x: hydra is of students that are networks"):
            Recipe.from_dict({**document, "students": {}, kind: {"x": config}})


def test_who_has_one_head_keeps_its_key_and_the_control_is_the_same():
    plain, hydra = (
        training_stages(recipe(objective=[{"loss": "soft"}, {"loss": "hard"}], **more), "small", "digest", labels)
        for labels in [dict.fromkeys(("wide", "deep", "trees"), "said")]
        for more in ({}, {"hydra": {}})
    )
    assert plain["control", 4].key == hydra["control", 4].key
    assert plain["student", 4].key != hydra["student", 4].key
    assert "hydra" not in plain["student", 4].config
    assert hydra["student", 4].config["hydra"] == {"layer": None, "phase_one": 0.5}


def test_a_comparison_turns_a_student_into_one_with_heads_and_back():
    made = by_method(recipe(), "small", "soft,hydra")
    soft, hydra = made.recipe.students["soft"], made.recipe.students["hydra"]
    assert soft.hydra is None and hydra.hydra == Hydra() and soft.objective == hydra.objective
    own = with_heads(hydra={"phase_one": 0.25})
    made = by_method(own, "small", "soft,hydra,recipe,dkd")
    assert {name: config.hydra and config.hydra.phase_one for name, config in made.recipe.students.items()} == {
        "soft": None,
        "hydra": 0.25,
        "dkd": None,
    }
    assert made.left_out["recipe"] == "is the same objective as hydra here"
    assert with_objective_of(recipe(), by_method(recipe(), "small", "soft,hydra"), "hydra").students["small"].hydra
    assert with_objective_of(own, made, "dkd").students["small"].hydra is None


def test_a_comparison_says_why_a_student_can_have_no_heads():
    one = recipe(teachers=["wide"], objective=[{"loss": "soft"}, {"loss": "hard"}])
    assert "students.small has one teacher; name another there" in lacks(one, "small", "hydra")
    document = copy.deepcopy(DIGITS)
    tree = {key: value for key, value in ESTIMATOR.items() if key != "hydra"}
    document["students"] = {"tree": tree}
    assert "students.tree is an estimator" in lacks(Recipe.from_dict(document), "tree", "hydra")
    losses = recipe(objective=[{"loss": "soft", "level": "losses"}])
    assert "objective.0.level: `hydra` has one target" in lacks(losses, "small", "hydra")


def test_of_one_teacher_one_head_is_left():
    config = with_heads().students["small"]
    assert heard_by(config, ["deep"])["hydra"] is None and "hydra" not in heard_by(config, ["deep", "wide"])
    made = by_teachers(with_heads(), "small")
    heads = {name: bool(student.hydra) for name, student in made.recipe.students.items()}
    assert heads == {"all": True} | {f"without-{name}": True for name in config.teachers} | {
        f"only-{name}": False for name in config.teachers
    }
    document = config.model_dump(mode="json")
    assert applied(document, {"teachers": ["deep"]})["hydra"] is None
    assert applied(document, {"hydra.phase_one": 0.25})["hydra"]["phase_one"] == 0.25
    assert shared_with_control({"hydra.phase_one": 0.25, "arguments.hidden": 3}) == {"arguments.hidden": 3}
