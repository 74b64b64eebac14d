"""Laws of the losses of logits, agreement with independent implementations, and the traps that others fell into."""

import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from torch.distributions import Bernoulli, Categorical, kl_divergence

from students.objective.losses import multilabel
from students.objective.losses.classification import LOSSES, hard, soft
from students.objective.losses.known import compared_over_known, standardised

NAN = torch.nan
TEMPERATURES = [1.0, 2.0, 4.0, 20.0]
COMPARING = ["soft", "reverse_kl", "jensen_shannon", "logit_mse", "dkd", "dist", "logit_standardized"]
"""Losses that compare with what teachers say of classes."""
STANDARDISED = [(name, {"standardise": True}) for name in ("soft", "reverse_kl", "jensen_shannon", "dkd")]
LABELS = torch.arange(16) % 10


def logits(seed, rows=16, classes=10, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(name, *, temperature=2.0, labels=LABELS, losses=LOSSES, **keywords):
    """`fn(student, target) -> [rows]`, called as others call it."""
    return lambda student, target: losses[name](
        student, target, temperature=temperature, labels=labels[: len(student)], **keywords
    )


def gradient(loss, student):
    student = student.clone().requires_grad_()
    loss(student).sum().backward()
    return student.grad


def agree(ours, theirs, student):
    """In value and in gradient, both functions of the student to a scalar."""
    torch.testing.assert_close(ours(student), theirs(student), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient(ours, student), gradient(theirs, student), rtol=1e-6, atol=1e-9)


# oracles


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_reverse_kl_is_torchs_divergence_with_its_sides_exchanged(temperature):
    target = logits(1)

    def theirs(student):
        sides = (Categorical(logits=student / temperature), Categorical(logits=target / temperature))
        return temperature**2 * kl_divergence(*sides).mean()

    agree(lambda s: loss_of("reverse_kl", temperature=temperature)(s, target).mean(), theirs, logits(0))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_scipys_and_the_mixture_of_torchs_divergences(temperature, beta):
    student, target = logits(0), logits(1)
    found = loss_of("jensen_shannon", temperature=temperature, beta=beta)(student, target)
    q, p = ((each / temperature).softmax(-1).numpy() for each in (student, target))
    m = beta * p + (1 - beta) * q
    expected = temperature**2 * (beta * rel_entr(p, m) + (1 - beta) * rel_entr(q, m)).sum(-1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    if beta == 0.5:
        np.testing.assert_allclose(found.numpy(), temperature**2 * jensenshannon(p, q, axis=1) ** 2, rtol=1e-6)

    def theirs(student):
        p, q = (target / temperature).softmax(-1), (student / temperature).softmax(-1)
        mixed = Categorical(beta * p + (1 - beta) * q)
        each = beta * kl_divergence(Categorical(p), mixed) + (1 - beta) * kl_divergence(Categorical(q), mixed)
        return temperature**2 * each.mean()

    agree(lambda s: loss_of("jensen_shannon", temperature=temperature, beta=beta)(s, target).mean(), theirs, student)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_logit_mse_is_half_the_sum_of_torchs_squares_at_any_temperature(temperature):
    target = logits(1)
    ours = loss_of("logit_mse", temperature=temperature)
    agree(lambda s: ours(s, target).mean(), lambda s: F.mse_loss(s, target, reduction="sum") / (2 * len(s)), logits(0))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_logit_mse_is_textbrewers_times_half_the_classes_and_its_missing_square_of_t(temperature):
    """Trap: TextBrewer takes the mean over the classes, and divides by T without T^2."""
    textbrewer, target = pytest.importorskip("textbrewer.losses"), logits(1)
    factor = 10 / 2 * temperature**2
    theirs = lambda s: factor * textbrewer.kd_mse_loss(s, target, temperature)  # noqa: E731
    agree(lambda s: loss_of("logit_mse", temperature=temperature)(s, target).mean(), theirs, logits(0))


def decoupled(student, target, labels, temperature, alpha, beta):
    """From the paper's formulas: two distributions made by hand, of two outcomes and without the label."""
    p, q = (target / temperature).softmax(-1), (student / temperature).softmax(-1)
    rows, values = torch.arange(len(labels)), []
    for row, label in zip(rows, labels, strict=True):
        two_p, two_q = (torch.stack([each[row, label], 1 - each[row, label]]) for each in (p, q))
        others = [c for c in range(p.shape[1]) if c != label]
        rest_p, rest_q = (each[row, others] / each[row, others].sum() for each in (p, q))
        of_label, of_rest = (two_p * (two_p / two_q).log()).sum(), (rest_p * (rest_p / rest_q).log()).sum()
        values.append(temperature**2 * (alpha * of_label + beta * of_rest))
    return torch.stack(values)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (1.0, 0.5), (0.0, 2.0)])
