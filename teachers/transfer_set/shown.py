"""From rows as they are to rows as a view shows them. Knows nothing of where rows are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RecipeError
from ..users_code.calls import calling
from ..users_code.imports import load
from .mixup import blended, shares
from .viewing import MIXUP, Viewing
from .views import TRANSFORMS, draw, seeds_of_views


@dataclass(frozen=True)
class Others:
    """The rows that rows are mixed with, one for each, as they are: columns `[rows, ...]`, and the bits of their keys, i64 `[rows]`."""

    columns: Mapping[str, Tensor]
    sample_key: Tensor


def shown(
    viewing: Viewing, columns: Mapping[str, Tensor], sample_key: Tensor, views: Tensor, others: Others | None = None
) -> dict[str, Tensor]:
    """Canonical inputs `[rows, ...]` as they are seen; `sample_key`: the bits of u64 as i64 `[rows]`, `views`: i64 `[rows]`;
    `others`: of views that are mixed, in which what comes before `mixup` moves the other row as it does in its own view.

    Images `[rows, height, width, channels]` are moved, each column by its own draw, other columns stay. Raises RecipeError
    where there is no image, or a function gives another shape.
    """
    moved = views > 0
    if not bool(moved.any()):
        return dict(columns)
    images = [name for name, column in columns.items() if column.ndim == 4]
    if not images:
        raise RecipeError("transfer_set.transform moves images, and this transfer set has none; remove `views`")
    seeds = seeds_of_views(viewing.seed, sample_key, views)
    found, steps = dict(columns), [*enumerate(viewing.transform)]
    for place, name in enumerate(images):
        of_column = draw(seeds, place)
        if viewing.mixes:
            assert others is not None
            both = torch.cat([found[name], others.columns[name]])
            of_both = torch.cat([of_column, draw(seeds_of_views(viewing.seed, others.sample_key, views), place)])
            at = viewing.transform.index(MIXUP)
            own, other = _by_steps(steps[:at], both, of_both).split(len(views))
            mixed = blended(own, other, shares(viewing.alpha, seeds))
            found[name] = _by_steps(steps[at + 1 :], mixed, of_column)
        else:
            found[name] = _by_steps(steps, found[name], of_column)
        found[name] = torch.where(moved[:, None, None, None], found[name], columns[name])
    return found


def _by_steps(steps: Sequence[tuple[int, str]], images: Tensor, seeds: Tensor) -> Tensor:
    """`steps`: each with its number, by which it draws."""
    for number, step in steps:
        images = _by_step(step, images, draw(seeds, number))
    return images


def _by_step(step: str, images: Tensor, seeds: Tensor) -> Tensor:
    if step in TRANSFORMS:
        return TRANSFORMS[step](images, seeds)
    with calling("transfer_set.transform", step):
        found = load(step)(images, seeds)
        if not isinstance(found, Tensor) or found.shape != images.shape or found.dtype != images.dtype:
            given = f"{found.dtype} {[*found.shape]}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"gives {given}; a view has the shape and dtype of the images, {images.dtype} {[*images.shape]}"
            )
        return found
