"""What a recipe requires of a student, what it is told beforehand, and whom its ensemble consists of."""

import pytest

from orchestrator.building.pipeline import missed_gates
from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.stages.keys import evaluate_stage, own_combination
from students.tasks.figure import headline


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
    ("task", "require", "runs", "told"),
    [
        (
            "classification",
            {"accuracy": 0.95},
            [{"accuracy": 0.9}, {"accuracy": 0.96}],
            "accuracy 0.9300 is below 0.95",
        ),
        ("classification", {"accuracy": 0.9}, [{"accuracy": 0.9}], None),
        ("classification", {"nll": 0.5}, [{"nll": 0.6}], "nll 0.6000 is above 0.5"),
        ("regression", {"rmse": 3.0}, [{"rmse": 2.0}, {"rmse": 5.0}], "rmse 3.5000 is above 3"),
        ("regression", {"rmse": 4.0, "r2": 0.5}, [{"rmse": 4.0, "r2": 0.4}], "r2 0.4000 is below 0.5"),
        ("regression", {"r2": 0.5}, [{"r2": None}], "r2 is not known, and 0.5 is required"),
        ("multilabel", {"macro_f1": 0.5}, [{"macro_f1": 0.4}], "macro_f1 0.4000 is below 0.5"),
    ],
)
def test_any_figure_of_the_task_can_have_a_bar_which_is_a_maximum_where_less_is_better(task, require, runs, told):
    found = {"students": {"small": {"runs": runs, "gain": None}}}
    missed = missed_gates(recipe_of(task, require), found)
    assert missed == ([f"students.small: {told}"] if told else [])


def recipe_of(task, require, **search):
    model = "sklearn.ensemble:ExtraTreesClassifier"
    document = {
        "format": 1,
        "name": "mine",
        "task": task,
        "transfer_set": {"source": {"kind": "csv", "path": "x.csv"}, "inputs": ["x"], "label": ["y", "z"]},
        "teachers": {"a": {"kind": "sklearn", "model": model, "require": require.get("of_teacher", {})}},
        "students": {
            "small": {"model": "students.models:mlp", "teachers": ["a"], "require": require.get("own", require)}
        },
        **(
            {"search": {"student": "small", "space": {"train.learning_rate": {"choice": [0.1]}}, **search}}
            if search
            else {}
        ),
    }
    return Recipe.model_validate(document)


@pytest.mark.parametrize(
    ("task", "require", "told"),
    [
        ("regression", {"acuracy": 0.9}, "no figure of `task: regression` is called 'acuracy'; there are rmse, mae, r2, spearman, gain"),
        ("classification", {"acuracy": 0.9}, "no figure of `task: classification` is called 'acuracy', did you mean accuracy?"),
        ("multilabel", {"macro_f1_score": 0.9}, "did you mean macro_f1?"),
        ("classification", {"accuracy": 95}, "is 95; accuracy is a share, from 0 to 1"),
        ("classification", {"gain": 2}, "is 2; accuracy is a share, so a gain is from -1 to 1"),
        ("regression", {"own": {}, "of_teacher": {"gain": 1}}, "no figure of `task: regression` is called 'gain'; there are rmse, mae, r2, spearman"),
    ],
)  # fmt: skip
def test_a_bar_for_what_the_task_has_not_is_told_with_what_it_has(task, require, told):
    found = " ".join(message for _, message in recipe_of(task, require).problems())
    assert told in found


@pytest.mark.parametrize(("task", "metric"), [("regression", "rmse"), ("multilabel", "macro_average_precision")])
def test_a_search_looks_for_the_headline_of_the_task_in_its_direction_unless_it_says_otherwise(task, metric):
    search = recipe_of(task, {}, trials=3).search
    assert search.metrics == {f"validation.{metric}": headline(task).better}
    assert search.is_known_while_training
    other = recipe_of("regression", {}, metric="validation.r2", scheduler="none").search
    assert other.metrics == {"validation.r2": "max"} and not other.is_known_while_training


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
