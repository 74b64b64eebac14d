"""Rows of a batch mixed two by two: how much of the other one is in each, and what becomes of images.

Rows that stand next to each other in the global batch are a pair, so both are on one rank and in one part of the batch; the batch
is shuffled, so any two rows may be. All is drawn from (seed, step, place). Knows nothing of losses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.config.training import Mix, MixName
from teachers.errors import RecipeError
from teachers.transfer_set.mixup import QUANTILES, quantiles
from teachers.transfer_set.views import below, draw

from ..objective.mixed import swapped
from ..objective.targets import Batch
from .draws import Views

NUMBER = 1 << 16
"""Of the draw among those of a row's augmentation."""
OWN, WHETHER, ROW, COLUMN = range(4)
"""What is drawn for a pair: the share of its own, whether it is mixed, where the rectangle is."""

Blend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images `[rows, height, width, channels]`, the share of its own f32 `[rows]`, seeds of pairs) to mixed images, f32."""


def mixup(images: Tensor, own: Tensor, seeds: Tensor) -> Tensor:
    """`own` of each image and 1 - `own` of the other one of its pair."""
    here = images.float()
    share = own[:, None, None, None]
    return torch.where(share < 1, share * here + (1 - share) * swapped(here), here)


def cutmix(images: Tensor, own: Tensor, seeds: Tensor) -> Tensor:
    """Each image with a rectangle of the other one of its pair, the same for both."""
    inside = rectangles(own, seeds, images.shape[1], images.shape[2])
    here = images.float()
    return torch.where(inside[..., None], swapped(here), here)


def rectangles(own: Tensor, seeds: Tensor, height: int, width: int) -> Tensor:
    """bool `[rows, height, width]`: around any pixel, of a part 1 - `own` of the image where nothing of it reaches over the border."""
    edge = (1 - own).clamp_min(0).sqrt()
    return _span(edge, height, seeds, ROW)[:, :, None] & _span(edge, width, seeds, COLUMN)[:, None, :]


def _span(edge: Tensor, size: int, seeds: Tensor, counter: int) -> Tensor:
    length = (edge * size).round().long()[:, None]
    first = below(size, seeds, counter)[:, None] - length // 2
    places = torch.arange(size, device=seeds.device)
    return (places >= first) & (places < first + length)


def _as_drawn(own: Tensor, seeds: Tensor, height: int, width: int) -> Tensor:
    return own


def _as_cut(own: Tensor, seeds: Tensor, height: int, width: int) -> Tensor:
    """What the rectangle leaves."""
    return 1 - rectangles(own, seeds, height, width).float().mean((1, 2))


MIXES: dict[MixName, tuple[Blend, Callable[[Tensor, Tensor, int, int], Tensor]]] = {
    "mixup": (mixup, _as_drawn),
    "cutmix": (cutmix, _as_cut),
}
"""By the recipe's word: how images are mixed, and how much of its own each then has."""


@dataclass(frozen=True)
class Mixing:
    """How the batches of one training are mixed. `by_labels`: whether a pair of which one row has a label and the other has none
    stays as it is, since nobody could say what the mixed row is."""

    mix: Mix
    height: int
    width: int
    by_labels: bool

    @classmethod
    def of(cls, mix: Mix | None, shapes: Mapping[str, tuple[int, ...]], *, by_labels: bool) -> "Mixing | None":
        """`shapes`: of a row, by input column. Raises RecipeError for inputs that are no images of one size."""
        if mix is None:
            return None
        for name, shape in shapes.items():
            if len(shape) != 3:
                raise RecipeError(
                    f"train.mix: `{mix.kind}` mixes images, and {name!r} is none; remove it, or see `transfer_set.munge` for tables"
                )
        if len({shape[:2] for shape in shapes.values()}) > 1:
            raise RecipeError(
                f"train.mix: the images {', '.join(shapes)} are of several sizes; give `transfer_set.image_size`"
            )
        height, width, _ = next(iter(shapes.values()))
        return cls(mix, height, width, by_labels)

    def own(self, batch: Batch, views: Views) -> Tensor:
        """How much of its own is in each row of the batch, f32 `[rows]`; 1: it is not mixed. The same for both of a pair."""
        drawn, seeds = self._drawn(batch, views)
        return MIXES[self.mix.kind][1](drawn, seeds, self.height, self.width)

    def inputs(self, canonical: Mapping[str, Tensor], batch: Batch, views: Views) -> dict[str, Tensor]:
        """The columns of a batch, mixed, f32; `canonical` after its augmentation."""
        drawn, seeds = self._drawn(batch, views)
        for name, images in canonical.items():
            if images.shape[1:3] != (self.height, self.width):
                raise RecipeError(
                    f"train.augment gives {name!r} as {list(images.shape[1:])}, and `train.mix` mixes images of {self.height} x "
                    f"{self.width}; keep their size"
                )
        return {name: MIXES[self.mix.kind][0](images, drawn, seeds) for name, images in canonical.items()}

    def _drawn(self, batch: Batch, views: Views) -> tuple[Tensor, Tensor]:
        seeds = views.seeds_of_pairs(NUMBER)
        table = quantiles(self.mix.alpha).to(seeds.device)
        own = table[(draw(seeds, OWN) >> 48) & (QUANTILES - 1)]
        stays = ((draw(seeds, WHETHER) >> 11) & ((1 << 53) - 1)).double() >= self.mix.share * 2.0**53
        if self.by_labels and "has_label" in batch:
            stays = stays | (batch["has_label"] != swapped(batch["has_label"]))
        return torch.where(stays, 1.0, own), seeds
