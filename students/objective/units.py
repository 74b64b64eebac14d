"""Numbers in the units of the label, as teachers say them, and standardised, as networks learn them."""

import torch
from torch import Tensor

from teachers.tasks.space import Space


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
