"""Prices for people: a table, and a line for each teacher on whether it is cheaper cached or live."""

from collections.abc import Iterator

from .memory import in_units
from .prices import LearnerPrice, Price, Prices, TeacherPrice

UNKNOWN = "?"
HEADS = ("stage", "answers or steps", "bytes", "each", "CPU s", "GPU s", "wall s", "seconds are of")


def table(found: Prices) -> Iterator[str]:
    """A line for each stage that labels or trains."""
    lines = [HEADS, *map(_of_teacher, found.teachers), *map(_of_learner, found.learners)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *numbers, last in lines:
        right = [cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *right, last]).rstrip()


def _of_teacher(price: TeacherPrice) -> tuple[str, ...]:
    rows = UNKNOWN if price.rows is None else f"{price.rows:,} rows"
    size = UNKNOWN if price.bytes is None else in_units(price.bytes)
    return price.work, rows, size, _each(price.row_s), *_seconds(price)


def _of_learner(price: LearnerPrice) -> tuple[str, ...]:
    steps = "fits" if price.steps is None else f"{price.steps:,} steps"
    size = UNKNOWN if price.bytes is None else in_units(price.bytes)
    return price.work, f"{price.trainings} x {steps}", size, _each(price.step_s), *_seconds(price)


def _each(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{1000 * seconds:,.3g} ms"


def _seconds(price: Price) -> tuple[str, ...]:
    if price.wall_s is None:
        return UNKNOWN, UNKNOWN, UNKNOWN, f"unknown: {price.why}"
    return *(f"{each or 0:,.1f}" for each in (price.cpu_s, price.gpu_s, price.wall_s)), price.how or ""


def caching(found: Prices) -> Iterator[str]:
    """When a cache beats asking live, of each teacher whom trainings of steps hear."""
    for price in found.teachers:
        if price.passes is None or not price.passes.cached or price.row_bytes is None:
            continue
        name, passes, views = price.work.partition("/")[2], price.passes, price.views
        epochs = passes.live * views / passes.cached
        yield (
            f"teachers.{name}: of training rows {passes.cached:,} answers from a cache ({price.row_bytes:,} bytes each), {passes.live:,} "
            f"live, {passes.factor:,.1f} times as many; even at {views:,} epoch{'s' * (views > 1)} of all trainings together, "
            f"and there are {epochs:,.1f}"
        )
