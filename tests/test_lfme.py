"""Experts that divide the classes (LFME): their loss, their pace, the curriculum of rows, and what is refused."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from orchestrator.recipe.checks import class_problems, judging_problems
from orchestrator.recipe.dividing import division_problems
from orchestrator.recipe.fewer import heard_by
from orchestrator.recipe.losses import loss_problems
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.variants import by_method, by_teachers, lacks
from students.config.cohort_terms import resolved_objective
from students.config.student import StudentConfig
from students.config.task_terms import task_problems
from students.data.balance import by_class, times_longer
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.objective.curriculum import NOW, START, between, least_of_classes, risen
from students.objective.losses.table import LOSSES
from students.objective.pacing import Pacing, SelfPaced, check_divided, over_classes, pace_weight
from students.runs.curves import read_records
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.training import TrainConfig
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from tests.rank_runs import on_ranks
from tests.test_evaluate import make_source
from tests.training_runs import TERM, make_run

SESSION = PlainSession()
ALL = ("train", "validation", "test")
LFME = {"loss": "lfme", "temperature": 2.0}
HARD = {"loss": "hard"}
DIVISION = {"many": "0123", "median": "456", "few": "789"}
PRESENT = {"pace": 0.3, "curriculum": None}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def experts(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    return [
        make_source(folder, digits, name, seed=seed, splits=ALL, classes=tuple(classes), class_map={})
        for seed, (name, classes) in enumerate(DIVISION.items())
    ]


def training(run):
    run.stage.mkdir(parents=True, exist_ok=True)
    return Training(run, SESSION, SharedData().of([run], SESSION)[0])


def weights_after(run, session=SESSION):
    fit([run], session)
    return torch.cat([each.flatten() for each in load_model(run.folder).module.state_dict().values()])


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# the loss


def test_the_term_is_batchmean_kl_over_each_experts_classes_without_t_squared_and_so_is_its_gradient(
    digits, experts, tmp_path
):
    """Traps: no T^2; `kl_div`'s mean is not that over rows; the student is renormalised over the expert's classes."""
    run = make_run(tmp_path, digits, *experts, objective=[LFME | {"curriculum": None}])
    trained = training(run)
    batch = next(Batches(trained.data.rows, run, SESSION).from_step(0))
    work = trained.stepper.begin(batch, 0)
    logits = torch.randn(32, 10, generator=torch.Generator().manual_seed(4)).requires_grad_()
    objective = trained.stepper.objective
    (value,) = objective.sums(logits, work.asked, moment=trained.stepper.moment) / work.counts
    own = torch.zeros(())
    for k, classes in enumerate(DIVISION.values()):
        places = [int(name) for name in classes]
        said = work.asked[0].target[:, k, places]
        student_log_p = F.log_softmax(logits[:, places] / 2, -1)
        own = own + F.kl_div(student_log_p, F.softmax(said / 2, -1), reduction="batchmean")
        mean = F.kl_div(student_log_p, F.softmax(said / 2, -1), reduction="mean") * len(
            places
        )  # as the authors write it
        torch.testing.assert_close(mean, F.kl_div(student_log_p, F.softmax(said / 2, -1), reduction="batchmean"))
    torch.testing.assert_close(value, own)
    (gradient,) = torch.autograd.grad(value, logits)
    (expected,) = torch.autograd.grad(own, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_a_student_equal_to_its_expert_has_no_loss_and_no_gradient():
    logits = random(6, 4).requires_grad_()
    value = LOSSES["classification"]["lfme"](logits, logits.detach(), temperature=2.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.abs().max() < 1e-12 and gradient.abs().max() < 1e-12
    soft = LOSSES["classification"]["soft"](logits, random(6, 4, seed=1), temperature=2.0)
    own = LOSSES["classification"]["lfme"](logits, random(6, 4, seed=1), temperature=2.0)
    torch.testing.assert_close(own * 4, soft, rtol=0, atol=1e-12)


def test_saturated_logits_stay_finite():
    logits = (1e4 * random(6, 4).sign()).requires_grad_()
    value = LOSSES["classification"]["lfme"](logits, 1e4 * random(6, 4, seed=1).sign(), temperature=2.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all() and gradient.isfinite().all()


# the pace of experts


@pytest.mark.parametrize(
    ("student", "expert", "weight"),
    [(0.0, 0.8, 1.0), (0.24, 0.8, 1.0), (0.52, 0.8, 0.5), (0.8, 0.8, 0.0), (0.9, 0.8, 0.0), (0.0, 0.0, 0.0), (0.2, 0.0, 0.0)],
)  # fmt: skip
def test_an_expert_counts_by_what_the_student_still_lacks_of_it(student, expert, weight):
    """1 up to 0.3 of the expert's, then on a line to 0; trap: below 0 where the student is better; an expert of 0 divides by 0."""
    assert pace_weight(student, expert, 0.3) == pytest.approx(weight)


