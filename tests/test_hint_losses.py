"""Losses of hints: laws, agreement in float64 with independent implementations, and the traps that these have."""

import itertools
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from students.config.hints import PROJECTORS, Hint, HintLossName
from students.objective.hints import PROJECTIONS
from students.objective.losses.contrastive import contrastive
from students.objective.losses.features import attention, channel_wise, hint, linear_embedding
from students.objective.losses.hints import HINT_KEYWORDS, HINT_LOSSES
from students.objective.losses.relations import correlation, relation, similarity
from students.objective.losses.review import review

ROW_BY_ROW = ["hint", "attention", "channel_wise", "review", "linear_embedding"]
OF_THE_BATCH = ["similarity", "relation", "correlation"]


def maps(seed, *shape, rows=6):
    return torch.randn(rows, *(shape or (5, 8, 8)), generator=torch.Generator().manual_seed(seed)).double()


def gradient(loss, student):
    student = student.clone().requires_grad_()
    loss(student).backward()
    return student.grad


def agree(ours, theirs, student, *, tolerance=1e-6):
    """In value and in gradient, `ours` being the mean over rows."""
    mine = student.clone().requires_grad_()
    torch.testing.assert_close(ours(mine).detach(), theirs(mine).detach(), rtol=tolerance, atol=tolerance)
    own, other = gradient(ours, student), gradient(theirs, student)
    torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def io(values):
    return {"l": {"output": values}}


def test_every_name_of_the_recipe_has_a_loss_its_keywords_and_its_projections():
    names = set(get_args(HintLossName))
    assert names == set(HINT_LOSSES) == set(HINT_KEYWORDS) == set(PROJECTORS) == set(PROJECTIONS)
    assert names == {get_args(each.model_fields["loss"].annotation)[0] for each in get_args(get_args(Hint)[0])}
    for each in get_args(get_args(Hint)[0]):
        (name,) = get_args(each.model_fields["loss"].annotation)
        assert set(HINT_KEYWORDS[name]) <= set(each.model_fields)


