"""What each teacher is worth on labelled validation rows: what `combine: best` chooses by, and rules with a context are told."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.soft_targets.combine.class_scores import LOG_ZERO
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import Options
from ..runs.run import Source
from ..tasks.figure import LOOKS, headline
from ..tasks.tasks import TASKS
from .calibration import calibration_of
from .stores import of_labelled


def heard_alone(source: Source, transfer_set: TransferSet) -> tuple[Tensor, Tensor]:
    """(what it says, calibrated, NaN in what it does not know; labels) of the labelled validation rows."""
    said, labels = of_labelled(source, transfer_set)
    calibrated = calibration_of(source, transfer_set)
    return said if calibrated is None else calibrated(said), labels


def figures_alone(
    source: Source, transfer_set: TransferSet, keys: Sequence[str] | None = None
) -> dict[str, float | None]:
    """Figures on labelled validation rows by key, by default those of a look; empty where there is no such row."""
    task = transfer_set.space.task
    said, labels = heard_alone(source, transfer_set)
    if not len(labels):
        return {}
    meter = TASKS[task].meter(transfer_set.space)
    meter.update(as_answer(said, transfer_set.space), labels.long() if labels.ndim == 1 else labels)
    return dict(meter.figures(keys=tuple(keys or LOOKS[task])))


def as_answer(said: Tensor, space: Space) -> Tensor:
    """As the figures of a teacher are made everywhere: of one class of many, one that it does not know has probability 0; NaN in
    rows of which it knows nothing."""
    if space.answer != "class_axis":
        return said
    nothing = said.isnan().all(-1, keepdim=True)
    log_p = said.masked_fill(said.isnan(), -torch.inf).masked_fill(nothing, 0.0).log_softmax(-1)
    return log_p.clamp_min(LOG_ZERO).masked_fill(nothing, torch.nan)


def merits(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    """`merits`: the headline of each, the larger, the better. Raises RecipeError where nobody has one."""
    figure = headline(transfer_set.space.task)
    found = [figures_alone(source, transfer_set, (figure.key,)).get(figure.key) for source in sources]
    if all(value is None for value in found):
        raise RecipeError(
            f"best hears the teacher with the best {figure.label} on labelled validation rows, and there are none; take another "
            f"rule, or give `split.validation` labelled rows"
        )
    return {"merits": tuple(-1e30 if value is None else figure.sign * value for value in found)}
