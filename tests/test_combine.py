from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from teachers.config.task import AnswerName
from teachers.config.teacher import CombineName
from teachers.errors import RecipeError
from teachers.soft_targets.combine.class_scores import mean_logits, mean_probability, weighted
from teachers.soft_targets.combine.rules import COMBINE, align

CLASS_AXIS = COMBINE["class_axis"]

TEMPERATURES = [0.5, 1.0, 4.0, 100.0]


def say(num_teachers: int = 3, rows: int = 5, classes: int = 4, seed: int = 0) -> torch.Tensor:
    return 5 * torch.randn(num_teachers, rows, classes, generator=torch.Generator().manual_seed(seed))


def all_known(logits: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(logits, dtype=torch.bool)


def combined(target: torch.Tensor, temperature: float) -> np.ndarray:
    return softmax(target.double().numpy() / temperature, axis=-1)


def call(rule, logits, temperature, known):
    keywords = {"teacher_weights": torch.arange(1.0, len(logits) + 1)} if rule is weighted else {}
    return rule(logits, temperature=temperature, known=known, **keywords)


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


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
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
    torch.testing.assert_close((target / temperature).exp().sum(-1)[heard], torch.ones(int(heard.sum())))
    torch.testing.assert_close(weights.sum(0), heard.float())


def test_classes_are_mapped_by_name_in_whatever_order():
    index, known = align(["b", "c", "a"], ["a", "b", "c"], None)
    assert index.tolist() == [2, 0, 1]
    assert known.all()


def test_a_class_map_renames_and_drops():
    index, known = align(["felis", "dog", "noise"], ["cat", "bird", "dog"], {"felis": "cat", "noise": None})
    assert known.tolist() == [True, False, True]
    assert index[known].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("teacher_classes", "class_map", "told"),
    [
        (["a", "b", "z"], None, r"'z' are not in the transfer set.*class_map"),
        (["a"], None, r"does not know the classes 'b'.*class_map"),
        (["a", "b"], {"b": "a"}, r"several .* mapped to \['a'\]"),
        (["a", "b"], {"q": "a"}, r"\['q'\], which the teacher does not have"),
        (["a", "b"], {"b": "q"}, r"'q' are not in the transfer set"),
    ],
)
def test_a_class_that_goes_nowhere_is_an_error_that_names_it(teacher_classes, class_map, told):
    with pytest.raises(RecipeError, match=told):
        align(teacher_classes, ["a", "b"], class_map)
