"""Out of fold: a teacher in parts, each of which has not seen one fold of the rows that the others learnt.

Knows nothing of how a part is trained, nor of stores. A part is a teacher of any kind.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.any_teacher import OutputKind
from ..config.task import AnswerName
from ..tasks.boxes import width_of
from ..transfer_set.folds import NOT_LEARNT, Folds
from ..transfer_set.images import Resize
from ..transfer_set.transfer_set import Segment, TransferSet
from .scores import tensor_of
from .text import TextTransform

Scores = np.ndarray | Tensor
Batch = Mapping[str, np.ndarray]
Prepared = tuple[Batch, NDArray[np.intp] | None]


class Said(NamedTuple):
    """Scores `[rows, classes]`, and by name what else is given of each row, f32 `[rows, *shape]`."""

    scores: Scores
    more: Mapping[str, Tensor]


Answer = Scores | Said
Part = Callable[[Batch], Answer]


@dataclass(frozen=True)
class FoldedTeacher:
    """Called, it answers for rows that no part has learnt: the mean of all parts, or the one that was trained again.

    So it is with what layers give; every part speaks in features of its own.
    """

    classes: tuple[str, ...]
    output: OutputKind
    folds: Folds
    folder: Path
    parts: Sequence[Part]
    """By fold; then the whole, where there is one."""
    answer: AnswerName = "class_axis"
    may_not_know: bool = False
    text: TextTransform | None = None
    max_boxes: int = 0
    sees: Mapping[str, Resize] = field(default_factory=dict)
    as_stored: bool = False
    device: torch.device | None = None
    """Its parts take arrays."""

    @property
    def width(self) -> int:
        return width_of(self.classes, self.max_boxes)

    def prepare(self, batch: Batch) -> Prepared:
        return batch, None

    def __call__(self, batch: Batch) -> Answer:
        if self.folds.refit:
            return self.parts[-1](batch)
        assert not self.max_boxes, "boxes of several have no mean: such a teacher is trained again on all rows"
        said = [said_of(part(batch)) for part in self.parts]
        scores = mean_said([_tensor(each.scores) for each in said], self.output, self.answer)
        more = {name: torch.stack([each.more[name].cpu() for each in said]).mean(0) for name in said[0].more}
        return answered(scores, more)

    def fold_of(self, transfer_set: TransferSet, segment: Segment) -> NDArray[np.int16]:
        """For `out_of_fold`, of all rows of `segment`."""
        return self.folds.of_rows(transfer_set.of_classes(self.classes), segment, self.folder)

    def out_of_fold(self, batch: Batch, fold: NDArray[np.int16]) -> Answer:
        """Scores f32 [rows, C], and what else is given: of a row in `fold` by the part that has not seen it, of others as
        when called."""
        scores, more = torch.empty(len(fold), self.width), dict[str, Tensor]()
        for number, rows in _apart(fold):
            ask: Part = self if number == NOT_LEARNT else self.parts[number]
            said = said_of(ask({name: column[rows] for name, column in batch.items()}))
            scores[torch.from_numpy(rows)] = _tensor(said.scores)
            for name, values in said.more.items():
                out = more.setdefault(name, torch.empty(len(fold), *values.shape[1:]))
                out[torch.from_numpy(rows)] = values.cpu()
        return answered(scores, more)


def _apart(fold: NDArray[np.int16]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    for number in np.unique(fold).tolist():
        yield number, np.flatnonzero(fold == number)


def answered(scores: Scores, more: Mapping[str, Tensor]) -> Answer:
    """The scores alone, where nothing else is given."""
    return Said(scores, more) if more else scores


def said_of(answer: Answer) -> Said:
    """An answer, of whoever gives nothing but scores too."""
    return answer if isinstance(answer, Said) else Said(answer, {})


def _tensor(scores: Scores) -> Tensor:
    return tensor_of(scores).detach().to("cpu", torch.float32)


def mean_said(said: Sequence[Tensor], output: OutputKind, answer: AnswerName = "class_axis") -> Tensor:
    """The mean of the probabilities, or of the numbers, of several, f32 [rows, C], as what each of them says: `output`."""
    stacked = torch.stack(list(said))
    if output in ("probabilities", "values"):
        return stacked.mean(0)
    if answer == "class_set":
        return stacked.sigmoid().mean(0).logit(eps=1e-6)
    return stacked.log_softmax(-1).logsumexp(0) - math.log(len(said))
