"""Laws of the losses of several classes a row and of numbers, and agreement with torch's own functions."""

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit
from sklearn.metrics import mean_pinball_loss
from torch.distributions import Bernoulli, kl_divergence

from students.config.distance import DistanceName
from students.config.task_terms import COMBINES, KDCL_TARGETS, KEYWORDS
from students.objective.losses import multilabel, regression
from students.objective.losses.table import LOSSES
from students.objective.peer_targets import PEER_RULES
from students.tasks.ensemble import TOGETHER
from teachers.soft_targets.combine.rules import COMBINE

NAN = torch.nan
TEMPERATURES = [1.0, 2.0, 20.0]


def drawn(seed, *shape, scale=3.0):
    shape = shape or (16, 7)
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(seed):
    return (drawn(seed) > 0).double()


def with_gaps(values, seed=9):
    return values.masked_fill(drawn(seed) > 2, NAN)


def gradient(loss, student):
    student = student.clone().requires_grad_()
    loss(student).sum().backward()
    return student.grad


def two_columns(logits):
    """Each class as one of two: that it does not hold, that it does."""
    return torch.stack([torch.zeros_like(logits), logits], -1)


def test_the_check_without_torch_knows_the_losses_and_rules_that_there_are():
    for task, losses in LOSSES.items():
        assert set(KEYWORDS[task]) == set(losses)
    assert {answer: tuple(rules) for answer, rules in COMBINE.items()} == COMBINES
    assert all(set(targets) <= set(PEER_RULES[answer]) for answer, targets in KDCL_TARGETS.items())
    assert set(regression.DISTANCES) == set(get_args(DistanceName))


# several classes a row


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_hard_of_several_classes_is_the_sum_of_torchs_cross_entropies_of_two(smoothing):
    student, target = drawn(0), labels(1)
    each = F.cross_entropy(
        two_columns(student).flatten(0, 1), target.long().flatten(), reduction="none", label_smoothing=smoothing
    )
    torch.testing.assert_close(
        multilabel.hard(student, target, label_smoothing=smoothing), each.reshape(student.shape).sum(-1)
    )


def test_a_class_weight_of_several_classes_is_torchs_pos_weight():
    student, target, weights = drawn(0), labels(1), drawn(2, 7).abs()
    expected = F.binary_cross_entropy_with_logits(student, target, pos_weight=weights, reduction="none").sum(-1)
    torch.testing.assert_close(multilabel.hard(student, target, class_weights=weights), expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_of_several_classes_is_the_sum_of_the_binary_divergences(temperature):
    student, target = drawn(0), drawn(1)
    log_q, log_p = (two_columns(each / temperature).log_softmax(-1) for each in (student, target))
    of_two_columns = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum((-1, -2))
    found = multilabel.soft(student, target, temperature=temperature)
    torch.testing.assert_close(found, temperature**2 * of_two_columns)
    of_classes = kl_divergence(Bernoulli(logits=target / temperature), Bernoulli(logits=student / temperature))
    torch.testing.assert_close(found, temperature**2 * of_classes.sum(-1))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_equal_to_its_teachers_has_no_soft_loss_and_no_gradient(temperature):
    student = drawn(0)
    for loss in (
        lambda each: multilabel.soft(each, student, temperature=temperature),
        lambda each: regression.soft(each, student),
        lambda each: regression.soft(each, student, distance="huber", delta=0.1),
        lambda each: multilabel.peer(each, student[:, None], temperature=temperature, reduce="sum"),
        lambda each: regression.peer(each, student[:, None], reduce="mean"),
    ):
        assert loss(student).abs().max() < 1e-12
        assert gradient(loss, student).abs().max() < 1e-12
    assert regression.soft(student, student, distance="quantile", quantile=0.9).abs().max() == 0


def test_saturated_logits_of_several_classes_give_finite_values_and_gradients():
    far = torch.tensor([[1e4, -1e4, 0.0, 1e4]])
    for student, target in ((far, -far), (far, far), (-far, far), (torch.zeros_like(far), far)):
        for loss in (lambda s, t: multilabel.soft(s, t, temperature=1.0), multilabel.teacher_label):
            assert loss(student, target).isfinite().all()
            assert gradient(lambda s, loss=loss, target=target: loss(s, target), student).isfinite().all()
    torch.testing.assert_close(multilabel.soft(far, -far, temperature=1.0), torch.tensor([3e4]))


def test_at_high_temperature_the_gradient_of_each_class_is_a_quarter_of_the_difference():
    student, target = drawn(0), drawn(1)
    found = gradient(lambda each: multilabel.soft(each, target, temperature=1000.0), student)
    torch.testing.assert_close(found, (student - target) / 4, rtol=1e-3, atol=1e-3)


def test_teacher_label_of_several_classes_is_hard_and_the_limit_as_the_temperature_falls():
    student, target = drawn(0), drawn(1)
    found = multilabel.teacher_label(student, target)
    torch.testing.assert_close(found, multilabel.hard(student, (target > 0).double()))
    sharp = multilabel.soft(student, target / 1e-4, temperature=1.0)
    torch.testing.assert_close(found, sharp, rtol=1e-4, atol=1e-4)


# numbers


def test_distances_are_torchs_and_scikit_learns():
    student, target = drawn(0), drawn(1)
    torch.testing.assert_close(regression.hard(student, target), F.mse_loss(student, target, reduction="none").mean(-1))
    found = regression.hard(student, target, distance="huber", delta=0.3)
    torch.testing.assert_close(found, F.huber_loss(student, target, delta=0.3, reduction="none").mean(-1))
    for quantile in (0.1, 0.5, 0.9):
        found = regression.hard(student, target, distance="quantile", quantile=quantile).mean()
        expected = mean_pinball_loss(target.flatten(), student.flatten(), alpha=quantile)
        assert float(found) == pytest.approx(expected)


def test_the_number_with_the_least_pinball_loss_is_the_quantile():
    sample = drawn(3, 1001, 1)
    guesses = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None, None]
    losses = torch.stack(
        [regression.hard(guess, sample, distance="quantile", quantile=0.8).mean() for guess in guesses]
    )
    assert float(guesses[losses.argmin()]) == pytest.approx(float(np.quantile(sample, 0.8)), abs=0.02)


