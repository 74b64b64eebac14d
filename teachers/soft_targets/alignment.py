"""What a teacher says, as columns of the transfer set: reordered by name, several of its classes added up to one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from ..tasks.places import renumbered
from ..tasks.space import Space
from .class_map import ClassMap, mapped


@dataclass(frozen=True)
class Alignment:
    """Called with what a teacher says, f32 `[rows, its names]`, it gives that f32 `[rows, width]`.

    NaN stays NaN: what the teacher does not know of a row. Columns of `known` False hold anything.
    """

    known: Tensor
    """bool `[width]`: of which of the transfer set's names it says something."""
    column: Tensor | None
    """i64 `[width]`: the teacher's (first) column of each name; None: they are in order."""
    added_up: dict[int, Tensor] = field(default_factory=dict)
    """Of a class that several of the teacher's are: their columns, i64. Probabilities add up, so the logit is the logarithm of
    the sum of their exponentials."""
    dropped: Tensor | None = None
    """i64, of one class of many: columns of its classes that take no part."""
    floor: float = 0.0
    """E: a row of which it says, by 1 - E or more, that it is of a class which takes no part, is one that it knows nothing of."""
    looked_for: Tensor | None = None
    """bool `[classes]`, of who says boxes: which of the transfer set's classes it looks for; None: all."""
    numbers: Tensor | None = None
    """i64, of who says boxes: the transfer set's number of each of its classes, -1 of one that takes no part."""

    @classmethod
    def of(
        cls,
        teacher_names: Sequence[str],
        space: Space,
        class_map: ClassMap | None,
        probability_floor: float = 1e-3,
    ) -> Self:
        """Raises RecipeError as `mapped`."""
        found = mapped(teacher_names, space.names, class_map, space.answer)
        if space.max_boxes:
            place: dict[str | None, int] = {name: number for number, name in enumerate(space.names)}
            numbers = torch.tensor([place.get(found[name], -1) for name in teacher_names])
            known = torch.full((space.width,), bool((numbers >= 0).any()))
            is_same = torch.equal(numbers, torch.arange(len(space.names)))
            found_here = torch.zeros(len(space.names), dtype=torch.bool)
            found_here[numbers[numbers >= 0]] = True
            looked_for = None if bool(found_here.all()) else found_here
            return cls(known, None, looked_for=looked_for, numbers=None if is_same else numbers)
        by_name: dict[str | None, list[int]] = {}
        for number, name in enumerate(teacher_names):
            by_name.setdefault(found[name], []).append(number)
        columns = [by_name.get(name, []) for name in space.names]
        column = torch.tensor([each[0] if each else 0 for each in columns])
        is_same = torch.equal(column, torch.arange(len(teacher_names)))
        several = {place: torch.tensor(each) for place, each in enumerate(columns) if len(each) > 1}
        none = by_name.get(None, []) if space.answer == "class_axis" else []
        dropped = torch.tensor(none) if none else None
        known = torch.tensor([bool(each) for each in columns])
        return cls(known, None if is_same else column, several, dropped, probability_floor)

    def __call__(self, said: Tensor) -> Tensor:
        if self.numbers is not None:
            return renumbered(said, self.numbers)
        if self.column is None:
            return said
        ordered = said[:, self.column]
        for place, columns in self.added_up.items():
            ordered[:, place] = said[:, columns].logsumexp(1)
        if self.dropped is not None:
            elsewhere = said[:, self.dropped].logsumexp(1) - said.logsumexp(1)
            ordered[elsewhere >= math.log1p(-self.floor)] = torch.nan
        return ordered

    def to(self, device: torch.device) -> Self:
        if self.numbers is not None:
            return replace(self, numbers=self.numbers.to(device))
        if self.column is None or self.column.device == device:
            return self
        several = {place: columns.to(device) for place, columns in self.added_up.items()}
        dropped = None if self.dropped is None else self.dropped.to(device)
        return replace(self, column=self.column.to(device), added_up=several, dropped=dropped)
