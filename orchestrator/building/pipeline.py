"""A run: every stage of a recipe in order, what is ready side by side; then the report."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from students.tasks.figure import figure
from teachers.config.bars import Bars
from teachers.config.task import TaskName
from teachers.config.teacher import TeacherConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing.count import count_prepared
from teachers.process.waiting import SideBySide, outcome
from teachers.transfer_set.transfer_set import TransferSet

from ..cluster.capacity import workers_of
from ..recipe.checks import class_problems, fold_problems, folder_problems, judging_problems, questions, text_problems
from ..recipe.combining import expert_problems, route_problems
from ..recipe.detecting import rows_to_choose_by
from ..recipe.dividing import divides, division_problems
from ..recipe.losses import unlabelled_problems
from ..recipe.mixing import unmixable_problems
from ..recipe.model import Recipe, is_trained_here, name_in_recipe
from ..recipe.seen_rows import seen_problems
from ..recipe.tasks import rows_to_calibrate_by
from ..recipe.viewing import views_of_columns
from ..reporting.headline import mean_of
from ..stages import keys
from ..stages.stages import Built
from . import cohorts, prepare
from . import export as exporting
from .context import Context, Taught
from .derive import derive, reads_arrays
from .evaluate import evaluate_cohort, evaluate_student, evaluate_teachers
from .judge import Standings, judge
from .label import check_outputs, label
from .learned import Learned
from .train import distill, folder_of, train_alone, train_networks

Until = Literal["label", "distill", "evaluate", "export"]
log = logging.getLogger(__name__)


@dataclass
class Results:
    """What a run has built, in the order in which it was done."""

    prepared: Built
    derived: list[Built] = field(default_factory=list)
    """What was made of text."""
    trained: dict[str, Built] = field(default_factory=dict)
    taught: dict[str, Taught] = field(default_factory=dict)
    judged: dict[str, Built] = field(default_factory=dict)
    standings: Standings = field(default_factory=dict)
    """How everybody who teaches stands."""
    students: dict[str, Learned] = field(default_factory=dict)
    """Cohorts too."""
    evaluations: dict[str, Built] = field(default_factory=dict)
    models: dict[str, Built] = field(default_factory=dict)

    def built(self) -> list[Built]:
        labels = [built for taught in self.taught.values() for built in taught.labels.values()]
        return [
            self.prepared,
            *self.derived,
            *self.trained.values(),
            *labels,
            *self.judged.values(),
            *(built for learned in self.students.values() for built in learned.trainings.values()),
            *self.evaluations.values(),
            *self.models.values(),
        ]


def build(context: Context, until: Until = "export") -> Results:
    """The recipe's paragraph: label, distil (an assistant before those it teaches), evaluate, export."""
    results = train_in_order(context, [] if until == "label" else context.recipe.learners_in_order())
    if until in ("evaluate", "export"):
        evaluate(context, results)
    if until == "export":
        export(context, results)
    return results


def train_in_order(context: Context, generations: Sequence[list[str]]) -> Results:
    """Everything that teaches these students and cohorts, and they themselves; who assists others labels for them."""
    results = Results(prepare.prepare(context))
    check_prepared(context.recipe, results.prepared)
    check_outputs(context, results.prepared)
    with SideBySide("stage", 2 + len(context.recipe.who_teaches())) as threads:
        label_teachers(context, results, threads)
        judge_who_teaches(context, results, "teachers", list(context.recipe.teachers))
        for generation in generations:
            train(context, results, generation)
            label_assistants(context, results, generation, threads)
    return results


def check_prepared(recipe: Recipe, prepared: Built) -> None:
    """Raise RecipeError with what only the prepared rows could tell, before anybody is trained or asked about them."""
    transfer_set = TransferSet.open(prepared.folder)
    problems = [*folder_problems(recipe), *seen_problems(recipe, prepared.stage.inputs["source"])]
    if problems := problems or [
        *class_problems(recipe, transfer_set.classes, transfer_set.report["labelled_per_class"]),
        *text_problems(recipe, transfer_set.columns),
        *unmixable_problems(recipe, transfer_set.columns),
        *views_of_columns(recipe, transfer_set.columns),
        *route_problems(recipe, transfer_set.columns),
        *expert_problems(recipe, transfer_set.classes),
        *division_problems(recipe, transfer_set.classes, _in_validation(transfer_set) if divides(recipe) else None),
        *judging_problems(recipe, *(transfer_set.report["labelled"][split] for split in ("validation", "train"))),
        *unlabelled_problems(recipe, transfer_set.report["labelled"]["train"]),
        *rows_to_calibrate_by(recipe, transfer_set.report["labelled"]),
        *rows_to_choose_by(recipe, transfer_set.report["labelled"]),
    ]:
        raise RecipeError("\n".join(problems))
    questions(recipe, transfer_set.columns, transfer_set.made_of, transfer_set.space)
    if problems := [*fold_problems(recipe, transfer_set)]:
        raise DataError("\n".join(problems))


def _in_validation(transfer_set: TransferSet) -> Mapping[str, int]:
    """Labelled rows of each class."""
    return count_prepared(transfer_set).of_class("validation")


def train(context: Context, results: Results, names: list[str]) -> None:
    """Students and cohorts whose teachers have all labelled."""
    students = [name for name in names if name in context.recipe.students]
    results.students |= distill(context, students, results.prepared, results.taught)
    for name in names:
        if name in context.recipe.cohorts:
            results.students[name] = cohorts.train_cohort(context, name, results.prepared, results.taught)


