"""Who is heard in which class under `combine: experts`: as the recipe says, or by labelled validation rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import Options
from ..runs.run import Source
from .merits import heard_alone

ROWS = 10.0
"""So many rows of a class count as if the teacher were right in them as often as over all classes: few rows decide little."""


def experts(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    """`experts`: by teacher 0 or 1 for each class. Raises RecipeError for a name that is no class, and without a row to judge by."""
    if options.experts is not None:
        return {"experts": _named(sources, transfer_set.space.names, options)}
    heard = [heard_alone(source, transfer_set) for source in sources]
    labels = heard[0][1]
    if not len(labels):
        raise RecipeError(
            "experts hears in each class whoever is best on labelled validation rows, and there are none; name them under "
            "`experts`, or give `split.validation` labelled rows"
        )
    said = torch.stack([each for each, _ in heard])
    skill = SKILLS[transfer_set.space.answer](said, labels).masked_fill(~_known(said), -torch.inf)
    chosen = (skill == skill.amax(0)) & ~skill.isneginf()
    return {"experts": tuple(tuple(row) for row in chosen.int().tolist())}


def _named(sources: Sequence[Source], names: Sequence[str], options: Options) -> tuple[tuple[int, ...], ...]:
    of = options.classes_of
    for teacher, classes in of.items():
        if strange := [each for each in classes if each not in names]:
            raise RecipeError(
                f"experts names {strange} of {options.name_of(teacher)!r}, which the transfer set does not have; it has "
                f"{', '.join(names[:10])}"
            )
    return tuple(tuple(int(name in of.get(source.name, ())) for name in names) for source in sources)


def _known(said: Tensor) -> Tensor:
    """Whether a teacher says anything of a class in some row, bool `[K, W]`."""
    return (~said.isnan()).any(1)


def _class_skill(said: Tensor, labels: Tensor) -> Tensor:
    """How often each teacher is right in the rows of each class, f64 `[K, C]`, shrunk to how often over all that it knows."""
    classes, own = said.shape[-1], labels.long()
    right = (said.nan_to_num(nan=-torch.inf).argmax(-1) == own).double()
    of_class = torch.nn.functional.one_hot(own, classes).double()
    knows = (~said.isnan()).gather(2, own[None, :, None].expand(len(said), -1, 1))[..., 0]
    overall = (right * knows).sum(1) / knows.sum(1).clamp_min(1)
    return (right @ of_class + ROWS * overall[:, None]) / (of_class.sum(0) + ROWS)


def _set_skill(said: Tensor, labels: Tensor) -> Tensor:
    """1 - the Brier score of each class, shrunk alike."""
    there = (labels >= 0)[None] & ~said.isnan()
    error = torch.where(there, (said.nan_to_num(nan=0.0).sigmoid() - labels).square(), 0.0).double()
    overall = error.sum((1, 2)) / there.sum((1, 2)).clamp_min(1)
    return 1 - (error.sum(1) + ROWS * overall[:, None]) / (there.sum(1) + ROWS)


SKILLS: dict[AnswerName, Callable[[Tensor, Tensor], Tensor]] = {"class_axis": _class_skill, "class_set": _set_skill}
"""(what each teacher says `[K, N, W]`, labels) to how good each is in each class `[K, W]`."""
