"""The engine in one Ray task: for trainings that one worker does. A group of one would cost a trainer's start."""

from collections.abc import Sequence
from typing import Any

import torch

from teachers.errors import CollegiumError
from teachers.resources.device import device_of
from teachers.storage.disk import is_unfit

from ..runs.run import Run, RunResult
from ..runs.session import PlainSession
from .fit import fit
from .on_ray import BUGS, unforeseen


def fit_in_task(runs: Sequence[Run], threads: int, gpus: float, mailbox: Any, at_once: int = 1) -> list[RunResult]:
    """Train `runs` in turn in this process, one of `at_once` that may share a machine's memory.

    `mailbox` is an actor handle whose `put` takes points of curves, or None. A task whose process dies is done again by Ray, and goes on from its newest checkpoint. Raises CollegiumError.
    """
    torch.set_num_threads(threads)  # Ray sets OMP_NUM_THREADS to 1
    try:
        return fit(runs, PlainSession(device_of("a training", gpus), mailbox), at_once=at_once)
    except CollegiumError:
        raise
    except (*BUGS, OSError) as error:
        if isinstance(error, OSError) and not is_unfit(error):
            raise
        raise unforeseen(error, runs[0]) from error
