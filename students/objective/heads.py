"""Several teachers of a student with a head for each (Hydra: Tran et al., 2020): one target first, then one beside each head.

The loss is then the mean, over the teachers that know the row, of the term's loss between a head and its own teacher. Knows nothing of
networks.
"""

from typing import Any

import torch
from torch import Tensor

from teachers.soft_targets.combine.shares import row_weights

from .late import Late, Moment
from .targets import Asked


class OfHeads(Late):
    """A combination that is decided when it is known in which phase a step is; `known` bool `[K, width]`: of what each teacher says
    something in any row."""

    def __init__(self, *about: Any, known: Tensor) -> None:
        super().__init__(*about)
        self.known = known

    def decided(self, asked: Asked, student: Tensor, term: str, moment: Moment) -> Asked:
        """One target by the term's rule; of heads `[rows, K, width]` with weights `[rows, K]`, which sum to 1 in a row that anybody
        knows."""
        if not moment.has_heads:
            return super().decided(asked, student, term, moment)
        said = asked.target.transpose(0, 1)
        unknown = said.isnan()
        weights = row_weights(said.new_ones(len(said)), ~unknown)
        if asked.weight is not None:
            weights = weights * (asked.weight > 0)
        beside = said.masked_fill(unknown.all(-1, keepdim=True), 0.0).transpose(0, 1)
        return Asked(self.units.standardised(beside), weights.T, self._labels(asked, said, unknown))

    def _labels(self, asked: Asked, said: Tensor, unknown: Tensor) -> Tensor | None:
        """Where a row has none, the class that teachers say together stands for it, as in the first phase."""
        labels = asked.labels
        if labels is None or labels.is_floating_point() or not bool((labels < 0).any()):
            return labels
        together, _ = self.combination.target(
            said.masked_fill(unknown, 0.0), ~unknown, asked.of_rule, heard=asked.heard
        )
        return torch.where(labels < 0, together.nan_to_num(nan=-torch.inf).argmax(-1), labels)
