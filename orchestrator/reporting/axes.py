"""Axes for the settings of a study: where a value of any kind stands, and what is written beside it.

Knows nothing of trials or of what is drawn on the axes.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .study import heard, short

LABELS_OF_AN_AXIS = 12
LABEL_CHARACTERS = 16


@dataclass(frozen=True)
class Axis:
    """One setting from 0 to 1. What a range does not hold (null, or 0 on a logarithm) has places of its own below 0."""

    title: str
    place: Callable[[Any], float]
    ticks: Sequence[tuple[float, str]]
    is_of_categories: bool


def axis_of(path: str, entry: Mapping[str, Any], values: Sequence[Any]) -> Axis:
    """Of one entry of the space as `report.json` has it, long enough for all of `values`."""
    if "choice" in entry:
        known = [*entry["choice"], *values]
        return _of_categories(path, {_key(value): _cut(short(value)) for value in known})
    if "subset" in entry:
        of = entry["subset"]["of"]
        chosen = [heard(value, entry) for value in values]
        chosen.sort(key=lambda names: (len(names), [of.index(name) if name in of else -1 for name in names]))
        axis = _of_categories(path, {_key(names): _cut(_subset(names, of)) for names in chosen})
        return replace(axis, place=lambda value: axis.place(heard(value, entry)))
    low, high = next(iter(entry.values()))
    return _of_numbers(path, low, high, values, is_log="log_uniform" in entry)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _cut(label: str) -> str:
    return label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _subset(chosen: Sequence[str], of: Sequence[str]) -> str:
    """A subset in as few letters as it can be told."""
    missing = [name for name in of if name not in chosen]
    if not missing:
        return "all" if len(of) > 1 else short(list(chosen))
    return f"all but {missing[0]}" if len(missing) == 1 and len(of) > 3 else short(list(chosen))


def _of_categories(path: str, labels: Mapping[str, str]) -> Axis:
    last = max(1, len(labels) - 1)
    places = {key: at / last if len(labels) > 1 else 0.5 for at, key in enumerate(labels)}
    stride = -(-len(labels) // LABELS_OF_AN_AXIS)
    ticks = [(places[key], label) for key, label in labels.items()][::stride]
    return Axis(path, lambda value: places[_key(value)], ticks, is_of_categories=True)


def _of_numbers(path: str, low: float, high: float, values: Iterable[Any], *, is_log: bool) -> Axis:
    is_on = _is_positive if is_log else _is_number
    numbers = [value for value in values if is_on(value)]
    others = dict.fromkeys(short(value) for value in values if not is_on(value))
    low, high = min([low, *numbers]), max([high, *numbers])
    measure: Callable[[float], float] = math.log if is_log else float

    def place(value: Any) -> float:
        if not is_on(value):
            return beside[short(value)]
        return (measure(value) - measure(low)) / (measure(high) - measure(low))

    beside = {label: -0.14 * number for number, label in enumerate(others, 1)}
    ticks = [(place(tick), f"{tick:g}") for tick in ticks_of(low, high, is_log=is_log)]
    return Axis(path, place, [*((at, label) for label, at in beside.items()), *ticks], is_of_categories=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def ticks_of(low: float, high: float, *, is_log: bool) -> list[float]:
    """At most six round numbers between two."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    finest: tuple[tuple[float, ...], ...] = ((1, 2, 5), (1, 3), (1,))
    locators = [LogLocator(subs=subs, numticks=100) for subs in finest] if is_log else []
    for locator in [*locators, LogLocator(numticks=6) if is_log else MaxNLocator(5)]:
        found = [float(f"{tick:.6g}") for tick in locator.tick_values(low, high) if low <= tick <= high * (1 + 1e-9)]
        if 2 <= len(found) <= 6:
            return found
    return [low, high]
