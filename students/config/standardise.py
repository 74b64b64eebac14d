"""Logits by their shape alone, in terms that compare distributions of one class of many. Knows nothing of torch."""

from typing import ClassVar

from .unsaid import Unsaid


class Standardise(Unsaid):
    """What terms have that can compare logits less their mean over their standard deviation."""

    unsaid: ClassVar[frozenset[str]] = frozenset({"standardise"})
    standardise: bool = False
    """Logits of either side less their mean over a row's classes, over their standard deviation, before the temperature (Sun et al., 2024): the student need not be as sure as its teachers."""
