"""What a study of `collegium tune` costs, beside plain Optuna on two processes and beside trials that ask their teachers.

    python benchmarks/tune.py [--trials 20] [--seconds 15] [--live-trials 4] [--rounds 1]

A conv net of width 8 learns from three of width 16, 24 and 32, batch 256, two trials at a time on a core each, in all of
these. Needs two cores and nobody beside it. How many steps take a plain training so many seconds, with another one
beside it, is found once and then the same for all. A figure is the median over rounds, every other round backwards. The
last line printed is one JSON object:

    live_over_cached_study      a trial of plain loops that run the three teachers in every step, over one of ours (goal >= 4);
                                their processes have begun already, ours are in the figure
    study_over_plain_optuna     our study over ask and tell with two processes and a loop by hand, whose rows and combined
                                targets lie in memory; same sampler, trials, steps, optimiser, schedule, loss and looks at
                                validation (goal <= 1.3)
    trial_overhead_s            a trial of a few steps in a study of as many, less what these steps take (goal < 2)
    trial_overhead_later_s      the same from the end of the first two trials on: without the study's own start
    teacher_forwards            batches that a teacher was asked about: before our studies, and in them

Our studies are timed from an OUT in which all teachers have labelled and Ray runs, to the end of the last trial.
Fashion-MNIST where ../shared/data has it, else digits scaled to its shape.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain_study import (
    BATCH,
    CHUNK,
    SLOTS,
    SPACE,
    STUDENT,
    TEACHERS,
    TEMPERATURE,
    Held,
    Speed,
    Timed,
    evaluate_every,
    live,
    plain_optuna,
)
from benchmarks.record import finish, settings, with_record
from teachers.zoo import conv_net

if TYPE_CHECKING:  # processes of the plain sides import this file, and must not wait for what is ours
    import numpy as np

    from orchestrator.building.context import Context
    from orchestrator.building.results import Results
    from orchestrator.recipe.model import Recipe
    from orchestrator.running.run import Begun
    from orchestrator.search.study import Who
    from orchestrator.search.trial import Job

ROOT = Path(__file__).resolve().parents[1]
ROWS = 9216
SHORT = 4
"""Steps of a trial that is all overhead."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15, help="of a plain training")
    parser.add_argument("--live-trials", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    with_record(parser)
    arguments = parser.parse_args()
    if min(arguments.trials, arguments.live_trials) < SLOTS:
        parser.error(f"no side has its {SLOTS} processes busy with fewer than {SLOTS} trials")
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Ours(Path(folder)), arguments)
    finish("tune", figures | settings(arguments) | {"student": STUDENT, "teachers": TEACHERS}, keep=arguments.record)


def measured(ours: "Ours", arguments: argparse.Namespace) -> dict[str, Any]:
    asked_before = ours.prepare()
    speed = Speed.found(ours.rows_file, arguments.seconds)
    steps = speed.steps_in(arguments.seconds)
    print(
        f"plain step {1e3 * speed.step_s:.1f} ms, look {1e3 * speed.look_s:.0f} ms: {steps} steps a trial", flush=True
    )
    sides: dict[str, Callable[[], Timed]] = {
        "ours": lambda: ours.study(steps, arguments.trials),
        "plain_optuna": lambda: plain_optuna(ours.rows_file, steps, arguments.trials),
        "live": lambda: live(ours.rows_file, steps, arguments.live_trials),
    }
    short = tell("short", ours.study(SHORT, arguments.trials))
    found: dict[str, list[Timed]] = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name in reversed(sides) if number % 2 else sides:
            found[name].append(tell(name, sides[name]()))
    alone_s, later_s = speed.of(SHORT), short.later_trial_s
    by_round = [*zip(found["ours"], found["plain_optuna"], found["live"], strict=True)]
    return {
        "live_over_cached_study": round(median(live.trial_s / ours.trial_s for ours, _, live in by_round), 3),
        "study_over_plain_optuna": round(median(ours.seconds / plain.seconds for ours, plain, _ in by_round), 4),
        "trial_overhead_s": round(short.trial_s - alone_s, 3),
        "trial_overhead_later_s": None if later_s is None else round(later_s - alone_s, 3),
        "teacher_forwards": {"before": asked_before, "in_studies": ours.num_asked() - asked_before},
        "sides": {name: [each.told() for each in rounds] for name, rounds in {"short": [short], **found}.items()},
        "plain_step_ms": round(1e3 * speed.step_s, 3),
        "plain_look_ms": round(1e3 * speed.look_s, 3),
        "batch_size": BATCH,
    }


