"""`collegium tune`: seal all that teaches, try settings on the stores alone, train the best again, and report on both."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import yaml

from students.config.cohort import CohortCommon
from students.config.estimator import EstimatorStudent
from students.runs.curves import Record
from teachers.errors import CollegiumError, RecipeError
from teachers.process.log_lines import Carried
from teachers.storage import mirror
from teachers.storage.disk import told_if_unfit
from teachers.storage.lease import Doubt
from teachers.storage.place import place
from teachers.storage.seal import digest_of, publish

from ..building import pipeline
from ..building.context import Context, networks_read, segments_heard, sources
from ..building.derive_trials import derive_for_trials
from ..building.fit import budget_of
from ..building.results import Results
from ..cluster.capacity import check_room_for_trials, room_for_trials
from ..recipe import model
from ..recipe.following import waiting
from ..recipe.load import Given, file_of, recipe_of
from ..recipe.model import Recipe, public
from ..recipe.search import SearchConfig
from ..recipe.space import control_now, extremes, of_the_control, search_warnings, shared_with_control, values_now
from ..reporting.study import section
from ..search.on_tune import name_of, run_trials
from ..search.study import State, Study, Trial, Who, best_of, num_control_trials, set_aside, what_it_is_of
from ..search.trial import Job, setting
from ..stages.code import code_of_choices
from ..stages.keys import hearing
from ..stages.locks import folder_lock
from ..stages.outline import planned_study
from ..stages.trainings import training_stages, views_of_learner
from ..tracking.ledger import Status
from .run import Begun, Finished, Opening, opened

if TYPE_CHECKING:
    from students.runs.run import Source

SCRATCH = ".scratch-"
STATUS: dict[State, Status] = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""Of a trial's run in MLflow."""

log = logging.getLogger("collegium")


def tune(
    recipe: Given,
    out: str | Path,
    *,
    address: str | None = None,
    user_path: Path | None = None,
    quiet: bool = True,
    fresh: bool = False,
    source: str | None = None,
) -> Finished:
    """Do what is missing of the recipe's study, train its best with fresh seeds, and report.

    Safe to interrupt and to call again: trials that have ended are not repeated. `fresh` sets an earlier study aside.
    `recipe` and `source` as in `run`. Raises CollegiumError (see teachers.errors) for whatever a user can mend.
    """
    loaded = recipe_of(recipe)
    if loaded.search is None:
        raise RecipeError(
            "the recipe has no `search`, so there is nothing to try; `collegium init --from search` shows one"
        )
    loaded = waiting(loaded, loaded.search.student)
    with told_if_unfit():
        how = Opening(place(out), (user_path or Path.cwd()).resolve(), address, quiet, source or file_of(recipe))
        return _tune(loaded, how, fresh)


def _tune(recipe: Recipe, how: Opening, fresh: bool) -> Finished:
    search = recipe.search
    assert search is not None
    for warning in search_warnings(recipe):
        log.warning("%s", warning)
    at = how.out / "studies" / search.student
    with (
        opened(recipe, how, command="tune", planned=planned_study(recipe)) as begun,
        folder_lock(at.parent, f"a study of {search.student}") as doubt,
    ):
        if fresh and (kept := set_aside(at)):
            log.info("the earlier study is kept in %s", kept)
        with begun.on_cluster() as context:
            taught = pipeline.train_in_order(context, recipe.before(search.student))
            derive_for_trials(context, taught.prepared)
            study = _study(begun, context, taught, at, doubt)
            found = found_recipe(recipe, study)
            written = begun.folder / "found.yaml"
            publish(written, yaml.safe_dump(public(found), sort_keys=False).encode())
            context = replace(context, recipe=found)
            results = pipeline.build(context)
        report = begun.report(context, results, search=section(search, study, asked=rows_asked(results)))
        begun.finish(report, results)
    return Finished(begun.folder, report, pipeline.missed_gates(found, report))


def rows_asked(results: Results) -> int:
    """Rows that teachers were asked about while the best was trained, evaluated and exported."""
    labels = [built for taught in results.taught.values() for built in taught.labels.values()]
    return sum(int(built.facts.get("rows", 0)) for built in labels if not built.reused)


