"""The budget in steps, optimisers and schedules of the learning rate. Knows nothing of losses or data."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from teachers.config.training import OptimizerName, ScheduleName, TrainConfig

DEFAULT_STEPS = 1000
LOOKS = 20
"""At validation, in the course of a training; fewer where they would cost more than a tenth of it."""
SHARE_OF_LOOKS = 0.1
"""Most that all looks together read, of the rows that all steps train on. A row that is looked at takes no backward pass, so of the time it is less."""


def resolve_steps(train: TrainConfig, num_rows: int) -> int:
    """Optimiser steps of a training that draws from `num_rows` rows.

    Asked once, with the student's rows: the control then gets the same number, not the same number of epochs.
    """
    if train.steps is not None:
        return train.steps
    if train.epochs is None:
        return DEFAULT_STEPS
    return max(1, math.ceil(train.epochs * num_rows / train.batch_size))


def resolve_evaluate_every(train: TrainConfig, steps: int, validation_rows: int) -> int:
    """Steps between two looks at `validation_rows`; the last step is always followed by one."""
    if train.evaluate_every is not None:
        return train.evaluate_every
    affordable = int(SHARE_OF_LOOKS * steps * train.batch_size / max(validation_rows, 1))
    return max(1, math.ceil(steps / max(1, min(LOOKS, affordable))))


def adamw(parameters: Iterable[Parameter], train: TrainConfig, fused: bool) -> Optimizer:
    return AdamW(parameters, lr=train.learning_rate, weight_decay=train.weight_decay, fused=fused)


def sgd(parameters: Iterable[Parameter], train: TrainConfig, fused: bool) -> Optimizer:
    return SGD(
        parameters,
        lr=train.learning_rate,
        momentum=train.momentum,
        nesterov=train.momentum > 0,
        weight_decay=train.weight_decay,
        fused=fused,
    )


OPTIMIZERS: dict[OptimizerName, Callable[[Iterable[Parameter], TrainConfig, bool], Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
}


def make_optimizer(parameters: Iterable[Parameter], train: TrainConfig, device: torch.device) -> Optimizer:
    """The recipe's optimiser; fused where torch can, which saves most of a tiny network's step."""
    return OPTIMIZERS[train.optimizer](parameters, train, device.type in ("cpu", "cuda"))


def move(optimizer: Optimizer) -> None:
    """`optimizer.step()`, to the bit: the kernel that it ends in, called at once.

    What torch does before that (a record for profilers, hooks, what the first step has found out) is a fifth of a tiny network's step.
    """
    (group,) = optimizer.param_groups
    moved = [each for each in group["params"] if each.grad is not None]
    states = [optimizer.state[each] for each in moved]
    if group.get("momentum") and any(states):  # torch's fused SGD fails where a first gradient comes later than others'
        for parameter, state in zip(moved, states, strict=True):
            state.setdefault("momentum_buffer", torch.zeros_like(parameter))
    if not (group["fused"] and all(states) and len({(each.device, each.dtype) for each in moved}) == 1):
        optimizer.step()  # the first step makes the states
        return
    with torch.no_grad():
        KERNELS[type(optimizer)](group, moved, [each.grad for each in moved], states)


def _move_by_adamw(group: Any, moved: list[Tensor], gradients: list[Any], states: list[dict[str, Tensor]]) -> None:
    averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
    (beta1, beta2), told = group["betas"], {name: group[name] for name in ("lr", "weight_decay", "eps")}
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        moved, gradients, averages, squares, [], steps,
        beta1=beta1, beta2=beta2, amsgrad=False, maximize=False, **told,
    )  # fmt: skip


def _move_by_sgd(group: Any, moved: list[Tensor], gradients: list[Any], states: list[dict[str, Tensor]]) -> None:
    told = {name: group[name] for name in ("lr", "weight_decay", "momentum", "nesterov", "dampening")}
    buffers = [state["momentum_buffer"] for state in states]
    torch._fused_sgd_(moved, gradients, buffers, maximize=False, is_first_step=False, **told)


KERNELS = {AdamW: _move_by_adamw, SGD: _move_by_sgd}


def one_cycle(step: int, steps: int) -> float:
    """Up from 1/25 over the first 30% and down to 1/250,000, both along a cosine (Smith and Topin, 2018)."""
    top, last = 0.3 * steps - 1, steps - 1
    if step <= top:
        return _along_cosine(1 / 25, 1.0, step / top)
    return _along_cosine(1.0, 1 / 25e4, (step - top) / (last - top))


def cosine(step: int, steps: int) -> float:
    """From 1 to 0 along a cosine (Loshchilov and Hutter, 2017, without restarts)."""
    return _along_cosine(1.0, 0.0, step / steps)


def constant(step: int, steps: int) -> float:
    return 1.0


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[ScheduleName, Callable[[int, int], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "constant": constant,
}
"""Factor of `learning_rate` at a step, counted from 0, of a budget of `steps`."""
