"""What a rule may be told besides what teachers say. Knows nothing of students or stores, and imports no torch."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def _itself(tensor: "Tensor") -> "Tensor":
    return tensor


@dataclass(frozen=True)
class Context:
    """Given to a rule that takes `context`. Such a rule is asked in every step; all of this is the same on every rank, but for what
    is of rows."""

    step: int = 0
    """Counted from 0."""
    sample_key: "Tensor | None" = None
    """Of each row, the bits of a u64 as i64 `[B]`."""
    student: "Tensor | None" = None
    """What the student says of these rows before it moves, in the units of what teachers say: f32 `[B, W]`, detached."""
    teacher_figures: "tuple[Mapping[str, float | None], ...]" = ()
    """Of each teacher on labelled validation rows, by key: what a look tells. Empty where there are none."""
    student_figures: "Mapping[str, float | None]" = field(default_factory=dict)
    """Of the student at its last look at validation; empty before the first."""
    state: "dict[str, Tensor]" = field(default_factory=dict)
    """The rule's own, which it may change and checkpoints keep. It declares it by an attribute: `rule.state(teachers, width)` gives
    tensors by name, once a run; what of it is made of rows has to pass `all_reduce`, so that all ranks have the same."""
    all_reduce: "Callable[[Tensor], Tensor]" = _itself
    """The sum of a tensor over all ranks; every rank calls it alike."""


def takes_context(rule: Callable[..., Any]) -> bool:
    """Whether `context` is among the parameters of a rule."""
    try:
        return "context" in inspect.signature(rule).parameters
    except (TypeError, ValueError):  # of something built in
        return False


def initial_state(rule: Callable[..., Any], teachers: int, width: int) -> "dict[str, Tensor]":
    """What a rule declares that it keeps; of most nothing."""
    declared = getattr(rule, "state", None)
    return {} if declared is None else dict(declared(teachers, width))
