"""What layers of teachers give of the training rows: from a store, or with every batch of a live teacher, in one form.

Knows nothing of what a student's own layers give, nor of losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.errors import RecipeError, StoreError
from teachers.rows.rows import Rows
from teachers.transfer_set.merged import MergedSplit

from ..runs.run import Source
from .stores import open_store


@dataclass(frozen=True)
class FeatureVoice:
    """One named output of one teacher. `columns`: what a reader has to bring, f16 and flat; of a live teacher none, whose
    batches have it."""

    column: str
    columns: dict[str, Rows]
    shape: tuple[int, ...]
    """Of a row."""

    @property
    def nbytes(self) -> int:
        """Of all rows, as they are stored."""
        return sum(column.nbytes for column in self.columns.values())

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """f32 `[rows, *shape]`, on the batch's device."""
        return batch[self.column].float().reshape(-1, *self.shape)


def feature_column(teacher: str, output: str) -> str:
    """Of a batch."""
    return f"{teacher}.{output}.value"


def feature_voice(source: Source, output: str, train: MergedSplit) -> FeatureVoice:
    """Raises RecipeError for an output that the teacher has not, StoreError for stores without it or of other rows."""
    if output not in source.outputs:
        there = ", ".join(map(repr, source.outputs)) or "none"
        raise RecipeError(
            f"teacher {source.name!r} has no output {output!r}; it has {there}: name one under `teachers.{source.name}.outputs`"
        )
    column, shape = feature_column(source.name, output), tuple(source.outputs[output])
    if source.live is not None:
        return FeatureVoice(column, {}, shape)
    parts = []
    for segment in train.in_views():
        store = open_store(source, train.transfer_set, segment)
        if output not in store.spec.layers or store.spec.layers[output].shape != shape:
            raise StoreError(
                f"{source.stores[segment.name]} holds no {output!r} of {list(shape)} a row; run the recipe again to label with it"
            )
        parts.append(store.rows(store.spec.layers[output])["value"])
    return FeatureVoice(column, {column: train.column_in_views(parts)}, shape)


SEEN_AT_MOST = 65_536
"""Rows by which an output is standardised, as far apart as there are rows between them."""


@dataclass(frozen=True)
class Standard:
    """An output less its mean, over one scale. `mean`: f32, of each channel, `[C, 1, 1]` of maps, else `[C]`.

    PHI-S (Ranzinger et al., 2024) also turns the output, so that all its channels vary alike; a squared distance
    is the same before a turn and behind it, so what is left of it here is the mean and the scale.
    """

    mean: Tensor
    scale: float

    @classmethod
    def of(cls, voice: FeatureVoice) -> "Standard":
        """By training rows: `scale` is the root of the mean over channels of their variances."""
        column = voice.columns[voice.column]
        seen = min(column.num_rows, SEEN_AT_MOST)
        rows = torch.empty(seen, *column.shape, dtype=column.dtype)
        column.gather((torch.arange(seen) * column.num_rows // seen).numpy(), rows)
        axes, kept = ((0, 2, 3), (-1, 1, 1)) if len(voice.shape) == 3 else ((*range(len(voice.shape)),), (-1,))
        variance, mean = torch.var_mean(rows.reshape(seen, *voice.shape).double(), axes, correction=0)
        scale = float(variance.mean().sqrt())
        if scale == 0:
            raise RecipeError("the output is the same in every training row, so it has no scale; remove the hint")
        return cls(mean.float().reshape(kept), scale)

    def __call__(self, output: Tensor) -> Tensor:
        """f32 `[rows, *shape]` of the same."""
        return (output - self.mean.to(output.device)) / self.scale
