"""Sides that are timed in turn, so that what else the machine does falls on all of them alike."""

import argparse
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from benchmarks.record import finish, with_record

Side = Callable[[int], Any]
"""Takes so many steps."""
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def with_clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of a process, for a machine with neighbours"
    )


def step_parser(about: str | None, devices: Iterable[str] = ("cpu", "cuda")) -> argparse.ArgumentParser:
    """What every benchmark of training steps is told; `about`: its docstring."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=[*devices], default="cpu")
    with_clock(parser)
    with_record(parser)
    return parser


def begun(arguments: argparse.Namespace) -> dict[str, Any]:
    """Set this process up as `step_parser` was told; what `in_turn` is asked for."""
    if (arguments.device, arguments.clock) == ("cuda", "cpu"):
        raise SystemExit("--clock cpu does not see what a GPU does")
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.INFO)
    return {"rounds": arguments.rounds, "clock": CLOCKS[arguments.clock]}


def with_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=10, help="of each side in a round")
    parser.add_argument("--only", help="names, with commas between them; the others are left out")


def names_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace, known: Iterable[str]) -> list[str]:
    """Those of `known` that are asked for, by default all; a message and the end of the program for another."""
    names = arguments.only.split(",") if arguments.only else [*known]
    if strange := sorted({*names} - {*known}):
        parser.error(f"nothing is called {strange[0]!r} here; there are {', '.join(known)}")
    return names


def dearest(figures: Mapping[str, Any], behind: str) -> dict[str, Any]:
    """Of figures whose names end with `behind` the largest, and whose it is; nothing without one."""
    mine = {name.removesuffix(behind): value for name, value in figures.items() if name.endswith(behind)}
    if not mine:
        return {}
    most = max(mine, key=lambda name: mine[name])
    return {f"dearest{behind}": mine[most], f"dearest{behind}_is": most}


def ended(name: str, figures: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Print and keep the figures, with how they were taken; those of a GPU in a file of their own."""
    figures |= {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "clock": arguments.clock,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
    }
    finish(name if arguments.device == "cpu" else f"{name}-cuda", figures, keep=arguments.record)


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
