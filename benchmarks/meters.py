"""What it costs to judge 1,000,000 rows, beside scikit-learn's functions for the same figures.

    python benchmarks/meters.py [--rows 1000000] [--repeat 3]

Each side works in a process of its own, with one thread, so that memory is its own. The last line printed is one JSON object,
by task:

    <task>.seconds, sklearn_seconds        from logits (or numbers) and labels to all figures, the median
    <task>.mib, sklearn_mib                the most that was taken beyond what was there before
    <task>.over_sklearn                    seconds over seconds
    meter_over_sklearn                     the largest of these
    meter_mib_over_sklearn                 the same of memory

scikit-learn has no expected calibration error; the meter's share of it counts against the meter.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import ROOT, finish, with_record
from students.tasks.tasks import TASKS
from teachers.config.task import TaskName
from teachers.tasks.space import Space

WIDTH: dict[TaskName, int] = {"classification": 10, "multilabel": 10, "regression": 2}
Array = NDArray[Any]
Judge = Callable[[Array, Array], Any]


def rows_of(task: TaskName, rows: int) -> tuple[Array, Array]:
    """What is said, f32[rows, width], and labels; a fair model's."""
    numbers = np.random.default_rng(0)
    width = WIDTH[task]
    said = numbers.normal(size=(rows, width)).astype(np.float32)
    if task == "classification":
        labels = numbers.integers(0, width, rows).astype(np.int32)
        said[np.arange(rows), labels] += 1.5
        return said, labels
    noisy = said + numbers.normal(size=said.shape).astype(np.float32)
    return said, (noisy > 1).astype(np.int8) if task == "multilabel" else noisy


def metered(task: TaskName) -> Judge:
    names = tuple(map(str, range(WIDTH[task])))
    numbers = (1.0,) * len(names) if task == "regression" else ()

    def judge(said: Array, labels: Array) -> Any:
        meter = TASKS[task].meter(Space(task, names, numbers, numbers))
        meter.update(torch.from_numpy(said), torch.from_numpy(labels))
        return meter.figures()

    return judge


def sklearn_classification(said: Array, labels: Array) -> Any:
    import scipy.special
    import sklearn.metrics as metrics

    p, answers = scipy.special.softmax(said.astype(np.float64), axis=1), said.argmax(1)
    return [
        metrics.accuracy_score(labels, answers),
        metrics.balanced_accuracy_score(labels, answers),
        metrics.f1_score(labels, answers, average="macro"),
        metrics.log_loss(labels, p),
        metrics.brier_score_loss(labels, p),
    ]


def sklearn_multilabel(said: Array, labels: Array) -> Any:
    import scipy.special
    import sklearn.metrics as metrics

    p = scipy.special.expit(said.astype(np.float64))
    answers = p >= 0.5
    return [
        metrics.average_precision_score(labels, p, average="macro"),
        metrics.f1_score(labels, answers, average="micro"),
        metrics.f1_score(labels, answers, average="macro"),
        metrics.log_loss(labels.ravel(), p.ravel()),
    ]


def sklearn_regression(said: Array, labels: Array) -> Any:
    import scipy.stats
    import sklearn.metrics as metrics

    return [
        metrics.root_mean_squared_error(labels, said),
        metrics.mean_absolute_error(labels, said),
        metrics.r2_score(labels, said),
        [scipy.stats.spearmanr(said[:, column], labels[:, column]).statistic for column in range(said.shape[1])],
    ]


SKLEARN: dict[TaskName, Judge] = {
    "classification": sklearn_classification,
    "multilabel": sklearn_multilabel,
    "regression": sklearn_regression,
}


def alone(task: TaskName, side: str, rows: int, repeat: int) -> dict[str, float]:
    """Seconds and MiB of one side, in this process; the first time is of a few rows, so that nothing is imported later."""
    torch.set_num_threads(1)
    judge = metered(task) if side == "meter" else SKLEARN[task]
    judge(*rows_of(task, 1000))
    said, labels = rows_of(task, rows)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(repeat):
        begun = time.process_time()
        judge(said, labels)
        seconds.append(time.process_time() - begun)
    return {
        "seconds": median(seconds),
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def measured(task: TaskName, side: str, rows: int, repeat: int) -> dict[str, float]:
    """The same in a process of its own."""
    told = ["--rows", str(rows), "--repeat", str(repeat), "--alone", task, side]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.meters", *told]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--alone", nargs=2, metavar=("TASK", "SIDE"), help=argparse.SUPPRESS)
    with_record(parser)
    given = parser.parse_args()
    if given.alone:
        task, side = given.alone
        print(json.dumps(alone(task, side, given.rows, given.repeat)))
        return
    finish("meters", beside_sklearn(given.rows, given.repeat), keep=given.record)


def beside_sklearn(rows: int, repeat: int) -> dict[str, Any]:
    """Seconds and MiB of each task's meter and of scikit-learn's functions; the worst ratio of them."""
    found: dict[str, Any] = {}
    for task in SKLEARN:
        ours, theirs = (measured(task, side, rows, repeat) for side in ("meter", "sklearn"))
        found |= {
            f"{task}.seconds": round(ours["seconds"], 3),
            f"{task}.sklearn_seconds": round(theirs["seconds"], 3),
            f"{task}.mib": round(ours["mib"], 1),
            f"{task}.sklearn_mib": round(theirs["mib"], 1),
            f"{task}.over_sklearn": round(ours["seconds"] / theirs["seconds"], 3),
            f"{task}.mib_over_sklearn": round(ours["mib"] / max(theirs["mib"], 1.0), 3),
        }
        print(f"{task}: {ours} beside {theirs}", file=sys.stderr)
    found["meter_over_sklearn"] = max(found[f"{task}.over_sklearn"] for task in SKLEARN)
    found["meter_mib_over_sklearn"] = max(found[f"{task}.mib_over_sklearn"] for task in SKLEARN)
    return found


if __name__ == "__main__":
    main()
