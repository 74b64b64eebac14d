"""What teachers' answers say of classes that none of them knows: `combine: confusion` (Dawid and Skene, 1979, with labelled rows).

A teacher that calls a text in a language that it does not know Persian, says nothing of that language; how often it has said so of which
language does, and how several teachers disagree does even more.
"""

import torch
from torch import Tensor

from .class_scores import LOG_ZERO, log_probabilities, mean_logits


def confusion(
    logits: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    says: Tensor,
    frequency: Tensor,
    silent: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean of log-probabilities among the classes that somebody knows in the row, and beside them the others by

        p(class | what is said) ~ frequency * product over the teachers of the row of sum over c of p_k(c) says_k(class, c)

    at T = 1: what all of these others have there, the known ones leave them. `says` f32 `[K, C, C]`: of teacher k, row y is what it
    says where the class is y; `frequency` f32 `[C]`. Where every class is known it is `mean_logits`. What comes of it is softened.

    `silent` f32 `[K, C]`: how often teacher k knows nothing of a row of a class. Then the product has a factor of everybody, who speaks or
    is silent, and a row of which all are silent is as likely of each class as that says.
    """
    pooled, weights = mean_logits(logits, temperature=1.0, known=known)
    knows = known.any(-1)[..., None]
    said = torch.where(knows, log_probabilities(logits, 1.0, known).exp(), 0.0)
    likelihood = torch.bmm(said, says.to(logits).transpose(1, 2)).clamp_min(torch.finfo(logits.dtype).tiny).log()
    evidence = torch.where(knows, likelihood, 0.0)
    if silent is not None:
        how = silent.to(logits)[:, None]
        evidence = evidence + torch.where(knows, torch.log1p(-how), how.log())
        weights = torch.where(knows.any(0)[:, 0], weights, 1 / len(logits))
    posterior = (evidence.sum(0) + frequency.to(logits).log()).log_softmax(-1)
    somebody = known.any(0)
    others = posterior.masked_fill(somebody, -torch.inf)
    rest = torch.log1p(-others.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-6))
    log_p = torch.where(somebody, pooled.log_softmax(-1) + rest, others)
    softened = (log_p / temperature).log_softmax(-1).clamp_min(LOG_ZERO)
    target = temperature * softened
    return target if silent is not None else target.masked_fill(~knows.any(0), 0.0), weights
