"""A schedule as text: a line for each stage, in which a digit says how many of its works go on at that time."""

from collections.abc import Mapping, Sequence

from .virtual import Bar

WIDTH = 60
IDLE, MANY = "·", "+"


def chart(bars: Sequence[Bar], width: int = WIDTH) -> list[str]:
    """`distill/small  ··2222221` over all of the time, by kind and name, in the order in which they begin."""
    by_stage: dict[str, list[Bar]] = {}
    for bar in sorted(bars, key=lambda bar: bar.start):
        by_stage.setdefault("/".join(bar.name.split("/")[:2]), []).append(bar)
    end = max((bar.end for bar in bars), default=0.0)
    longest = max(map(len, by_stage), default=0)
    return [f"{name:<{longest}}  {_line(mine, end, width)}" for name, mine in by_stage.items() if end]


def _line(bars: Sequence[Bar], end: float, width: int) -> str:
    """Most that go on at once in each column; a work is seen, however short it is."""
    most = [0] * width
    for column in range(width):
        begin, over = column * end / width, (column + 1) * end / width
        times = [bar.start for bar in bars if begin <= bar.start < over]
        most[column] = max(
            sum(bar.start <= at < max(bar.end, at + (bar.start == at)) for bar in bars) for at in (begin, *times)
        )
    return "".join(IDLE if not num else str(num) if num < 10 else MANY for num in most)


def busy(bars: Sequence[Bar], took: Mapping[str, float], total: float) -> float:
    """The share of `total` of a resource, over all of the time, that works have; `took`: by name, what one has of it."""
    end = max((bar.end for bar in bars), default=0.0)
    return sum((bar.end - bar.start) * took[bar.name] for bar in bars) / (end * total) if end and total else 0.0
