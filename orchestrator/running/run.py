"""One `collegium run`: its folder, cluster, tracker and report around the pipeline."""

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from teachers.errors import CollegiumError
from teachers.process.log_lines import working_on
from teachers.storage import mirror
from teachers.storage.disk import told_if_unfit
from teachers.storage.place import place, use_one_cache
from teachers.storage.seal import publish, replace
from teachers.users_code.code import UsersCode
from teachers.users_code.imports import check_own_packages

from ..building import pipeline
from ..building.context import Context
from ..building.evaluate import read_evaluation
from ..building.pipeline import Until
from ..building.results import Results
from ..cluster.cluster import Cluster, cluster
from ..cluster.environment import set_environment
from ..recipe.load import Given, changed, check, file_of, recipe_of
from ..recipe.model import Recipe, public
from ..stages.code import users_code
from ..stages.outline import planned
from ..stages.stages import Built, Stage, Stages
from ..watching.journal import Journal
from ..watching.progress import Watch
from ..watching.warnings import Warnings
from .tracebacks import traceback_kept

if TYPE_CHECKING:
    from ..tracking.tracker import Tracker

log = logging.getLogger("collegium")


@dataclass(frozen=True)
class Finished:
    """What a run leaves: its folder, `report.json` as a mapping, and the quality gates that it missed."""

    folder: Path
    report: Mapping[str, Any]
    missed: list[str]


def run(
    recipe: Given,
    out: str | Path,
    *,
    until: Until = "export",
    address: str | None = None,
    user_path: Path | None = None,
    quiet: bool = True,
    source: str | None = None,
) -> Finished:
    """Do whatever is missing of `recipe` under `out`, and report. Safe to interrupt and to call again.

    `recipe`: a Recipe, a mapping as in its file, or the file. `source`: what MLflow shows as where it is from; the file,
    unless it is given. Raises CollegiumError (see teachers.errors) for whatever a user can mend.
    """
    with told_if_unfit():
        how = Opening(place(out), (user_path or Path.cwd()).resolve(), address, quiet, source or file_of(recipe))
        return _run(recipe_of(recipe), how, until)


def _run(recipe: Recipe, how: "Opening", until: Until) -> Finished:
    command, stages = "run" if until == "export" else until, planned(recipe, until)
    with opened(recipe, how, command=command, planned=stages) as begun:
        with begun.on_cluster() as context:
            results = pipeline.build(context, until)
        report = begun.report(context, results)
        if results.evaluations:
            begun.finish(report, results)
    return Finished(begun.folder, report, pipeline.missed_gates(recipe, report) if "students" in report else [])


@dataclass
class Begun:
    """A command that works in OUT: its folder, its cluster, what it shows, and what it tells MLflow."""

    recipe: Recipe
    folder: Path
    stages: Stages
    cluster: Cluster
    watch: Watch
    tracker: "Tracker"
    journal: Journal
    user_path: UsersCode
    start: float = field(default_factory=time.monotonic)

    @contextmanager
    def on_cluster(self) -> Iterator[Context]:
        """The cluster is left at the end: what comes after that needs none."""
        given = self.cluster, self.watch, self.tracker, self.journal, self.user_path
        try:
            with self._measured():
                yield Context(self.recipe, self.stages, *given)
        finally:
            self.tracker.drain()
        self.cluster.leave()

    def _measured(self) -> AbstractContextManager[Any]:
        if not self.recipe.tracking.system_metrics:
            return nullcontext()
        from ..tracking.system_metrics import SystemMetrics

        return SystemMetrics(self.cluster, self.tracker)

    def decide(self, recipe: Recipe, names: Sequence[str]) -> None:
        """From here on `recipe` is what is run; MLflow is told of its students `names`."""
        self.recipe = recipe
        replace(self.folder / "recipe.yaml", _as_yaml(recipe))
        self.tracker.decide(recipe, names)

    def report(self, context: Context, results: Results, **more: Any) -> Mapping[str, Any]:
        return _report(context, results, self.tracker.ids(), time.monotonic() - self.start, self.folder, **more)

    def finish(self, report: Mapping[str, Any], results: Results) -> None:
        for line in self.tracker.finish(report, {name: built.folder for name, built in results.models.items()}):
            log.warning("%s", line)


@dataclass(frozen=True)
class Opening:
    """How a command is opened: where it works, where the user's modules lie, on which cluster, whether it shows how far it is.

    `source`: where the recipe is from, for MLflow.
    """

    out: Path
    user_path: Path
    address: str | None
    quiet: bool
    source: str | None


