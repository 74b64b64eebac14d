"""What teachers say of labelled rows, each alone and all together, from their label stores.

Knows nothing of students; the pipeline says whose stores, and which combination.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.errors import StoreError
from teachers.soft_targets.combine.rules import COMBINE, align, check_combined
from teachers.soft_targets.reader import SoftTargets
from teachers.tasks.space import Space
from teachers.users_code import imports
from teachers.users_code.calls import calling

from ..objective.calibration import calibration_of
from ..objective.squared_errors import squared_errors
from ..runs.run import Source
from .judged import Thresholds, Voice
from .labelled import ROWS_AT_ONCE, Labelled


@dataclass(frozen=True)
class Heard:
    """What the teachers of somebody say, f32[N, width] in the transfer set's classes or numbers."""

    alone: Mapping[str, Tensor]
    together: Tensor
    kept: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """By teacher: the same before any rule, and which classes or numbers it knows, bool[width]."""
    class_only: frozenset[str] = frozenset()
    """Whose store keeps the class only: what else their scores hold is `probability_floor`, no word of theirs."""

    @property
    def sure(self) -> bool:
        """Whether the probabilities of all together are theirs."""
        return not self.class_only

    def voice(self, name: str, thresholds: Thresholds = None) -> Voice:
        """A teacher's; of all together where `name` is `ensemble`."""
        if name == "ensemble":
            return Voice(self.together, self.sure, thresholds)
        return Voice(self.alone[name], name not in self.class_only, thresholds)

    @property
    def everyone(self) -> dict[str, Tensor]:
        return {**self.alone, "ensemble": self.together}


def hear(
    rows: Labelled,
    sources: Sequence[Source],
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
) -> Heard:
    """What each teacher says of `rows`, and what they say together; `order`: in which a rule is given them.

    `combine`: None is the first rule of the answer.
    """
    first = default_rule(rows.space)
    heard = {source.name: _aligned(rows, source) for source in sources}
    alone = {name: _combined(rows.space, [said], first, {}) for name, said in heard.items()}
    names = order or list(heard)
    keywords = {"teacher_weights": [teacher_weights[name] for name in names]} if teacher_weights else {}
    if combine == "inverse_variance":
        found = squared_errors([source for source in sources if source.name in names], rows.transfer_set)
        keywords["variances"] = [found[name] for name in names]
    class_only = frozenset(source.name for source in sources if _keeps_class_only(source))
    together = _combined(rows.space, [heard[name] for name in names], combine or first, keywords)
    return Heard(alone, together, heard, class_only)


def default_rule(space: Space) -> str:
    """By which teachers are combined where nobody says otherwise."""
    return next(iter(COMBINE[space.answer]))


def _keeps_class_only(source: Source) -> bool:
    return any(SoftTargets.open(store).spec.encoding == "label" for store in source.stores.values())


def _aligned(rows: Labelled, source: Source) -> tuple[Tensor, Tensor]:
    """f32[N, width] in the transfer set's classes or numbers, and which of them the teacher knows, bool[width]."""
    parts = []
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        store = SoftTargets.open(source.stores[segment.name])
        if not np.array_equal(store.keys(), rows.transfer_set.keys(segment)):
            raise StoreError(
                f"{source.stores[segment.name]}: its rows are not those of segment {segment.name} of "
                f"{rows.transfer_set.folder}; it was made from other data, label again"
            )
        index, known = align(store.spec.names, rows.transfer_set.classes, source.class_map)
        parts.append(store.said(source.probability_floor)[torch.from_numpy(mask)][:, index])
    said, calibrated = torch.cat(parts), calibration_of(source, rows.transfer_set)
    return said if calibrated is None else calibrated(said), known


def _combined(
    space: Space, heard: Sequence[tuple[Tensor, Tensor]], combine: str, keywords: Mapping[str, Any]
) -> Tensor:
    rules = {str(name): rule for name, rule in COMBINE[space.answer].items()}
    rule = rules[combine] if combine in rules else imports.load(combine)
    known = torch.stack([known for _, known in heard])[:, None]
    parts = []
    for first in range(0, len(heard[0][0]), ROWS_AT_ONCE):
        logits = torch.stack([said[first : first + ROWS_AT_ONCE] for said, _ in heard])
        with calling("objective.combine", combine):
            said = rule(logits, temperature=1.0, known=known.expand_as(logits), **keywords)
            parts.append(check_combined(said, logits, f"objective.combine: {combine}", known.expand_as(logits))[0])
    return torch.cat(parts)