def test_who_is_good_in_classes_is_the_mean_of_their_recalls_whatever_rows_they_have():
    assert over_classes([1.0, 0.5, None, 0.0], [True, True, True, False]) == 0.75
    assert over_classes([None, 0.5], [True, False]) is None
    pacing = Pacing(("a", "b"), ((True, True, False), (False, False, True)), (0.8, 0.5), 0.3)
    assert pacing.weights([0.6, 0.44, 0.1]) == pytest.approx([(0.8 - 0.52) / (0.8 * 0.7), 1.0])


def test_experts_count_in_full_until_the_first_look_and_by_validation_afterwards(digits, experts, tmp_path):
    """Trap: the student's accuracy is among all classes, the expert's among its own, both of validation rows."""
    run = make_run(
        tmp_path, digits, *experts, objective=[LFME | PRESENT, HARD], steps=60, evaluate_every=30, learning_rate=2e-2
    )
    trained = training(run)
    moment, batches = trained.stepper.moment, trained.batches()
    trained.advance(next(batches))
    assert moment.states["lfme"]["weight"].tolist() == [1, 1, 1]
    for _ in range(29):
        trained.advance(next(batches))
    trained.look()
    late = trained.stepper.objective.terms[0].late
    assert isinstance(late, SelfPaced)
    recalls = trained.data.validation.measured(trained.module).recalls()
    expected = []
    for k, (source, classes) in enumerate(zip(experts, DIVISION.values(), strict=True)):
        own = [int(name) for name in classes]
        student = sum(recalls[place] for place in own) / len(own)
        expert = _recall_of_expert(source, digits, classes)
        assert late.pacing.skills[k] == pytest.approx(expert)
        expected.append(max(0.0, min(1.0, (expert - student) / (expert * 0.7))))
    found = moment.states["lfme"]["weight"].tolist()
    assert found == pytest.approx(expected) and min(found) < 1
    keys = {record["key"] for record in _records(trained)}
    assert {f"validation.pace.{name}" for name in DIVISION} <= keys


def _records(trained):
    return read_records(trained.run.stage / "metrics.jsonl")


def _recall_of_expert(source, digits, classes):
    from teachers.soft_targets.reader import SoftTargets

    (segment,) = digits.of("validation")
    said = SoftTargets.open(source.stores[segment.name]).said(1e-3)
    labels = digits.usable_labels(segment)
    recalls = []
    for column, name in enumerate(classes):
        rows = labels == digits.classes.index(name)
        recalls.append(float((said[torch.from_numpy(rows)].argmax(-1) == column).double().mean()))
    return sum(recalls) / len(recalls)


def test_a_resumed_run_goes_on_with_the_paces_and_the_curriculum_where_they_were(digits, experts, tmp_path):
    def run(folder):
        return make_run(folder, digits, *experts, objective=[LFME, HARD], steps=60, evaluate_every=20)

    whole = weights_after(run(tmp_path / "whole"))
    half = run(tmp_path / "half")
    first = training(half)
    for batch, step in zip(first.batches(), range(25), strict=False):
        first.advance(batch)
        if step == 19:
            first.look()
    first.save()
    second = training(half)
    second.resume()
    assert second.progress.step == 25
    kept, own = (each.stepper.moment.states["lfme"]["weight"] for each in (second, first))
    assert torch.equal(kept, own) and not torch.equal(own, torch.ones(3))
    second.train()
    second.finish()
    assert torch.equal(weights_after(half), whole)


