"""Everybody who teaches, tried on a batch of real rows: loaded and asked, or fitted, or trained for a step."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers.config.endpoint import EndpointTeacher
from teachers.config.folds import EstimatorTrain
from teachers.config.predictions import PredictionsTeacher
from teachers.config.published import HuggingFaceTeacher
from teachers.config.teacher import CallableTeacher, CheckpointTeacher, ModuleTeacher, SklearnTeacher, TeacherConfig
from teachers.errors import UsersCodeError
from teachers.resources.bundles import num_threads
from teachers.users_code.imports import UserPath

from ..building.train import teacher_run
from ..recipe.model import Recipe, is_trained_here
from .memory import in_units
from .rehearsed import (
    BATCH_SIZE,
    NOT_TIMED,
    STEPS_TIMED,
    TIMED_S,
    Rehearsed,
    Timed,
    as_a_worker,
    device_of,
    note_idle,
    timed,
)

if TYPE_CHECKING:
    import numpy as np

    from students.runs.run import Run, Source
    from teachers.labelling.heard import Heard
    from teachers.labelling.questioner import Questioner
    from teachers.preparing.sample import Sample
    from teachers.transfer_set.transfer_set import TransferSet

ROWS_TIMED = 512
"""Of a batch at most."""
WHATEVER_THE_ROWS = ("InvalidParameterError", "TypeError", "AttributeError", "ImportError")
"""What an estimator complains of on any rows; else it may be of the few that it is tried on."""
TIMES_ITS_SIZE = 3
"""Of a file of weights: itself, the network, what it computes."""


@dataclass
class Teaching:
    """Those who teach, each tried."""

    recipe: Recipe
    few: "TransferSet"
    rows: "Sample"
    folder: Path
    user_path: UserPath
    found: Rehearsed
    outputs: Mapping[str, Mapping[str, tuple[int, ...]]]
    """By teacher the shapes of its named outputs."""

    def source(self, name: str, config: TeacherConfig) -> "Source":
        """What a student hears: the teacher's own answers, or made up ones of who has none yet."""
        from teachers.models.adapters import teacher_classes

        anything = config.model_copy(update={"class_map": None})
        if size := too_large(config):
            self.found.notes.append(f"teachers.{name}: not tried, this machine has no room for its weights of {size}")
            return self.made_up(name, anything, self.few.classes)
        if isinstance(config, PredictionsTeacher | EndpointTeacher):  # nobody to try, or it costs
            return self.made_up(name, config, teacher_classes(config, self.few.space, None))
        with self.found.told(f"teachers.{name}", config.resources):
            if not is_trained_here(config):
                classes, heard = self._asked(name, config, None)
                return self._store(name, config, classes, heard.logits, heard.more)
            own = tuple(config.classes or self.few.classes)
            if isinstance(config, ModuleTeacher):
                self._trained(name, config)
            elif isinstance(config, SklearnTeacher):
                self._fitted(name, config)
            return self.made_up(name, config, own)
        return self.made_up(name, anything, self.few.classes)

    def _asked(self, name: str, config: TeacherConfig, trained: Path | None) -> "tuple[tuple[str, ...], Heard]":
        """Its classes, and what it says of the rows, as a replica asks it."""
        import numpy as np

        from teachers.models.adapters import look_like_probabilities
        from teachers.soft_targets.class_map import mapped, resolved

        questioner = self._questioner(name, config, trained)
        classes = questioner.teacher.classes
        if trained is None:
            mapped(classes, self.few.classes, resolved(config.class_map), self.few.space.answer)
        segment = self.few.of("train")[0]
        heard, once = timed(lambda: questioner.answer(self.few.inputs(segment), self.few.keys(segment)))
        logits = heard.logits
        if trained is None:  # else it has learnt a few rows only, and is smaller than it will be
            elsewhere = isinstance(config, CallableTeacher) and config.version is not None
            with suppress(*NOT_TIMED):
                self._time(name, questioner, once / len(logits) if elsewhere else None)
        questioner.thread.shutdown()
        if unknown := int(np.isnan(logits).all(1).sum()):
            self.found.notes.append(
                f"teachers.{name}: knows nothing of {unknown} of the {len(logits)} rows it was tried on"
            )
        if questioner.teacher.output == "logits" and look_like_probabilities(logits):
            self.found.notes.append(
                f"teachers.{name}: its logits are 0 to 1 and sum to 1 in every row, as probabilities do; if they are, say "
                f"`output: probabilities`"
            )
        return classes, heard

    def _questioner(self, name: str, config: TeacherConfig, trained: Path | None) -> "Questioner":
        from teachers.labelling.batch_size import USUAL
        from teachers.labelling.shard import TeacherSpec, loaded

        update: dict[str, Any] = {"batch_size": USUAL} if config.batch_size == "auto" else {}
        if isinstance(config, CallableTeacher):
            update["retries"] = 0  # whoever plans wants to know now
        config = config.model_copy(update=update)
        spec = TeacherSpec(name, config, trained, self.recipe.trusted(), self.user_path)
        return loaded(spec, self.few, device_of(config.resources))

    def _time(self, name: str, questioner: "Questioner", row_s: float | None = None) -> None:
        """Of a row: asked again about the few rows, then about a batch made of them, where that does not take long.

        `row_s`: of who is asked elsewhere, and not once more for this.
        """
        import numpy as np

        from students.fitting.rehearsal import fastest

        segment, resources = self.few.of("train")[0], self.recipe.teachers[name].resources
        inputs, keys = self.few.inputs(segment), self.few.keys(segment)
        num_rows = len(keys)

        def ask(rows: int) -> float:
            which = np.arange(rows) % num_rows
            asked = {name: column[which] for name, column in inputs.items()}
            return fastest(lambda: questioner.answer(asked, keys[which])) / rows

        with as_a_worker(resources):
            if row_s is None:
                row_s, batch = ask(num_rows), min(questioner.batches.rows, ROWS_TIMED)
                if batch > num_rows and row_s * batch < TIMED_S:
                    row_s = ask(batch)
        self.found.timed[f"label/{name}"] = Timed(row_s, device_of(resources))

    def _trained(self, name: str, config: ModuleTeacher) -> None:
        from students.fitting.rehearsal import at_chance, rehearse, shortened

        assert config.train is not None
        if self.few.num_labelled:
            common: dict[str, Any] = {
                "transfer_set": self.few.folder,
                "user_path": self.user_path,
                "trust": self.recipe.trusted(),
            }
            own, share = config.train, config.train.batch_size // config.train.workers

            def run(rows: int, steps: int = STEPS_TIMED) -> "Run":
                folder = self.folder / "teachers" / name
                return teacher_run(name, config, shortened(own, rows, steps), folder=folder, **common)

            tried = rehearse(once := run(BATCH_SIZE, 1), device_of(config.resources), num_threads(config.resources))
            note_idle(self.found, f"teachers.{name}", tried.idle, own.workers)
            self.found.time_steps(f"train_teacher/{name}", tried, share, config.resources, run)
            whole = config.model_copy(update={"train": own.model_copy(update={"folds": None})})
            with suppress(*NOT_TIMED):  # weights of chance take as long as others
                self._time(name, self._questioner(name, whole, at_chance(once, self.folder / "networks" / name)))

    def _fitted(self, name: str, config: SklearnTeacher) -> None:
        from teachers.models.estimator_answers import ESTIMATOR_ANSWERS
        from teachers.models.estimators import check_stops, fit_sklearn, make_estimator
        from teachers.preparing.sample import as_transfer_set

        estimator = make_estimator(config)
        ESTIMATOR_ANSWERS[self.few.space.answer].check(estimator, str(config.model))
        check_stops(estimator, config)
        config = config.model_copy(update={"train": EstimatorTrain()})  # of few rows no fold has all classes
        folder = self.folder / "teachers" / name
        many = as_transfer_set(self.rows, folder / "rows")
        if not many.num_labelled:
            return
        try:
            fit_sklearn(config, many, folder)
            self._asked(name, config, folder)
        except UsersCodeError as error:
            if type(error.__cause__).__name__ in WHATEVER_THE_ROWS:
                raise
            self.found.notes.append(
                f"teachers.{name}: could not be tried on {self.rows.num_rows} rows, which may be too few for it: {error}"
            )

    def made_up(self, name: str, config: TeacherConfig, classes: tuple[str, ...]) -> "Source":
        """What a student hears, of one whose answers nobody knows yet."""
        import numpy as np

        from teachers.tasks.said import made_up

        rows = self.few.of("train")[0].num_rows
        numbers, shapes = np.random.default_rng(0), self.outputs.get(name, {})
        said = made_up(rows, classes, self.few.space, numbers).numpy()
        more = {output: numbers.standard_normal((rows, *shape), np.float32) for output, shape in shapes.items()}
        return self._store(name, config, classes, said, more)

    def _store(
        self,
        name: str,
        config: TeacherConfig,
        classes: tuple[str, ...],
        logits: "np.ndarray",
        more: "Mapping[str, np.ndarray]",
    ) -> "Source":
        from students.runs.run import Source
        from teachers.soft_targets.class_map import resolved
        from teachers.soft_targets.schema import Output, Spec
        from teachers.soft_targets.store import SoftTargetStore

        stores = {}
        for segment in (each for each in self.few.in_views() if each.split != "test"):  # of the same rows
            rows = segment.num_rows
            about = (segment.name, segment.digest, config.encoding, classes, rows, rows, self.few.space.answer)
            outputs = tuple(Output.of_layer(output, values.shape[1:]) for output, values in more.items())
            spec = Spec(name, "rehearsal", *about, outputs, self.few.space.max_boxes)
            store = SoftTargetStore.create(self.folder / "soft_targets" / name / segment.name, spec)
            store.commit(0, self.few.keys(segment), {spec.named[0]: logits, **more})
            store.seal()
            stores[segment.name] = store.folder
        return Source(
            name,
            stores,
            class_map=resolved(config.class_map),
            probability_floor=config.probability_floor,
            outputs={output: values.shape[1:] for output, values in more.items()},
            layers=getattr(config, "outputs", {}),
        )


def too_large(config: TeacherConfig) -> str:
    """How large the weights of a teacher are that is brought, where this machine has no room for them; else empty."""
    import psutil

    files = [Path(config.weights)] if isinstance(config, ModuleTeacher | SklearnTeacher) and config.weights else []
    if isinstance(config, CheckpointTeacher | HuggingFaceTeacher):
        files = [*Path(config.path).glob("*.safetensors")]
    size = sum(file.stat().st_size for file in files)
    return in_units(size) if TIMES_ITS_SIZE * size > psutil.virtual_memory().available else ""
