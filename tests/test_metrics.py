import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import torch

from students.measuring.gain import Gain, paired_gain, points, verdict
from students.tasks import classification


def some_logits(rows: int = 400, classes: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator)
    return logits, (logits + 2 * torch.randn(rows, classes, generator=generator)).argmax(-1)


def test_accuracy_f1_and_nll_are_those_of_scikit_learn():
    logits, labels = some_logits()
    labels = labels.clamp(max=4)  # classes 5 and 6 are said, and never true
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    assert classification.accuracy(logits, labels) == sklearn.metrics.accuracy_score(labels, logits.argmax(-1))
    assert classification.macro_f1(logits, labels) == pytest.approx(
        sklearn.metrics.f1_score(labels, logits.argmax(-1), average="macro"), abs=1e-12
    )
    assert classification.nll(logits, labels) == pytest.approx(
        sklearn.metrics.log_loss(labels, p, labels=range(7)), abs=1e-12
    )


def test_a_class_that_is_never_said_and_never_true_counts_in_no_f1():
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    assert classification.macro_f1(logits, torch.tensor([0, 1])) == 1.0


def test_calibration_error_is_the_formula_of_guo():
    logits, labels = some_logits()
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    confidence, right = p.max(1), p.argmax(1) == labels.numpy()
    expected = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    bins = classification.reliability(logits, labels)
    assert len(bins) == 15
    assert sum(bin["count"] for bin in bins) == 400
    assert classification.expected_calibration_error(bins) == pytest.approx(expected, abs=1e-12)


def test_who_is_always_sure_and_always_right_is_calibrated():
    labels = torch.arange(5)
    bins = classification.reliability(1e4 * torch.eye(5), labels)
    assert classification.expected_calibration_error(bins) == 0.0
    assert [bin["count"] for bin in bins] == [0] * 14 + [5]
    assert bins[0] == {"confidence": None, "accuracy": None, "count": 0}


def test_kl_is_that_of_scipy_and_zero_to_oneself():
    model, _ = some_logits(seed=0)
    ensemble, _ = some_logits(seed=1)
    p, q = (scipy.special.softmax(logits.double().numpy(), axis=1) for logits in (ensemble, model))
    assert classification.kl(ensemble, model) == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean(), abs=1e-12)
    assert classification.kl(model, model + 3.0) == pytest.approx(0.0, abs=1e-9)  # a constant changes no distribution


def test_every_figure_is_finite_where_a_class_has_no_probability():
    logits = torch.tensor([[0.0, -1e4], [-1e4, 0.0]])
    found = classification.all_metrics(logits, torch.tensor([1, 0]), logits.flip(0))
    assert found["nll"] == 100.0
    assert np.isfinite([value for value in found.values() if isinstance(value, float)]).all()


def test_agreement_is_symmetric_with_ones_on_the_diagonal():
    said = {name: some_logits(seed=seed)[0] for seed, name in enumerate("abc")}
    matrix = np.array(classification.agreement_matrix(said)["matrix"])
    assert (matrix == matrix.T).all()
    assert (matrix.diagonal() == 1).all()
    assert matrix[0, 2] == (said["a"].argmax(-1) == said["c"].argmax(-1)).double().mean()


def rights(rows: int, shares: list[float], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((len(shares), rows)) < np.array(shares)[:, None]


def test_the_gain_is_the_mean_over_seeds_and_lies_in_its_interval():
    student, control = rights(500, [0.9, 0.8, 0.9]), rights(500, [0.7, 0.8, 0.8], seed=1)
    gain = paired_gain(student, control)
    assert gain.mean == pytest.approx((student.mean(1) - control.mean(1)).mean(), abs=1e-12)
    assert gain.low < gain.mean < gain.high
    assert gain.by_seed == pytest.approx(student.mean(1) - control.mean(1))
    assert gain == paired_gain(student, control)


def test_the_interval_is_that_of_resampling_rows_one_by_one():
    student, control = rights(300, [0.9, 0.8]), rights(300, [0.8, 0.8], seed=1)
    random = np.random.default_rng(5)
    differences = student.astype(float) - control
    drawn = [differences[:, random.integers(0, 300, 300)].mean() for _ in range(10_000)]
    gain = paired_gain(student, control)
    assert [gain.low, gain.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=2.5e-3)


def test_the_interval_covers_the_true_gain_nineteen_times_of_twenty():
    covered = 0
    for seed in range(300):
        student, control = rights(400, [0.85], seed), rights(400, [0.8], 1000 + seed)
        gain = paired_gain(student, control)
        covered += gain.low <= 0.05 <= gain.high
    assert 0.91 < covered / 300 < 0.98


def test_pairing_narrows_the_interval_of_models_that_fail_on_the_same_rows():
    control = rights(500, [0.8])
    student = control | rights(500, [0.1], seed=1)
    unpaired = np.random.default_rng(2).permutation(student, axis=1)
    paired, broken = paired_gain(student, control), paired_gain(unpaired, control)
    assert paired.high - paired.low < 0.5 * (broken.high - broken.low)


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (Gain(0.03, 0.06, 0.09), "Distillation helps: +6.0 points"),
        (Gain(-0.09, -0.06, -0.03), "Distillation hurts: \N{MINUS SIGN}6.0 points"),
        (
            Gain(0.03, 0.06, 0.09, (0.1, 0.02)),
            "Distillation helps: +6.0 points of test accuracy over the control (95% int",
        ),
        (Gain(-0.01, 0.06, 0.09), "No difference shown"),
        (Gain(0.0, 0.0, 0.0), "No difference shown"),
        (None, "No control was trained"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval_shows(gain, expected):
    assert verdict(gain, 3).startswith(expected)


def test_the_verdict_says_when_seeds_disagree():
    assert "which disagree: \N{MINUS SIGN}1.0 to +13.0" in verdict(Gain(0.03, 0.06, 0.09, (-0.01, 0.13)), 2)
    assert "disagree" not in verdict(Gain(0.03, 0.06, 0.09, (0.01, 0.13)), 2)


def test_points_have_a_sign_unless_they_are_zero():
    assert [points(value) for value in (0.1, -0.1, 0.0001, -0.0001)] == ["+10.0", "\N{MINUS SIGN}10.0", "0.0", "0.0"]