# what nobody knows


@pytest.mark.parametrize(
    "loss",
    [
        multilabel.hard,
        multilabel.teacher_label,
        lambda s, t: multilabel.soft(s, t, temperature=2.0),
        regression.hard,
        lambda s, t: regression.soft(s, t, distance="quantile", quantile=0.3),
    ],
)
def test_what_nobody_knows_has_no_loss_and_no_gradient(loss):
    student, target = drawn(0), with_gaps(labels(1))
    known = ~target.isnan()
    assert 0 < known.sum() < known.numel()
    found = gradient(lambda each: loss(each, target), student)
    assert (found[~known] == 0).all() and (found[known] != 0).any()
    other = torch.where(known, student, student + 5)
    torch.testing.assert_close(loss(other, target), loss(student, target), rtol=0, atol=0)
    nothing = torch.full_like(target, NAN)
    assert (loss(student, nothing) == 0).all() and (gradient(lambda each: loss(each, nothing), student) == 0).all()


def test_the_mean_over_numbers_is_over_those_that_are_known():
    student, target = torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([[0.0, NAN, 0.0]])
    assert regression.hard(student, target).item() == 5.0  # (1 + 9) / 2


# peers


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_peers_are_followed_one_by_one(reduce):
    student, others = drawn(0), drawn(1, 16, 3, 7)
    gather = torch.mean if reduce == "mean" else torch.sum
    each = torch.stack([multilabel.soft(student, one, temperature=3.0) for one in others.unbind(1)])
    torch.testing.assert_close(multilabel.peer(student, others, temperature=3.0, reduce=reduce), gather(each, 0))
    each = torch.stack([regression.soft(student, one, distance="huber", delta=2.0) for one in others.unbind(1)])
    found = regression.peer(student, others, reduce=reduce, distance="huber", delta=2.0)
    torch.testing.assert_close(found, gather(each, 0))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_mean_of_other_members_is_the_mean_of_their_probabilities_or_numbers(temperature):
    said = drawn(4, 16, 3, 7)
    found = PEER_RULES["class_set"]["mean_of_others"](said, None, 1, temperature=temperature)
    expected = expit(said[:, [0, 2]].numpy() / temperature).mean(1, keepdims=True)
    np.testing.assert_allclose(expit(found.numpy() / temperature), expected)
    found = PEER_RULES["values"]["mean_of_others"](said, None, 1, temperature=temperature)
    torch.testing.assert_close(found, said[:, [0, 2]].mean(1, keepdim=True))


def test_networks_together_say_their_mean_probability_or_their_mean():
    said = drawn(5, 4, 16, 7)
    torch.testing.assert_close(TOGETHER["class_axis"](said).softmax(-1), said.softmax(-1).mean(0))
    torch.testing.assert_close(TOGETHER["class_set"](said).sigmoid(), said.sigmoid().mean(0))
    torch.testing.assert_close(TOGETHER["values"](said), said.mean(0))
    sure = torch.tensor([[[1e4]], [[1e4]]])
    assert TOGETHER["class_set"](sure).isfinite().all()