def tell(name: str, timed: Timed) -> Timed:
    print(
        f"{name}: {timed.trials} trials of {timed.steps} steps, {timed.seconds:.1f} s, {timed.trial_s:.2f} s a trial",
        flush=True,
    )
    return timed


def counted_conv_net(width: int, counter: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A `conv_net` that adds a byte to the file `counter` for every batch that it is asked about."""

    def count(*_: Any) -> None:
        with open(counter, "ab") as file:
            file.write(b".")

    network = conv_net(width, num_classes=num_classes, input_shape=input_shape)
    network.register_forward_hook(count)
    return network


class Ours:
    """An OUT in which everything is sealed that comes before the trials of a study, and such studies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counter, self.rows_file = folder, folder / "asked", folder / "rows.pt"
        self.num_studies = 0
        self.counter.touch()
        images, labels = pictures()
        import numpy as np

        np.savez(folder / "images.npz", image=images, label=labels)

    def num_asked(self) -> int:
        """Batches that any teacher was ever asked about."""
        return self.counter.stat().st_size

    def recipe(self, steps: int, trials: int) -> "Recipe":
        from orchestrator.recipe.model import Recipe

        source = {"kind": "numpy", "path": str(self.folder / "images.npz")}
        split = {"train": 0.9, "validation": 0.05, "test": 0.05}
        teacher = {"kind": "module", "model": "benchmarks.tune:counted_conv_net", "train": {"steps": 4}}
        arguments = {"counter": str(self.counter)}
        soft = {"loss": "soft", "combine": "mean_probability", "temperature": TEMPERATURE, "weight": 0.9}
        student = {
            "model": "teachers.zoo:conv_net",
            "arguments": {"width": STUDENT},
            "teachers": [*TEACHERS],
            "objective": [soft, {"loss": "hard", "weight": 0.1}],
            "train": {"steps": steps, "batch_size": BATCH, "learning_rate": 1e-3, "seeds": [0]},
            "control": False,
            "resources": {"cpus": 1, "gpus": 0},
        }
        search = {"student": "small", "space": SPACE, "algorithm": "random", "scheduler": "none", "trials": trials}
        document = {
            "format": 1,
            "name": "benchmark",
            "transfer_set": {"source": source, "inputs": "image", "label": "label", "split": split},
            "teachers": {
                name: {**teacher, "arguments": {"width": width, **arguments}} for name, width in TEACHERS.items()
            },
            "students": {"small": student},
            "search": {**search, "max_concurrent": SLOTS},
            "tracking": {"uri": f"sqlite:///{self.folder}/mlflow.db"},
        }
        return Recipe.model_validate(document)

    @contextmanager
    def sealed(self, steps: int, trials: int) -> Iterator[tuple["Begun", "Context", "Results"]]:
        """A cluster, with all that comes before the trials; done the first time."""
        from orchestrator.building.pipeline import train_in_order
        from orchestrator.running.run import Opening, opened
        from orchestrator.stages.outline import planned_study

        recipe = self.recipe(steps, trials)
        how = Opening(self.folder / "out", ROOT, "local", quiet=True, source=None)
        with (
            opened(recipe, how, command="tune", planned=planned_study(recipe)) as begun,
            begun.on_cluster() as context,
        ):
            taught = train_in_order(context, recipe.before("small"))
            context.cluster.join()
            yield begun, context, taught

    def prepare(self) -> int:
        """Train the teachers a little, label, and write down the rows for the plain sides; how often they were asked."""
        start = time.perf_counter()
        with self.sealed(SHORT, SLOTS) as (_, context, taught):
            job = job_of(context, taught, self.folder)
            torch.save(rows_of(job, taught), self.rows_file)
        print(f"prepared, trained and labelled in {time.perf_counter() - start:.1f} s", flush=True)
        return self.num_asked()

    def study(self, steps: int, trials: int) -> Timed:
        """As `collegium tune` has it, from the first of a study to the end of its last trial."""
        from orchestrator.recipe.space import values_now
        from orchestrator.running.tune import Diary
        from orchestrator.search.on_tune import run_trials
        from orchestrator.search.study import Study

        self.num_studies += 1
        with self.sealed(steps, trials) as (begun, context, taught):
            search = context.recipe.search
            assert search is not None
            start, begun_at = time.perf_counter(), time.time()
            study = Study.open(self.folder / "out" / "studies" / str(self.num_studies), {"steps": steps})
            diary, job = Diary(begun, study, search, control=False), job_of(context, taught, study.folder / "scratch")
            now: dict[Who, dict[str, Any] | None] = {"student": values_now(job.learner, search), "control": None}
            looks = -(-steps // evaluate_every(steps))
            run_trials(study, search, now, job, looks=looks, at_once=SLOTS, ended=diary.ended, looked=diary.looked)
            seconds = time.perf_counter() - start
        for trial in study.trials:
            if trial.state != "finished" or trial.looks != looks:
                raise SystemExit(f"trial {trial.number} {trial.state} after {trial.looks} looks: {trial.error}")
        return Timed(len(study.trials), steps, seconds, sorted(trial.time - begun_at for trial in study.trials))


def job_of(context: "Context", taught: "Results", scratch: Path) -> "Job":
    from orchestrator.building.context import segments_of, sources
    from orchestrator.search.trial import Job

    learner = context.recipe.learners["small"]
    segments = segments_of(taught.prepared, "train")
    return Job(
        name="small",
        learner=learner,
        sources={source.name: source for source in sources(context.recipe, learner, taught.taught, segments)},
        transfer_set=taught.prepared.folder,
        seed=0,
        gpus=0.0,
        user_path=context.user_path,
        trust=context.recipe.trusted(),
        measures=False,
        folder=scratch,
    )


def rows_of(job: "Job", taught: "Results") -> dict[str, Any]:
    """What a trial of ours reads, as tensors; and the teachers, who give the same targets when they are asked."""
    from safetensors.torch import load_file

    from orchestrator.search.trial import run_of
    from students.data.shared import open_data
    from students.runs.session import PlainSession

    data = open_data(run_of(job, job.learner, "student", job.folder / "none"), PlainSession(), 1 << 34)  # type: ignore[arg-type]
    columns: dict[str, Any] = data.rows.columns
    targets, labels = (asked.target for asked in data.rows.objective.ask(columns))
    looks = [*data.validation.chunks()]
    folders = {name: taught.taught[name].network for name in TEACHERS}
    held = {
        "inputs": columns["input."],
        "targets": F.softmax(targets / TEMPERATURE, -1),
        "labels": labels,
        "validation_inputs": torch.cat([inputs for inputs, _ in looks]),  # type: ignore[misc]
        "validation_labels": torch.cat([labels for _, labels in looks]),
        "teachers": {name: load_file(f"{folder}/model.safetensors") for name, folder in folders.items()},
    }
    asked = Held(held).said_by_teachers(held["inputs"][:CHUNK])
    torch.testing.assert_close(asked, held["targets"][:CHUNK], rtol=0.02, atol=0.002)  # stores hold float16
    return held


def pictures() -> tuple["np.ndarray", "np.ndarray"]:
    import numpy as np

    from benchmarks.rows import FASHION, fashion

    if FASHION.exists():
        return fashion(ROWS)
    from sklearn.datasets import load_digits

    digits = load_digits()
    print(f"data: {len(digits.target)} digits, scaled to 28 x 28 and repeated to {ROWS} rows")
    images = np.pad((digits.images * 15.9).astype(np.uint8).repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    index = np.arange(ROWS) % len(images)
    return images[index][..., None], digits.target[index]


if __name__ == "__main__":
    main()
