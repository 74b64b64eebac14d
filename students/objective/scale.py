"""Mean and standard deviation of numbers of which no row has a label: of what teachers say of the training rows.

Networks learn numbers in these units, and their folders say so. Knows nothing of networks.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from teachers.errors import DataError, RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .stores import open_store, said_in


def with_scale(transfer_set: TransferSet, sources: Sequence[Source]) -> TransferSet:
    """The same rows with a space whose numbers have a scale; it has one already where labels say it, and where there are classes.

    Each row counts once, by the mean over the teachers that know it. Raises RecipeError where nobody has said anything yet,
    DataError for a number that is the same in all rows.
    """
    space = transfer_set.space
    if space.has_classes or space.mean:
        return transfer_set
    heard = [source for source in sources if source.live is None]
    if not heard:
        raise RecipeError(
            "transfer_set.label is null, so the scale of the numbers is that of what teachers say of the training rows, and none "
            "has labelled these: give a teacher that is not live"
        )
    said = torch.stack([_said(source, transfer_set) for source in heard]).nanmean(0)
    mean, scale = _moments(said)
    for name, spread in zip(space.names, scale, strict=True):
        if math.isnan(spread):
            raise DataError(
                f"no teacher says anything of {name!r}, so nobody knows its scale; leave it out of `classes`"
            )
        if not spread > 0:
            raise DataError(f"teachers say the same {name!r} of every training row: there is nothing to learn")
    return replace(transfer_set, space=replace(space, mean=mean, scale=scale))


def _said(source: Source, transfer_set: TransferSet) -> Tensor:
    """f64 `[rows, numbers]` in the transfer set's order, NaN where it knows nothing."""
    parts = []
    for segment in transfer_set.of("train"):
        store = open_store(source, transfer_set, segment)
        parts.append(said_in(store, source, transfer_set.space).double())
    return torch.cat(parts)


def _moments(said: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each column of f64 `[rows, numbers]`."""
    mean = said.nanmean(0)
    scale = ((said - mean) ** 2).nanmean(0).sqrt()
    return tuple(mean.tolist()), tuple(scale.tolist())
