"""Everybody who teaches, tried on a batch of real rows: loaded and asked, or fitted, or trained for a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers.config.endpoint import EndpointTeacher
from teachers.config.folds import EstimatorTrain
from teachers.config.predictions import PredictionsTeacher
from teachers.config.published import HuggingFaceTeacher
from teachers.config.teacher import CallableTeacher, CheckpointTeacher, ModuleTeacher, SklearnTeacher, TeacherConfig
from teachers.errors import UsersCodeError
from teachers.users_code.imports import UserPath

from ..building.train import teacher_run
from ..recipe.model import Recipe, is_trained_here
from .memory import in_units
from .rehearsed import Rehearsed, device_of, note_idle

if TYPE_CHECKING:
    import numpy as np

    from students.runs.run import Source
    from teachers.labelling.heard import Heard
    from teachers.preparing.sample import Sample
    from teachers.transfer_set.transfer_set import TransferSet

BATCH_SIZE = 8
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

        from teachers.labelling.shard import TeacherSpec, loaded
        from teachers.models.adapters import look_like_probabilities
        from teachers.soft_targets.class_map import mapped, resolved

        if isinstance(config, CallableTeacher):
            config = config.model_copy(update={"retries": 0})  # whoever plans wants to know now
        spec = TeacherSpec(name, config, trained, self.recipe.trusted(), self.user_path)
        questioner = loaded(spec, self.few, device_of(config.resources))
        classes = questioner.teacher.classes
        if trained is None:
            mapped(classes, self.few.classes, resolved(config.class_map), self.few.space.answer)
        segment = self.few.of("train")[0]
        heard = questioner.answer(self.few.inputs(segment), self.few.keys(segment))
        logits = heard.logits
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

    def _trained(self, name: str, config: ModuleTeacher) -> None:
        from students.fitting.rehearsal import rehearse, shortened

        assert config.train is not None
        if self.few.num_labelled:
            common: dict[str, Any] = {
                "transfer_set": self.few.folder,
                "user_path": self.user_path,
                "trust": self.recipe.trusted(),
            }
            train = shortened(config.train, BATCH_SIZE)
            run = teacher_run(name, config, train, folder=self.folder / "teachers" / name, **common)
            idle = rehearse(run, device_of(config.resources))
            note_idle(self.found, f"teachers.{name}", idle, config.train.workers)

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

        rows = self.few.of("train")[0].num_rows
        made, shapes = np.random.default_rng(0).standard_normal, self.outputs.get(name, {})
        said = made((rows, len(classes)), np.float32)
        more = {output: made((rows, *shape), np.float32) for output, shape in shapes.items()}
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
        )


def too_large(config: TeacherConfig) -> str:
    """How large the weights of a teacher are that is brought, where this machine has no room for them; else empty."""
    import psutil

    files = [Path(config.weights)] if isinstance(config, ModuleTeacher | SklearnTeacher) and config.weights else []
    if isinstance(config, CheckpointTeacher | HuggingFaceTeacher):
        files = [*Path(config.path).glob("*.safetensors")]
    size = sum(file.stat().st_size for file in files)
    return in_units(size) if TIMES_ITS_SIZE * size > psutil.virtual_memory().available else ""