def test_two_ranks_pace_experts_as_one_does(digits, experts, tmp_path):
    one, two = (
        make_run(tmp_path / name, digits, *experts, objective=[LFME, HARD], evaluate_every=20, balanced="class")
        for name in ("one", "two")
    )
    expected = weights_after(one)
    on_ranks(tmp_path / "ranks", [two], world=2)
    torch.testing.assert_close(weights_after(two), expected, rtol=1e-4, atol=1e-5)


# the curriculum of rows


def test_rows_rise_to_1_at_half_of_the_steps_and_stay_there():
    """Trap: the authors' weight goes on rising beyond 1 in the second half."""
    start = torch.tensor([0.2, 1.0])
    found = [risen(start, step, 50)[0].item() for step in (0, 25, 50, 75, 100)]
    assert found == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0])
    assert risen(start, 10, 50)[1] == 1


def test_where_rows_begin_is_between_the_least_of_their_shot_and_1_class_by_class():
    """Trap: one image of a class, or images that are alike, would divide by 0."""
    confidence = np.array([0.2, 0.6, 1.0, 0.7, 0.5, 0.5, np.nan], np.float32)
    labels = np.array([0, 0, 0, 1, 2, 2, -1], np.int32)
    found = between(confidence, labels, np.array([0.1, 0.5, 0.5]))
    assert found.tolist() == pytest.approx([0.1, 0.55, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert found.isfinite().all()


def test_the_least_of_a_shot_is_the_fewest_rows_over_its_own():
    """On ImageNet-LT the authors have 12/230, 12/53 and 1."""
    counts = [230, 53, 12]
    labels = np.repeat(np.arange(3, dtype=np.int32), counts)
    found = least_of_classes(np.eye(3, dtype=bool), labels)
    assert found.tolist() == pytest.approx([12 / 230, 12 / 53, 1.0])
    empty = least_of_classes(np.eye(3, dtype=bool), labels[labels < 2])
    assert np.isfinite(empty).all() and empty[1] == 1.0


def test_a_row_counts_by_its_experts_confidence_in_the_loss_and_not_in_its_logits(digits, experts, tmp_path):
    """Trap: the authors multiply the logits by it, which changes what the student says and the distillation too."""
    run = make_run(tmp_path, digits, *experts, objective=[LFME, HARD], steps=100)
    trained = training(run)
    batch = next(Batches(trained.data.rows, run, SESSION).from_step(0))
    start, step = batch[START], 10
    work = trained.stepper.begin(batch, step)
    now = start + (1 - start) * step / 50
    lfme, hard = work.asked
    torch.testing.assert_close(hard.weight, now * batch["has_label"])
    assert NOW not in batch and (start > 0).all() and (start <= 1).all() and (start < 1).any()
    logits = torch.randn(32, 10, generator=torch.Generator().manual_seed(4))
    values = trained.stepper.objective.sums(logits, work.asked, moment=trained.stepper.moment) / work.counts
    each = F.cross_entropy(logits, batch["label"], reduction="none") * now * batch["has_label"]
    torch.testing.assert_close(values[1], each.sum() / batch["has_label"].sum())
    assert lfme.weight is None or (lfme.weight == 1).all()


def test_a_row_begins_where_its_experts_probability_of_the_label_puts_it(digits, experts, tmp_path):
    from teachers.soft_targets.reader import SoftTargets

    trained = training(make_run(tmp_path, digits, *experts, objective=[LFME, HARD]))
    (segment,) = digits.of("train")
    labels, found = digits.usable_labels(segment), trained.data.rows.columns[START]
    said = SoftTargets.open(experts[0].stores[segment.name]).said(1e-3).softmax(-1)
    rows = np.flatnonzero(labels == 2)
    own = said[torch.from_numpy(rows), 2]
    low = float(found[rows].min())
    torch.testing.assert_close(found[rows], low + (1 - low) * (own - own.min()) / (own.max() - own.min()))
    assert found[labels < 0].eq(1).all()


def test_without_curriculum_labels_count_as_ever(digits, experts, tmp_path):
    trained = training(make_run(tmp_path, digits, *experts, objective=[LFME | PRESENT, HARD]))
    assert START not in trained.data.rows.columns
    assert [memory.name for memory in trained.stepper.selves] == []


# drawing by class


def test_every_class_is_drawn_as_often_as_the_most_frequent_one():
    labels = np.repeat([0, 1, 2, -1], [5, 2, 1, 3])
    index = by_class(np.arange(len(labels)), labels)
    drawn = labels[index]
    assert np.bincount(drawn[drawn >= 0]).tolist() == [5, 5, 5] and (drawn < 0).sum() == 3
    assert {*index} == {*range(len(labels))} and times_longer(labels) == 2


def test_batches_are_balanced_and_the_same_after_a_resumption(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, balanced="class", batch_size=20)
    rows = training(run).data.rows
    whole = [batch["label"] for batch, _ in zip(Batches(rows, run, SESSION).from_step(0), range(6), strict=False)]
    again = next(Batches(rows, run, SESSION).from_step(4))["label"]
    assert torch.equal(again, whole[4])
    plain = make_run(tmp_path / "plain", digits, objective=[HARD], labelled_only=True, batch_size=20)
    assert "balanced" not in TrainConfig().model_dump() and plain.train.balanced is None
    counts = torch.bincount(torch.cat([batch["label"] for batch, _ in zip(Batches(rows, run, SESSION).from_step(0), range(100), strict=False)]), minlength=10)  # fmt: skip
    assert counts.min() > 0.8 * counts.max()


def test_where_a_row_is_of_no_one_class_nothing_is_drawn_by_it():
    student = StudentConfig(
        model="students.models:mlp", teachers=["a"], train={"balanced": "class"}, objective=[{"loss": "soft"}]
    )
    for task in ("multilabel", "regression"):
        told = dict(task_problems(task, student))[("train", "balanced")]
        assert "of no one class to be drawn by; remove it" in told
    assert not dict(task_problems("classification", student))


# what is refused


def student(**term):
    return StudentConfig(
        model="students.models:mlp",
        teachers=["many", "median", "few"],
        objective=[LFME | term, HARD],
        train={"steps": 20},
    )


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"combine": "mean_logits"}, "remove `combine`"),
        ({"drop": 1}, "remove `drop`"),
        ({"level": "losses"}, "remove `level`"),
        ({"teachers": ["few"]}, r"takes two experts or more, that divide the classes; found \['few'\]"),
        ({"pace": 1.0}, "pace"),
        ({"curriculum": 0.0}, "curriculum"),
    ],
)
def test_a_term_that_does_not_fit_is_refused_with_the_recipe(term, message):
    with pytest.raises(ValidationError, match=message):
        student(**term)


