from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from teachers.config.task import AnswerName
from teachers.config.teacher import CombineName
from teachers.soft_targets.combine.class_scores import fitted, mean_logits, mean_probability, weighted
from teachers.soft_targets.combine.context import Context
from teachers.soft_targets.combine.gate import FEATURES, HIDDEN, Gate
from teachers.soft_targets.combine.rules import COMBINE, with_gaps

CLASS_AXIS = COMBINE["class_axis"]

TEMPERATURES = [0.5, 1.0, 4.0, 100.0]


def say(num_teachers: int = 3, rows: int = 5, classes: int = 4, seed: int = 0) -> torch.Tensor:
    return 5 * torch.randn(num_teachers, rows, classes, generator=torch.Generator().manual_seed(seed))


def all_known(logits: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(logits, dtype=torch.bool)


def combined(target: torch.Tensor, temperature: float) -> np.ndarray:
    return softmax(target.double().numpy() / temperature, axis=-1)


NAMES = {rule: name for name, rule in CLASS_AXIS.items()}
TOLD = {
    "weighted": "teacher_weights",
    "fitted": "teacher_weights",
    "best": "merits",
    "experts": "experts",
    "learned": "gate",
    "confusion": "confusions",
    "gradient": "context",
    "route": "heard",
}
"""What a rule is told besides, by its name."""


def told(rule, logits, order=None):
    """Keywords of a rule for these teachers, of whom number `order[k]` is told what number k was."""
    teachers, rows, classes = logits.shape
    random = torch.Generator().manual_seed(7)
    order = torch.arange(teachers) if order is None else order
    numbers = torch.arange(1.0, teachers + 1)[order]
    layer = torch.randn(HIDDEN, FEATURES, generator=random, dtype=torch.float64)
    of = {
        "teacher_weights": numbers,
        "merits": numbers,
        "experts": torch.ones(teachers, classes),
        "gate": Gate(layer, layer[:, 0], layer[:, 1], numbers.double()),
        "context": Context(student=torch.randn(rows, classes, generator=random)),
        "confusions": {"says": torch.eye(classes).expand(teachers, -1, -1), "frequency": torch.full((classes,), 0.25)},
        "heard": torch.full((rows,), int((order == 0).nonzero()[0, 0])),
    }
    name = TOLD.get(NAMES.get(rule, ""), "")
    if name == "confusions":
        return of[name]
    return {name: of[name]} if name else {}


def call(rule, logits, temperature, known):
    return rule(logits, temperature=temperature, known=known, **told(rule, logits))


OF_ROWS = {name: rule for name, rule in CLASS_AXIS.items() if name not in ("gradient", "route")}
"""Rules by which the teachers of a row decide it: no other row, and no column of it."""


def test_the_table_has_exactly_the_names_of_the_recipe():
    assert set(COMBINE) == set(get_args(AnswerName))
    assert {name for rules in COMBINE.values() for name in rules} == set(get_args(CombineName))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_mean_probability_is_the_mean_of_the_softened_distributions(temperature):
    logits = say()
    target, weights = mean_probability(logits, temperature=temperature, known=all_known(logits))
    expected = softmax(logits.double().numpy() / temperature, axis=-1).mean(0)
    np.testing.assert_allclose(combined(target, temperature), expected, rtol=1e-5)
    np.testing.assert_allclose(target.numpy(), temperature * np.log(expected), rtol=1e-5, atol=1e-5 * temperature)
    np.testing.assert_allclose(weights.numpy(), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_mean_logits_is_the_softened_mean_of_the_logits(temperature):
    logits = say()
    target, _ = mean_logits(logits, temperature=temperature, known=all_known(logits))
    expected = temperature * log_softmax(logits.double().numpy().mean(0) / temperature, axis=-1)
    np.testing.assert_allclose(target.numpy(), expected, rtol=1e-5, atol=1e-5 * temperature)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_weighted_is_the_weighted_mean_of_the_softened_distributions(temperature):
    logits = say()
    target, weights = weighted(
        logits, temperature=temperature, known=all_known(logits), teacher_weights=[2.0, 0.0, 6.0]
    )
    parts = softmax(logits.double().numpy() / temperature, axis=-1)
    np.testing.assert_allclose(combined(target, temperature), 0.25 * parts[0] + 0.75 * parts[2], rtol=1e-5)
    np.testing.assert_allclose(weights[:, 0].numpy(), [0.25, 0.0, 0.75])


def test_equal_weights_equal_the_mean():
    logits = say()
    known = all_known(logits)
    mean = mean_probability(logits, temperature=2.0, known=known)
    equal = weighted(logits, temperature=2.0, known=known, teacher_weights=[7.0, 7.0, 7.0])
    torch.testing.assert_close(equal, mean)


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_one_teacher_alone_is_its_own_combination(rule):
    if NAMES[rule] == "vote":
        pytest.skip("of one teacher that is the class that it says")
    logits = say(num_teachers=1)
    target, weights = call(rule, logits, 3.0, all_known(logits))
    np.testing.assert_allclose(combined(target, 3.0), softmax(logits[0].double().numpy() / 3, axis=-1), rtol=1e-5)
    assert (weights == 1).all()


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_no_constant_added_to_a_teachers_logits_changes_the_target(rule):
    logits = say()
    known = all_known(logits)
    known[1, :, 2] = False
    shifted = logits + torch.tensor([100.0, -50.0, 7.0])[:, None, None]
    torch.testing.assert_close(call(rule, shifted, 2.0, known)[0], call(rule, logits, 2.0, known)[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("rule", OF_ROWS.values(), ids=OF_ROWS)
def test_a_teacher_that_knows_nothing_of_a_row_changes_nothing_there(rule):
    logits = say()
    known = all_known(logits)
    known[2, 1] = False
    target, weights = call(rule, logits, 2.0, known)
    other_target, other_weights = call(rule, logits[:2], 2.0, known[:2])
    torch.testing.assert_close(target[1], other_target[1])
    torch.testing.assert_close(weights[:2, 1], other_weights[:, 1])
    assert weights[2, 1] == 0


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_what_an_unknown_score_says_changes_nothing(rule):
    logits = say()
    known = all_known(logits)
    known[0, :, 1] = known[2, 3] = False
    noise = torch.where(known, logits, 1e6)
    torch.testing.assert_close(call(rule, noise, 2.0, known), call(rule, logits, 2.0, known), rtol=0, atol=0)


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_a_row_that_no_teacher_knows_has_no_weight_and_a_finite_target(rule):
    logits = say()
    known = all_known(logits)
    known[:, 2] = False
    target, weights = call(rule, logits, 2.0, known)
    assert target.isfinite().all()
    assert (weights[:, 2] == 0).all()
    torch.testing.assert_close(weights[:, 0].sum(), torch.tensor(1.0))


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_a_class_that_no_teacher_knows_gets_no_probability(rule):
    if NAMES[rule] == "confusion":
        pytest.skip("what teachers say tells of classes that none of them knows")
    logits = say()
    known = all_known(logits)
    known[..., 3] = False
    target, _ = call(rule, logits, 4.0, known)
    assert target.isfinite().all()
    np.testing.assert_array_equal(combined(target, 4.0)[:, 3], 0)


def test_experts_of_separate_classes_share_the_row():
    logits = say(num_teachers=2)
    known = torch.zeros_like(logits, dtype=torch.bool)
    known[0, :, :2] = known[1, :, 2:] = True
    target, weights = mean_probability(logits, temperature=1.0, known=known)
    halves = [softmax(logits[0, :, :2].numpy(), axis=-1), softmax(logits[1, :, 2:].numpy(), axis=-1)]
    np.testing.assert_allclose(combined(target, 1.0), np.concatenate(halves, axis=-1) / 2, rtol=1e-5)
    assert (weights == 0.5).all()


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
@given(scale=st.floats(0, 6e4), temperature=st.floats(0.05, 100), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_targets_are_finite_distributions_whatever_the_scores(rule, scale, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * (2 * torch.rand(2, 3, 5, generator=generator) - 1)
    known = torch.rand(2, 3, 5, generator=generator) < 0.7
    target, weights = call(rule, logits, temperature, known)
    assert target.isfinite().all()
    heard = known.any(-1).any(0)
    if NAMES[rule] == "route":  # who names a teacher that knows nothing of the row hears nobody
        heard = known.any(-1)[0]
    torch.testing.assert_close((target / temperature).exp().sum(-1)[heard], torch.ones(int(heard.sum())))
    torch.testing.assert_close(weights.sum(0), heard.float())


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_fitted_is_the_weighted_mean_of_log_probabilities_and_equal_weights_are_mean_logits(temperature):
    logits = say()
    known = all_known(logits)
    target, weights = fitted(logits, temperature=temperature, known=known, teacher_weights=[0.2, 0.5, 0.3])
    log_p = log_softmax(logits.double().numpy() / temperature, axis=-1)
    expected = temperature * log_softmax(np.tensordot([0.2, 0.5, 0.3], log_p, 1), axis=-1)
    np.testing.assert_allclose(target.numpy(), expected, rtol=1e-5, atol=1e-5 * temperature)
    equal = fitted(logits, temperature=temperature, known=known, teacher_weights=[1.0, 1.0, 1.0])
    assert torch.equal(equal[0], mean_logits(logits, temperature=temperature, known=known)[0])
    np.testing.assert_allclose(weights[:, 0].numpy(), [0.2, 0.5, 0.3], rtol=1e-6)


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_the_order_of_teachers_changes_nothing(rule):
    logits = say()
    known = all_known(logits)
    known[1, :, 2] = known[0, 3] = False
    order = torch.tensor([2, 0, 1])
    target, weights = rule(logits, temperature=2.0, known=known, **told(rule, logits))
    other, other_weights = rule(logits[order], temperature=2.0, known=known[order], **told(rule, logits, order))
    torch.testing.assert_close(other, target)
    torch.testing.assert_close(other_weights, weights[order])


def test_mean_logits_hears_each_teacher_normalised_over_the_classes_that_it_knows():
    """In each class those that know it, whatever a teacher says of another."""
    logits = say(num_teachers=2, classes=3)
    known = all_known(logits)
    known[1, :, 2] = False
    target, _ = mean_logits(logits, temperature=1.0, known=known)
    one = log_softmax(logits[0].double().numpy(), axis=-1)
    two = log_softmax(logits[1, :, :2].double().numpy(), axis=-1)
    expected = np.concatenate([(one[:, :2] + two) / 2, one[:, 2:]], axis=1)
    np.testing.assert_allclose(target.numpy(), log_softmax(expected, axis=-1), rtol=1e-5, atol=1e-5)


def test_gaps_are_what_nobody_knows_who_counts_and_rows_that_nobody_knows_have_none():
    logits = say()
    known = all_known(logits)
    known[:, :, 3] = known[:, 1] = False
    known[2, :, 3] = True  # only of weight 0
    target, weights = weighted(logits, temperature=2.0, known=known, teacher_weights=[1.0, 1.0, 0.0])
    found = with_gaps(target, known, weights)
    assert found[[0, 2, 3, 4], 3].isnan().all() and (found[1] == 0).all()
    assert torch.equal(found[0, :3], target[0, :3])
    complete = with_gaps(target, all_known(logits), torch.ones_like(weights))
    assert torch.equal(complete, target)