@pytest.mark.parametrize("name", sorted(set(get_args(HintLossName)) - {"contrastive"}))
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(name):
    teacher = maps(0)
    assert HINT_LOSSES[name](teacher, teacher).abs().max() < 1e-12
    assert gradient(lambda s: HINT_LOSSES[name](s, teacher).sum(), teacher).abs().max() < 1e-10


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_row_by_row_a_loss_is_that_of_the_row_alone(name):
    student, teacher = maps(0), maps(1)
    together = HINT_LOSSES[name](student, teacher)
    alone = torch.cat([HINT_LOSSES[name](student[n : n + 1], teacher[n : n + 1]) for n in range(len(student))])
    assert together.shape == (6,)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_relations_do_not_depend_on_the_order_of_rows_nor_on_the_widths(name):
    student, teacher = maps(0, 7), maps(1, 3, 2, 2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    found = HINT_LOSSES[name](student, teacher)
    assert found.shape == (6,) and bool((found > 0).all())
    torch.testing.assert_close(HINT_LOSSES[name](student[order], teacher[order]), found[order])


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_rows_that_are_alike_or_dead_give_finite_gradients(name):
    """Where there is no direction, a division by a length of 1e-12 would make gradients of 1e12."""
    student, teacher = maps(0, 7), maps(1, 4)
    student[1], student[2], student[3] = student[0], 0.0, 0.0
    found = gradient(lambda s: HINT_LOSSES[name](s, teacher).sum(), student)
    assert bool(found.isfinite().all()) and float(found.abs().max()) < 1e3


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_a_row_alone_has_no_relations(name):
    assert float(HINT_LOSSES[name](maps(0, 7)[:1], maps(1, 7)[:1]).abs()) < 1e-12


def test_hint_is_the_mean_square_that_torch_computes():
    student, teacher = maps(0), maps(1)
    agree(lambda s: hint(s, teacher).mean(), lambda s: F.mse_loss(s, teacher), student)


def test_hint_is_textbrewers_mean_square_of_hidden_states():
    textbrewer = pytest.importorskip("textbrewer.losses")
    student, teacher = maps(0, 4, 9), maps(1, 4, 9)
    agree(lambda s: hint(s, teacher).mean(), lambda s: textbrewer.hid_mse_loss(s, teacher), student)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("channels", [5, 9])
def test_attention_is_torchdistills_in_both_forms(form, channels):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    pair = {"io": "output", "path": "l"}
    theirs = mid_level.ATLoss({"one": {"teacher": pair, "student": pair}}, mode=form)
    student, teacher = maps(0), maps(1, channels, 8, 8)
    agree(lambda s: attention(s, teacher, form=form).mean(), lambda s: theirs(io(s), io(teacher)), student)


def test_the_forms_of_attention_are_far_apart():
    """A trap: the authors' code is not their equation 2, and a weight of 1000 is of the code."""
    student, teacher = maps(0, rows=64), maps(1, rows=64)
    ratio = attention(student, teacher, form="paper").mean() / attention(student, teacher, form="code").mean()
    assert 50 < ratio < 200


def test_attention_pools_the_larger_map():
    student, teacher = maps(0, 5, 8, 8), maps(1, 5, 4, 4)
    assert torch.equal(attention(student, teacher), attention(F.adaptive_avg_pool2d(student, 4), teacher))
    assert torch.equal(attention(teacher, student), attention(teacher, F.adaptive_avg_pool2d(student, 4)))


def test_similarity_divides_by_the_l2_length_which_torchdistill_does_not():
    """A trap: torchdistill's `normalize(G, 1)` sets the norm, not the axis."""
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = maps(0, 7), maps(1, 4)

    def oracle(s):
        grams = [F.normalize(x @ x.T, p=2, dim=1) for x in (s, teacher)]
        return (grams[0] - grams[1]).square().sum() / len(s) ** 2

    agree(lambda s: similarity(s, teacher).mean(), oracle, student)
    theirs = mid_level.SPKDLoss("l", "l", "batchmean")(io(student), io(teacher))
    assert not torch.isclose(theirs, oracle(student), rtol=0.1)


@pytest.mark.parametrize(("distances", "angles"), [(25.0, 50.0), (1.0, 0.0), (0.0, 2.0)])
def test_relation_is_torchdistills(distances, angles):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    theirs = mid_level.RKDLoss("l", "l", distances, angles, "mean")
    student, teacher = maps(0, 7), maps(1, 4)
    agree(
        lambda s: relation(s, teacher, distance_weight=distances, angle_weight=angles).mean(),
        lambda s: theirs(io(s), io(teacher)),
        student,
    )


def test_the_gradient_of_relation_is_that_of_each_row_by_its_weight():
    """Rows weigh as they like; three are as good as equal, which no angle is of."""
    student, teacher, weights = maps(0, 7).flatten(1), maps(1, 4), torch.rand(len(maps(0)), dtype=torch.float64)
    student[1] = student[2]
    student[3] = student[2] + 1e-9
    assert torch.autograd.gradcheck(lambda s: weights * relation(s, teacher), (student.requires_grad_(),))
    found = relation(student.detach().float(), teacher.float())
    torch.testing.assert_close(found.double(), relation(student, teacher).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 0.1, 3.0, 1e4])
@pytest.mark.parametrize("loss", [similarity, relation, correlation])
def test_relations_do_not_change_with_the_scale_of_either_side(loss, scale):
    student, teacher = maps(0, 7).float(), maps(1, 4).float()
    torch.testing.assert_close(loss(scale * student, teacher), loss(student, teacher), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss(student, scale * teacher), loss(student, teacher), rtol=1e-4, atol=1e-6)
    own, scaled = (gradient(lambda s: loss(s, teacher).sum(), factor * student) for factor in (1.0, scale))
    torch.testing.assert_close(scale * scaled, own, rtol=1e-3, atol=1e-4 * float(own.abs().max()))


