"""Rows that their expert finds hard count less in `hard` at first (LFME's instance curriculum): where each begins, and what it counts.

Knows nothing of batches, nor of how steps come.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.errors import RecipeError

from .targets import Asked, Batch
from .voices import Chorus, Voice

START = "curriculum.start"
"""Of a batch: what each row counts before the first step, f32 `[rows]`."""
NOW = "curriculum.now"
"""What it counts in this step."""


def risen(start: Tensor, step: int, rise: int) -> Tensor:
    """What rows count in step `step`, counted from 0: on a line from `start` to 1, which they reach at step `rise`, and 1 from there on."""
    return start + (1 - start) * min(1.0, step / rise)


def labels_by_curriculum(batch: Batch) -> Asked:
    """Of a term that compares with labels; it is a mean over the labelled rows, of which each counts at most 1."""
    now, has_label = batch[NOW], batch.get("has_label")
    return Asked(batch["label"], now if has_label is None else now * has_label)


def starts(voices: Sequence[Voice], labels: NDArray[np.int32], key: str) -> Tensor:
    """f32 `[N]` of labels i32 `[N]`, -1 where there is none; there, and where no expert knows the class, it is 1.

    Raises RecipeError, which begins with `key`, for an expert that is live: it says nothing of a row before its step.
    """
    if live := [voice.name for voice in voices if voice.is_live]:
        raise RecipeError(
            f"{key}.curriculum asks experts about every row before the first step, and {live[0]!r} is live; say "
            f"`curriculum: null`, or `teachers.{live[0]}.mode: cached`"
        )
    confidence, known = confidences(voices, labels)
    return between(confidence, labels, least_of_classes(known, labels))


def confidences(voices: Sequence[Voice], labels: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(how sure of each row's label whoever knows the class is, over its own classes at T = 1, f32 `[N]`, NaN where nobody does;
    who knows which class, bool `[K, C]`)."""
    chorus = Chorus(voices)
    found = np.full(len(labels), math.nan, np.float32)
    for rows, said, known in chorus.in_chunks(len(labels)):
        own = torch.from_numpy(labels[rows].astype(np.int64))
        place = own.clamp_min(0)[None, :, None].expand(len(said), -1, 1)
        sure = said.masked_fill(~known, -torch.inf).log_softmax(-1).gather(2, place)[..., 0].exp()
        mine = known.gather(2, place)[..., 0] & (own >= 0)
        found[rows] = sure.masked_fill(~mine, -1.0).amax(0).where(mine.any(0), torch.tensor(math.nan)).numpy()
    return found, chorus.known[:, 0].numpy()


def least_of_classes(known: NDArray[np.bool_], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """What the hardest row of each class begins with, f64 `[C]`: with n the mean number of rows of an expert's classes, the
    smallest n of all experts over that of the class's own; `known`: bool `[K, C]`.

    So few-shot classes begin at 1, and others the lower the more rows they have: 12/53 and 12/230 on ImageNet-LT.
    """
    counts = np.bincount(labels[labels >= 0], minlength=known.shape[1])
    sizes = np.array([counts[mine].mean() if mine.any() else 0.0 for mine in known])
    sizes = np.where(sizes > 0, sizes, np.inf)  # of an expert without a row nothing can begin
    least = np.ones(known.shape[1])
    for mine, size in zip(known, sizes, strict=True):
        least[mine] = min(sizes.min() / size, 1.0) if np.isfinite(size) else 1.0
    return least


def between(confidence: NDArray[np.float32], labels: NDArray[np.int32], least: NDArray[np.float64]) -> Tensor:
    """Confidences f32 `[N]` brought, class by class, from their least and largest to [`least`, 1]; 1 where they are all one."""
    found = np.ones(len(labels), np.float32)
    for number, low in enumerate(least):
        rows = np.flatnonzero((labels == number) & ~np.isnan(confidence))
        if not len(rows):
            continue
        own = confidence[rows].astype(np.float64)
        spread = own.max() - own.min()
        if spread > 0:
            found[rows] = low + (1 - low) * (own - own.min()) / spread
    return torch.from_numpy(found)