def _study(begun: Begun, context: Context, taught: Results, at: Path, doubt: Doubt) -> Study:
    """The study with all its trials. `doubt`: why nothing of another process may be removed."""
    recipe, search = context.recipe, context.recipe.search
    assert search is not None
    learner = recipe.learners[search.student]
    _check_validation(taught.prepared.folder)
    rules = [rule for path, entry in search.space.items() if path.endswith(".combine") for rule in extremes(entry)]
    listened = segments_heard(recipe, taught.prepared, learner, rules)
    labels = {name: taught.taught[name].digests(listened) for name in learner.teachers}
    networks = networks_read(learner, taught.taught)
    stages = training_stages(recipe, search.student, taught.prepared.digest, labels, networks)
    first = stages["student", learner.train.seeds[0]]
    inputs = {first.called.get(name, name): digest for name, digest in first.inputs.items()}
    inputs["how teachers are heard"] = digest_of([hearing(recipe, name) for name in learner.teachers])
    study = Study.open(at, what_it_is_of(recipe, {**inputs, **code_of_choices(recipe)}))
    heard = {source.name: source for source in sources(recipe, learner, taught.taught, listened)}
    now: dict[Who, Mapping[str, Any] | None] = {
        "student": values_now(learner, search),
        "control": control_now(learner, search),
    }
    diary = Diary(begun, study, search, control=now["control"] is not None)
    for trial in study.trials:
        diary.tell(trial)
    for left_by_a_kill in [] if doubt() else at.glob(f"{SCRATCH}*"):
        mirror.remove_folder(left_by_a_kill)
    scratch = Path(mkdtemp(prefix=SCRATCH, dir=at))
    try:
        job = _job(context, taught, heard, scratch)
        if diary.is_missing_some():
            nodes = context.cluster.in_reach
            check_room_for_trials(recipe, nodes)
            at_once = search.max_concurrent or max(1, room_for_trials(recipe, nodes))
            context.journal.on(context.cluster.nodes)
            context.journal.work(diary.stage, at_once=at_once)
            run_trials(
                study, search, now, job, looks=_num_looks(job), at_once=at_once, ended=diary.ended, looked=diary.looked
            )
    finally:
        mirror.remove_folder(scratch)
    if best_of(study.of("student"), search.metrics) is None:
        errors = [trial.error for trial in study.trials if trial.error] or ["all were ended early"]
        raise CollegiumError(f"no trial of the study came to its end: {errors[0]}")
    context.journal.work(diary.stage, done=True)
    return study


def _check_validation(prepared: Path) -> None:
    from teachers.tasks.labels import has_label
    from teachers.transfer_set.transfer_set import TransferSet

    transfer_set = TransferSet.open(prepared)
    if not any(has_label(transfer_set.usable_labels(segment)).any() for segment in transfer_set.of("validation")):
        raise RecipeError(
            "search.metric would never be reported: no row of the validation split has a label; "
            "give `transfer_set.split.validation` a share, or rows with labels"
        )


def _job(context: Context, taught: Results, heard: "Mapping[str, Source]", scratch: Path) -> Job:
    recipe, search = context.recipe, context.recipe.search
    assert search is not None
    learner = recipe.learners[search.student]
    train = budget_of(model.name_in_recipe(recipe, search.student), learner, taught.prepared.folder)
    return Job(
        name=search.student,
        learner=learner.model_copy(update={"train": train}),
        sources=heard,
        transfer_set=taught.prepared.folder,
        seed=learner.train.seeds[0],
        gpus=context.cluster.gpus(learner.resources),
        user_path=context.user_path,
        trust=recipe.trusted(),
        views=views_of_learner(recipe, learner),
        measures=not search.is_known_while_training,
        folder=scratch,
        in_population=search.algorithm == "pbt",
        log_as=Carried.from_here(),
    )