def test_correlation_is_the_square_of_what_torchdistill_has():
    """A trap: torchdistill takes the length of the difference, and over B^2; the paper its square."""
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    theirs = mid_level.CCKDLoss("l", "l", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, "none")
    student, teacher = maps(0, 7), F.normalize(maps(1, 4), dim=1)

    def oracle(s):
        return theirs(io(F.normalize(s, dim=1)), io(teacher)).square() / len(s) ** 2

    agree(lambda s: correlation(s, teacher).mean(), oracle, student)


def test_the_series_of_correlation_tends_to_its_kernel():
    student, teacher = maps(0, 7), maps(1, 4)
    kernels = [torch.exp(-0.4 * torch.cdist(*[F.normalize(each, dim=1)] * 2) ** 2) for each in (student, teacher)]
    expected = (kernels[0] - kernels[1]).square().mean(1)
    torch.testing.assert_close(correlation(student, teacher, order=8), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_is_the_divergence_that_torch_computes_channel_by_channel(temperature):
    student, teacher = maps(0), maps(1)

    def oracle(s):
        total = torch.zeros((), dtype=torch.float64)
        for row, channel in itertools.product(range(6), range(5)):
            log_q = F.log_softmax(s[row, channel].flatten() / temperature, 0)
            total = total + F.kl_div(
                log_q, F.softmax(teacher[row, channel].flatten() / temperature, 0), reduction="sum"
            )
        return temperature**2 * total / (6 * 5)

    agree(lambda s: channel_wise(s, teacher, temperature=temperature).mean(), oracle, student)


def test_channel_wise_does_not_change_with_a_constant_added_to_a_channel():
    student, teacher = maps(0), maps(1)
    torch.testing.assert_close(
        channel_wise(student + torch.arange(5)[:, None, None], teacher), channel_wise(student, teacher)
    )


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_review_is_torchdistills_hierarchical_context_loss(size):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    theirs = mid_level.HierarchicalContextLoss("l", "output", "l", "output")
    student, teacher = maps(0, 5, size, size), maps(1, 5, size, size)
    agree(lambda s: review(s, teacher).mean(), lambda s: theirs({"l": {"output": (s, None)}}, io(teacher)), student)


def test_linear_embedding_is_the_squared_norm_of_the_difference():
    student, teacher = maps(0), maps(1)
    expected = torch.stack([(s - t).square().sum() / 64 for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(linear_embedding(student, teacher), expected)
    vectors = [each.flatten(1) for each in (student, teacher)]
    torch.testing.assert_close(linear_embedding(*vectors), expected * 64)
    positions = [each.flatten(2).transpose(1, 2) for each in (student, teacher)]
    torch.testing.assert_close(linear_embedding(*positions), expected)


def test_contrastive_is_torchdistills():
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    rows, negatives, num_rows = 6, 30, 200
    log_h = [2 * maps(seed, 1 + negatives, rows=rows) - 5 for seed in (0, 1)]
    noise = math.log(negatives / num_rows)
    theirs = mid_level.CRDLoss.compute_contrast_loss
    setting = type("Setting", (), {"num_samples": num_rows, "eps": 0.0})()

    def oracle(s):
        return (theirs(setting, s.exp()[..., None]) + theirs(setting, log_h[1].exp()[..., None])).sum()

    agree(lambda s: contrastive(s - noise, log_h[1] - noise).mean(), oracle, log_h[0])


def test_contrastive_is_finite_where_a_score_overflows():
    scores = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0]]).requires_grad_()
    value = contrastive(scores, scores)
    value.sum().backward()
    assert bool(value.isfinite().all()) and bool(scores.grad.isfinite().all())
    assert float(value[1].detach()) < 2


@pytest.mark.parametrize("name", sorted(get_args(HintLossName)))
def test_a_loss_can_be_compiled(name):
    student, teacher = maps(0).float(), maps(1).float()
    compiled = torch.compile(HINT_LOSSES[name], backend="aot_eager", fullgraph=True)
    pair = (student.flatten(1), teacher.flatten(1)) if name == "contrastive" else (student, teacher)
    torch.testing.assert_close(compiled(*pair), HINT_LOSSES[name](*pair))
