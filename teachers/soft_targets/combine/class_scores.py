"""How several teachers become one target. Knows nothing of stores, students or losses.

A rule is `fn(logits, *, temperature, known, labels=None, **keywords) -> (target, weights)`:

    logits   f32 [K, B, C]   what K teachers say of B rows, in the classes of the transfer set
    known    bool [K, B, C]  False: that teacher takes no part in that class of that row
    target   f32 [B, C]      T log p, finite; softmax(target / T) is the combined distribution p, so a loss divides by T once
    weights  f32 [K, B]      what each teacher counted in each row; they sum to 1, or are all 0 where nobody knows the row

A teacher that knows some classes only has a distribution over those. In each class the teachers that know it are
combined, and the result is normalised once more; a class that nobody knows gets probability 0.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...config.teacher import CombineName
from ...errors import RecipeError
from ..class_map import mapped

LOG_ZERO = -1e4
"""Stands for log 0: its exponential is 0, and it is finite."""
CLOSE = 1e-3
"""How far a user's weights may be from what they should be: those of float16 are."""


Combine = Callable[..., tuple[Tensor, Tensor]]


def mean_probability(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of the teachers' softened distributions (Hinton et al., 2015; AVER-MKD)."""
    equal = logits.new_ones(logits.shape[0])
    return weighted(logits, temperature=temperature, known=known, teacher_weights=equal)


def weighted(
    logits: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    teacher_weights: Tensor | Sequence[float],
) -> tuple[Tensor, Tensor]:
    """A weighted mean of the teachers' softened distributions; `teacher_weights` `[K]` >= 0 need not sum to 1."""
    weights = _row_weights(torch.as_tensor(teacher_weights, dtype=logits.dtype, device=logits.device), known)
    share = _share_of_class(weights, known)
    log_p = torch.logsumexp(_log_p(logits, temperature, known) + share.log(), dim=0)
    return _target(log_p, temperature), weights


def mean_logits(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of the teachers' logits, which is the normalised geometric mean of their distributions."""
    weights = _row_weights(logits.new_ones(logits.shape[0]), known)
    share = _share_of_class(weights, known)
    log_p = torch.where(known, _log_p(logits, temperature, known), 0.0).mul_(share).sum(0)
    return _target(log_p.masked_fill_(~known.any(0), -torch.inf), temperature), weights


COMBINE: dict[CombineName, Combine] = {
    "mean_probability": mean_probability,
    "mean_logits": mean_logits,
    "weighted": weighted,
}


def check_combined(said: object, logits: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """(target, weights) that a rule of the user's made of `logits` `[K, B, C]`. RecipeError where they are not as above.

    `rule` begins the message.
    """
    if not isinstance(said, tuple) or len(said) != 2 or not all(isinstance(each, Tensor) for each in said):
        raise RecipeError(f"{rule} gives a {type(said).__name__}, expected two tensors: (target, weights)")
    target, weights = said
    for name, found, shape in (("target", target, logits.shape[1:]), ("weights", weights, logits.shape[:2])):
        if found.shape != shape or not found.is_floating_point():
            raise RecipeError(
                f"{rule} gives {name} of shape {list(found.shape)} and {found.dtype}, expected {list(shape)} in floating "
                f"point for logits {list(logits.shape)}"
            )
        if not bool(found.isfinite().all()):
            raise RecipeError(
                f"{rule} gives {name} that are not finite; say {LOG_ZERO:g} times the temperature for log 0"
            )
    if bool(((weights < -CLOSE) | (weights > 1 + CLOSE)).any()):
        raise RecipeError(
            f"{rule} gives weights from {float(weights.min()):g} to {float(weights.max()):g}, expected 0 to 1: the share "
            f"that each teacher has in a row's target"
        )
    sums = weights.sum(0)
    if wrong := ((sums - 1).abs().minimum(sums.abs()) > CLOSE).nonzero().flatten().tolist():
        raise RecipeError(
            f"{rule} gives weights that sum over the teachers to {float(sums[wrong[0]]):g} in a row, expected 1, or 0 "
            f"where nobody knows the row"
        )
    return target, weights


def align(
    teacher_classes: Sequence[str], classes: Sequence[str], class_map: Mapping[str, str | None] | None
) -> tuple[Tensor, Tensor]:
    """Map a teacher's classes to the transfer set's, by name.

    Returns `index` i64 `[C]`, the teacher's column of each class (0 where it has none), and `known` bool `[C]`, where it
    has one. `class_map` renames teacher's classes, or drops them (None); without it the names must be the same, in any
    order. Raises RecipeError as `mapped`.
    """
    renamed = mapped(teacher_classes, classes, class_map)
    column = {renamed[name]: number for number, name in enumerate(teacher_classes) if renamed[name] is not None}
    index = torch.tensor([column.get(name, 0) for name in classes])
    return index, torch.tensor([name in column for name in classes])


def _log_p(logits: Tensor, temperature: float, known: Tensor) -> Tensor:
    """log p_T over the known classes `[K, B, C]`; -inf where unknown, in teachers that know nothing of the row too."""
    softened = (logits / temperature).masked_fill_(~known, -torch.inf)
    return torch.log_softmax(softened, dim=-1).masked_fill_(~known, -torch.inf)


def _row_weights(teacher_weights: Tensor, known: Tensor) -> Tensor:
    """`[K]` to `[K, B]`: normalised over the teachers that know anything of a row."""
    weights = teacher_weights[:, None] * known.any(-1)
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def _share_of_class(weights: Tensor, known: Tensor) -> Tensor:
    """`[K, B]` to `[K, B, C]`: normalised over the teachers that know a class."""
    weights = weights[..., None] * known
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def _target(log_p: Tensor, temperature: float) -> Tensor:
    """T log p `[B, C]`, normalised and finite; 0 in rows that nobody knows."""
    nobody = torch.isneginf(log_p).all(-1, keepdim=True)
    normalised = torch.log_softmax(log_p.masked_fill(nobody, 0.0), dim=-1)
    return normalised.clamp_(min=LOG_ZERO).masked_fill_(nobody, 0.0) * temperature
