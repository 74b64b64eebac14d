"""Rows of a batch that cannot be used, and why."""

from collections.abc import Callable
from typing import Any

import numpy as np

Bad = dict[int, str]
"""Row of the batch: why it cannot be used."""


def tell(bad: Bad, wrong: Any, reason: Callable[[int], str]) -> None:
    """Put the rows of `wrong`, bool [rows], to `bad`, but for those that have a reason already."""
    for row in np.flatnonzero(wrong).tolist():
        if row not in bad:
            bad[row] = reason(row)