def test_a_curriculum_without_labels_to_weigh_and_a_second_term_are_refused():
    base = {"model": "students.models:mlp", "teachers": ["many", "few"]}
    with pytest.raises(
        ValidationError, match=r"objective\.0\.curriculum weighs the rows of the term `hard`, and there is"
    ):
        StudentConfig(**base, objective=[LFME])
    with pytest.raises(ValidationError, match=r"objective\.1: loss 'lfme' is there twice"):
        StudentConfig(**base, objective=[LFME, LFME, HARD])
    with pytest.raises(ValueError, match=r"members of a cohort are not paced by experts"):
        resolved_objective([TERM.validate_python(LFME)], "mutual", alone=False, taught=True)


def test_no_labels_are_refused():
    recipe = recipe_of(label=None)
    told = dict(loss_problems(recipe))
    assert (
        "'lfme' compares with labels: `transfer_set.label` is null"
        in told[("students", "small", "objective", 0, "loss")]
    )
    assert student().objective[0].needs_labels


def recipe_of(label="digit", division=DIVISION, **more):
    document = {
        "format": 1,
        "name": "tail",
        "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
        "teachers": {
            name: {
                "kind": "sklearn",
                "model": "sklearn.linear_model:LogisticRegression",
                **({"classes": list(classes)} if classes is not None else {}),
                "class_map": {},
            }
            for name, classes in division.items()
        },
        "students": {
            "small": {
                "model": "students.models:mlp",
                "teachers": list(division),
                "objective": [LFME, HARD],
                "train": {"steps": 20},
                **more,
            }
        },
    }
    recipe = Recipe.from_dict(document)
    if label is None:
        rows = recipe.transfer_set.model_copy(update={"label": None})
        recipe = recipe.model_copy(update={"transfer_set": rows})
    return recipe


