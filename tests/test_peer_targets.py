"""What a member follows: laws of the rules, and independent solvers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from students.objective.losses.table import LOSSES
from students.objective.peer_targets import PEER_RULES as BY_ANSWER
from students.objective.peer_targets import general_weights, onto_simplex, simplex_minimum

PEER_RULES = BY_ANSWER["class_axis"]


def drawn(seed, rows=16, members=3, classes=7, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, members, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (rows,), generator=generator)


def cross_entropies(logits, labels):
    return torch.stack([F.cross_entropy(each, labels, reduction="none") for each in logits.unbind(1)], 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(2, 12), st.floats(0.01, 200.0))
def test_min_logit_is_never_worse_than_the_best_member_on_any_row_or_batch(seed, members, classes, scale):
    logits, labels = drawn(seed, members=members, classes=classes, scale=scale)
    target = PEER_RULES["min_logit"](logits, labels, 0)[:, 0]
    own = F.cross_entropy(target, labels, reduction="none")
    each = cross_entropies(logits, labels)
    assert (own <= each.amin(1) + 1e-9).all()
    assert own.mean() <= each.mean(0).amin() + 1e-9


def test_naive_is_the_member_that_knows_the_row_best():
    logits, labels = drawn(0)
    target = PEER_RULES["naive"](logits, labels, 0)[:, 0]
    assert torch.equal(F.cross_entropy(target, labels, reduction="none"), cross_entropies(logits, labels).amin(1))


@pytest.mark.parametrize("members", [2, 3, 5])
def test_linear_finds_the_convex_combination_that_scipy_finds(members):
    logits, labels = drawn(1, rows=12, members=members)
    target = PEER_RULES["linear"](logits, labels, 0)[:, 0]
    found = F.cross_entropy(target, labels, reduction="none")
    for row in range(len(labels)):
        own, label = logits[row].numpy(), int(labels[row])

        def loss(weights, own=own, label=label):
            z = weights @ own
            return np.logaddexp.reduce(z) - z[label]

        start = np.full(members, 1 / members)
        best = minimize(
            loss, start, method="SLSQP", bounds=[(0, 1)] * members, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}
        )  # fmt: skip
        assert found[row] <= best.fun + 1e-3
    weights = simplex_minimum(logits - logits.gather(-1, labels[:, None, None].expand(-1, members, 1)))
    assert (weights >= 0).all() and torch.allclose(weights.sum(1), torch.ones(len(labels), dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_the_nearest_point_of_the_simplex_is_on_it_and_no_vertex_is_nearer(values):
    point = torch.tensor([values], dtype=torch.float64)
    nearest = onto_simplex(point)[0]
    assert (nearest >= 0).all() and abs(float(nearest.sum()) - 1) < 1e-9
    vertices = torch.eye(len(values), dtype=torch.float64)
    assert (point[0] - nearest).norm() <= min((point[0] - vertex).norm() for vertex in vertices) + 1e-9


def test_general_weights_are_those_of_the_least_combined_error():
    """w = argmin w'Cw with sum w = 1: no other weights that sum to 1 have a smaller combined error."""
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    covariance = half @ half.T
    weights = general_weights(covariance)
    assert abs(float(weights.sum()) - 1) < 1e-9
    for _ in range(50):
        other = torch.randn(4, generator=generator, dtype=torch.float64)
        other = weights + other - other.mean()
        assert weights @ covariance @ weights <= other @ covariance @ other + 1e-6


def test_members_that_err_alike_share_the_weight():
    assert torch.allclose(
        general_weights(torch.ones(3, 3, dtype=torch.float64)), torch.full((3,), 1 / 3, dtype=torch.float64)
    )


def test_the_mean_of_others_is_the_log_of_their_mean_probability():
    logits, labels = drawn(4)
    target = PEER_RULES["mean_of_others"](logits, labels, 1, temperature=1.0)[:, 0]
    expected = logits[:, [0, 2]].softmax(-1).mean(1)
    assert torch.allclose(target.softmax(-1), expected) and torch.allclose(
        target.exp().sum(-1), torch.ones(16, dtype=torch.float64)
    )


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_peer_loss_is_torchs_own_divergence(reduce, temperature):
    logits, _ = drawn(5)
    student, others = logits[:, 0], logits[:, 1:]
    each = [
        temperature**2 * F.kl_div((student / temperature).log_softmax(-1), (one / temperature).softmax(-1), reduction="none").sum(-1)
        for one in others.unbind(1)
    ]  # fmt: skip
    expected = torch.stack(each).mean(0) if reduce == "mean" else torch.stack(each).sum(0)
    assert torch.allclose(
        LOSSES["classification"]["peer"](student, others, temperature=temperature, reduce=reduce), expected
    )


def test_feature_and_channel_are_mean_squares_of_maps_and_of_their_channel_means():
    generator = torch.Generator().manual_seed(6)
    own, theirs = (torch.randn(5, 4, 3, 3, generator=generator) for _ in range(2))
    assert torch.allclose(LOSSES["classification"]["feature"](own, theirs).mean(), F.mse_loss(own, theirs))
    pooled = [F.adaptive_avg_pool2d(each, 1).flatten(1) for each in (own, theirs)]
    assert torch.allclose(LOSSES["classification"]["channel"](own, theirs).mean(), F.mse_loss(*pooled), atol=1e-6)
