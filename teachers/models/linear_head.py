"""A network's last layer as a function of one of its other layers: for who would have something else in that one's place.

Knows nothing of who that is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.outputs import NamedOutput
from ..errors import RecipeError
from .captured import layer_of
from .heads import head_in, other_numbers_at


def as_it_is(layer: Tensor) -> Tensor:
    return layer


def mean_over_positions(layer: Tensor) -> Tensor:
    """`[rows, C, H, W]` to `[rows, C]`, `[rows, L, D]` to `[rows, D]`."""
    return layer.mean((2, 3)) if layer.ndim == 4 else layer.mean(1)


def flattened(layer: Tensor) -> Tensor:
    return layer.flatten(1)


WAYS: tuple[Callable[[Tensor], Tensor], ...] = (as_it_is, mean_over_positions, flattened)
"""From a layer to what a head is given of it."""


@dataclass(frozen=True)
class LinearHead:
    """The last layer: `weight` f `[width, features]`, `bias` f `[width]`, and `way`, one of WAYS."""

    weight: Tensor
    bias: Tensor | None
    way: Callable[[Tensor], Tensor]

    def __call__(self, layer: Tensor) -> Tensor:
        """What is in place of the layer, f `[rows, ...]`, to the network's scores `[rows, width]`, in its precision."""
        bias = None if self.bias is None else self.bias.to(layer)
        return F.linear(self.way(layer), self.weight.to(layer), bias)

    def to(self, device: torch.device) -> "LinearHead":
        """The same there: nothing is moved in a step."""
        bias = None if self.bias is None else self.bias.to(device)
        return LinearHead(self.weight.to(device), bias, self.way)


def linear_head(network: nn.Module, inputs: Any, width: int, output: NamedOutput) -> LinearHead:
    """The last layer of `network`, which gives `[rows, width]`, behind what is kept of one of its layers as `output`.

    `inputs`: of two rows. Raises RecipeError where the last layer is not linear, or where something else lies between them.
    """
    path = head_in(network, inputs, width)
    head = layer_of(network, path)
    if not isinstance(head, nn.Linear):
        raise RecipeError(
            f"the last layer of this {type(network).__name__}, {path!r}, is a {type(head).__name__}, and only a linear one is "
            f"read; remove this"
        )
    given: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    try:
        with other_numbers_at(network, output.layer) as instead:
            network(inputs)
    finally:
        hook.remove()
    ways = [mean_over_positions] if output.pool else WAYS
    found = next((way for way in ways if instead and _is_given(way, instead[-1], given[-1])), None)
    if found is None:
        raise RecipeError(
            f"the last layer, {path!r}, is not given what {output.layer!r} gives, nor its mean over positions, nor all of it in a row: "
            f"name under `outputs` the layer right before it"
        )
    bias = None if head.bias is None else head.bias.detach()
    return LinearHead(head.weight.detach(), bias, as_it_is if output.pool else found)


def _is_given(way: Callable[[Tensor], Tensor], layer: Tensor, given: Tensor) -> bool:
    if way is mean_over_positions and layer.ndim not in (3, 4):
        return False
    found = way(layer)
    return found.shape == given.shape and torch.allclose(found, given.to(found), rtol=1e-3, atol=1e-4)
