"""Which function a hint's `loss` is, and what of the hint it is told."""

from collections.abc import Callable

from torch import Tensor

from ...config.hints import HintLossName
from . import contrastive, features, relations, review

HINT_LOSSES: dict[HintLossName, Callable[..., Tensor]] = {
    "hint": features.hint,
    "attention": features.attention,
    "similarity": relations.similarity,
    "relation": relations.relation,
    "channel_wise": features.channel_wise,
    "correlation": relations.correlation,
    "contrastive": contrastive.contrastive,
    "review": review.review,
    "linear_embedding": features.linear_embedding,
}
HINT_KEYWORDS: dict[HintLossName, tuple[str, ...]] = {
    "hint": (),
    "attention": ("form",),
    "similarity": (),
    "relation": ("distance_weight", "angle_weight"),
    "channel_wise": ("temperature",),
    "correlation": ("gamma", "order"),
    "contrastive": (),
    "review": (),
    "linear_embedding": (),
}
"""What else a hint says is of its layers, its projectors or its memory."""