def test_dkd_is_the_papers_two_divergences_made_by_hand(temperature, alpha, beta):
    target, given = logits(1), {"temperature": temperature, "alpha": alpha, "beta": beta}
    theirs = lambda s: decoupled(s, target, LABELS, **given).mean()  # noqa: E731
    agree(lambda s: loss_of("dkd", **given)(s, target).mean(), theirs, logits(0))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_dist_is_torchdistills(temperature):
    """Trap: the eps of a correlation, |a| |b| + eps by the authors, is elsewhere here and there: they differ by 4e-7."""
    mid_level, target = pytest.importorskip("torchdistill.losses.mid_level"), logits(1)
    theirs = mid_level.DISTLoss("l", "output", "l", "output", beta=2.0, gamma=0.5, tau=temperature)
    given = {"temperature": temperature, "beta": 2.0, "gamma": 0.5}
    ours = lambda s: loss_of("dist", **given)(s, target).mean()  # noqa: E731
    agree(ours, lambda s: theirs({"l": {"output": s}}, {"l": {"output": target}}), logits(0))


def test_dist_is_pearsons_correlation_of_probabilities_as_numpy_has_it():
    student, target = logits(0), logits(1)
    q, p = ((each / 4).softmax(-1).numpy() for each in (student, target))
    of_rows = [1 - np.corrcoef(q[row], p[row])[0, 1] for row in range(16)]
    of_classes = np.mean([1 - np.corrcoef(q[:, c], p[:, c])[0, 1] for c in range(10)])
    found = loss_of("dist", temperature=4.0)(student, target)
    np.testing.assert_allclose(found.numpy(), 16 * (np.array(of_rows) + of_classes), rtol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_logit_standardized_is_torchdistills(temperature):
    """Trap: the deviation is that of a sample, ddof 1; and without labels, or at alpha 0, torchdistill leaves T^2 and beta out."""
    mid_level, target = pytest.importorskip("torchdistill.losses.mid_level"), logits(1)
    made = mid_level.LogitStdKDLoss("l", "output", "l", "output", temperature=temperature, alpha=0.1, beta=9.0)

    def theirs(student, labels=LABELS):
        return made({"l": {"output": student}}, {"l": {"output": target}}, labels)

    def ours(student):
        of_teachers = loss_of("logit_standardized", temperature=temperature)(student, target).mean()
        return 0.1 * hard(student, LABELS).mean() + 9 * of_teachers

    agree(ours, theirs, logits(0))
    bare = loss_of("logit_standardized", temperature=temperature)(logits(0), target).mean() / temperature**2
    torch.testing.assert_close(theirs(logits(0), None), bare)
    of_rows = logits(0).std(-1, keepdim=True)
    torch.testing.assert_close(
        standardised(logits(0)), (logits(0) - logits(0).mean(-1, keepdim=True)) / (of_rows + 1e-7)
    )


@pytest.mark.parametrize("smoothing", [0.05, 0.2])
def test_a_virtual_teacher_at_temperature_1_is_torchs_label_smoothing_less_its_entropy(smoothing):
    correct = 1 - smoothing * 9 / 10
    entropy = -(correct * math.log(correct) + 9 * (smoothing / 10) * math.log(smoothing / 10))
    ours = lambda s: LOSSES["label_smoothing_teacher"](s, LABELS, temperature=1.0, correct=correct).mean()  # noqa: E731
    agree(ours, lambda s: F.cross_entropy(s, LABELS, label_smoothing=smoothing) - entropy, logits(0))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_virtual_teacher_is_a_teacher_that_says_its_probabilities(temperature):
    target = torch.full((16, 10), 0.01 / 9, dtype=torch.float64).scatter(1, LABELS[:, None], 0.99).log()
    found = LOSSES["label_smoothing_teacher"](logits(0), LABELS, temperature=temperature)
    torch.testing.assert_close(found, soft(logits(0), target, temperature=temperature))


# laws


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(name, temperature):
    student, loss = logits(0), loss_of(name, temperature=temperature)
    assert loss(student, student).abs().max() < 1e-9
    assert gradient(lambda s: loss(s, student), student).abs().max() < 1e-9


@pytest.mark.parametrize("name", COMPARING)
def test_a_constant_added_to_a_rows_logits_changes_nothing(name):
    """Of `logit_mse` where it is centred, as the recipe has it: what combined teachers say has no constant of its own."""
    loss = loss_of(name, **({"centre": True} if name == "logit_mse" else {}))
    student, target = logits(0), logits(1)
    constant = logits(2, classes=1)
    torch.testing.assert_close(loss(student + constant, target - 3), loss(student, target))


@pytest.mark.parametrize("loss", ["soft", "reverse_kl", "jensen_shannon", "dkd"])
@pytest.mark.parametrize("factor", [5.0, 0.01])
def test_standardised_logits_are_the_same_whatever_their_scale_and_place(loss, factor):
    student, target, of = logits(0), logits(1), loss_of(loss, standardise=True)
    torch.testing.assert_close(of(factor * student + 3, target * 7 - 2), of(student, target), rtol=1e-5, atol=1e-7)
    plain = loss_of(loss)(standardised(student), standardised(target))
    torch.testing.assert_close(of(student, target), plain)


def test_logit_standardized_is_soft_with_standardised_logits():
    student, target = logits(0), logits(1)
    expected = loss_of("soft", standardise=True)(student, target)
    assert torch.equal(loss_of("logit_standardized")(student, target), expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_is_tckd_and_nckd_times_what_the_target_leaves_the_other_classes(temperature):
    student, target = logits(0), logits(1)
    tckd = loss_of("dkd", temperature=temperature, alpha=1.0, beta=0.0)(student, target)
    nckd = loss_of("dkd", temperature=temperature, alpha=0.0, beta=1.0)(student, target)
    rest = 1 - (target / temperature).softmax(-1).gather(1, LABELS[:, None]).squeeze(1)
    torch.testing.assert_close(soft(student, target, temperature=temperature), tckd + rest * nckd)


HIGH = {"soft": {}, "reverse_kl": {}, "jensen_shannon": {"beta": 0.3}}


@pytest.mark.parametrize("name", HIGH)
def test_at_high_temperature_the_gradient_is_that_of_centred_logit_mse_over_the_classes(name):
    """T to infinity is logit regression (Hinton et al., 2015); the generalised Jensen-Shannon has beta (1 - beta) of it."""
    student, target = logits(0), logits(1)
    found = gradient(lambda s: loss_of(name, temperature=1e4, **HIGH[name])(s, target), student)
    expected = gradient(lambda s: loss_of("logit_mse", centre=True)(s, target), student) / 10
    beta = HIGH[name].get("beta")
    torch.testing.assert_close(found, expected * (beta * (1 - beta) if beta else 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("near", "other"), [(0, "soft"), (1, "reverse_kl")])
def test_jensen_shannon_over_its_beta_tends_to_the_divergence_of_either_side(near, other):
    student, target, tiny = logits(0), logits(1), 1e-7
    beta = tiny if near == 0 else 1 - tiny
    found = loss_of("jensen_shannon", beta=beta)(student, target) / tiny
    torch.testing.assert_close(found, loss_of(other)(student, target), rtol=1e-4, atol=1e-4)


def test_jensen_shannon_is_the_same_with_its_sides_and_beta_exchanged_and_bounded_by_the_entropy_of_beta():
    student, target = logits(0), logits(1)
    found = loss_of("jensen_shannon", temperature=1.0, beta=0.2)(student, target)
    torch.testing.assert_close(found, loss_of("jensen_shannon", temperature=1.0, beta=0.8)(target, student))
    assert (found <= Bernoulli(torch.tensor(0.2)).entropy()).all()


@pytest.mark.parametrize("name", COMPARING)
def test_a_teacher_gets_no_gradient_that_it_could_learn_from_in_place(name):
    student, target = logits(0), logits(1)
    before = target.clone()
    loss_of(name)(student.requires_grad_(), target).sum().backward()
    assert target.grad is None and torch.equal(target, before)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 9),
    classes=st.integers(2, 12),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]),
    temperature=st.sampled_from([0.3, 1.0, 4.0, 50.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_values_and_gradients_are_finite_and_no_loss_is_below_zero(seed, rows, classes, scale, temperature, dtype):
    student, target = (logits(seed + n, rows, classes, scale).to(dtype) for n in (0, 1))
    labels = torch.arange(rows) % classes
    for name in COMPARING:
        loss = loss_of(name, temperature=temperature, labels=labels)
        value = loss(student, target)
        assert value.shape == (rows,) and value.dtype == dtype and value.isfinite().all(), name
        rounding = 1e-3 * max(1.0, float(value.abs().max())) + 1e-5 * temperature**2  # T^2 times that of float32
        assert (value >= -rounding).all(), name
        assert gradient(lambda s, loss=loss: loss(s, target), student).isfinite().all(), name


FAR = [
    (torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]), torch.tensor([[-1e4, 0.0, 1e4], [-1e4, 1e4, 0.0]])),
    (torch.zeros(2, 3), torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4]])),
    (torch.tensor([[1e4, -1e4, 0.0], [5.0, 5.0, 5.0]]), torch.zeros(2, 3)),
    (torch.full((2, 3), 1e4), torch.full((2, 3), -1e4)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in COMPARING), *STANDARDISED])
