"""Which boxes that teachers say are learnt: the scores from which on they are, class by class, as a term has them or found.

Knows nothing of losses.
"""

from collections.abc import Sequence

import torch

from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..config.cohort_terms import CohortTerm
from ..config.terms import PseudoTerm, Term
from ..runs.run import Source
from ..tasks.tasks import TASKS
from .combination import Combination
from .merits import heard_alone

AnyTerm = Term | CohortTerm


def keeping(
    term: AnyTerm, number: int, combination: Combination | None, sources: Sequence[Source], transfer_set: TransferSet
) -> AnyTerm:
    """The same term; one of boxes with `keep_above` as a number for each class, in their order.

    `auto`: of the combined teachers the scores with the best F1 on labelled validation images. Raises RecipeError for names that
    are no classes, and without such images.
    """
    if not isinstance(term, PseudoTerm) or combination is None or isinstance(term.keep_above, float | int):
        return term
    key, names = f"objective.{number}.keep_above", transfer_set.space.names
    if isinstance(term.keep_above, dict):
        if strange := sorted(set(term.keep_above) - set(names)):
            raise RecipeError(
                f"{key} names {', '.join(map(repr, strange))}, and the classes are {', '.join(names[:10])}"
            )
        default = float(PseudoTerm.model_fields["keep_above"].default)
        chosen = tuple(term.keep_above.get(name, default) for name in names)
    else:
        chosen = _chosen(key, term, combination, sources, transfer_set)
    return term.model_copy(update={"keep_above": chosen})


def _chosen(
    key: str, term: PseudoTerm, combination: Combination, sources: Sequence[Source], transfer_set: TransferSet
) -> tuple[float, ...]:
    by_name, task = {source.name: source for source in sources}, TASKS[transfer_set.space.task]
    heard = [heard_alone(by_name[name], transfer_set) for name in combination.teachers]
    labels = heard[0][1]
    if not len(labels):
        raise RecipeError(
            f"{key}: `auto` chooses on labelled validation images, and there are none; say a number, or give "
            f"`split.validation` labelled images"
        )
    said = torch.stack([each for each, _ in heard])
    known = ~said.isnan()
    target, weights = combination.target(said.masked_fill(~known, 0.0), known)
    target = target.masked_fill((weights.sum(0) == 0)[:, None], torch.nan)
    assert task.thresholds is not None
    return tuple(max(found, term.ignore_above) for found in task.thresholds(target, labels, transfer_set.space))
