"""What a recipe may ask of each task, and how it is refused what the task does not have."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from students.config.cohort import CohortConfig
from students.config.student import StudentConfig
from students.config.task_terms import combine_of, task_problems, train_problems
from students.config.terms import Term
from students.tasks.figure import rank
from teachers.config.training import TrainConfig

COHORT = TypeAdapter(CohortConfig)
MLP = {"model": "students.models:mlp", "arguments": {"hidden": 8}}


def student(*objective, **train):
    document = MLP | {"teachers": ["a", "b"], "objective": list(objective), "train": train}
    return StudentConfig.model_validate(document)


def told(task, learner):
    return [(".".join(map(str, path)), message) for path, message in task_problems(task, learner)]


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_what_a_recipe_leaves_out_fits_every_task(task):
    assert not told(task, StudentConfig.model_validate(MLP | {"teachers": ["a"]}))
    for method in ("mutual", "one", "codistillation"):
        cohort = COHORT.validate_python({"method": method, "members": {"a": MLP, "b": MLP}, "teachers": ["t"]})
        assert not told(task, cohort)
        again = COHORT.validate_python(cohort.model_dump(mode="json"))
        assert not told(task, again)


@pytest.mark.parametrize(
    ("task", "term", "path", "message"),
    [
        ("regression", {"loss": "teacher_label"}, "loss", "is 'teacher_label'; the task regression has hard, soft, or"),
        ("regression", {"loss": "soft", "temperature": 4}, "temperature", "is not of the loss 'soft' in the task regression; there it takes distance, delta, quantile; remove it"),
        ("regression", {"loss": "hard", "label_smoothing": 0.1}, "label_smoothing", "is not of the loss 'hard'"),
        ("regression", {"loss": "soft", "combine": "mean_logits"}, "combine", "is 'mean_logits'; the task regression has mean, median, weighted, inverse_variance, best, route, or a function of yours"),
        ("multilabel", {"loss": "soft", "combine": "median"}, "combine", "the task multilabel has mean_probability, mean_logits, weighted, vote, "),
        ("classification", {"loss": "hard", "distance": "huber"}, "distance", "in the task classification; there it takes label_smoothing; remove it"),
        ("multilabel", {"loss": "soft", "distance": "mse"}, "distance", "in the task multilabel; there it takes temperature"),
    ],
)  # fmt: skip
def test_a_term_that_the_task_does_not_have_is_refused_with_what_it_has(task, term, path, message):
    ((where, found),) = told(task, student({"loss": "hard"}, {"loss": "soft"}, term))
    assert where == f"objective.2.{path}" and message in found


def test_class_weights_of_numbers_are_refused():
    assert told("regression", student({"loss": "soft"}, class_weights="balanced")) == [
        ("train.class_weights", "labels of the task regression are numbers, of no class; remove it")
    ]
    assert not told("multilabel", student({"loss": "soft"}, class_weights="balanced"))
    assert not [*train_problems("regression", TrainConfig())] and not [*train_problems("regression", None)]


def test_a_temperature_of_peers_is_refused_where_it_is_not_the_methods_own():
    cohort = {"method": "mutual", "members": {"a": MLP, "b": MLP}}
    objective = [{"loss": "hard"}, {"loss": "peer", "temperature": 3}]
    ((where, _),) = told("regression", COHORT.validate_python(cohort | {"objective": objective}))
    assert where == "objective.1.temperature"
    assert not told("multilabel", COHORT.validate_python(cohort | {"objective": objective}))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_target_of_kdcl_that_compares_by_the_class_of_a_row_is_refused(task):
    cohort = {"method": "kdcl", "members": {"a": MLP, "b": MLP}}
    ((where, message),) = told(task, COHORT.validate_python(cohort))
    assert (
        where == "target" and "'min_logit' compares members by the one class" in message and "give general" in message
    )
    assert not told(task, COHORT.validate_python(cohort | {"target": "general"}))


def test_a_loss_or_a_rule_of_the_users_is_of_any_task():
    mine = {"loss": "mine:loss", "combine": "mine:rule", "temperature": 7.0}
    assert not any(told(task, student(mine)) for task in ("classification", "multilabel", "regression"))


def test_teachers_are_combined_by_their_mean_where_nobody_says_how():
    term = TypeAdapter(Term).validate_python({"loss": "soft"})
    assert [combine_of(term, task) for task in ("classification", "multilabel", "regression")] == [
        "mean_probability",
        "mean_probability",
        "mean",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"delta": 2.0}, "`delta` is of `distance: huber`, this term has mse"),
        ({"distance": "huber", "quantile": 0.1}, "`quantile` is of `distance: quantile`, this term has huber"),
    ],
)
def test_a_field_of_another_distance_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Term).validate_python({"loss": "hard", **fields})


def test_of_two_looks_the_first_figure_that_differs_decides_and_no_number_is_the_worst():
    ranks = [rank("regression", {"rmse": rmse, "mae": mae}) for rmse, mae in ((1, 5), (1, 4), (2, 1), (math.nan, 0))]
    assert sorted(ranks, reverse=True) == [ranks[1], ranks[0], ranks[2], ranks[3]]
    undefined = {"macro_average_precision": None}
    assert rank("multilabel", undefined | {"nll": 1.0}) > rank("multilabel", undefined | {"nll": 2.0})