def test_saturated_logits_give_finite_values_and_gradients(name, options, dtype):
    for temperature in (0.5, 1.0, 20.0):
        loss = loss_of(name, temperature=temperature, **options)
        for student, target in FAR:
            student, target = student.to(dtype), target.to(dtype)
            assert loss(student, target).isfinite().all(), (student, target)
            assert gradient(lambda s, loss=loss, target=target: loss(s, target), student).isfinite().all()


def test_a_saturated_student_breaks_the_reference_code_of_dkd_and_not_this():
    """Trap: the authors take the logarithm of a softmax, and 1000 from the label's logit: infinite for a student that is sure."""
    student, target = torch.tensor([[400.0, -400.0, 0.0]]), torch.tensor([[0.0, 2.0, 1.0]])
    q, p = student.softmax(-1), target.softmax(-1)
    two_q, two_p = (torch.stack([each[:, 0], each[:, 1:].sum(-1)], -1) for each in (q, p))
    assert not F.kl_div(two_q.log(), two_p, reduction="sum").isfinite()
    loss = loss_of("dkd", temperature=1.0, labels=torch.tensor([0]))
    assert loss(student, target).isfinite().all()
    assert gradient(lambda s: loss(s, target), student).isfinite().all()


@pytest.mark.parametrize("name", COMPARING)
def test_logits_of_minus_infinity_in_the_target_are_finite(name):
    target = torch.tensor([[0.0, -torch.inf, 1.0], [-torch.inf, 3.0, 2.0]], dtype=torch.float64)
    student, loss = logits(0, 2, 3), loss_of(name)
    assert loss(student, target).isfinite().all()
    assert gradient(lambda s: loss(s, target), student).isfinite().all()


