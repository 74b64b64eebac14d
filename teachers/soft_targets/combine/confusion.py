"""What a teacher's answer says of the true class: `combine: confusion` (Dawid and Skene, 1979, with labelled rows; Kim and
Ghahramani, 2012).

A teacher that calls every text in an unknown language Persian is told from one that reads Persian by nothing that it says; how often
it was right when it said so tells. Its answer becomes a distribution over all classes, those that it does not know too.
"""

import torch
from torch import Tensor

from .class_scores import LOG_ZERO, log_probabilities
from .shares import row_weights


def confusion(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None, posteriors: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean over the teachers of a row of log p(class | what it says), normalised.

    `posteriors` f32 `[K, C, C]`: of teacher k, row c is the distribution of the true class where it says c; of a teacher that is in
    two minds, the mean of these by what it says (Jeffrey's rule), at T = 1. What they come to is softened.
    """
    weights = row_weights(logits.new_ones(len(logits)), known)
    said = log_probabilities(logits, 1.0, known).exp()
    knows = known.any(-1)[..., None]
    true = torch.bmm(torch.where(knows, said, 0.0), posteriors.to(logits))
    log_p = torch.where(knows, true.clamp_min(torch.finfo(true.dtype).tiny).log(), 0.0)
    softened = ((weights[..., None] * log_p).sum(0) / temperature).log_softmax(-1).clamp_min(LOG_ZERO)
    return (temperature * softened).masked_fill(~knows.any(0), 0.0), weights
