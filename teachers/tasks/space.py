"""What a label and an answer are made of: classes, or numbers with their units. In keys, manifests and model folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.task import ANSWER_OF, AnswerName, TaskName
from .boxes import width_of


@dataclass(frozen=True)
class Space:
    """`names`: of the classes, or of the numbers, in the order of columns.

    `mean` and `scale` (standard deviation) are of the labelled training rows, one a number, in the label's own units; a
    task of classes has none, and numbers of which no training row has a label get theirs from teachers. Networks give standardised numbers, everybody else those of the label.
    """

    task: TaskName
    names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    max_boxes: int = 0
    """Boxes of a row, at most; 0 where nobody says boxes."""

    @property
    def width(self) -> int:
        """Of what anybody says of a row: a column a name, or `BOX` a box."""
        return width_of(self.names, self.max_boxes)

    @property
    def answer(self) -> AnswerName:
        return ANSWER_OF[self.task]

    @property
    def has_classes(self) -> bool:
        """Whether its names are those of classes."""
        return self.answer != "values"

    def document(self) -> dict[str, Any]:
        found = {"task": self.task, "names": list(self.names), "mean": list(self.mean), "scale": list(self.scale)}
        return found | ({"max_boxes": self.max_boxes} if self.max_boxes else {})

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError for what no `document` is."""
        names, mean, scale = (tuple(document[name]) for name in ("names", "mean", "scale"))
        return cls(document["task"], names, mean, scale, document.get("max_boxes", 0))

    def of_names(self, names: Sequence[str]) -> Self:
        """Those names of it alone, in their order; ValueError for another."""
        places = [self.names.index(name) for name in names]
        mean, scale = (tuple(each[place] for place in places) if each else () for each in (self.mean, self.scale))
        return type(self)(self.task, tuple(names), mean, scale, self.max_boxes)

    def standardised(self, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers `[..., width]` in units of the label to those that networks learn; as they are where there are none."""
        return (values - np.array(self.mean)) / np.array(self.scale) if self.mean else values
