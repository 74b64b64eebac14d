"""The plain sides of `benchmarks/tune.py`: a training loop by hand, in two processes, under Optuna or with live teachers.

Imports nothing of ours but the networks: the processes start as a script of this kind would.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.zoo import conv_net

SHAPE, CLASSES = (1, 28, 28), 10
STUDENT, TEACHERS = 8, {"wide": 16, "wider": 24, "widest": 32}
BATCH, LOOKS, CHUNK = 256, 20, 512
TEMPERATURE = 2.0
SLOTS = 2
SPACE: dict[str, dict[str, tuple[float, float]]] = {
    "train.learning_rate": {"log_uniform": (3e-4, 1e-2)},
    "objective.0.weight": {"uniform": (0.0, 1.0)},
}
AS_RECIPE = {"train.learning_rate": 1e-3, "objective.0.weight": 0.9}


@dataclass(frozen=True)
class Timed:
    """A study of one side."""

    trials: int
    steps: int
    """Of a trial."""
    seconds: float
    ends_s: list[float] = field(default_factory=list)
    """Of the trials, from the study's start."""

    @property
    def trial_s(self) -> float:
        """What a trial takes the slot it runs in."""
        return self.seconds / -(-self.trials // SLOTS)

    @property
    def later_trial_s(self) -> float | None:
        """The same from the end of the first trial of each slot on."""
        if self.trials <= SLOTS:
            return None
        return (self.ends_s[-1] - self.ends_s[SLOTS - 1]) / (-(-self.trials // SLOTS) - 1)

    def told(self) -> dict[str, Any]:
        figures = {name: value for name, value in asdict(self).items() if name != "ends_s"}
        rows = self.trials * self.steps * BATCH
        return figures | {"rows": rows, "seconds": round(self.seconds, 2), "trial_s": round(self.trial_s, 3)}


@dataclass(frozen=True)
class Trained:
    """What a plain training says of itself."""

    accuracy: float
    """Of the best look at validation."""
    step_s: float
    """Median."""
    look_s: float
    """Median."""


def evaluate_every(steps: int) -> int:
    return -(-steps // LOOKS)


class Held:
    """The rows of the plain sides in the memory of one process, and a training loop by hand."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self.inputs, self.targets, self.labels = held["inputs"], held["targets"], held["labels"]
        self.validation = held["validation_inputs"], held["validation_labels"]
        self.teachers = [conv_net(width, num_classes=CLASSES, input_shape=SHAPE).eval() for width in TEACHERS.values()]
        for teacher, name in zip(self.teachers, TEACHERS, strict=True):
            teacher.load_state_dict(held["teachers"][name])

    def train(self, steps: int, setting: Mapping[str, float], ask: bool) -> Trained:
        """`ask`: the teachers in every step, not what they once said."""
        torch.manual_seed(0)
        student = conv_net(STUDENT, num_classes=CLASSES, input_shape=SHAPE).train()
        rate = setting["train.learning_rate"]
        optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
        batches, best = self.batches(), 0.0
        steps_s: list[float] = []
        looks_s: list[float] = []
        for step in range(1, steps + 1):
            start = time.perf_counter()
            index = next(batches)
            inputs = self.inputs[index]
            targets = self.said_by_teachers(inputs) if ask else self.targets[index]
            loss_of(student(inputs), targets, self.labels[index], setting["objective.0.weight"]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            stepped = time.perf_counter()
            steps_s.append(stepped - start)
            if step % evaluate_every(steps) == 0 or step == steps:
                best = max(best, self.look(student))
                looks_s.append(time.perf_counter() - stepped)
        return Trained(best, median(steps_s), median(looks_s))

    def batches(self) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(self.labels))
            yield from order[: len(order) // BATCH * BATCH].view(-1, BATCH)

    def said_by_teachers(self, inputs: Tensor) -> Tensor:
        """Their mean softened probability."""
        with torch.no_grad():
            return F.softmax(torch.stack([teacher(inputs) for teacher in self.teachers]) / TEMPERATURE, -1).mean(0)

    def look(self, student: nn.Module) -> float:
        """Validation accuracy; the NLL is worked out too, as every look of ours does."""
        right, nll = 0, 0.0
        student.eval()
        with torch.inference_mode():
            for inputs, labels in zip(*(column.split(CHUNK) for column in self.validation), strict=True):
                logits = student(inputs)
                right += int((logits.argmax(-1) == labels).sum())
                nll += float(F.cross_entropy(logits, labels, reduction="sum"))
        student.train()
        return right / len(self.validation[1])


def loss_of(logits: Tensor, targets: Tensor, labels: Tensor, weight: float) -> Tensor:
    soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, -1), targets, reduction="batchmean")
    return weight * TEMPERATURE**2 * soft + 0.1 * F.cross_entropy(logits, labels)


HELD: list[Held] = []
"""Of a process of the plain sides."""


@contextmanager
def processes(rows_file: Path) -> Iterator[ProcessPoolExecutor]:
    """As many as trials run at a time; each has a thread and the rows when this returns."""
    context = multiprocessing.get_context("spawn")
    arguments = rows_file, context.Barrier(SLOTS)
    with ProcessPoolExecutor(SLOTS, context, initializer=begin, initargs=arguments) as pool:
        for ready in [pool.submit(int) for _ in range(SLOTS)]:
            ready.result()
        yield pool


def begin(rows_file: Path, all_here: Any) -> None:
    torch.set_num_threads(1)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    HELD.append(Held(torch.load(rows_file)))
    all_here.wait()


def leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def train_plainly(steps: int, setting: Mapping[str, float], ask: bool = False) -> Trained:
    return HELD[0].train(steps, setting, ask)


@dataclass(frozen=True)
class Speed:
    """Seconds of a plain step and look, with another process at the same beside it."""

    step_s: float
    look_s: float

    @classmethod
    def found(cls, rows_file: Path, seconds: float) -> "Speed":
        """A first guess warms up; the figures come from a training of about a third of `seconds`."""
        with processes(rows_file) as pool:
            guess = cls.of_trainings(pool, steps=8)
            return cls.of_trainings(pool, steps=guess.steps_in(seconds / 3))

    @classmethod
    def of_trainings(cls, pool: ProcessPoolExecutor, steps: int) -> "Speed":
        found = [each.result() for each in [pool.submit(train_plainly, steps, AS_RECIPE) for _ in range(SLOTS)]]
        return cls(fmean(each.step_s for each in found), fmean(each.look_s for each in found))

    def of(self, steps: int) -> float:
        """Seconds of a whole training."""
        return steps * self.step_s + -(-steps // evaluate_every(steps)) * self.look_s

    def steps_in(self, seconds: float) -> int:
        return max(4, round((seconds - LOOKS * self.look_s) / self.step_s))


def plain_optuna(rows_file: Path, steps: int, trials: int) -> Timed:
    """Ask, train in a process that is free, tell; the processes' start is in the time, as in ours."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ends_s: list[float] = []
    start = time.perf_counter()
    with processes(rows_file) as pool:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
        running: dict[Future[Any], optuna.Trial] = {}
        while len(ends_s) < trials:
            while len(running) < SLOTS and len(study.trials) < trials:
                trial = study.ask()
                running[pool.submit(train_plainly, steps, setting_of(trial))] = trial
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                study.tell(running.pop(ended), ended.result().accuracy)
                ends_s.append(time.perf_counter() - start)
    return Timed(trials, steps, time.perf_counter() - start, ends_s)


def setting_of(trial: Any) -> dict[str, float]:
    """Drawn from SPACE."""
    return {
        path: trial.suggest_float(path, *ends, log=kind == "log_uniform")
        for path, entry in SPACE.items()
        for kind, ends in entry.items()
    }


def live(rows_file: Path, steps: int, trials: int) -> Timed:
    """Trainings that ask the teachers in every step; the processes have begun before."""
    with processes(rows_file) as pool:
        start = time.perf_counter()
        for ended in [pool.submit(train_plainly, steps, AS_RECIPE, True) for _ in range(trials)]:
            ended.result()
        seconds = time.perf_counter() - start
    return Timed(trials, steps, seconds)
