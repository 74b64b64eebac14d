"""Laws of the losses, and agreement with independent implementations of them."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from students.config.terms import LossName
from students.data.augment import AUGMENTS, affine
from students.objective.losses.classification import hard, soft, teacher_label
from students.objective.losses.table import LOSSES
from students.training.optimize import OPTIMIZERS, SCHEDULES
from teachers.config.training import AugmentName, OptimizerName, ScheduleName
from teachers.errors import RecipeError

TEMPERATURES = [1.0, 2.0, 4.0, 20.0]


def logits(seed, rows=16, classes=10, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss, student):
    student = student.clone().requires_grad_()
    loss(student).backward()
    return student.grad


def test_every_name_of_the_recipe_is_in_its_table_and_nothing_else():
    assert set(LOSSES["classification"]) == set(get_args(LossName)) - {"pseudo"}  # which is of boxes
    assert set(AUGMENTS) == set(get_args(AugmentName))
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))
    assert set(SCHEDULES) == set(get_args(ScheduleName))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_is_t_squared_times_the_divergence_that_torch_computes(temperature):
    student, target = logits(0), logits(1)
    log_q, p = F.log_softmax(student / temperature, -1), F.softmax(target / temperature, -1)
    expected = F.kl_div(log_q, p, reduction="none").sum(-1) * temperature**2
    torch.testing.assert_close(soft(student, target, temperature=temperature), expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_hard_and_soft_weighted_are_the_kd_loss_of_torchdistill(temperature):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    student, target, labels = logits(0), logits(1), torch.arange(16) % 10
    theirs = mid_level.KDLoss("l", "output", "l", "output", temperature=temperature, alpha=0.1, beta=0.9)
    expected = theirs({"l": {"output": student}}, {"l": {"output": target}}, labels)
    ours = 0.1 * hard(student, labels).mean() + 0.9 * soft(student, target, temperature=temperature).mean()
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_of_soft_is_t_squared_times_that_of_textbrewers_cross_entropy(temperature):
    textbrewer = pytest.importorskip("textbrewer.losses")
    student, target = logits(0), logits(1)
    theirs = gradient(lambda s: textbrewer.kd_ce_loss(s, target, temperature), student)
    ours = gradient(lambda s: soft(s, target, temperature=temperature).mean(), student)
    torch.testing.assert_close(ours, theirs * temperature**2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_equal_to_its_teacher_has_no_soft_loss_and_no_gradient(temperature):
    student = logits(0)
    assert soft(student, student, temperature=temperature).abs().max() < 1e-12
    assert gradient(lambda s: soft(s, student, temperature=temperature).sum(), student).abs().max() < 1e-12


def test_at_high_temperature_the_gradient_is_the_difference_of_centred_logits_over_the_classes():
    student, target = logits(0), logits(1)
    found = gradient(lambda s: soft(s, target, temperature=1000.0).sum(), student)
    centred = (student - student.mean(-1, keepdim=True)) - (target - target.mean(-1, keepdim=True))
    torch.testing.assert_close(found, centred / 10, rtol=1e-2, atol=1e-3)


def test_a_constant_added_to_the_logits_of_either_side_changes_nothing():
    student, target = logits(0), logits(1)
    found = soft(student + 7, target - 3, temperature=2.0)
    torch.testing.assert_close(found, soft(student, target, temperature=2.0))


@pytest.mark.parametrize("loss", [lambda s, t: soft(s, t, temperature=1.0), teacher_label])
def test_saturated_logits_give_finite_values_and_gradients(loss):
    student = torch.tensor([[6e4, -6e4, 0.0], [-6e4, 6e4, 0.0]])
    target = torch.tensor([[-6e4, 0.0, 6e4], [0.0, -torch.inf, -torch.inf]])
    assert loss(student, target).isfinite().all()
    assert gradient(lambda s: loss(s, target).sum(), student).isfinite().all()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_hard_is_cross_entropy(label_smoothing):
    student, labels = logits(0), torch.arange(16) % 10
    smoothed = F.one_hot(labels, 10) * (1 - label_smoothing) + label_smoothing / 10
    expected = -(smoothed * F.log_softmax(student, -1)).sum(-1)
    torch.testing.assert_close(hard(student, labels, label_smoothing=label_smoothing), expected)


def test_teacher_label_is_hard_with_the_class_that_the_teachers_say():
    student, target = logits(0), logits(1)
    torch.testing.assert_close(teacher_label(student, target), hard(student, target.argmax(-1)))


def test_teacher_label_is_the_limit_of_soft_targets_as_their_temperature_falls():
    student, target = logits(0), logits(1)
    sharp = soft(student, target / 1e-3, temperature=1.0)
    torch.testing.assert_close(teacher_label(student, target), sharp, rtol=1e-4, atol=1e-4)


def test_one_cycle_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=50, cycle_momentum=False)
    for step in range(50):
        assert math.isclose(SCHEDULES["one_cycle"](step, 50), optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_every_schedule_is_defined_at_every_step_of_every_budget(name, steps):
    factors = [SCHEDULES[name](step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)
    assert max(factors) > 0


def images(rows=64):
    pixels = torch.zeros(rows, 16, 16, 1, dtype=torch.uint8)
    pixels[:, 5:11, 5:11] = 200
    return pixels


def row_seeds(rows):
    return torch.randint(-(2**62), 2**62, (rows,), generator=torch.Generator().manual_seed(0))


def test_affine_draws_the_same_from_the_same_seeds_and_moves_each_row_by_its_own():
    one, two = (affine(images(), row_seeds(64)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


def test_affine_keeps_shape_range_and_roughly_the_mass_of_a_centred_square():
    moved = affine(images(), row_seeds(64))
    assert moved.shape == (64, 16, 16, 1) and moved.dtype == torch.float32
    assert moved.min() >= 0 and moved.max() <= 200.01
    assert 0.75 < float(moved.sum() / images().float().sum()) < 1.3


def test_affine_turns_wide_images_without_bending_them():
    pixels = torch.zeros(200, 10, 40, 1)
    pixels[:, 3:7, 18:22] = 1  # 4 x 4 pixels: turned and scaled a little it stays about as wide as it is high
    moved = affine(pixels, row_seeds(200))[..., 0]
    mass = moved.sum((1, 2))
    x, y = torch.arange(40.0), torch.arange(10.0)[:, None]
    spread_x = ((moved * x**2).sum((1, 2)) / mass - ((moved * x).sum((1, 2)) / mass) ** 2).mean()
    spread_y = ((moved * y**2).sum((1, 2)) / mass - ((moved * y).sum((1, 2)) / mass) ** 2).mean()
    assert 0.8 < float(spread_x / spread_y) < 1.25


def test_affine_without_an_image_says_what_to_do():
    with pytest.raises(RecipeError, match=r"train\.augment"):
        affine(torch.zeros(4, 7), row_seeds(4))


def test_affine_moves_the_images_among_several_columns_and_leaves_numbers():
    columns = {"image": images(4), "features": torch.ones(4, 3)}
    moved = affine(columns, row_seeds(4))
    assert torch.equal(moved["features"], columns["features"])
    assert not torch.equal(moved["image"], columns["image"].float())
