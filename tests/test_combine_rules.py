"""Rules of several teachers: each against an independent oracle, and the laws that all of them keep."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax, xlogy
from sklearn.svm import OneClassSVM

from students.objective.confusion import how_silent, what_it_says, which_are_told
from students.objective.fitted import class_weights_of_pool, pool_weights
from students.objective.gate import gate_of
from students.objective.losses.table import LOSSES
from teachers.soft_targets.combine.class_scores import LOG_ZERO
from teachers.soft_targets.combine.context import Context
from teachers.soft_targets.combine.gradient import class_gradients, least_norm, set_gradients
from teachers.soft_targets.combine.rules import COMBINE
from tests.test_combine import CLASS_AXIS, NAMES, all_known, call, combined, say, told
from tests.test_fitted import spoken

CLASS_SET, VALUES = COMBINE["class_set"], COMBINE["values"]
soft = LOSSES["classification"]["soft"]


# laws


@pytest.mark.parametrize("rule", CLASS_AXIS.values(), ids=CLASS_AXIS)
def test_other_names_of_the_classes_are_other_columns_of_the_target_and_nothing_else(rule):
    logits = say()
    known = all_known(logits)
    known[1, :, 2] = False
    order = torch.tensor([3, 1, 0, 2])
    given = told(rule, logits)
    moved = {
        name: Context(student=value.student[:, order]) if isinstance(value, Context) else value
        for name, value in given.items()
    }
    target, weights = rule(logits, temperature=2.0, known=known, **given)
    other, other_weights = rule(logits[..., order], temperature=2.0, known=known[..., order], **moved)
    torch.testing.assert_close(other, target[:, order])
    torch.testing.assert_close(other_weights, weights)


@pytest.mark.parametrize("answer", ["class_set", "values"])
def test_rules_of_other_answers_have_weights_on_the_simplex_and_do_not_ask_for_an_order(answer):
    said = say(num_teachers=3, rows=6, classes=4)
    known = torch.rand(said.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    known[:, 2] = False
    order = torch.tensor([2, 0, 1])
    labels = torch.randint(0, 2, (6, 4)).float()
    for name, rule in COMBINE[answer].items():
        given = {
            "weighted": {"teacher_weights": torch.tensor([1.0, 2.0, 3.0])},
            "inverse_variance": {"variances": torch.tensor([1.0, 2.0, 3.0])},
            "best": {"merits": torch.tensor([1.0, 2.0, 3.0])},
            "experts": {"experts": torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]])},
            "gradient": {"context": Context(student=labels)},
            "route": {"heard": torch.zeros(6, dtype=torch.int64)},
        }.get(name, {})
        moved = {key: value[order] if isinstance(value, torch.Tensor) else value for key, value in given.items()}
        if name == "route":
            moved = {"heard": torch.ones(6, dtype=torch.int64)}
        target, weights = rule(said, temperature=2.0, known=known, **given)
        other, other_weights = rule(said[order], temperature=2.0, known=known[order], **moved)
        torch.testing.assert_close(other, target, equal_nan=True, msg=name)
        torch.testing.assert_close(other_weights, weights[order], msg=name)
        assert (weights >= 0).all() and (weights[:, 2] == 0).all()
        sums = weights.sum(0)
        assert ((sums - 1).abs() < 1e-5)[[0, 1, 3, 4, 5]].all() or name == "route"


# each against its formula


def test_votes_are_counted_of_those_that_know_the_row():
    logits = torch.tensor([[[3.0, 1, 0]], [[2.0, 1, 0]], [[0.0, 5, 1]], [[0.0, 0, 9]]])
    known = all_known(logits)
    known[3] = False
    target, weights = CLASS_AXIS["vote"](logits, temperature=4.0, known=known)
    np.testing.assert_allclose(combined(target, 4.0), [[2 / 3, 1 / 3, 0]], rtol=1e-5)
    np.testing.assert_allclose(weights[:, 0], [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)
    holds, _ = CLASS_SET["vote"](logits[:3] - 2, temperature=1.0, known=known[:3])
    np.testing.assert_allclose(torch.sigmoid(holds)[0], [1 / 3, 1 / 3, 0], rtol=1e-5, atol=1e-12)
    assert holds.isfinite().all()


def test_the_most_confident_teacher_of_a_row_is_heard_alone_and_equals_share_it():
    logits = torch.stack([torch.tensor([[0.0, 4.0]]), torch.tensor([[6.0, 0.0]]), torch.tensor([[0.0, 6.0]])])
    target, weights = CLASS_AXIS["confidence"](logits, temperature=1.0, known=all_known(logits))
    np.testing.assert_allclose(weights[:, 0], [0, 0.5, 0.5])
    np.testing.assert_allclose(combined(target, 1.0), [[0.5, 0.5]], atol=1e-6)


def test_entropy_weights_are_ebkds_without_its_extra_share_of_k_and_finite_where_p_is_0():
    logits = say()
    logits[0, 0] = torch.tensor([1e4, 0.0, 0.0, 0.0])  # p log p of the authors' code is NaN there
    p = softmax(logits.double().numpy(), axis=-1)
    entropy = -xlogy(p, p).sum(-1)
    theirs = 1 - entropy / entropy.sum(0)  # sums to K - 1, then divided by K
    target, weights = CLASS_AXIS["entropy"](logits, temperature=2.0, known=all_known(logits))
    np.testing.assert_allclose(weights, theirs / 2, rtol=1e-4)
    np.testing.assert_allclose(theirs.sum(0), 2)
    mean = (weights.double().numpy()[..., None] * softmax(logits.double().numpy() / 2, axis=-1)).sum(0)
    np.testing.assert_allclose(combined(target, 2.0), mean, rtol=1e-4, atol=1e-9)


def test_correctness_weights_are_ca_mkds_and_rows_without_a_label_hear_all_alike():
    logits, labels = say(rows=6), torch.tensor([0, 1, 2, 3, -1, 0])
    known = all_known(logits)
    known[1, 5, 0] = False
    _, weights = CLASS_AXIS["correctness"](logits, temperature=2.0, known=known, labels=labels)
    log_p = log_softmax(logits.double().numpy(), axis=-1)
    error = -log_p[:, np.arange(4), labels[:4].numpy()]
    np.testing.assert_allclose(weights[:, :4], (1 - softmax(error, axis=0)) / 2, rtol=1e-4)
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(weights[:, 4], 1 / 3, rtol=1e-6)
    assert weights[1, 5] == 0  # who cannot say the label's class
    np.testing.assert_allclose(
        weights[[0, 2], 5], 1 - softmax(-log_softmax(logits[[0, 2], 5].double().numpy(), axis=-1)[:, 0]), rtol=1e-4
    )


def test_a_row_of_a_class_that_nobody_knows_is_nobodys_under_correctness():
    logits = say(rows=2)
    known = all_known(logits)
    known[..., 3] = False
    _, weights = CLASS_AXIS["correctness"](logits, temperature=2.0, known=known, labels=torch.tensor([3, 1]))
    assert (weights[:, 0] == 0).all() and weights[:, 1].sum() == pytest.approx(1)


def test_the_best_teacher_of_those_that_know_the_row_is_heard():
    logits = say()
    known = all_known(logits)
    known[2, 1] = False
    _, weights = CLASS_AXIS["best"](logits, temperature=2.0, known=known, merits=(0.5, 0.6, 0.9))
    assert weights[:, 0].tolist() == [0, 0, 1] and weights[:, 1].tolist() == [0, 1, 0]


def test_experts_are_heard_in_their_classes():
    logits = say(num_teachers=2)
    target, _ = CLASS_AXIS["experts"](
        logits, temperature=1.0, known=all_known(logits), experts=[[1, 1, 0, 0], [0, 0, 1, 1]]
    )
    log_p = log_softmax(logits.double().numpy(), axis=-1)
    expected = softmax(np.concatenate([log_p[0, :, :2], log_p[1, :, 2:]], axis=1), axis=-1)
    np.testing.assert_allclose(combined(target, 1.0), expected, rtol=1e-4)


def test_a_row_is_routed_to_the_teacher_that_it_names():
    logits = say(rows=3)
    target, weights = CLASS_AXIS["route"](
        logits, temperature=2.0, known=all_known(logits), heard=torch.tensor([2, -1, 0])
    )
    np.testing.assert_allclose(combined(target, 2.0)[0], softmax(logits[2, 0].double().numpy() / 2), rtol=1e-4)
    assert weights[:, 1].sum() == 0 and weights[0, 2] == 1


# the gradients agree


def gram_of(teachers, seed, width=6):
    vectors = np.random.default_rng(seed).normal(size=(teachers, width)) + 0.5
    return vectors, vectors @ vectors.T


@pytest.mark.parametrize("box", [0.4, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("teachers", [3, 5])
def test_the_weights_of_the_gradients_are_those_of_sklearn_and_scipy(box, teachers):
    for seed in range(10):
        vectors, gram = gram_of(teachers, seed)
        found = least_norm(gram, box)
        machine = OneClassSVM(kernel="precomputed", nu=1 / (box * teachers), tol=1e-10).fit(gram)
        theirs = np.zeros(teachers)
        theirs[machine.support_] = machine.dual_coef_[0]
        theirs /= theirs.sum()
        np.testing.assert_allclose(found, theirs, atol=1e-5)
        simplex = {"type": "eq", "fun": lambda a: a.sum() - 1}
        slsqp = minimize(
            lambda a: a @ gram @ a,  # noqa: B023
            np.full(teachers, 1 / teachers),
            bounds=[(0, box)] * teachers,
            constraints=simplex,
            method="SLSQP",
            tol=1e-14,
        )
        assert found @ gram @ found <= slsqp.fun + 1e-8
        assert np.linalg.norm(found @ vectors) <= np.linalg.norm(vectors.mean(0)) + 1e-12


@given(seed=st.integers(0, 999), teachers=st.integers(1, 7), box=st.floats(0.01, 1), rank=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_the_weights_are_on_the_simplex_in_the_box_whatever_the_gradients(seed, teachers, box, rank):
    _, gram = gram_of(teachers, seed, rank)
    found = least_norm(gram, box)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert found.max() <= max(box, 1 / teachers) + 1e-9
    assert found @ gram @ found <= np.full(teachers, 1 / teachers) @ gram @ np.full(teachers, 1 / teachers) + 1e-9


def test_a_box_of_an_equal_share_is_the_mean():
    _, gram = gram_of(4, 0)
    np.testing.assert_allclose(least_norm(gram, 0.25), 0.25)


def test_the_gradients_are_those_of_the_losses():
    for task, gradients in (("classification", class_gradients), ("multilabel", set_gradients)):
        logits, student = say(rows=7).double(), say(num_teachers=1, rows=7, seed=3)[0].double().requires_grad_()
        known = all_known(logits)
        for number, teacher in enumerate(logits):
            loss = LOSSES[task]["soft"](student, teacher, temperature=3.0).sum()
            (expected,) = torch.autograd.grad(loss, student)
            found = gradients(logits, known, student.detach(), 3.0)[number]
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_weighted_target_has_the_gradient_of_the_weighted_losses():
    logits, student = say().double(), say(num_teachers=1, seed=5)[0].double().requires_grad_()
    context = Context(student=student.detach())
    target, weights = CLASS_AXIS["gradient"](logits, temperature=2.0, known=all_known(logits), box=0.6, context=context)
    assert (weights == weights[:, :1]).all()  # one weight a teacher, for the whole batch
    (of_target,) = torch.autograd.grad(soft(student, target, temperature=2.0).sum(), student)
    losses = sum(
        w[0] * soft(student, teacher, temperature=2.0).sum() for w, teacher in zip(weights, logits, strict=True)
    )
    (of_losses,) = torch.autograd.grad(losses, student)
    torch.testing.assert_close(of_target, of_losses, rtol=1e-6, atol=1e-8)
    assert (
        of_target.mean(0).norm()
        <= torch.autograd.grad(sum(soft(student, teacher, temperature=2.0).sum() for teacher in logits) / 3, student)[0]
        .mean(0)
        .norm()
        + 1e-9
    )


def test_ranks_that_add_up_their_gradients_have_the_weights_of_the_whole_batch():
    logits, student = say(rows=8), say(num_teachers=1, rows=8, seed=5)[0]
    known = all_known(logits)
    rule = CLASS_AXIS["gradient"]
    _, whole = rule(logits, temperature=2.0, known=known, context=Context(student=student))
    sums = []
    for part in (slice(0, 5), slice(5, 8)):  # what each rank would send
        sent = Context(student=student[part], all_reduce=lambda tensor: sums.append(tensor.clone()) or tensor)
        rule(logits[:, part], temperature=2.0, known=known[:, part], context=sent)
    for part in (slice(0, 5), slice(5, 8)):
        heard = Context(student=student[part], all_reduce=lambda tensor: sums[0] + sums[1])
        _, weights = rule(logits[:, part], temperature=2.0, known=known[:, part], context=heard)
        torch.testing.assert_close(weights, whole[:, part])


# weights that labelled validation rows decide


def test_weights_by_class_are_those_of_the_teachers_where_rows_are_few_and_find_the_expert_where_they_are_many():
    log_p, labels = spoken(4)
    weights = pool_weights(log_p, labels)
    np.testing.assert_allclose(
        class_weights_of_pool(log_p, labels, weights), np.repeat(weights[:, None], 4, axis=1), atol=0.06
    )
    labels = torch.arange(2000) % 4
    noise = torch.randn(2, 2000, 4, generator=torch.Generator().manual_seed(0))
    right = 3.0 * torch.eye(4)[labels]
    logits = torch.stack([right * (labels < 2)[:, None], right * (labels >= 2)[:, None]]) + noise
    log_p = logits.log_softmax(-1)
    by_class = class_weights_of_pool(log_p, labels, pool_weights(log_p, labels))
    np.testing.assert_allclose(by_class.sum(0), 1)
    assert (by_class[0, :2] > by_class[0, 2:].max() + 0.1).all()
    plain = torch.einsum("k,knc->nc", torch.from_numpy(pool_weights(log_p, labels)).float(), log_p)
    pooled = torch.einsum("kc,knc->nc", torch.from_numpy(by_class).float(), log_p)
    nll = [float(-each.log_softmax(-1).gather(1, labels[:, None]).mean()) for each in (plain, pooled)]
    assert nll[1] < nll[0]


def test_a_gate_leaves_the_weights_near_equal_where_rows_are_few_and_learns_whom_to_hear_where_they_are_many():
    def heard_of(rows, seed):
        """Two teachers of which the one is right that is sure; both are sure half of the time."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(rows) % 4
        first = (torch.rand(rows, generator=generator) < 0.5).double()
        noise = torch.randn(2, rows, 4, generator=generator, dtype=torch.float64)
        right = 6.0 * torch.eye(4, dtype=torch.float64)[labels]
        sure = torch.stack([first, 1 - first])
        return torch.where(sure[..., None] > 0, right + noise, 1.5 * noise), labels

    rule = CLASS_AXIS["learned"]
    logits, labels = heard_of(8, 0)
    _, weights = rule(logits, temperature=1.0, known=all_known(logits), gate=gate_of(logits, all_known(logits), labels))
    assert (weights - 0.5).abs().max() < 0.2
    logits, labels = heard_of(2000, 1)
    gate = gate_of(logits, all_known(logits), labels)
    fresh, truth = heard_of(2000, 2)
    known = all_known(fresh)
    target, weights = rule(fresh, temperature=1.0, known=known, gate=gate)
    mean, _ = CLASS_AXIS["mean_logits"](fresh, temperature=1.0, known=known)
    nll = [float(-each.log_softmax(-1).gather(1, truth[:, None]).mean()) for each in (target, mean)]
    assert nll[0] < nll[1] - 0.02
    torch.testing.assert_close(weights.sum(0), torch.ones(2000, dtype=torch.float64))
    again = gate_of(logits.flip(0), all_known(logits), labels)
    _, other = rule(fresh.flip(0), temperature=1.0, known=known, gate=again)
    torch.testing.assert_close(other.flip(0), weights, atol=0.02, rtol=0)