@pytest.mark.parametrize("name", ["soft", "reverse_kl", "jensen_shannon"])
def test_a_row_is_a_sum_over_its_classes(name):
    """Trap: `nn.KLDivLoss()` of TAKD, DGKD and PKD, and the `.mean()` of TinyBERT, divide by the classes too: so many times too
    small. Twice the classes, each with half of the mass of one, are as far apart as before."""
    student, target, loss = logits(0), logits(1), loss_of(name)
    torch.testing.assert_close(
        loss(student.repeat_interleave(2, -1), target.repeat_interleave(2, -1)), loss(student, target)
    )
    if name == "soft":
        log_q, p = (student / 2).log_softmax(-1), (target / 2).softmax(-1)
        theirs = 4 * torch.nn.KLDivLoss(reduction="mean")(log_q, p)
        torch.testing.assert_close(loss(student, target).mean(), 10 * theirs)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_torchdistill_without_labels_and_textbrewer_leave_the_square_of_the_temperature_out(temperature):
    """Traps: torchdistill's KDLoss without labels, or at alpha 0, has neither T^2 nor beta; TextBrewer never has T^2."""
    mid_level, textbrewer = (
        pytest.importorskip("torchdistill.losses.mid_level"),
        pytest.importorskip("textbrewer.losses"),
    )
    student, target = logits(0), logits(1)
    theirs = mid_level.KDLoss("l", "output", "l", "output", temperature=temperature, alpha=0.0, beta=0.9)
    found = loss_of("soft", temperature=temperature)(student, target).mean()
    torch.testing.assert_close(theirs({"l": {"output": student}}, {"l": {"output": target}}), found / temperature**2)
    entropy = Categorical(logits=target / temperature).entropy().mean()
    torch.testing.assert_close(textbrewer.kd_ce_loss(student, target, temperature) - entropy, found / temperature**2)