@contextmanager
def opened(
    recipe: Recipe, how: Opening, *, command: str, planned: Sequence[str], undecided: Sequence[str] = ()
) -> Iterator[Begun]:
    """A folder under `runs/`, a journal in it, a cluster and a run of MLflow for one command; `planned`: titles of its stages.

    `undecided`: students of which `Begun.decide` tells how they are trained.
    """
    check(recipe)
    out = how.out
    set_environment()
    check_own_packages()
    from ..tracking.server import check_place
    from ..tracking.tracker import Tracker

    use_one_cache(out)
    check_place(recipe.tracking.uri, out)
    Stages(out).open()
    folder = _run_folder(out, recipe)
    journal = Journal(folder, command=command, recipe=recipe.name, planned=planned)
    warnings = Warnings(folder / "warnings")

    def seen(stage: Stage, at: Path, built: Built | None) -> None:
        journal.seen(stage, at, built)
        warnings.tell()

    stages = Stages(out, seen)
    with (
        kept_in_storage(folder),
        working_on(run=folder.name),
        journal,
        traceback_kept(folder),
        warnings,
        users_code(recipe, how.user_path, out.absolute(), warnings.folder.absolute()) as code,
        Watch(quiet=how.quiet) as watch,
        cluster(how.address, recipe, out, code.digest) as joined,
    ):
        stages.checks = joined.checks(code)
        if stages.is_empty:  # then the cluster is needed for certain, and starts while MLflow is asked
            joined.join_meanwhile()
        told: dict[str, Any] = {"command": command, "source": how.source, "undecided": undecided}
        with Tracker.start(recipe, out, folder, **told) as tracker:
            journal.tracked(tracker.ids())
            yield Begun(recipe, folder, stages, joined, watch, tracker, journal, code)


@contextmanager
def kept_in_storage(folder: Path) -> Iterator[None]:
    """At the end, whatever it was, an OUT elsewhere has what lies in the folder of this command."""
    try:
        yield
    finally:
        try:
            mirror.put_folder(folder)
        except (CollegiumError, OSError) as error:
            log.warning("what the run wrote last is here alone, in %s: %s", folder.resolve(), error)


def _run_folder(out: Path, recipe: Recipe) -> Path:
    folder = out / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    publish(folder / "recipe.yaml", _as_yaml(recipe))
    return folder


def _as_yaml(recipe: Recipe) -> bytes:
    return yaml.safe_dump(public(recipe), sort_keys=False).encode()


def _report(
    context: Context, results: Results, ids: Mapping[str, str], seconds: float, folder: Path, **more: Any
) -> Mapping[str, Any]:
    stages = [built.record() for built in results.built()]
    heard = {"teachers": list(context.recipe.teachers)}
    heard |= {name: config.teachers for name, config in context.recipe.learners.items()}
    evaluations = {name: read_evaluation(built, heard[name]) for name, built in results.evaluations.items()}
    if not evaluations:
        return {"format": 1, "recipe": public(context.recipe), "stages": stages, "mlflow": dict(ids)}
    from ..reporting.document import FORMAT, build_report
    from ..reporting.estimates import beside_estimates
    from ..reporting.kept import write_report
    from ..reporting.unjudged import is_unjudged, unjudged_report

    beside = {"estimates": beside_estimates(results.estimates, stages)}
    if is_unjudged(evaluations):
        unjudged = unjudged_report(
            format=FORMAT,
            recipe=public(context.recipe),
            stages=stages,
            evaluations=evaluations,
            mlflow=ids,
            prepared=results.prepared.folder,
            seconds=seconds,
        )
        write_report(folder, unjudged | beside)
        return unjudged | beside
    report = build_report(
        recipe=public(context.recipe),
        stages=stages,
        evaluations=evaluations,
        metrics={
            name: [built.folder / "metrics.jsonl" for built in learned.trainings.values()]
            for name, learned in results.students.items()
        },
        mlflow=ids,
        prepared=results.prepared.folder,
        standings=results.standings,
        seconds=seconds,
        **more,
    )
    write_report(folder, report | beside)
    return report | beside


def smoke(recipe: Recipe) -> Recipe:
    """The whole recipe on a few rows and steps: finds what is broken before a long run does.

    `limit` keeps a row of each class, so `labelled` can stay as it is: where there are fewer rows, all of them count.
    """
    document = recipe.model_dump(mode="json")
    rows = document["transfer_set"]
    rows["limit"] = min(rows["limit"] or 256, 256)
    if (munge := recipe.transfer_set.munge) is not None:
        rows["munge"] |= {"rows": min(munge.of(rows["limit"]), rows["limit"]), "factor": None}
    document["tracking"]["register_models"] = False
    document["search"] = None
    for teacher in document["teachers"].values():
        teacher |= {"replicas": 1, "require": None}
        if (teacher.get("train") or {}).get("folds") is not None:
            teacher["calibrate"] = None  # which may be by rows out of fold, and there are no folds
        _shorten(teacher.get("train"))
    for student in [*document["students"].values(), *document["cohorts"].values()]:
        student["train"]["seeds"] = student["train"]["seeds"][:1]
        student["require"] = None  # of so few steps nothing can be asked
        _shorten(student["train"])  # of an estimator there is nothing to shorten
        for term in (*student["objective"], *student.get("hints", ())):
            if term["ramp"] is not None and term["ramp"]["steps"] is not None:
                term["ramp"]["steps"] = min(term["ramp"]["steps"], student["train"]["steps"])
        for hint in student.get("hints", ()):
            hint |= {"after_passes": 0} if hint.get("combine") else {}
    return changed(document, "--smoke")


def _shorten(train: dict[str, Any] | None) -> None:
    if train is not None and "steps" in train:
        train |= {"steps": min(train["steps"] or 20, 20), "epochs": None, "evaluate_every": 10}
    if train is not None and "folds" in train:  # of few rows a fold may be all that there are of a class
        train |= {"folds": None, "refit": False, "early_stopping": None}
