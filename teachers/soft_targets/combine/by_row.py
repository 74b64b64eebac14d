"""What each teacher counts in each row, by what it says there: weights `[K, B]` that sum to 1, or are 0 where nobody is heard.

They are of scores `[K, B, W]` at a temperature of 1, whatever the target's is. Knows nothing of targets.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config.task import AnswerName
from .class_scores import log_probabilities
from .shares import Combine

Measure = Callable[[Tensor, Tensor], Tensor]
"""(scores `[K, B, W]`, known) to a number of each teacher and row `[K, B]`; whatever where a teacher knows nothing of the row."""
Errors = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(scores, known, labels) to (how far each teacher is from the label `[K, B]`, whether it can say what the label is `[K, B]`)."""
Mixture = Callable[[Tensor, float, Tensor, Tensor], Tensor]


def normalised(weights: Tensor) -> Tensor:
    """`[K, B]` >= 0 to the same with sums of 1, or 0."""
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def largest(measure: Tensor, knows: Tensor) -> Tensor:
    """All to whom has the most of it, of those that know the row; who have equally much share it."""
    found = measure.masked_fill(~knows, -torch.inf)
    return normalised(((found == found.amax(0)) & knows).to(measure.dtype))


def less_of(measure: Tensor, knows: Tensor) -> Tensor:
    """(1 - share of `measure` >= 0) / (how many know the row - 1), of a single one 1: whoever has less of it counts more."""
    found = measure.masked_fill(~knows, 0.0)
    total, many = found.sum(0), knows.sum(0)
    share = torch.where(total > 0, found / total.clamp(min=torch.finfo(found.dtype).tiny), 1 / many.clamp_min(1))
    weights = torch.where(many > 1, (1 - share) / (many - 1).clamp_min(1), 1.0)
    return normalised((weights * knows).clamp_min(0.0))


# what is measured, of one class of many


def class_confidence(logits: Tensor, known: Tensor) -> Tensor:
    return log_probabilities(logits, 1.0, known).amax(-1)


def class_entropy(logits: Tensor, known: Tensor) -> Tensor:
    """In nats; a probability of 0 adds 0, where p log p would be NaN."""
    log_p = log_probabilities(logits, 1.0, known)
    return -torch.where(log_p.isneginf(), 0.0, log_p.exp() * log_p).sum(-1)


def has_label(labels: Tensor) -> Tensor:
    """Bool `[B]`, of i64 `[B]`, -1 without one, or f32 `[B, C]`, NaN what nobody knows."""
    return labels >= 0 if labels.ndim == 1 else (~labels.isnan()).any(-1)


def can_say(known: Tensor, labels: Tensor) -> Tensor:
    """Whether each teacher knows the label's class, or one of the labelled classes, bool `[K, B]`; of none False."""
    if labels.ndim > 1:
        return (known & ~labels.isnan()).any(-1)
    own = labels.clamp_min(0)[None, :, None].expand(len(known), -1, 1)
    return known.gather(2, own)[..., 0] & (labels >= 0)


def class_error(logits: Tensor, known: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy with the label."""
    own = labels.clamp_min(0)[None, :, None].expand(len(logits), -1, 1)
    says = can_say(known, labels)
    error = (
        -logits.masked_fill(~known, -torch.inf).log_softmax(-1).gather(2, own)[..., 0]
    )  # a gradient may be asked of it
    return error.masked_fill(~says, 0.0), says


# the same, of classes that each hold or not


def set_confidence(logits: Tensor, known: Tensor) -> Tensor:
    return _mean_over(F.logsigmoid(logits.abs()), known)


def set_entropy(logits: Tensor, known: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    return _mean_over(-p * F.logsigmoid(logits) - (1 - p) * F.logsigmoid(-logits), known)


def set_error(logits: Tensor, known: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy over the labelled classes; of who knows one of them."""
    there = known & ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(nan=0.0).expand_as(logits).to(logits.dtype), reduction="none"
    )
    return _mean_over(each, there), there.any(-1)


def _mean_over(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0.0).sum(-1) / known.sum(-1).clamp_min(1)


ERRORS: dict[AnswerName, Errors] = {"class_axis": class_error, "class_set": set_error}


def by_label(errors: Errors, said: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """Weights of CA-MKD (Zhang et al., 2022): w_k = (1 - softmax over teachers of the cross-entropy with the label) / (K - 1).

    Of those that can say the label's class, so a row of a class that nobody knows is nobody's, and a single one has 1; without a
    label those that know the row count alike.
    """
    knows = known.any(-1).to(said.dtype)
    error, says = errors(said, known, labels)
    share = error.masked_fill(~says, -torch.inf).softmax(0).nan_to_num(nan=0.0)
    many = says.sum(0)
    of_label = torch.where(many > 1, (1 - share) / (many - 1).clamp_min(1), 1.0) * says
    return normalised(torch.where(has_label(labels), of_label, knows))


# rules


def confidence(measure: Measure, mixture: Mixture) -> Combine:
    def rule(said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """In each row the most confident teacher alone: whose largest probability is the largest, at T = 1; those that are equally
        sure share the row."""
        weights = largest(measure(said, known), known.any(-1))
        return mixture(said, temperature, known, weights), weights

    return rule


def entropy(measure: Measure, mixture: Mixture) -> Combine:
    def rule(said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """EBKD (Kwon et al., 2020): w_k = (1 - H_k / sum of H) / (K - 1), of entropies at T = 1 over the teachers that know the row.

        The authors' code has weights that sum to K - 1 and divides by K: by (K - 1) / K less than a mean, which is left out here.
        """
        weights = less_of(measure(said, known), known.any(-1))
        return mixture(said, temperature, known, weights), weights

    return rule


def correctness(errors: Errors, mixture: Mixture) -> Combine:
    def rule(said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """By `by_label`: weights that sum to 1, where the authors' code divides by K once more."""
        weights = normalised(known.any(-1).to(said.dtype)) if labels is None else by_label(errors, said, known, labels)
        return mixture(said, temperature, known, weights), weights

    return rule


def best(mixture: Mixture) -> Combine:
    def rule(
        said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None, merits: object
    ) -> tuple[Tensor, Tensor]:
        """In each row the best teacher of those that know something of it; `merits` `[K]`: the larger, the better."""
        of_rows = torch.as_tensor(merits, dtype=torch.float64, device=said.device)[:, None].expand(known.shape[:2])
        weights = largest(of_rows, known.any(-1)).to(said.dtype)
        return mixture(said, temperature, known, weights), weights

    return rule


def route(mixture: Mixture) -> Combine:
    def rule(
        said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None, heard: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The one teacher that a row names; `heard` i64 `[B]`: its number, -1: nobody is heard."""
        numbers = torch.arange(len(said), device=said.device)[:, None]
        weights = ((numbers == heard) & known.any(-1)).to(said.dtype)
        return mixture(said, temperature, known, weights), weights

    return rule
