"""One student in several variants: what each changes, what all share, and what is refused before any work."""

import copy
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.planning.hinted import hint_failures
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.tries import tries_of
from orchestrator.recipe.variants import by_method, by_teachers, chosen_student, with_objective_of, without
from orchestrator.running.compare import variants
from orchestrator.stages.trainings import training_stages
from students.config.methods import HAVE_NO_METHOD, METHODS, MethodName, RuleMethod
from students.config.task_terms import COMBINES
from students.config.terms import StudentLossName, TeacherTermCommon
from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

DIGITS: dict[str, Any] = {
    "format": 1,
    "name": "digits",
    "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
    "teachers": {
        name: {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}
        for name in ("wide", "deep", "trees")
    },
    "students": {
        "small": {
            "model": "students.models:mlp",
            "teachers": ["wide", "deep", "trees"],
            "objective": [
                {"loss": "soft", "combine": "fitted", "temperature": 3.0, "weight": 0.7},
                {"loss": "hard", "weight": 0.3, "label_smoothing": 0.1},
            ],
            "train": {"steps": 40, "seeds": [4, 5]},
            "require": {"accuracy": 0.5},
        }
    },
}


def recipe(**changes: Any) -> Recipe:
    """The one above; `changes`: of the student."""
    document = {**DIGITS, "students": {"small": {**DIGITS["students"]["small"], **changes}}}
    return Recipe.from_dict(document)


def test_every_loss_that_a_student_can_have_has_a_method() -> None:
    losses = {loss for method in METHODS.values() for loss in method.losses}
    assert {*get_args(StudentLossName)} - losses == HAVE_NO_METHOD
    rules = {rule for rules in COMBINES.values() for rule in rules}
    assert rules - {*get_args(RuleMethod)} == {"weighted", "route"}, "these say more than their name"
    assert {*METHODS} == {*get_args(MethodName)}
    assert {len(method.settings) for name, method in METHODS.items() if name != "recipe"} == {3}  # as many of each
    assert all(method.says and not method.says.endswith(".") for method in METHODS.values())


def test_variants_differ_in_their_objective_and_in_nothing_else() -> None:
    made = by_method(recipe(), "small", "soft,teacher_label,mean_logits")
    students = made.recipe.students
    assert [*students] == ["soft", "teacher_label", "mean_logits"] == [*made.of]
    rest = [config.model_dump(exclude={"objective"}) for config in students.values()]
    assert rest[0] == rest[1] == rest[2]
    assert made.recipe.transfer_set == recipe().transfer_set and made.recipe.teachers == recipe().teachers
    assert students["soft"].require is None and made.recipe.search is None


def test_the_plain_mean_is_a_method_where_the_recipe_has_another_rule_and_else_it_is_soft() -> None:
    """The recipe above hears its teachers by `fitted`."""
    mean = by_method(recipe(), "small", "soft,mean_probability").recipe.students["mean_probability"].objective[0]
    assert isinstance(mean, TeacherTermCommon) and mean.combine is None
    for said in ({}, {"combine": "mean_probability"}):
        plain = recipe(objective=[{"loss": "soft", "weight": 0.9, **said}, {"loss": "hard", "weight": 0.1}])
        made = by_method(plain, "small", "soft,mean_probability,fitted")
        assert [*made.of] == ["soft", "fitted"]
        assert made.left_out == {"mean_probability": "is the same objective as soft here"}
    with pytest.raises(RecipeError, match="--methods mean: is not of the task classification"):
        by_method(recipe(), "small", "soft,mean")


def test_a_term_that_the_recipe_has_tuned_stays_and_teachers_are_heard_as_there() -> None:
    students = by_method(recipe(), "small", "soft,teacher_label,mean_logits").recipe.students
    assert students["soft"].objective == recipe().students["small"].objective
    label, hard = students["teacher_label"].objective
    assert (label.loss, label.combine, label.weight) == ("teacher_label", "fitted", 0.5)
    assert (hard.weight, hard.label_smoothing) == (0.5, 0.1)
    soft, hard = students["mean_logits"].objective
    assert (soft.combine, soft.temperature, soft.weight, hard.weight) == ("mean_logits", 3.0, 0.7, 0.3)


