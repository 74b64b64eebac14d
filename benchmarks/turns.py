"""Sides that are timed in turn, so that what else the machine does falls on all of them alike."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

Side = Callable[[int], Any]
"""Takes so many steps."""
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def with_clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of a process, for a machine with neighbours"
    )


def in_turn(
    sides: Mapping[str, Side], *, steps: int, rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds a step, for each side and round; a round before the first warms up. Every other round goes backwards."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            begun = clock()
            sides[name](steps)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # until the device has done all that it was told
            if number:
                times[name].append((clock() - begun) / steps)
    return times


def repeated(step: Callable[[], object]) -> Side:
    """Takes `step` so many times."""

    def steps(number: int) -> None:
        for _ in range(number):
            step()

    return steps


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of one side's time over another's."""
    return median(a / b for a, b in zip(times, others, strict=True))
