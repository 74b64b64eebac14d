"""Where a step's random numbers come from: from seed, step and place in the global batch, and from nothing else.

So neither the number of workers nor a resumed run changes them. What acts on rows one by one draws by row. What draws
for many rows at once, dropout above all, draws by part: one of the `workers * accumulate` equal parts of a batch. Knows
nothing of networks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import xxhash
from torch import Generator, Tensor

from teachers.transfer_set.views import draw

PLACE = "place"
"""Column of a batch: where each row stands in the global batch, i64 `[rows]`."""


def step_seed(seed: int, step: int, number: int) -> int:
    """Of draw `number` of a step, 63 bits."""
    return xxhash.xxh3_64_intdigest(b"%d %d %d" % (seed, step, number)) >> 1


def equal_parts(rows: int, parts: int) -> list[slice]:
    return [slice(number * rows // parts, (number + 1) * rows // parts) for number in range(parts)]


class Views(NamedTuple):
    """From what one step draws its augmentation."""

    seed: int
    step: int
    places: Tensor
    """Of the rows in the global batch, i64 `[rows]`."""
    parts: Sequence[slice]
    """Of the rows that are here."""
    first_part: int
    """The number of the first of these among all parts of the global batch."""
    generator: Generator

    def seeds(self, number: int) -> Tensor:
        """A seed for each row, i64 `[rows]`; `number` tells the transforms of a row apart."""
        return draw(torch.full_like(self.places, self._seed(number)), self.places)

    def seeds_of_pairs(self, number: int) -> Tensor:
        """A seed for each two rows next to each other, the same for both, i64 `[rows]`."""
        pairs = self.places >> 1
        return draw(torch.full_like(pairs, self._seed(number)), pairs)

    def generators(self, number: int) -> Iterator[tuple[slice, Generator]]:
        """Each part of the rows, and a generator for it."""
        for part, rows in enumerate(self.parts, self.first_part):
            yield rows, self.generator.manual_seed(self._seed(number) ^ part)

    def _seed(self, number: int) -> int:
        return step_seed(self.seed, self.step, -1 - number)  # dropout of the step has the numbers from 0