def test_all_variants_have_one_control() -> None:
    made = by_method(recipe(), "small", "all")
    keys = {
        stage.key
        for name in made.of
        for (kind, seed), stage in training_stages(made.recipe, name, "digest", None).items()
        if kind == "control" and seed == 4
    }
    assert len(made.of) >= 3 and len(keys) == 1
    own = training_stages(recipe(), "small", "digest", None)["control", 4]
    assert keys == {own.key}  # and it is the recipe's own: a run before has trained it


def test_all_takes_what_can_be_served_and_says_why_not_the_rest() -> None:
    made = by_method(recipe(), "small", "all")
    assert {"soft", "teacher_label", "mean_logits"} <= set(made.of)
    assert made.left_out["fitted"] == "is the same objective as soft here" == made.left_out["recipe"]
    assert "inverse_variance" not in {*made.of, *made.left_out}  # numbers have it
    assert "students.small.hints" in made.left_out["hint"]
    one = by_method(recipe(teachers=["wide"], objective=[{"loss": "soft"}, {"loss": "hard"}]), "small", "all")
    assert "students.small.teachers has one" in one.left_out["mean_logits"]


def test_of_teachers_that_keep_only_labels_only_their_labels_are_learnt() -> None:
    document = {
        **DIGITS,
        "teachers": {**DIGITS["teachers"], "trees": {**DIGITS["teachers"]["trees"], "encoding": "label"}},
    }
    document["students"] = {
        "small": {"model": "students.models:mlp", "teachers": ["trees"], "objective": [{"loss": "teacher_label"}]}
    }
    labelled = Recipe.from_dict(document)
    with pytest.raises(RecipeError, match=r"--methods soft: needs scores.*teachers\.trees\.encoding: dense"):
        by_method(labelled, "small", "soft,teacher_label")
    assert {*by_method(labelled, "small", "all").of} == {"teacher_label", "label_smoothing_teacher"}
    with pytest.raises(RecipeError, match="comparison is of two or more"):
        by_method(labelled, "small", "teacher_label")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"methods": "sofd,teacher_label"}, "--methods sofd: there is no such method, did you mean soft?"),
        ({"methods": "soft"}, "--methods leaves soft, and a comparison is of two or more"),
        ({"methods": "all,soft"}, "--methods all,soft: `all` stands alone; leave soft out, or `all`"),
        ({"methods": "soft,hard"}, "--methods hard: is the control, which stands in every comparison"),
        ({"methods": "soft,inverse_variance"}, "--methods inverse_variance: is not of the task classification"),
        ({"methods": "soft,teacher_label", "teachers": True}, "two comparisons"),
        ({"seeds": 0}, "--seeds 0: at least one"),
        ({"student": "smal"}, "--student smal: there is no such student, did you mean small?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told) as error:
        variants(recipe(), **asked)
    assert "\n" not in str(error.value)


def test_a_recipe_without_labels_has_nothing_to_compare_by() -> None:
    document = {**DIGITS, "transfer_set": {**DIGITS["transfer_set"], "label": None}}
    document["teachers"] = {
        "far": {
            "kind": "callable",
            "function": "os.path:join",
            "version": "1",
            "output": "logits",
            "classes": ["a", "b"],
        }
    }
    small = {"model": "students.models:mlp", "teachers": ["far"], "control": False, "objective": [{"loss": "soft"}]}
    with pytest.raises(RecipeError, match=r"transfer_set\.label is null"):
        chosen_student(Recipe.from_dict({**document, "students": {"small": small}}), None)


def test_of_several_students_one_must_be_said_and_its_assistants_stay() -> None:
    small = DIGITS["students"]["small"]
    document = {**DIGITS, "students": {"middle": small, "small": {**small, "teachers": ["middle"]}, "other": small}}
    several = Recipe.from_dict(document)
    with pytest.raises(RecipeError, match="has students small, other; say which with --student"):
        chosen_student(several, None)
    made = by_method(several, "small", "soft,teacher_label")
    assert [*made.recipe.students] == ["middle", "soft", "teacher_label"] and [*made.of] == ["soft", "teacher_label"]


def test_a_variant_takes_no_name_that_somebody_has() -> None:
    document = {**DIGITS, "teachers": {"soft": DIGITS["teachers"]["wide"]}}
    document["students"] = {"small": {"model": "students.models:mlp", "teachers": ["soft"]}}
    assert by_method(Recipe.from_dict(document), "small", "soft,teacher_label").of == {
        "small-soft": "soft",
        "teacher_label": "teacher_label",
    }


def test_seeds_are_the_recipes_first_and_then_fresh_ones() -> None:
    assert by_method(recipe(), "small", "soft,teacher_label", 1).seeds == [4]
    assert by_method(recipe(), "small", "soft,teacher_label", 5).seeds == [4, 5, 6, 7, 8]
    assert by_method(recipe(), "small", "soft,teacher_label").seeds == [4, 5]


def test_of_k_teachers_there_are_two_variants_each_and_the_whole() -> None:
    made = by_teachers(recipe(), "small")
    assert [*made.of.values()] == [
        "all teachers",
        *(f"without {name}" for name in ("wide", "deep", "trees")),
        *(f"only {name}" for name in ("wide", "deep", "trees")),
    ]
    heard = {name: config.teachers for name, config in made.recipe.students.items()}
    assert heard["without-deep"] == ["wide", "trees"] and heard["only-deep"] == ["deep"]
    assert {config.train.steps for config in made.recipe.students.values()} == {40}


def test_of_two_teachers_the_one_alone_is_the_other_left_out() -> None:
    assert [*by_teachers(recipe(teachers=["wide", "trees"]), "small").of] == ["all", "only-wide", "only-trees"]


def test_a_term_of_one_teacher_goes_with_it_and_weights_are_of_who_is_heard() -> None:
    objective = [
        {"loss": "soft", "combine": "weighted", "teacher_weights": {"wide": 2, "deep": 1, "trees": 1}},
        {"loss": "teacher_label", "teachers": ["trees"]},
        {"loss": "hard"},
    ]
    students = by_teachers(recipe(objective=objective), "small").recipe.students
    soft, hard = students["without-trees"].objective
    assert soft.teacher_weights == {"wide": 2, "deep": 1} and hard.loss == "hard"
    assert [term.loss for term in students["only-trees"].objective] == ["soft", "teacher_label", "hard"]


def test_one_teacher_has_nobody_to_be_compared_with() -> None:
    with pytest.raises(RecipeError, match=r"students\.small\.teachers has only wide"):
        by_teachers(recipe(teachers=["wide"]), "small")


def test_a_student_that_learns_from_itself_alone_has_nobody_to_be_compared_with() -> None:
    with pytest.raises(RecipeError, match=r"students\.small\.teachers names nobody: it learns from itself") as error:
        by_teachers(recipe(teachers=[], objective=[{"loss": "ps_kd"}]), "small")
    assert "\n" not in str(error.value)


EVERY = ("wide", "deep", "trees")
CANNOT = [
    ({"init": {"from": "wide"}}, {"without wide", "only deep", "only trees"}, "begins with the weights of wide"),
    (
        {"objective": [{"loss": "soft", "combine": "experts", "experts": {"wide": ["1"], "deep": ["2"]}}]},
        {"only trees"},
        r"objective\.0\.experts",
    ),
    (
        {"objective": [{"loss": "soft", "combine": "weighted", "teacher_weights": {"wide": 1, "deep": 1, "trees": 0}}]},
        {"only trees"},
        "no term would listen to anybody",
    ),
]


@pytest.mark.parametrize(("changes", "left_out", "told"), CANNOT)
def test_what_a_student_cannot_be_without_is_left_out_and_said(
    changes: dict[str, Any], left_out: set[str], told: str
) -> None:
    teacher = {"kind": "module", "model": "teachers.zoo:mlp", "train": {"steps": 5}}
    document = {**DIGITS, "teachers": dict.fromkeys(EVERY, teacher)}
    document["students"] = {"small": {**DIGITS["students"]["small"], "model": "teachers.zoo:mlp", **changes}}
    made = by_teachers(Recipe.from_dict(document), "small")
    assert {*made.left_out} == left_out
    assert all(re.search(told, why) and "without-" not in why for why in made.left_out.values())
    all_of = {"all teachers", *(f"{word} {name}" for word in ("without", "only") for name in EVERY)}
    assert {*made.of.values()} == all_of - left_out


def test_where_rows_name_their_teacher_nobody_can_be_left_out() -> None:
    routed = recipe(objective=[{"loss": "soft", "combine": "route", "column": "who"}])
    with pytest.raises(RecipeError, match=r"^students\.small can be without none of its teachers.*route") as error:
        by_teachers(routed, "small")
    assert "\n" not in str(error.value) and "without-" not in str(error.value)


HINTED: dict[str, Any] = {
    **DIGITS,
    "teachers": {
        "wide": {
            "kind": "module",
            "model": "teachers.zoo:conv_net",
            "arguments": {"width": 8},
            "train": {"steps": 5},
            "outputs": {"early": {"layer": "stages.1"}, "vector": {"layer": "stages.2", "pool": "mean"}},
        }
    },
    "students": {
        "small": {
            "model": "students.models:small_conv_net",
            "arguments": {"width": 4},
            "teachers": ["wide"],
            "hints": [
                {"loss": "attention", "teacher": "wide", "output": "early"},
                {"loss": "similarity", "teacher": "wide", "output": "vector"},
            ],
            "train": {"steps": 5, "seeds": [0]},
        }
    },
}
"""As in docs/guides/hints.md."""


def test_hints_that_could_not_be_trained_are_left_out_of_all() -> None:
    made = by_method(Recipe.from_dict(HINTED), "small", "all")
    for method in ("attention", "channel_wise", "review"):
        assert made.left_out[method].startswith("students.small.hints.1.output: the loss")
    assert {"hint", "similarity", "relation", "correlation", "contrastive", "linear_embedding"} <= {*made.of}
    several = copy.deepcopy(HINTED)
    several["students"]["small"]["hints"] = [{"loss": "hint", "teacher": "wide", "output": ["early", "vector"]}]
    made = by_method(Recipe.from_dict(several), "small", "all")
    assert "one layer with one output, here are 2" in made.left_out["contrastive"]


def test_hints_of_shapes_that_nothing_joins_are_found_before_anybody_is_trained(digits: TransferSet) -> None:
    document = copy.deepcopy(HINTED)
    document["students"]["small"]["hints"] = [{"loss": "hint", "teacher": "wide", "output": "vector"}]
    document["teachers"]["wide"]["outputs"]["vector"] = {"layer": "classifier"}  # one vector, as its answer is
    fits = Recipe.from_dict(document)
    made = by_method(fits, "small", "all")
    found = hint_failures(made.recipe, ["hint", "attention", "similarity", "review"], digits, Path.cwd())
    assert {*found} == {"attention", "review"}
    assert found["attention"].startswith("students.attention.hints.0.")
    kept = without(fits, made, found)
    assert {*made.of} - {*kept.of} == {"attention", "review"} and "attention" in kept.left_out
    with pytest.raises(RecipeError, match=r"^--methods attention: "):
        without(fits, by_method(fits, "small", "hint,attention"), {"attention": found["attention"]})


def test_settings_are_tried_with_a_seed_that_the_comparison_does_not_have() -> None:
    made = by_method(recipe(), "small", "soft,teacher_label")
    tries = tries_of(recipe(), made)
    assert [*tries.of] == [f"{name}-{number}" for name in ("soft", "teacher_label") for number in range(4)]
    assert {tuple(config.train.seeds) for config in tries.recipe.students.values()} == {(6,)}
    assert tries.recipe.students["soft-0"].objective == made.recipe.students["soft"].objective
    assert [term.weight for term in tries.recipe.students["soft-3"].objective] == [0.5, 0.5]
    chosen = by_method(recipe(), "small", [*made.of.values()], None, {"soft": tries.of["soft-1"][1]})
    assert chosen.recipe.students["soft"].objective == tries.recipe.students["soft-1"].objective


def test_the_recipe_of_a_method_has_no_search_of_the_objective_that_was() -> None:
    space = {"objective.0.temperature": {"uniform": [1, 4]}}
    document = {**DIGITS, "search": {"student": "small", "space": space, "metric": "validation.accuracy"}}
    searched = Recipe.from_dict(document)
    made = by_method(searched, chosen_student(searched, None), "soft,teacher_label")
    taken = with_objective_of(searched, made, "teacher_label")
    assert taken.search is None
    assert taken.students["small"].objective == made.recipe.students["teacher_label"].objective
    assert taken.students["small"].require == searched.students["small"].require


def test_settings_are_of_methods() -> None:
    with pytest.raises(RecipeError, match="--tune tries settings of methods"):
        tries_of(recipe(), by_teachers(recipe(), "small"))
