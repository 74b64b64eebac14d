"""What a run would do, found out without doing any of it: nothing is written, no teacher is asked."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teachers.config.teacher import TeacherConfig
from teachers.errors import RecipeError, StoreError
from teachers.resources.pools import in_reach
from teachers.storage import mirror
from teachers.storage.place import place, spoken
from teachers.transfer_set.transfer_set import SPLITS, TransferSet
from teachers.users_code.imports import use_user_path

from ..building.context import Taught, segments_of
from ..building.judge import stage_of, to_judge
from ..building.label import label_stages
from ..building.learned import Learned, to_export
from ..cluster.capacity import check_capacity, check_room_for_trials, this_machine
from ..recipe import model
from ..recipe.checks import check_variables, class_problems, folder_problems, import_problems
from ..recipe.load import Given, check, recipe_of
from ..recipe.model import Recipe, learner_of, public
from ..recipe.seen_rows import seen_problems
from ..recipe.space import search_warnings
from ..reporting.fairness import missing_augmentation
from ..stages import keys
from ..stages.code import code_problems, users_code
from ..stages.stages import Built, Stage, Stages
from ..stages.trainings import training_stages
from .budgets import Rows, budget_notes, floor_notes, row_notes, seed_notes
from .memory import Holding, holdings
from .placement import Ask, cluster_notes, places_at
from .placement import place as placed_on


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


@dataclass
class Plan:
    """Stages in order, what they need, and what speaks against running them."""

    stages: list[Planned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_needed: int = 0
    bytes_free: int = 0
    placement: list[Ask] | None = None
    """Where what is not reused would run; of a cluster only."""
    memory: list[Holding] = field(default_factory=list)
    """What each training holds of its rows; empty where only reading them tells."""

    def record(self) -> dict[str, Any]:
        return {
            "format": 1,
            "stages": [stage.record() for stage in self.stages],
            "notes": self.notes,
            "bytes_needed": self.bytes_needed,
            "bytes_free": self.bytes_free,
            "placement": None if self.placement is None else [ask.record() for ask in self.placement],
            "memory": [holding.record() for holding in self.memory],
        }


def plan(
    recipe: Given,
    out: str | Path,
    *,
    dry_forward: bool = False,
    user_path: Path | None = None,
    address: str | None = None,
) -> Plan:
    """Validate everything that can be known without running. Raises RecipeError, DataError or EnvironmentUnfit.

    `recipe` as in `run`. Requests are compared with this machine, or with the nodes of the cluster at `address` (or RAY_ADDRESS).
    `dry_forward` builds every network and runs it on one batch of zeros (imports torch and the user's modules).
    """
    check(recipe := recipe_of(recipe))
    use_user_path(user_path or Path.cwd())
    if problems := [*code_problems(recipe)]:
        raise RecipeError("\n".join(dict.fromkeys([*import_problems(recipe), *problems, *folder_problems(recipe)])))
    out = place(out)
    mirror.check(out, writes=False)
    mirror.pull(out)
    with users_code(recipe, (user_path or Path.cwd()).resolve(), out.absolute()):
        return _plan(recipe, out, address, dry_forward=dry_forward)


def _plan(recipe: Recipe, out: Path, address: str | None, *, dry_forward: bool) -> Plan:
    from teachers.preparing.look import look, source_digest

    alone = (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    made = Plan(bytes_free=_free(out), notes=check_variables(recipe, alone=alone))
    seen = look(recipe.transfer_set)
    digest = source_digest(recipe.transfer_set)
    problems = [*import_problems(recipe), *folder_problems(recipe), *weights_problems(recipe)]
    problems += seen_problems(recipe, digest)
    if problems := [*problems, *class_problems(recipe, seen.classes)]:
        raise RecipeError("\n".join(problems))
    places = places_at(address)
    if places is None:
        nodes = this_machine(recipe)
        check_room_for_trials(recipe, nodes)
        made.notes += check_capacity(
            recipe, nodes, "That is this machine; a cluster is named by --address or RAY_ADDRESS"
        )
    else:
        made.notes += cluster_notes(recipe, in_reach([*places.values()]))
    prepared = _Walk(recipe, Stages(out), made).all(digest)
    if places is not None:
        made.placement = placed_on(recipe, [(s.stage, s.name) for s in made.stages if s.action != "reuse"], places)
    made.memory = holdings(recipe, seen, nodes if places is None else [*places.values()])
    rows = seen.num_rows or 0
    classes = len(seen.classes or ())
    cached = [teacher for teacher in recipe.teachers.values() if teacher.mode == "cached"]
    label_bytes = sum(12 + (2 * classes if teacher.encoding == "dense" else 0) for teacher in cached)
    made.bytes_needed = (seen.num_bytes or 0) + rows * label_bytes
    if made.bytes_needed > made.bytes_free:
        made.notes.append(
            f"about {made.bytes_needed / 2**20:,.0f} MiB are needed under {spoken(out)}, "
            f"{made.bytes_free / 2**20:,.0f} MiB are free"
        )
    counted = Rows.of(recipe, seen, prepared.folder if prepared else None)
    made.notes += [*row_notes(recipe, seen, counted), *budget_notes(recipe, counted), *seed_notes(recipe)]
    made.notes += [*missing_augmentation(public(recipe)), *floor_notes(recipe), *search_warnings(recipe)]
    if dry_forward:
        from .dry_forward import dry_forward as run_dry

        run_dry(recipe, seen.columns, list(seen.classes or ()))
    return made


def _free(out: Path) -> int:
    at = out.resolve()
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).free


class _Walk:
    """Follows the graph as far as its keys are known."""

    def __init__(self, recipe: Recipe, stages: Stages, made: Plan) -> None:
        self.recipe, self.stages, self.made, self.built = recipe, stages, made, dict[str, Stage]()

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
        self.made.stages.append(Planned(stage.kind, stage.name, stage.part, stage.key, action, reason))

    def unknown(self, kind: str, name: str, until: str) -> None:
        self.made.stages.append(Planned(kind, name, "", None, "unknown", f"unknown until {until} is sealed"))

    def all(self, source_digest: str) -> Built | None:
        """Every stage of the recipe; the prepared transfer set, if there is one."""
        prepared = self.note(keys.prepare_stage(self.recipe, source_digest))
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
        weights = keys.teacher_digest(self.recipe, name, trained.digest if trained else None)
        return self.labels(name, config, weights, prepared)

    def labels(self, name: str, config: TeacherConfig, weights: str, prepared: Built) -> Taught | None:
        stages, live = label_stages(name, config, weights, TransferSet.open(prepared.folder))
        taught: Taught | None = Taught(name, config, live=live)
        for part, stage in stages.items():
            built = self.note(stage)
            if built is None:
                taught = None
            elif taught is not None:
                taught.labels[part] = built
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
        teachers = self.recipe.learners[name].teachers
        heard = self._heard(teachers, taught)
        if prepared is None or heard is None:
            self.unknown("distill", name, self._first_missing(teachers, prepared, taught))
        if prepared is None:
            return None
        train = segments_of(prepared, "train")
        labels = {teacher.name: teacher.digests(train) for teacher in heard} if heard is not None else None
        stages = training_stages(self.recipe, name, prepared.digest, labels)
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
        looked_at = segments_of(prepared, *SPLITS[student is not None :])  # of teachers train too, which they learnt
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


def weights_problems(recipe: Recipe) -> Iterator[str]:
    """Weights that are not there, code that cannot be read."""
    for name, teacher in recipe.teachers.items():
        is_no_folder = teacher.kind == "checkpoint" and not (Path(teacher.path) / "config.json").is_file()
        if not model.is_trained_here(teacher) and not is_no_folder:  # that is told by `folder_problems`
            try:
                keys.teacher_digest(recipe, name, None)
            except RecipeError as error:
                yield str(error)
