"""What the terms of an objective are called in curves and reports."""

from collections import Counter
from collections.abc import Sequence


def curve_names(losses: Sequence[str]) -> list[str]:
    """Of terms, by their losses: the second `soft` is `soft_2`; of a function of the user's its name."""
    seen: Counter[str] = Counter()
    names = []
    for loss in losses:
        name = loss.rpartition(":")[2]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
