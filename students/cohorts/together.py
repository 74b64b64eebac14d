"""What members of a cohort say together of validation rows: how far they agree, and how their errors go together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.users_code.calls import calling, within

from ..data.inputs import Network
from ..data.validation import Look, Validation
from ..runs.session import Session
from ..tasks.ensemble import TOGETHER
from ..tasks.figure import headline
from ..tasks.task import Meter
from ..training.train import Training


@dataclass(frozen=True)
class Compared:
    """What members say, as labels are, and how alike two of them say it."""

    points: Callable[[Tensor], Tensor]
    """Of what is said f64 `[..., width]`: what a label is subtracted from."""
    name: str
    """Of the curve of `alike`."""
    alike: Callable[[Tensor, Tensor], Tensor]
    """Of the points of two members, by row."""


def same_class(one: Tensor, other: Tensor) -> Tensor:
    return one.argmax(-1) == other.argmax(-1)


def share_of_classes(one: Tensor, other: Tensor) -> Tensor:
    """Of which both say that they hold, or both that they do not."""
    return ((one > 0.5) == (other > 0.5)).double().mean(-1)


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """In standard deviations of the label, the mean over numbers."""
    return (one - other).square().mean(-1)


COMPARED: dict[AnswerName, Compared] = {
    "class_axis": Compared(lambda said: said.softmax(-1), "agreement", same_class),
    "class_set": Compared(torch.sigmoid, "agreement", share_of_classes),
    "values": Compared(lambda said: said, "squared_distance", squared_distance),
}


class Together:
    """Of all members at once, over this rank's rows; `over` makes it of all ranks."""

    def __init__(self, members: int, validation: Validation, device: torch.device) -> None:
        self.members, self.validation = members, validation
        answer = validation.space.answer
        self.compared, self.together = COMPARED[answer], TOGETHER[answer]
        self.pairs = [*combinations(range(members), 2)]
        self.sums = torch.zeros(len(self.pairs) + 2 + members**2, dtype=torch.float64, device=device)
        self.meter = validation.meter()
        """Of all members as one."""
        self.as_one: Look = {}

    def add(self, said: Sequence[Tensor], labels: Tensor) -> None:
        """`said`: `[rows, width]` of each member, on their own device; labels as `Validation.chunks` has them."""
        everyone = torch.stack([each.double() for each in said])
        points = self.compared.points(everyone)
        alike = [self.compared.alike(points[one], points[other]).sum() for one, other in self.pairs]
        known = labels >= 0 if not labels.is_floating_point() else ~labels.isnan()
        has = known if known.ndim == 1 else known.any(-1)
        errors = self.errors(points[:, has], labels[has], known[has])
        counts = torch.stack([*alike, has.sum(), torch.tensor(len(labels), device=labels.device)]).double()
        self.sums += torch.cat([counts, torch.einsum("inc,jnc->ij", errors, errors).flatten()])
        self.validation.judge(self.meter, self.together(everyone), labels)

    def errors(self, points: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """f64 `[members, rows, width]`, 0 where nobody knows."""
        if labels.ndim == 1:
            return points - F.one_hot(labels.long(), points.shape[-1])
        return torch.where(known, points - self.validation.units.standardised(labels.double()), 0.0)

    def over(self, session: Session) -> "Together":
        """The same over all ranks of a member."""
        session.all_reduce_sum(self.sums)
        if self.validation.num_labelled:
            self.as_one = self.validation.figures(self.meter, session)
        return self

    @property
    def labelled(self) -> float:
        return float(self.sums[len(self.pairs)])

    @property
    def rows(self) -> float:
        return float(self.sums[len(self.pairs) + 1])

    def figures(self) -> dict[str, float]:
        """How alike two members are, the mean over pairs and rows; and the headline of all of them as one."""
        key = headline(self.validation.space.task).key
        found = {self.compared.name: float(self.sums[: len(self.pairs)].mean()) / self.rows}
        as_one = self.as_one.get(key)
        return found if as_one is None else found | {f"ensemble_{key}": as_one}

    def covariance(self) -> Tensor:
        """f64 `[members, members]`: mean over labelled rows of the inner product of two members' errors p - y."""
        return (self.sums[len(self.pairs) + 2 :] / self.labelled).reshape(self.members, self.members).cpu()


def look_together(trainings: Sequence[Training], members: int, same_rows: Session) -> tuple[list[Meter], Together]:
    """Of this rank's validation rows: a meter of each member that is here, and what all say together.

    `trainings` are the members that this process hosts; the others are heard over `same_rows`.
    """
    looks = [each.data.validation for each in trainings]
    meters, together = [look.meter() for look in looks], Together(members, looks[0], same_rows.device)
    with torch.inference_mode():
        for chunks in zip(*(look.chunks() for look in looks), strict=True):
            labels = chunks[0][1]
            said = [looked(each, inputs) for each, (inputs, _) in zip(trainings, chunks, strict=True)]
            for look, meter, own in zip(looks, meters, said, strict=True):
                look.judge(meter, own, labels)
            everyone = said if len(said) == members else same_rows.all_gather(said[0]).unbind()
            together.add(everyone, labels)
    return meters, together


def looked(training: Training, inputs: Network) -> Tensor:
    with within(training.run.key), calling("model", training.run.model):
        said: Tensor = training.module(inputs)
    return said.float()
