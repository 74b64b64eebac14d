"""A step of the optimiser is torch's own, to the bit."""

import copy

import pytest
import torch
from torch import nn

from students.training.optimize import make_optimizer, move
from teachers.config.training import TrainConfig

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
on_each = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
OPTIONS = [
    {"optimizer": "adamw"},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "momentum": 0.0},
]


def network(device: str) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(13, 7), nn.ReLU(), nn.Linear(7, 5), nn.Linear(5, 3))
    module[2].weight.requires_grad_(False)
    return module.to(device)


def gradients(module: nn.Module, step: int) -> None:
    """One layer hears of nothing in every third step, save the first."""
    torch.manual_seed(step)
    module.zero_grad()
    inputs = torch.randn(11, 13).to(next(module.parameters()))
    (module if step % 3 or not step else module[:3])(inputs).square().sum().backward()


@on_each
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_weights_move_as_by_torchs_own_step(options, device):
    train = TrainConfig(steps=1, learning_rate=0.01, **options)
    ours, theirs = network(device), network(device)
    moving, stepping = (make_optimizer(module.parameters(), train, torch.device(device)) for module in (ours, theirs))
    for step in range(12):
        for group in (*moving.param_groups, *stepping.param_groups):
            group["lr"] = 0.01 / (step + 1)
        if step == 6:  # as a resumed training does it
            state = copy.deepcopy(moving.state_dict())
            moving = make_optimizer(ours.parameters(), train, torch.device(device))
            moving.load_state_dict(state)
        for module in (ours, theirs):
            gradients(module, step)
        move(moving)
        stepping.step()
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert own.equal(other)
    assert all(torch.equal(moving.state[own][key], stepping.state[other][key])
               for own, other in zip(ours.parameters(), theirs.parameters(), strict=True)
               for key in stepping.state[other])  # fmt: skip


@on_each
def test_parameters_of_two_types_move_too(device):
    ours, theirs = (
        [nn.Parameter(torch.ones(3, device=device)), nn.Parameter(torch.ones(3, device=device, dtype=torch.float64))]
        for _ in range(2)
    )
    train = TrainConfig(steps=1, learning_rate=0.01)
    moving, stepping = (make_optimizer(each, train, torch.device(device)) for each in (ours, theirs))
    for _ in range(3):
        for each in (*ours, *theirs):
            each.grad = each.detach() * 2
        move(moving)
        stepping.step()
    assert all(own.equal(other) for own, other in zip(ours, theirs, strict=True))


@on_each
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_parameter_whose_first_gradient_comes_later_moves_as_in_an_optimiser_of_its_own(options, device):
    train = TrainConfig(steps=1, learning_rate=0.01, **options)
    ours, theirs = (
        [nn.Parameter(torch.ones(5, device=device)), nn.Parameter(torch.full((3,), 2.0, device=device))]
        for _ in range(2)
    )
    moving = make_optimizer(ours, train, torch.device(device))
    apart = [make_optimizer([each], train, torch.device(device)) for each in theirs]
    for step in range(5):
        for number, each in enumerate((*ours, *theirs)):
            each.grad = each.detach() * (step + 1) if step > 1 or number % 2 == 0 else None
        move(moving)
        for optimizer in apart:
            optimizer.step()
    assert all(own.equal(other) for own, other in zip(ours, theirs, strict=True))