def test_the_mean_of_logits_is_not_the_mean_of_probabilities():
    """Trap: averaging several teachers' logits is another target than averaging what they say."""
    from teachers.soft_targets.combine.rules import COMBINE

    said, known = torch.stack([logits(0), logits(1)]).float(), torch.ones(2, 16, 10, dtype=torch.bool)
    of_logits, of_probabilities = (
        COMBINE["class_axis"][rule](said, temperature=1.0, known=known)[0]
        for rule in ("mean_logits", "mean_probability")
    )
    centred = said.mean(0) - said.mean((0, 2))[:, None]
    torch.testing.assert_close(of_logits - of_logits.mean(-1, keepdim=True), centred, atol=1e-4, rtol=1e-4)
    assert (of_probabilities - of_logits).abs().max() > 1


# classes that nobody knows


def with_gaps(target):
    """A class that nobody knows in any row, and one in some rows only."""
    target = target.clone()
    target[:, 4] = target[:5, 1] = NAN
    return target


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in COMPARING if name != "dist"),
        *((name, {"temperature": 0.5}) for name in COMPARING if name != "dist"),
        *STANDARDISED,
        ("logit_mse", {"centre": True}),
    ],
)
def test_a_loss_over_known_classes_is_that_of_these_alone_and_pulls_at_no_other(name, options):
    """Means and deviations too; a label that nobody knows leaves `dkd` its other part."""
    student, target = logits(0), with_gaps(logits(1))
    loss = loss_of(name, **options)
    found = compared_over_known(loss, student, target)
    for row in range(16):
        known, label = ~target[row].isnan(), LABELS[row]
        own, theirs = student[row, known][None], target[row, known][None]
        if name == "dkd" and not known[label]:  # beta times the divergence among all that are known
            options_of_soft = {"temperature": 2.0} | options
            expected = 8 * soft(own, theirs, **options_of_soft)
        else:
            place = known[:label].sum()[None]
            expected = loss_of(name, labels=place, **options)(own, theirs)
        torch.testing.assert_close(found[row], expected[0])
    pull = gradient(lambda s: compared_over_known(loss, s, target), student)
    assert (pull[target.isnan()] == 0).all() and pull.isfinite().all()
    assert (pull[~target.isnan()] != 0).float().mean() > 0.9


