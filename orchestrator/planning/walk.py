"""The graph of a recipe, followed as far as its keys are known: which stages would be reused, and which built. Writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from teachers.config.teacher import TeacherConfig
from teachers.errors import StoreError
from teachers.transfer_set.transfer_set import SPLITS, TransferSet

from ..building.context import Begun, Taught, networks_read, segments_heard, segments_judged, segments_of
from ..building.derive import derive_stages, text_columns
from ..building.judge import stage_of, to_judge
from ..building.label import label_stages
from ..building.learned import Learned, to_export
from ..recipe import model
from ..recipe.following import follows
from ..recipe.model import Recipe, learner_of
from ..stages import keys
from ..stages.stages import Built, Stage, Stages
from ..stages.texts import texts_of
from ..stages.trainings import training_stages


@dataclass(frozen=True)
class Planned:
    """One stage: will it be reused, built, or is it not known yet, and why."""

    stage: str
    name: str
    part: str
    key: str | None
    action: str
    reason: str

    def record(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value != ""}


class Walk:
    """Follows the graph as far as its keys are known."""

    def __init__(self, recipe: Recipe, stages: Stages) -> None:
        self.recipe, self.stages = recipe, stages
        self.planned: list[Planned] = []
        self.notes: list[str] = []
        self.built: dict[str, Stage] = {}
        self.begun: dict[str, Begun] = {}
        """Who teaches and is known, for whoever follows."""

    def note(self, stage: Stage) -> Built | None:
        """Write down what would happen to `stage`; its content if it is sealed."""
        try:
            seal = self.stages.sealed(stage, hashes=False)
        except StoreError as error:
            self._add(stage, "repair", str(error))
            return None
        if seal is None:
            twin = self.built.setdefault(stage.key, stage)
            told = ("build", self.stages.reason(stage)) if twin is stage else ("reuse", f"shared with {twin.title}")
            self._add(stage, *told)
            return None
        self._add(stage, "reuse", "unchanged")
        return Built(stage, self.stages.folder(stage), seal, True, "unchanged", 0.0)

    def _add(self, stage: Stage, action: str, reason: str) -> None:
        self.planned.append(Planned(stage.kind, stage.name, stage.part, stage.key, action, reason))

    def unknown(self, kind: str, name: str, until: str) -> None:
        self.planned.append(Planned(kind, name, "", None, "unknown", f"unknown until {until} is sealed"))

    def all(self, source_digest: str, beside: Mapping[str, str]) -> Built | None:
        """Every stage of the recipe; the prepared transfer set, if there is one."""
        prepared = self.note(keys.prepare_stage(self.recipe, source_digest, beside))
        self.derived(prepared)
        taught = {name: self.teacher(name, prepared) for name in self.recipe.teachers}
        self.judge("teachers", prepared, {name: taught[name] for name in self.recipe.teachers})
        students: dict[str, Learned | None] = {}
        for generation in self.recipe.learners_in_order():
            for name in generation:
                students[name] = self.student(name, prepared, taught)
            for name in self.recipe.assistants():
                if learner_of(name) in generation:
                    taught[name] = self.assistant(name, prepared, students[learner_of(name)])
                    self.judge(name, prepared, {name: taught[name]})
        if self.recipe.teachers:
            self.evaluation("teachers", prepared, None, taught)
        for name, learner in students.items():
            evaluated = self.evaluation(name, prepared, learner, taught)
            if evaluated is None or learner is None:
                self.unknown("export", name, f"evaluate/{name}")
            else:
                self.exports(name, learner, evaluated)
        return prepared

    def derived(self, prepared: Built | None) -> None:
        """What is made of text."""
        if prepared is None:
            for name in texts_of(self.recipe):
                self.unknown("derive", name, "prepare/transfer_set")
            return
        transfer_set = TransferSet.open(prepared.folder)
        for name, text in texts_of(self.recipe, text_columns(transfer_set)).items():
            for stage in derive_stages(name, text, transfer_set):
                self.note(stage)

    def exports(self, name: str, learner: Learned, evaluated: Built) -> None:
        for title, networks in to_export(self.recipe, name, learner).items():
            self.note(keys.export_stage(self.recipe, title, [each.digest for each in networks], evaluated.digest))

    def teacher(self, name: str, prepared: Built | None) -> Taught | None:
        config = self.recipe.teachers[name]
        trained: Built | None = None
        if prepared is None:
            if model.is_trained_here(config):
                self.unknown("train_teacher", name, "prepare/transfer_set")
            self.unknown("label", name, "prepare/transfer_set")
            return None
        if model.is_trained_here(config):
            trained = self.note(keys.train_teacher_stage(self.recipe, name, prepared.digest))
            if trained is None:
                self.unknown("label", name, f"train_teacher/{name}")
                return None
        weights = keys.teacher_digest(
            self.recipe, name, trained.digest if trained else None, prepared.stage.inputs["source"]
        )
        return self.labels(name, config, weights, prepared)

    def labels(self, name: str, config: TeacherConfig, weights: str, prepared: Built) -> Taught | None:
        transfer_set = TransferSet.open(prepared.folder).viewing(keys.viewing_of(self.recipe))
        stages, live = label_stages(name, config, weights, transfer_set)
        self.begun[name] = Begun(name, config, stages, {}, None)
        taught: Taught | None = Taught(name, config, live=live)
        for part, stage in stages.items():
            built = self.note(stage)
            if built is None:
                taught = None
            elif taught is not None:
                taught.labels[part] = built
        if taught is not None and (unknown := _unknown(taught)):
            self.notes.append(f"teachers.{name}: knows nothing of {unknown[0]:,} of {unknown[1]:,} rows")
        return taught

    def judge(self, title: str, prepared: Built | None, taught: Mapping[str, Taught | None]) -> None:
        known = {name: each for name, each in taught.items() if each is not None}
        if prepared is None or len(known) < len(taught):
            if taught and self.recipe.transfer_set.label is not None:
                self.unknown("judge", title, self._first_missing([*taught], prepared, {**taught}))
            return
        split, heard, _ = to_judge(self.recipe, prepared, known)
        if heard:
            self.note(stage_of(self.recipe, title, prepared, known, split, heard))

    def assistant(self, name: str, prepared: Built | None, student: Learned | None) -> Taught | None:
        if prepared is None or student is None:
            self.unknown("label", name, f"distill/{learner_of(name)}")
            return None
        network = student.delivered(name.partition(".")[2] or None)
        config = keys.assistant_as_teacher(self.recipe, name, str(network.folder))
        return self.labels(name, config, network.digest, prepared)

    def student(self, name: str, prepared: Built | None, taught: dict[str, Taught | None]) -> Learned | None:
        learner = self.recipe.learners[name]
        teachers = learner.teachers
        if follows(learner):
            self.notes.append(f"students.{name}: follows {', '.join(teachers)}: it begins with their first labels")
        heard: Sequence[Taught | Begun] | None = self._heard(teachers, taught)
        if follows(learner) and all(each in self.begun for each in teachers):
            heard = [self.begun[each] for each in teachers]
        if prepared is None or heard is None:
            self.unknown("distill", name, self._first_missing(teachers, prepared, taught))
        if prepared is None:
            return None
        listened = segments_heard(self.recipe, prepared, learner)
        labels = {teacher.name: teacher.digests(listened) for teacher in heard} if heard is not None else None
        networks = networks_read(learner, {each.name: each for each in heard}) if heard is not None else None
        stages = training_stages(self.recipe, name, prepared.digest, labels, networks)
        noted = {training: self.note(stage) for training, stage in stages.items()}
        built = {training: found for training, found in noted.items() if found is not None}
        return Learned(built) if heard is not None and len(built) == len(noted) else None

    def evaluation(
        self, name: str, prepared: Built | None, student: Learned | None, taught: dict[str, Taught | None]
    ) -> Built | None:
        teachers = list(self.recipe.teachers) if name == "teachers" else self.recipe.learners[name].teachers
        heard = self._heard(teachers, taught)
        if prepared is None or heard is None or (student is None and name != "teachers"):
            until = self._first_missing(teachers, prepared, taught) if heard is None else f"distill/{name}"
            self.unknown("evaluate", name, until)
            return None
        if student is None:
            looked_at = segments_of(prepared, *SPLITS)
        else:
            looked_at = segments_judged(self.recipe, prepared, self.recipe.learners[name])
        labels = {teacher.name: teacher.digests(looked_at) for teacher in heard}
        if student is None:
            return self.note(keys.evaluate_teachers_stage(self.recipe, prepared.digest, labels))
        return self.note(keys.evaluate_stage(self.recipe, name, prepared.digest, student.digest, labels))

    def _heard(self, names: Sequence[str], taught: dict[str, Taught | None]) -> list[Taught] | None:
        heard = [found for name in names if (found := taught[name]) is not None]
        return heard if len(heard) == len(names) else None

    def _first_missing(self, names: Sequence[str], prepared: Built | None, taught: dict[str, Taught | None]) -> str:
        missing = [name for name in names if taught.get(name) is None]
        return f"label/{missing[0]}" if prepared is not None and missing else "prepare/transfer_set"


def _unknown(taught: Taught) -> tuple[int, int] | None:
    """(rows of which a teacher knows nothing, all that it has labelled); None where there are none."""
    from teachers.soft_targets.store import SoftTargetStore

    stores = [SoftTargetStore.open(built.folder) for built in taught.labels.values()]
    unknown = sum(store.unknown()[0] for store in stores)
    return (unknown, sum(store.spec.num_rows for store in stores)) if unknown else None
