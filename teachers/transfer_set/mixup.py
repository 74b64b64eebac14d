"""Images of a view mixed with those of partners: who it is, how much of it, and the mean, in whole numbers.

All is drawn from a seed for each row and view, as the transforms are, so it is the same to the bit whoever asks. Knows nothing of
where rows and seeds come from.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .views import below, draw

OF_MIXUP = 1 << 16
"""Of the draw among those of a row's columns."""
SHARE, PARTNER = range(2)
"""What is drawn: how much of itself a row keeps, and with whom it is mixed."""
QUANTILES = 1 << 16
"""Of the distribution of shares."""
FRACTION = 12
"""Bits of a share: so many that rounding to whole pixels is all that can be seen of it."""
WHOLE = 1 << FRACTION
"""The share of a row that is not mixed."""
VALUES_AT_ONCE = 1 << 20
"""Bounds memory; nothing else depends on it."""


@cache
def quantiles(alpha: float) -> Tensor:
    """Of Beta(alpha, alpha), f32 `[QUANTILES]`: a table, so that a draw is the same on every device."""
    from scipy.special import betaincinv  # which labelling does without where nothing is mixed

    shares = betaincinv(alpha, alpha, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    return torch.from_numpy(shares.astype(np.float32))


def shares(alpha: float, seeds: Tensor) -> Tensor:
    """How much of itself each row keeps, from Beta(alpha, alpha) (Zhang et al., 2018), i64 `[rows]` of WHOLE; `seeds`: of its view."""
    return _table(alpha, seeds.device)[(draw(draw(seeds, OF_MIXUP), SHARE) >> 48) & (QUANTILES - 1)]


@cache
def _table(alpha: float, device: torch.device) -> Tensor:
    return (quantiles(alpha) * WHOLE).round().long().to(device)


def partners(seeds: Tensor, first: Tensor, num_rows: Tensor) -> Tensor:
    """With whom each row is mixed: one of the `num_rows` rows from `first` on, all i64 `[rows]`; it may be the row itself."""
    return first + below(num_rows, draw(seeds, OF_MIXUP), PARTNER)


def blended(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """`share` of each image and the rest of the other one, uint8 `[rows, height, width, channels]`, rounded."""
    rows = max(VALUES_AT_ONCE // max(images.shape[1:].numel(), 1), 1)
    parts = zip(*(torch.split(each, rows) for each in (images, others, share)), strict=True)
    return torch.cat([_blended(*part) for part in parts])


def _blended(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    own = share.int()[:, None, None, None]
    sums = images.int() * own + others.int() * (WHOLE - own)
    return ((sums + WHOLE // 2) >> FRACTION).to(images.dtype)
