"""Losses of stage maps, whatever a task says of a row."""

import torch.nn.functional as F
from torch import Tensor


def feature(projected: Tensor, target: Tensor) -> Tensor:
    """Mean square over all elements of stage maps `[rows, ...]`, per row `[rows]` (FitNets' hint, Romero et al., 2015)."""
    return F.mse_loss(projected, target, reduction="none").flatten(1).mean(1)


def channel(projected: Tensor, target: Tensor) -> Tensor:
    """Mean square between channel means of maps `[rows, channels, ...]`, per row `[rows]` (OMGD, Ren et al., 2021)."""
    return (_channel_means(projected) - _channel_means(target)).square().mean(1)


def _channel_means(maps: Tensor) -> Tensor:
    return maps.flatten(2).mean(2) if maps.ndim > 2 else maps
