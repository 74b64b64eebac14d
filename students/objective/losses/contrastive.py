"""The contrastive loss of two embeddings and what is remembered of them, as a function of scores alone."""

import torch.nn.functional as F
from torch import Tensor


def contrastive(student: Tensor, teacher: Tensor) -> Tensor:
    """How well the first of 1 + K candidates is told from the others, by the student's view and by the teacher's, per row `[rows]`.

    Each `[rows, 1 + K]`: log(h / (K / N)) of h = exp(v m / T) / Z, the log-odds that a candidate is no noise. The value is
    -log(h / (h + K/N)) of the first, and the sum of -log((K/N) / (h + K/N)) of the others, of both sides added (CRD: Tian et al.,
    2020). Finite for any finite score.
    """
    return _told_apart(student) + _told_apart(teacher)


def _told_apart(log_odds: Tensor) -> Tensor:
    return F.softplus(-log_odds[:, 0]) + F.softplus(log_odds[:, 1:]).sum(1)
