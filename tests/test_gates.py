"""What a recipe requires of a student, what it is told beforehand, and whom its ensemble consists of."""

import pytest

from orchestrator.building.pipeline import missed_gates
from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.stages.keys import evaluate_stage, own_combination


def recipe(**student):
    trees = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}
    return Recipe.model_validate(
        {
            "format": 1,
            "name": "digits",
            "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
            "teachers": {"a": trees, "b": {**trees, "seed": 1}},
            "students": {"small": {"model": "students.models:mlp", "teachers": ["a", "b"], **student}},
        }
    )


def report(gain):
    return {"students": {"small": {"test_accuracy": {"mean": 0.9}, "gain": gain}}}


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        ({"low": 0.021, "mean": 0.05, "high": 0.08}, None),
        ({"low": 0.019, "mean": 0.05, "high": 0.08}, "students.small: gain 0.0190 at the lower end is below 0.02"),
        ({"low": None, "mean": 0.5, "high": None}, "gain not known without a control and two seeds is below 0.02"),
        (None, "gain not known without a control and two seeds is below 0.02"),
    ],
)
def test_a_required_gain_is_reached_with_the_whole_interval_or_not_at_all(gain, told):
    missed = missed_gates(recipe(require={"gain": 0.02}), report(gain))
    assert (missed == []) if told is None else (len(missed) == 1 and told in missed[0])


@pytest.mark.parametrize(
    ("options", "notes"), [({}, 0), ({"train": {"seeds": [3]}}, 1), ({"train": {"seeds": [3]}, "control": False}, 0)]
)
def test_the_plan_says_that_one_seed_gives_no_verdict(tmp_path, options, notes):
    told = [note for note in plan(recipe(**options), tmp_path).notes if "one seed gives no verdict" in note]
    assert len(told) == notes


@pytest.mark.parametrize("heard", [None, ["a", "b"], ["b", "a"]])
def test_a_students_own_combination_is_that_of_the_term_that_hears_all_in_whatever_order(heard):
    weights = {"a": 3.0, "b": 1.0}
    term = {"loss": "soft", "combine": "weighted", "teacher_weights": weights, "teachers": heard}
    small = recipe(objective=[{"loss": "soft", "teachers": ["a"]}, term]).students["small"]
    assert own_combination(small) == {"combine": "weighted", "teacher_weights": weights, "order": heard or ["a", "b"]}


def test_who_hears_each_teacher_in_a_term_of_its_own_has_no_combination_of_its_own():
    objective = [{"loss": "soft", "teachers": ["a"]}, {"loss": "soft", "teachers": ["b"]}]
    assert own_combination(recipe(objective=objective).students["small"]) == {}


def test_another_order_of_a_term_is_another_evaluation():
    def key(heard):
        made = recipe(objective=[{"loss": "soft", "teachers": heard}])
        return evaluate_stage(made, "small", "set", "student", {"a": "said", "b": "said"}).key

    assert key(["a", "b"]) != key(["b", "a"])
