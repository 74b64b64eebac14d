"""Numbers in the units of the label, as teachers say them, and standardised, as networks learn them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from teachers.tasks.space import Space

OWN_SHARE = "own_share"
"""Of a batch in views that are mixed: how much of itself is in each row, f32 `[rows]`."""


class Units:
    """Of one space; what is said of classes stays as it is. Worked out in float64: a year is far from its mean."""

    def __init__(self, space: Space) -> None:
        self.has_none = not space.mean
        self.mean = torch.tensor(space.mean, dtype=torch.float64)
        self.scale = torch.tensor(space.scale, dtype=torch.float64)

    def standardised(self, values: Tensor) -> Tensor:
        """Of f32 `[..., width]` in the units of the label."""
        if self.has_none:
            return values
        self._to(values.device)
        return ((values.double() - self.mean) / self.scale).to(values.dtype)

    def of_label(self, values: Tensor) -> Tensor:
        """Of standardised f32 `[..., width]`."""
        if self.has_none:
            return values
        self._to(values.device)
        return (values.double() * self.scale + self.mean).to(values.dtype)

    def _to(self, device: torch.device) -> None:
        if self.mean.device != device:
            self.mean, self.scale = self.mean.to(device), self.scale.to(device)


def usable_labels(batch: Mapping[str, Tensor]) -> Tensor:
    """i64 `[rows]`, -1 where a row has no label that may be used, as a row of two has none; f32 `[rows, width]`, NaN there."""
    label, of = batch["label"], [batch[name] > 0 for name in ("has_label",) if name in batch]
    if OWN_SHARE in batch:
        of.append(batch[OWN_SHARE] >= 1)
    if not of:
        return label
    may_be_used = torch.stack(of).all(0).reshape(-1, *[1] * (label.ndim - 1))
    return torch.where(may_be_used, label, torch.nan if label.is_floating_point() else -1)