def test_correlations_are_over_the_classes_and_rows_that_somebody_knows():
    student, target = logits(0), with_gaps(logits(1))
    found = compared_over_known(loss_of("dist", gamma=0.0), student, target)
    for row in range(16):
        known = ~target[row].isnan()
        expected = loss_of("dist", gamma=0.0)(student[row, known][None], target[row, known][None])
        torch.testing.assert_close(found[row], expected[0])
    found = compared_over_known(loss_of("dist", beta=0.0), student, target)
    out = target.isnan()
    q, p = ((each.masked_fill(out, -torch.inf) / 2).softmax(-1).numpy() for each in (student, target))
    each = [1 - np.corrcoef(q[~out[:, c], c], p[~out[:, c], c])[0, 1] for c in range(10) if not out[:, c].all()]
    np.testing.assert_allclose(found.numpy(), np.full(16, 4 * np.mean(each)), rtol=1e-6)
    pull = gradient(lambda s: compared_over_known(loss_of("dist"), s, target), student)
    assert (pull[out] == 0).all() and pull.isfinite().all()


@pytest.mark.parametrize("name", COMPARING)
def test_a_row_of_which_one_class_alone_is_known_says_nothing(name):
    target = torch.full((3, 10), NAN, dtype=torch.float64)
    target[:, 0] = 1.0
    options = {"centre": True} if name == "logit_mse" else {"gamma": 0.0} if name == "dist" else {}
    found = compared_over_known(loss_of(name, **options), logits(0, 3), target)
    torch.testing.assert_close(found, torch.zeros(3, dtype=torch.float64))
    pull = gradient(lambda s: compared_over_known(loss_of(name, **options), s, target), logits(0, 3))
    assert pull.abs().max() < 1e-9


# rows that are compared with each other


def test_rows_of_weight_0_have_no_part_in_the_relation_of_rows():
    student, target = logits(0), logits(1)
    weight = (torch.arange(16) % 3 > 0).double()
    there = weight > 0
    found = LOSSES["dist"](student, target, temperature=4.0, weight=weight)
    alone = LOSSES["dist"](student[there], target[there], temperature=4.0)
    torch.testing.assert_close(found[there], alone)
    pull = gradient(lambda s: LOSSES["dist"](s, target, temperature=4.0, weight=weight)[there], student)
    assert (pull[~there] == 0).all()


def test_a_weight_of_a_row_is_so_many_rows():
    student, target, times = logits(0), logits(1), torch.arange(16) % 3 + 1
    found = LOSSES["dist"](student, target, temperature=4.0, beta=0.0, weight=times.double())[0]
    often = LOSSES["dist"](
        student.repeat_interleave(times, 0), target.repeat_interleave(times, 0), temperature=4.0, beta=0.0
    )
    torch.testing.assert_close(found, often[0])


def test_one_row_and_rows_that_are_all_alike_have_no_relation():
    alike = logits(1)[:1].repeat(4, 1)
    assert (LOSSES["dist"](logits(0, 1), logits(1, 1), temperature=1.0, beta=0.0) == 0).all()
    assert (LOSSES["dist"](logits(0, 4), alike, temperature=1.0, beta=0.0).abs() < 1e-6).all()


# several classes a row

OF_SETS = ["soft", "reverse_kl", "jensen_shannon", "logit_mse"]


