"""How unsure several are as one, and of what: of the row (aleatoric), or of each other (epistemic), as Hydra has it (Tran et al., 2020).

Of classes, in nats: the entropy of the mean probability is the mean of their entropies and their mutual information, the Jensen-Shannon
divergence of what they say. Of numbers there is what they disagree by, and nothing else: they say no spread of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.tasks.space import Space

from .values import scale_of


@dataclass(frozen=True)
class Uncertainty:
    """By row, f64 `[rows]`, NaN where fewer than two say anything; None where it is not defined."""

    epistemic: Tensor
    """What they disagree by: their mutual information; of numbers their standard deviation."""
    total: Tensor | None = None
    """The entropy of their mean probability."""
    aleatoric: Tensor | None = None
    """The mean of their entropies."""
    disagreement: Tensor | None = None
    """Of any two, how often they say another class; of several classes a row the mean over these."""

    @property
    def parts(self) -> dict[str, Tensor]:
        """What is defined, by name."""
        found = {"total": self.total, "aleatoric": self.aleatoric, "epistemic": self.epistemic}
        return {name: each for name, each in (found | {"disagreement": self.disagreement}).items() if each is not None}


def uncertainty(said: Tensor, space: Space) -> Uncertainty:
    """Of what several say, `[several, rows, width]`: logits, or numbers in the units of the label; NaN where one knows nothing."""
    return OF_ANSWERS[space.answer](said.double(), space)


def _of_classes(said: Tensor, space: Space) -> Uncertainty:
    knows = ~said.isnan().any(-1)
    p = said.masked_fill(~knows[..., None], 0.0).softmax(-1)
    weights = _weights(knows)
    total = _entropy((p * weights[..., None]).sum(0))
    aleatoric = (_entropy(p) * weights).sum(0)
    classes = torch.where(knows, said.nan_to_num(nan=-torch.inf).argmax(-1), -1)
    return Uncertainty(_gap(total, aleatoric), total, aleatoric, _pairs(classes[..., None], knows[..., None]))


def _of_sets(said: Tensor, space: Space) -> Uncertainty:
    """Each class for itself; of a row the mean over the classes of which two say anything."""
    knows = ~said.isnan()
    p = torch.where(knows, said, 0.0).sigmoid()
    weights = _weights(knows)
    total = _of_two((torch.where(knows, p, 0.0) * weights).sum(0))
    aleatoric = (torch.where(knows, _of_two(p), 0.0) * weights).sum(0)
    total, aleatoric = total.nanmean(-1), aleatoric.nanmean(-1)
    return Uncertainty(_gap(total, aleatoric), total, aleatoric, _pairs((p >= 0.5).long(), knows))


def _of_numbers(said: Tensor, space: Space) -> Uncertainty:
    """Of several columns each is divided by the standard deviation of its labels, and the mean of squares counts."""
    knows, scaled = ~said.isnan(), said / scale_of(space).to(said.device)
    weights, there = _weights(knows), torch.where(knows, scaled, 0.0)
    mean = (there * weights).sum(0)
    squares = (torch.where(knows, (there - mean).square(), 0.0) * weights).sum(0)
    return Uncertainty(squares.nanmean(-1).sqrt())


OF_ANSWERS: Mapping[AnswerName, Callable[[Tensor, Space], Uncertainty]] = {
    "class_axis": _of_classes,
    "class_set": _of_sets,
    "values": _of_numbers,
}


def _weights(knows: Tensor) -> Tensor:
    """Alike over those who know, NaN where fewer than two do."""
    count = knows.sum(0)
    return torch.where(count > 1, knows / count.clamp_min(1), torch.nan)


def _entropy(p: Tensor) -> Tensor:
    found: Tensor = -torch.special.xlogy(p, p).sum(-1)
    return found


def _of_two(p: Tensor) -> Tensor:
    """The entropy of what holds with probability p or not."""
    found: Tensor = -torch.special.xlogy(p, p) - torch.special.xlogy(1 - p, 1 - p)
    return found


def _gap(total: Tensor, aleatoric: Tensor) -> Tensor:
    """Never below 0 but by rounding."""
    return (total - aleatoric).clamp_min(0.0)


def _pairs(said: Tensor, knows: Tensor) -> Tensor:
    """How often two of those who know `[several, rows, names]` say something else: `[rows]`."""
    differ = torch.zeros(said.shape[1:], dtype=torch.float64, device=said.device)
    pairs = torch.zeros_like(differ)
    for one in range(len(said)):
        for other in range(one + 1, len(said)):
            both = knows[one] & knows[other]
            differ += both & (said[one] != said[other])
            pairs += both
    return torch.where(pairs > 0, differ / pairs, torch.nan).nanmean(-1)