def label_teachers(context: Context, results: Results, threads: SideBySide) -> None:
    """Each teacher labels as soon as it is there. Who is trained in a worker group is trained one group after another.

    Meanwhile arrays are made of text, for which only those wait that read them. The first that fails ends all others.
    """
    waiting: dict[str, Future[Taught]] = {}
    derived = threads.start(derive, context, results.prepared)
    grouped = [name for name, teacher in context.recipe.teachers.items() if workers_of(teacher) > 1]
    for name, config in context.recipe.teachers.items():
        if not is_trained_here(config):
            weights = keys.teacher_digest(context.recipe, name, None, results.prepared.stage.inputs["source"])
            asked = label, context, name, config, weights, None, results.prepared
            waiting[name] = threads.start(_with_arrays, derived, config, *asked)
        elif name not in grouped:
            waiting[name] = threads.start(_with_arrays, derived, config, _train_and_label, context, results, name)
    if any(reads_arrays(context.recipe.teachers[name]) for name in grouped):
        threads.outcome(derived)
    networks = threads.outcome(threads.start(train_networks, context, grouped, results.prepared))
    for name, built in networks.items():
        config, folder = context.recipe.teachers[name], folder_of(context.recipe, name, built)
        waiting[name] = threads.start(label, context, name, config, built.digest, folder, results.prepared)
    results.taught = {name: threads.outcome(waiting[name]) for name in context.recipe.teachers}
    results.derived = threads.outcome(derived)
    trained = results.trained | networks
    results.trained = {name: trained[name] for name in context.recipe.teachers if name in trained}


def _with_arrays(
    derived: "Future[list[Built]]", config: TeacherConfig, work: Callable[..., Taught], *given: Any
) -> Taught:
    """`work(*given)` of a teacher, when what it reads of text has been made."""
    if reads_arrays(config):
        outcome(derived)
    return work(*given)


def _train_and_label(context: Context, results: Results, name: str) -> Taught:
    built = train_alone(context, name, results.prepared)
    results.trained[name] = built
    config = context.recipe.teachers[name]
    folder = folder_of(context.recipe, name, built)
    return label(context, name, config, built.digest, folder, results.prepared)


def label_assistants(context: Context, results: Results, names: list[str], threads: SideBySide) -> None:
    """A student, or a member of a cohort, that teaches another one labels what its delivered seed says."""
    waiting: dict[str, Future[Taught]] = {}
    for name in context.recipe.assistants():
        learner, _, member = name.partition(".")
        if learner in names:
            network = results.students[learner].delivered(member or None)
            config: TeacherConfig = keys.assistant_as_teacher(context.recipe, name, str(network.folder))
            waiting[name] = threads.start(label, context, name, config, network.digest, None, results.prepared)
    results.taught |= {name: threads.outcome(future) for name, future in waiting.items()}
    for name in waiting:
        judge_who_teaches(context, results, name, [name])


def judge_who_teaches(context: Context, results: Results, title: str, names: Sequence[str]) -> None:
    """Before anybody is trained from them. Raises GateMissed."""
    if names:
        built, standings = judge(context, title, results.prepared, {name: results.taught[name] for name in names})
        results.judged |= {title: built} if built is not None else {}
        results.standings |= standings


def evaluate(context: Context, results: Results) -> None:
    """Latency is measured: one after the other."""
    if context.recipe.teachers:
        teachers = evaluate_teachers(context, results.prepared, results.taught)
        results.evaluations["teachers"] = teachers
    for name, learned in results.students.items():
        in_cohort = name in context.recipe.cohorts
        look = evaluate_cohort if in_cohort else evaluate_student
        results.evaluations[name] = look(context, name, results.prepared, learned, results.taught)


def export(context: Context, results: Results) -> None:
    for name, learned in results.students.items():
        results.models |= exporting.export(context, name, learned, results.evaluations[name], results.prepared)


def missed_bars(task: TaskName, required: Bars, found: Mapping[str, Any]) -> Iterator[str]:
    """What falls below a bar, or above it where less is better; of a student the mean over seeds."""
    for key, bar in required.bars.items():
        value, sign = mean_of(found["runs"], key), figure(task, key).sign
        if value is None:
            yield f"{key} is not known, and {bar:g} is required"
        elif sign * value < sign * bar:
            yield f"{key} {value:.4f} is {'below' if sign > 0 else 'above'} {bar:g}"


def missed_gates(recipe: Recipe, report: Mapping[str, Any]) -> list[str]:
    """Quality gates of the recipe that the report's test figures fall below; a cohort's are of what it delivers.

    A gain must be above what is required for certain: with the lower end of its interval.
    """
    missed = []
    for name, config in recipe.learners.items():
        if config.require is None:
            continue
        figures = report["students"][name] if name in recipe.students else report["cohorts"][name]["delivered"]
        where = name_in_recipe(recipe, name)
        missed += [f"{where}: {told}" for told in missed_bars(recipe.task, config.require, figures)]
        low = figures["gain"]["low"] if figures["gain"] else None
        if config.require.gain is not None and (low is None or low < config.require.gain):
            told = "not known without a control and two seeds" if low is None else f"{low:.4f} at the lower end"
            missed.append(f"{where}: gain {told} is below {config.require.gain}")
    return missed
