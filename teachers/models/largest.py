"""Of many classes the most probable few, as tables of soft targets keep them (top-k): which they are, and how probable each is.

What is left of the probability is spread evenly over the other classes: of what a file does not say that is the least wrong.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import TeacherError

TOLERANCE = 1e-2
"""By which probabilities, perhaps of half precision, may sum to more than 1."""


def dense(
    values: pa.Array, indices: pa.Array, width: int, positions: Sequence[str], *, logs: bool
) -> NDArray[np.float32]:
    """Probabilities f32 [rows, width] of lists of (`logs`: the logarithms of) some and the places of their classes; NaN for null.

    Raises TeacherError that names the first row whose lists do not fit.
    """
    counts = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    others = pc.fill_null(pc.list_value_length(indices), 0).to_numpy(zero_copy_only=False)
    _check(np.equal(counts, others), positions, lambda row: f"{counts[row]} scores of {others[row]} classes")
    parents = np.asarray(pc.list_parent_indices(values), np.int64)
    try:
        p = pc.list_flatten(values).cast(pa.float64()).to_numpy(zero_copy_only=False)
        at = pc.fill_null(pc.list_flatten(indices).cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise TeacherError(f"{positions[0]}: lists of numbers are expected ({error})") from None
    p = np.exp(p) if logs else p
    _check_elements((at >= 0) & (at < width), parents, positions, f"a class beyond 0 to {width - 1}")
    _check_elements(np.isfinite(p) & (p >= 0), parents, positions, "a score that is no probability")
    said = np.bincount(parents * width + at, minlength=len(values) * width).reshape(-1, width)
    _check(np.less_equal(said.max(1, initial=0), 1), positions, lambda row: f"class {int(said[row].argmax())} twice")
    mass = np.bincount(parents, p, minlength=len(values))
    _check(mass <= 1 + TOLERANCE, positions, lambda row: f"probabilities that sum to {mass[row]:.4g}")
    rest = np.clip(1 - mass, 0, None) / np.maximum(width - counts, 1)
    found = np.repeat(rest[:, None], width, 1)
    found[parents, at] = p
    with np.errstate(invalid="ignore"):
        found /= found.sum(1, keepdims=True)
    found[(counts == 0) | ~np.asarray(values.is_valid())] = np.nan
    return found.astype(np.float32)


def _check_elements(right: NDArray[np.bool_], parents: NDArray[np.int64], positions: Sequence[str], what: str) -> None:
    if not right.all():
        raise TeacherError(
            f"{positions[parents[np.flatnonzero(~right)[0]]]}: {what}; {int((~right).sum())} here are so"
        )


def _check(right: NDArray[np.bool_], positions: Sequence[str], what: Callable[[int], str]) -> None:
    if not right.all():
        row = int(np.flatnonzero(~right)[0])
        raise TeacherError(f"{positions[row]}: {what(row)}; {int((~right).sum())} rows here are so")