def test_what_teachers_say_of_which_class_is_counted_and_few_rows_are_what_is_expected():
    said = torch.tensor([[4.0, 0.0, torch.nan], [0.0, 4.0, torch.nan], [4.0, 0.0, torch.nan], [torch.nan] * 3])
    nobody = what_it_says(said[:1], torch.tensor([0]))
    np.testing.assert_allclose(nobody.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(nobody[2], [0.5, 0.5, 0], rtol=1e-6)  # of a class that it does not know: anything
    found = what_it_says(said, torch.tensor([0, 1, 2, 2]))
    p = softmax([4.0, 0.0])
    accuracy = (2 * p[0] + 1) / 4
    np.testing.assert_allclose(found[0, :2], (p + 3 * np.array([accuracy, 1 - accuracy])) / 4, rtol=1e-5)
    np.testing.assert_allclose(found[2, :2], (p + 3 * np.array([0.5, 0.5])) / 4, rtol=1e-5)


def test_a_class_that_nobody_knows_is_told_by_what_teachers_say_of_it():
    """Two teachers of classes 0 to 2; of class 3 the one says 0 and the other 1, where of known classes they agree."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    called = torch.stack([torch.where(labels == 3, 0, labels), torch.where(labels == 3, 1, labels)])
    logits = 5 * torch.eye(4)[called] + torch.randn(2, 400, 4, generator=generator)
    known = all_known(logits)
    known[..., 3] = False
    heard = logits.masked_fill(~known, torch.nan)
    given = {"says": torch.stack([what_it_says(each, labels) for each in heard]), "frequency": torch.full((4,), 0.25)}
    target, weights = CLASS_AXIS["confusion"](logits, temperature=1.0, known=known, **given)
    assert (target.argmax(-1) == labels).float().mean() > 0.97 and (weights == 0.5).all()
    mean, _ = CLASS_AXIS["mean_logits"](logits, temperature=1.0, known=known)
    rows = labels != 3
    assert (mean.argmax(-1) == labels)[~rows].sum() == 0
    among = target[rows, :3].log_softmax(-1)  # the teachers' word on what they know stands
    torch.testing.assert_close(among, mean[rows, :3].log_softmax(-1), rtol=1e-4, atol=1e-4)
    all_classes = all_known(logits)
    complete, _ = CLASS_AXIS["confusion"](logits, temperature=2.0, known=all_classes, **given)
    torch.testing.assert_close(complete, CLASS_AXIS["mean_logits"](logits, temperature=2.0, known=all_classes)[0])


def test_that_teachers_are_silent_tells_of_a_class_that_nobody_knows():
    """Two teachers of classes 0 to 2: one says 0 in half of the rows of class 3, else both are silent; of others both speak, but for a tenth."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(800) % 4
    logits = 6 * torch.eye(4)[torch.where(labels == 3, 0, labels)] + torch.randn(2, 800, 4, generator=generator)
    silent = torch.rand(2, 800, generator=generator) < torch.where(labels == 3, torch.tensor([[0.5], [1.0]]), 0.1)
    known = all_known(logits) & ~silent[..., None]
    known[..., 3] = False
    heard = logits.masked_fill(~known, torch.nan)
    how = torch.stack([how_silent(each, labels) for each in heard])
    counts, rows = silent[0].double().numpy(), labels.numpy()
    expected = [(counts[rows == n].sum() + 3 * (counts.sum() + 1) / 802) / (200 + 3) for n in range(4)]
    np.testing.assert_allclose(how[0], expected, rtol=1e-5)
    given = {"says": torch.stack([what_it_says(each, labels) for each in heard]), "frequency": torch.full((4,), 0.25)}
    rule = CLASS_AXIS["confusion"]
    logits = logits.masked_fill(~known, 0.0)
    deaf, _ = rule(logits, temperature=1.0, known=known, **given)
    target, weights = rule(logits, temperature=1.0, known=known, **given, silent=how)
    right = [float((each.argmax(-1) == labels)[labels == 3].float().mean()) for each in (deaf, target)]
    assert right[0] < 0.3 and right[1] > 0.95
    assert (target.argmax(-1) == labels)[labels != 3].float().mean() > 0.9
    nobody = silent.all(0)
    assert (weights[:, nobody] == 0.5).all() and nobody.sum() > 50
    posterior = softmax(np.log(0.25) + np.log(how.double().numpy()).sum(0))  # of a row of which all are silent
    np.testing.assert_allclose(target[nobody][0].softmax(-1), posterior, rtol=1e-3, atol=1e-6)
    alike, _ = rule(logits, temperature=1.0, known=known, **given, silent=torch.full((2, 4), 0.3))
    spoken = ~nobody  # whoever is silent as often in each class tells nothing by it
    torch.testing.assert_close(alike[spoken], deaf[spoken], rtol=1e-3, atol=1e-3)


def test_a_target_of_votes_is_finite_where_nobody_votes_for_a_class():
    target, _ = call(CLASS_AXIS["vote"], say(), 2.0, all_known(say()))
    assert target.isfinite().all() and target.min() == pytest.approx(2 * LOG_ZERO)
    assert set(NAMES.values()) == set(CLASS_AXIS)


def test_a_class_is_taught_that_teachers_tell_by_rows_which_were_left_out_and_another_is_left_to_its_labels():
    """Of class 3 teachers say 0 and 1, as of no other; of class 4 what they say of class 2; of class 5 there is no row."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(400) % 4, torch.full((20,), 4)])[torch.randperm(420, generator=generator)]
    called = torch.stack([torch.tensor([0, 1, 2, 0, 2])[labels], torch.tensor([0, 1, 2, 1, 2])[labels]])
    said = 5 * torch.eye(6)[called] + torch.randn(2, 420, 6, generator=generator)
    said[..., 3:] = torch.nan
    assert which_are_told(said, labels, silence=False).tolist() == [True, True, True, True, False, False]
    said[:, labels == 4] = torch.nan  # nobody says a word of it, and is silent of nothing else
    assert which_are_told(said, labels, silence=False).tolist() == [True, True, True, True, False, False]
    assert which_are_told(said, labels, silence=True).tolist() == [True, True, True, True, True, False]
