"""What a teacher is, of whatever kind: the seam between foreign models and those who ask them. Knows nothing of any kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from ..config.any_teacher import OutputKind
from ..config.task import AnswerName
from ..tasks.boxes import BOX
from ..transfer_set.images import Resize
from .folded import Answer, Batch, Prepared
from .text import TextTransform


class Teacher(Protocol):
    """`classes` are what it scores (or the numbers that it gives), in the order of its columns; `output` is what they are,
    `answer` of what kind."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def answer(self) -> AnswerName: ...
    @property
    def output(self) -> OutputKind: ...
    @property
    def may_not_know(self) -> bool: ...
    @property
    def width(self) -> int:
        """Of what it says of a row: a column for each of `classes`, or so many boxes."""

    @property
    def text(self) -> TextTransform | None: ...
    @property
    def sees(self) -> Mapping[str, Resize]: ...
    @property
    def as_stored(self) -> bool:
        """Whether encoded images are given to it as they are stored: `bytes`."""

    @property
    def device(self) -> torch.device | None:
        """Where tensors of a batch may lie when it is called; None: it takes arrays."""

    def prepare(self, batch: Batch) -> Prepared:
        """(canonical inputs of many rows with what a call would first make of them on the CPU; the order in which they are
        best asked about, or None)."""

    def __call__(self, batch: Batch) -> Answer:
        """Canonical inputs `{column: [rows, ...]}`, prepared or not, to scores `[rows, width]`: finite, and NaN of what
        it knows nothing of, where it `may_not_know`; with its named outputs, where the recipe asks for some."""


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher of any kind."""

    classes: tuple[str, ...]
    output: OutputKind
    forward: Callable[[Batch], Answer]
    answer: AnswerName = "class_axis"
    may_not_know: bool = True
    """False of networks and estimators, which answer about every row: NaN is a mistake of theirs."""
    text: TextTransform | None = None
    """What it makes of text: rows may come with that made before."""
    preparing: Callable[[Batch], Prepared] | None = None
    network: nn.Module | None = None
    """Whose layers may be named; None: it has none."""
    positions: int | None = None
    """Tokens of the longest text, where a batch is padded to its own longest."""
    max_boxes: int = 0
    """Of a row, where it says boxes."""
    sees: Mapping[str, Resize] = field(default_factory=dict)
    """By column of encoded images, what makes of them what it takes; of others it takes what is there."""
    as_stored: bool = False
    """Whether it decodes encoded images itself, and sees them at their own size, whatever `image_size` others see them at."""
    device: torch.device | None = None
    """Of its network, where it takes tensors there as well as arrays."""
    gives_outputs: bool = False
    """Whether its answers have the recipe's named outputs already."""

    @property
    def width(self) -> int:
        return self.max_boxes * len(BOX) or len(self.classes)

    def prepare(self, batch: Batch) -> Prepared:
        return (batch, None) if self.preparing is None else self.preparing(batch)

    def __call__(self, batch: Batch) -> Answer:
        return self.forward(batch)
