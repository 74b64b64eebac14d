"""How several teachers become one target. Knows nothing of stores, students or losses.

A rule is `fn(said, *, temperature, known, labels=None, **keywords) -> (target, weights)`:

    said     f32 [K, B, W]   what K teachers say of B rows, in the classes or numbers of the transfer set; finite
    known    bool [K, B, W]  False: that teacher takes no part in that class or number of that row
    target   f32 [B, W]      what somebody who compares with it is compared with: see the modules of the rules
    weights  f32 [K, B]      what each teacher counted in each row; they sum to 1, or are all 0 where nobody knows the row

A rule with a parameter `context` is asked in every step, and told what `context.Context` has.
"""

import torch
from torch import Tensor

from ...config.task import AnswerName
from ...config.teacher import CombineName
from ...errors import RecipeError
from . import boxes, by_row, class_scores, class_set, confusion, gate, gradient, values, votes
from .class_scores import LOG_ZERO
from .experts import experts
from .shares import Combine

CLOSE = 1e-3
"""How far a user's weights may be from what they should be: those of float16 are."""

COMBINE: dict[AnswerName, dict[CombineName, Combine]] = {
    "class_axis": {
        "mean_probability": class_scores.mean_probability,
        "mean_logits": class_scores.mean_logits,
        "weighted": class_scores.weighted,
        "fitted": class_scores.fitted,
        "vote": votes.of_class_scores,
        "confidence": by_row.confidence(by_row.class_confidence, class_scores.mixture),
        "entropy": by_row.entropy(by_row.class_entropy, class_scores.mixture),
        "correctness": by_row.correctness(by_row.ERRORS["class_axis"], class_scores.mixture),
        "best": by_row.best(class_scores.mixture),
        "experts": experts(class_scores.pool_by_class),
        "learned": gate.learned,
        "confusion": confusion.confusion,
        "gradient": gradient.gradient(gradient.class_gradients, class_scores.mixture),
        "route": by_row.route(class_scores.mixture),
    },
    "class_set": {
        "mean_probability": class_set.mean_probability,
        "mean_logits": class_set.mean_logits,
        "weighted": class_set.weighted,
        "vote": votes.of_class_set,
        "confidence": by_row.confidence(by_row.set_confidence, class_set.mixture),
        "entropy": by_row.entropy(by_row.set_entropy, class_set.mixture),
        "correctness": by_row.correctness(by_row.ERRORS["class_set"], class_set.mixture),
        "best": by_row.best(class_set.mixture),
        "experts": experts(class_set.pool_by_class),
        "gradient": gradient.gradient(gradient.set_gradients, class_set.mixture),
        "route": by_row.route(class_set.mixture),
    },
    "values": {
        "mean": values.mean,
        "median": values.median,
        "weighted": values.weighted,
        "inverse_variance": values.inverse_variance,
        "best": by_row.best(values.mixture),
        "route": by_row.route(values.mixture),
    },
    "boxes": {
        "wbf": boxes.wbf,
        "nms": boxes.nms,
        "soft_nms": boxes.soft_nms,
        "nmw": boxes.nmw,
        "best": boxes.best,
    },
}
"""The first of each is what teachers are combined by where nobody says otherwise."""

COVERS_ALL: frozenset[str] = frozenset({"confusion"})
"""Rules whose target is of all classes, those that no teacher knows too."""


def check_combined(said: object, logits: Tensor, rule: str, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(target, weights) that a rule of the user's made of `logits` `[K, B, W]`. RecipeError where they are not as above.

    `rule` begins the message. `known` `[K, B, W]`: where nobody knows an element of the target it may be NaN; None: it may
    be nowhere.
    """
    unknown = torch.zeros_like(logits[0], dtype=torch.bool) if known is None else ~known.any(0)
    if not isinstance(said, tuple) or len(said) != 2 or not all(isinstance(each, Tensor) for each in said):
        raise RecipeError(f"{rule} gives a {type(said).__name__}, expected two tensors: (target, weights)")
    target, weights = said
    for name, found, shape in (("target", target, logits.shape[1:]), ("weights", weights, logits.shape[:2])):
        if found.shape != shape or not found.is_floating_point():
            raise RecipeError(
                f"{rule} gives {name} of shape {list(found.shape)} and {found.dtype}, expected {list(shape)} in floating "
                f"point for logits {list(logits.shape)}"
            )
        allowed = unknown & found.isnan() if name == "target" else torch.zeros_like(found, dtype=torch.bool)
        if not bool((found.isfinite() | allowed).all()):
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


def with_gaps(target: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """A target of one class of many with NaN in the classes that nobody knows who counts in the row: whoever compares with
    it leaves them out. A row that nobody knows has no weight, and 0 for a target.
    """
    somebody = (known & (weights > 0)[..., None]).any(0)
    return target.masked_fill(~somebody, torch.nan).masked_fill(~somebody.any(-1, keepdim=True), 0.0)
