"""Losses of layers of a student and of a teacher, row by row: maps `[rows, C, H, W]`, positions `[rows, L, D]`, vectors `[rows, D]`.

Both sides have one width here: projectors come before. Knows nothing of where a teacher's layer was kept.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from .maps import feature

hint = feature
"""FitNets' (Romero et al., 2015), the mean over elements: RepDistiller's and mdistiller's; the paper has half the sum."""


def attention(student: Tensor, teacher: Tensor, *, form: Literal["code", "paper"] = "code") -> Tensor:
    """Distance between the maps of attention of `[rows, C, H, W]`, widths may differ, per row `[rows]`.

    A map of attention is the mean square over channels, flattened, brought to length 1; the larger map is pooled to the
    smaller. `code`: the mean square of the difference, as the authors' code has it; `paper`: its length, their equation 2,
    some hundred times as large (Zagoruyko and Komodakis, 2017).
    """
    student, teacher = _of_one_size(student, teacher)
    difference = _attention_of(student) - _attention_of(teacher)
    return difference.square().mean(1) if form == "code" else difference.norm(dim=1)


def channel_wise(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 / C times the sum over channels of KL(teacher || student) of a softmax over the positions of a channel divided by T,
    of maps `[rows, C, H, W]`, the larger pooled to the smaller; per row `[rows]` (CWD: Shu et al., 2021)."""
    student, teacher = _of_one_size(student, teacher)
    student_log_p = F.log_softmax(student.flatten(2) / temperature, -1)
    teacher_log_p = F.log_softmax(teacher.flatten(2) / temperature, -1)
    divergence = F.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True).sum(-1)
    return temperature**2 * divergence.mean(1)


def linear_embedding(student: Tensor, teacher: Tensor) -> Tensor:
    """||F^t - Q F^s||^2, `student` being Q F^s: the squared distance over channels, its mean over positions, per row `[rows]`.

    Maps `[rows, C, H, W]`, positions `[rows, L, D]`, vectors `[rows, D]` (Wang et al., 2020, where it is a sum over positions).
    """
    squares = F.mse_loss(student, teacher, reduction="none")
    channels = 1 if squares.ndim == 4 else squares.ndim - 1
    return squares.sum(channels).flatten(1).mean(1) if squares.ndim > 2 else squares.sum(1)


def _attention_of(maps: Tensor) -> Tensor:
    """f `[rows, H * W]`, of length 1."""
    return F.normalize(maps.square().mean(1).flatten(1))


def _of_one_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The larger map pooled to the size of the smaller, by adaptive means."""
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return _pooled(one, size), _pooled(other, size)


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)