def _num_looks(job: Job) -> int:
    from students.training.optimize import resolve_evaluate_every
    from teachers.transfer_set.transfer_set import TransferSet

    if isinstance(job.learner, EstimatorStudent):
        return 1
    train, transfer_set = job.learner.train, TransferSet.open(job.transfer_set)
    assert train.steps is not None
    labelled = transfer_set.report["labelled"]["validation"]
    rows = sum(segment.num_rows for segment in transfer_set.of("validation")) if labelled else 0
    return -(-train.steps // resolve_evaluate_every(train, train.steps, rows))


class Diary:
    """Tells a person and MLflow of trials as they go on and end."""

    def __init__(self, begun: Begun, study: Study, search: SearchConfig, *, control: bool) -> None:
        self.begun, self.study, self.search = begun, study, search
        self.num_controls = num_control_trials(search, len(of_the_control(search))) if control else 0
        self.stage = f"tune/{search.student}"
        self.best: Trial | None = None
        self.num_students = 0
        begun.tracker.follow(self.stage, study.folder / "metrics.jsonl")
        metric, direction = next(iter(search.metrics.items()))
        wanted: dict[str, Any] = {"trials": search.trials, "control_trials": self.num_controls}
        begun.journal.work(self.stage, **wanted, metric=metric, direction=direction)

    def is_missing_some(self) -> bool:
        return len(self.study.of("student")) < self.search.trials or len(self.study.of("control")) < self.num_controls

    def looked(self, trial: str, step: int, figures: Mapping[str, float]) -> None:
        now = time.time()
        records = [
            Record(stage=self.stage, run=trial, step=step, key=key, value=value, time=now)
            for key, value in figures.items()
        ]
        with (self.study.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))

    def ended(self, trial: Trial) -> None:
        self.tell(trial)
        if (curves := self.study.folder / "metrics.jsonl").exists():
            mirror.put(curves)
        if trial.state == "failed":
            log.warning("%s of %s failed: %s", name_of(trial.number), self.search.student, trial.error)
        done, total = len(self.study.trials), self.search.trials + self.num_controls
        metric = next(iter(self.search.metrics))
        note = f"best {metric} {self.best.values[metric]:.4f}" if self.best is not None else ""
        self.begun.watch.advance(self.stage, done, max(done, total), note)

    def tell(self, trial: Trial) -> None:
        """MLflow: a nested run for each trial, and the best so far on the parent."""
        self.begun.tracker.trial_done(
            self.stage,
            name_of(trial.number),
            params={"who": trial.who, **trial.params},
            status=STATUS[trial.state],
            tags={"collegium.state": trial.state, **({"collegium.error": trial.error} if trial.error else {})},
        )
        if trial.who == "student":
            self.num_students += 1
            self.best = best_of([*([self.best] if self.best else []), trial], self.search.metrics)
            if self.best is not None:
                figure = self.best.values[next(iter(self.search.metrics))]
                self.begun.tracker.log("", {"search.best": figure}, step=self.num_students)


def found_recipe(recipe: Recipe, study: Study) -> Recipe:
    """The recipe of the best trial, with fresh seeds and the tuned control; of students only who it needs."""
    search = recipe.search
    assert search is not None
    learner = recipe.learners[search.student]
    best = best_of(study.of("student"), search.metrics)
    assert best is not None
    found = setting(learner, "student", best.params)
    if (control := best_control(study, search, best)) is not None:
        found = setting(found, "control", control.params)
    first = max(learner.train.seeds) + 1
    seeds = [*range(first, first + search.seeds_for_best)]
    found = found.model_copy(update={"train": found.train.model_copy(update={"seeds": seeds})})
    needed = {name for names in recipe.before(search.student) for name in names}
    kind = "cohorts" if isinstance(found, CohortCommon) else "students"
    learners: dict[str, dict[str, Any]] = {
        "students": {name: config for name, config in recipe.students.items() if name in needed},
        "cohorts": {name: config for name, config in recipe.cohorts.items() if name in needed},
    }
    learners[kind][search.student] = found
    return recipe.model_copy(update={**learners, "search": None})


def best_control(study: Study, search: SearchConfig, best: Trial) -> Trial | None:
    """The best setting of the control, of those that had the same network as the best student."""
    shared = shared_with_control(best.params)
    metric = next(iter(search.metrics.items()))
    same = [t for t in study.of("control") if all(t.params.get(path) == value for path, value in shared.items())]
    return best_of(same, dict([metric]))
