"""Parts of a batch. All of its rows are handed on as they are: a tiny network feels every view. Knows nothing of what they mean."""

from collections.abc import Sequence

from torch import Tensor

from .targets import Asked


def some(values: Tensor, part: slice) -> Tensor:
    """Consecutive rows of `[rows, ...]`."""
    return values if part.stop - part.start == values.shape[0] else values[part]


def slices(asked: Sequence[Asked], part: slice) -> Sequence[Asked]:
    """The same of what terms compare the student with."""
    if part.stop - part.start == asked[0].target.shape[0]:
        return asked
    return [Asked(*(None if each is None else each[part] for each in one)) for one in asked]  # type: ignore[arg-type]
