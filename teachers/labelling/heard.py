"""What a teacher says of a batch of rows, as it is stored or sent. Knows nothing of who asks."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Heard(NamedTuple):
    """Of rows."""

    logits: np.ndarray
    """f32 `[rows, C]`, or numbers; NaN of what it knows nothing of."""
    more: Mapping[str, np.ndarray]
    """Its named outputs, f32 `[rows, *shape]`."""


LiveAnswer = np.ndarray | Heard
"""Of who has no named outputs the logits alone."""