CLASSES = tuple("0123456789")


def test_experts_that_divide_the_classes_are_well():
    assert not [*division_problems(recipe_of(), CLASSES, dict.fromkeys(CLASSES, 3))]


def test_two_experts_of_one_class_are_refused():
    recipe = recipe_of(division=DIVISION | {"few": "3789"})
    (problem,) = division_problems(recipe, CLASSES)
    assert problem.startswith(
        "students.small.objective.0.loss: `lfme` hears each expert in its own classes, and many and few "
    )
    assert "share '3'" in problem


def test_a_class_that_no_expert_knows_is_refused():
    (problem,) = division_problems(recipe_of(division=DIVISION | {"few": "89"}), CLASSES)
    assert "no expert among many, median, few knows the class '7'; add it to the `classes` of one of them" in problem


def test_an_expert_of_no_class_is_refused():
    with pytest.raises(RecipeError, match=r"teachers\.few\..*classes"):
        recipe_of(division=DIVISION | {"few": ""})
    silent = recipe_of().teachers["few"].model_copy(update={"class_map": {"7": None, "8": None, "9": None}})
    recipe = recipe_of()
    recipe = recipe.model_copy(update={"teachers": {**recipe.teachers, "few": silent}})
    (problem,) = class_problems(recipe, CLASSES)
    assert problem.startswith("teachers.few.class_map: the teacher knows none of the classes")


def test_an_expert_without_a_validation_row_and_no_validation_at_all_are_refused():
    counts = dict.fromkeys(CLASSES, 3) | dict.fromkeys("789", 0)
    (problem,) = division_problems(recipe_of(), CLASSES, counts)
    assert "paces 'few' by labelled validation rows of its classes 7, 8, 9, and there are none" in problem
    (problem,) = judging_problems(recipe_of(), 0)
    assert problem.startswith(
        "students.small.objective.0.loss: `lfme` paces experts by labelled validation rows, and there are none"
    )


def test_a_run_that_finds_the_same_late_says_so_in_one_line(digits, experts, tmp_path):
    twice = [experts[0], experts[0], *experts[1:]]
    with pytest.raises(RecipeError, match=r"many and twice share '0'"):
        check_divided(["many", "twice"], [[True], [True]], ["0"])
    with pytest.raises(RecipeError, match=r"no expert among many, median knows the class '7'"):
        fit([make_run(tmp_path, digits, *twice[1:3], objective=[LFME, HARD])], SESSION)


def test_a_student_can_be_without_none_of_its_experts():
    recipe = recipe_of()
    with pytest.raises(RecipeError, match=r"hears few as the only expert of its classes"):
        heard_by(recipe.students["small"], ["many", "median"])
    with pytest.raises(RecipeError, match=r"can be without none of its teachers"):
        by_teachers(recipe, "small")


# compared with other methods


def test_a_comparison_takes_it_where_the_teachers_divide_the_classes():
    made = by_method(recipe_of(), "small", "soft,lfme")
    soft, lfme = made.recipe.students["soft"].objective, made.recipe.students["lfme"].objective
    assert [term.loss for term in soft] == ["soft", "hard"] and lfme[0] == recipe_of().students["small"].objective[0]
    assert lacks(recipe_of(), "small", "lfme") is None
    all_of_all = recipe_of(division={"wide": None, "deep": None}, objective=[{"loss": "soft"}, HARD])
    assert "wide is of all; say which it learns: `teachers.wide.classes`" in (lacks(all_of_all, "small", "lfme") or "")
    assert "lfme" in by_method(all_of_all, "small", "all").left_out


def test_scores_of_one_expert_make_no_nan_where_another_knows_a_row(digits, experts, tmp_path):
    assert weights_after(make_run(tmp_path, digits, *experts, objective=[LFME, HARD], steps=30)).isfinite().all()
    assert not math.isnan(pace_weight(0.0, 0.0, 0.3))
