"""Over the peers that a member follows. Knows nothing of what they say."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor


def over_peers(
    loss: Callable[..., Tensor], student: Tensor, target: Tensor, *, reduce: Literal["mean", "sum"], **keywords: Any
) -> Tensor:
    """`loss` with each of `target` `[rows, peers, width]`, their mean or sum per row `[rows]`."""
    total = torch.stack([loss(student, one, **keywords) for one in target.unbind(1)]).sum(0)
    return total / target.shape[1] if reduce == "mean" else total