def of_two_outcomes(values):
    return torch.stack([torch.zeros_like(values), values], -1).flatten(0, 1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", ["soft", "reverse_kl", "jensen_shannon"])
def test_of_several_classes_a_row_it_is_the_sum_over_classes_of_that_of_two_outcomes(name, temperature):
    target = logits(1)
    loss = loss_of(name, temperature=temperature, losses=multilabel.LOSSES)
    of_one = loss_of(name, temperature=temperature, labels=torch.zeros(160).long())
    theirs = lambda s: of_one(of_two_outcomes(s), of_two_outcomes(target)).reshape(s.shape).sum(-1).mean()  # noqa: E731
    agree(lambda s: loss(s, target).mean(), theirs, logits(0))


def test_logit_mse_of_several_classes_is_half_the_sum_of_squares_over_those_that_are_known():
    student, target = logits(0), with_gaps(logits(1))
    found = loss_of("logit_mse", losses=multilabel.LOSSES)(student, target)
    torch.testing.assert_close(found, 0.5 * (student - target).square().nansum(-1))


@pytest.mark.parametrize("smoothing", [0.02, 0.2])
def test_a_virtual_teacher_of_several_classes_is_hard_with_label_smoothing_less_its_entropy(smoothing):
    labels = (logits(1) > 0).double()
    labels[0, 3] = NAN
    entropy = Bernoulli(torch.tensor(1 - smoothing / 2, dtype=torch.float64)).entropy() * (~labels.isnan()).sum(-1)
    given = {"temperature": 1.0, "correct": 1 - smoothing / 2}
    ours = lambda s: multilabel.LOSSES["label_smoothing_teacher"](s, labels, **given).mean()  # noqa: E731
    agree(ours, lambda s: (multilabel.hard(s, labels, label_smoothing=smoothing) - entropy).mean(), logits(0))


@pytest.mark.parametrize("name", OF_SETS)
def test_of_several_classes_what_nobody_knows_has_no_loss_and_no_gradient_and_equals_have_none(name):
    loss, student, target = loss_of(name, losses=multilabel.LOSSES), logits(0), with_gaps(logits(1))
    pull = gradient(lambda s: loss(s, target), student)
    assert (pull[target.isnan()] == 0).all() and (pull[~target.isnan()] != 0).all()
    assert loss(student, student).abs().max() < 1e-12
    assert gradient(lambda s: loss(s, student), student).abs().max() < 1e-12


@pytest.mark.parametrize("name", OF_SETS)
def test_saturated_logits_of_several_classes_give_finite_values_and_gradients(name):
    for student, target in FAR:
        loss = loss_of(name, temperature=1.0, losses=multilabel.LOSSES)
        assert loss(student, target).isfinite().all()
        assert gradient(lambda s, loss=loss, target=target: loss(s, target), student).isfinite().all()


# compiled


def everything(student, target, whole):
    """What all losses say, `[losses, rows]`, of a target with gaps and of one without."""
    values = [compared_over_known(loss_of(name), student, target) for name in COMPARING]
    values += [loss_of(name, **options)(student, whole) for name, options in STANDARDISED]
    values += [loss_of("logit_mse", centre=True, scale=torch.full((10,), 2.0))(student, whole)]
    values += [LOSSES["label_smoothing_teacher"](student, LABELS, temperature=20.0)]
    values += [loss_of(name, losses=multilabel.LOSSES)(student, target) for name in OF_SETS]
    return torch.stack(values)


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",  # captures values and gradients as one graph each, and makes no code of them
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.campaign,
                pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler for what torch.compile writes"),
            ],
        ),
    ],
)
def test_all_losses_compile_without_a_break_to_the_same_values(backend):
    student, target = logits(0).float(), with_gaps(logits(1)).float()
    whole = target.nan_to_num(nan=0.3)
    compiled = torch.compile(everything, fullgraph=True, backend=backend)
    expected = everything(student, target, whole)
    torch.testing.assert_close(compiled(student, target, whole), expected, rtol=1e-4, atol=1e-5)
    pulls = [gradient(lambda s, f=f: f(s, target, whole), student) for f in (compiled, everything)]
    torch.testing.assert_close(*pulls, rtol=1e-3, atol=1e-4)
