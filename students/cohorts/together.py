"""What the members of a cohort say together of validation rows: how far they agree, and how their errors go together."""

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.users_code.calls import calling, within

from ..data.inputs import Network
from ..data.validation import right_and_nll
from ..runs.session import Session
from ..training.train import Training


class Together:
    """Sums over rows, of all members at once."""

    def __init__(self, members: int, device: torch.device) -> None:
        self.members = members
        self.pairs = [*combinations(range(members), 2)]
        self.sums = torch.zeros(len(self.pairs) + 3 + members**2, dtype=torch.float64, device=device)

    def add(self, logits: Sequence[Tensor], labels: Tensor) -> None:
        """`logits`: `[rows, classes]` of each member, on their own device; labels i64 `[rows]`, -1: none."""
        p = torch.stack([each.double().softmax(-1) for each in logits])
        said, has = p.argmax(-1), labels >= 0
        errors = p[:, has] - F.one_hot(labels[has], p.shape[-1])
        agree = [(said[one] == said[other]).sum() for one, other in self.pairs]
        right = (p.mean(0).argmax(-1) == labels).sum()
        counts = torch.stack([*agree, right, has.sum(), torch.tensor(len(labels), device=labels.device)]).double()
        self.sums += torch.cat([counts, torch.einsum("inc,jnc->ij", errors, errors).flatten()])

    def over(self, session: Session) -> "Together":
        """The same over all ranks of a member."""
        session.all_reduce_sum(self.sums)
        return self

    @property
    def labelled(self) -> float:
        return float(self.sums[len(self.pairs) + 1])

    @property
    def rows(self) -> float:
        return float(self.sums[len(self.pairs) + 2])

    def ensemble_accuracy(self) -> float:
        """Of the mean of the members' probabilities, over the labelled rows."""
        return float(self.sums[len(self.pairs)]) / self.labelled

    def agreement(self) -> float:
        """Share of rows on which two members say the same class, the mean over pairs."""
        return float(self.sums[: len(self.pairs)].mean()) / self.rows

    def covariance(self) -> Tensor:
        """f64 `[members, members]`: mean over labelled rows of the inner product of two members' errors p - y."""
        return (self.sums[len(self.pairs) + 3 :] / self.labelled).reshape(self.members, self.members).cpu()


def look_together(trainings: Sequence[Training], members: int, same_rows: Session) -> tuple[Tensor, Together]:
    """Of this rank's validation rows: f64 `[hosted members, 2]` as `right_and_nll` has it, and what all say together.

    `trainings` are the members that this process hosts; the others are heard over `same_rows`.
    """
    device = same_rows.device
    sums, together = torch.zeros(len(trainings), 2, dtype=torch.float64, device=device), Together(members, device)
    with torch.inference_mode():
        for chunks in zip(*(each.data.validation.chunks() for each in trainings), strict=True):
            labels = chunks[0][1]
            said = [looked(each, inputs) for each, (inputs, _) in zip(trainings, chunks, strict=True)]
            sums += torch.stack([right_and_nll(logits, labels) for logits in said])
            everyone = said if len(said) == members else same_rows.all_gather(said[0]).unbind()
            together.add(everyone, labels)
    return sums, together


def looked(training: Training, inputs: Network) -> Tensor:
    with within(training.run.key), calling("model", training.run.model):
        logits: Tensor = training.module(inputs)
    return logits.float()
