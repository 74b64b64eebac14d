"""How what layers give is kept: in float16, one flat list a row. Knows nothing of layers.

What float16 does not hold is refused, not clamped: features that are cut off teach something else than they seem to.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from torch import Tensor

from .encoding import Encoding, Field

FeaturesName = Literal["features"]
HalfName = Literal["half"]
LARGEST = 65_504.0
"""Of float16."""


def _fields(width: int) -> tuple[Field, ...]:
    return (Field("value", np.dtype("<f2"), (width,)),)


def _encode(features: Tensor) -> dict[str, Tensor]:
    return {"value": features.half()}


def _decode(fields: Mapping[str, Tensor], width: int, probability_floor: float) -> Tensor:
    return fields["value"].float()


FEATURES: dict[HalfName, Encoding] = {"half": Encoding("features", _fields, _encode, _decode)}


def bytes_of(shape: tuple[int, ...]) -> int:
    """Of one row on disk."""
    return 2 * int(np.prod(shape, dtype=np.int64))
