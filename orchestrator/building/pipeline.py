"""A run: every stage of a recipe in order, what is ready side by side; then the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from students.tasks.figure import figure
from teachers.config.bars import Bars
from teachers.config.task import TaskName
from teachers.errors import DataError, RecipeError
from teachers.preparing.count import count_prepared
from teachers.process.waiting import SideBySide
from teachers.transfer_set.transfer_set import TransferSet

from ..recipe.checks import class_problems, fold_problems, folder_problems, judging_problems, questions, text_problems
from ..recipe.combining import expert_problems, route_problems
from ..recipe.detecting import rows_to_choose_by
from ..recipe.dividing import divides, division_problems
from ..recipe.following import unlabelled_followed
from ..recipe.losses import unlabelled_problems
from ..recipe.mixing import unmixable_problems
from ..recipe.model import Recipe, name_in_recipe
from ..recipe.seen_rows import seen_problems
from ..recipe.tasks import rows_to_calibrate_by
from ..recipe.viewing import views_of_columns
from ..reporting.headline import mean_of
from ..scheduling.planner import ranked
from ..stages.stages import Built
from . import export as exporting
from . import prepare
from .context import Context
from .estimates import estimates
from .evaluate import evaluate_cohort, evaluate_student, evaluate_teachers
from .label import check_outputs
from .results import Results
from .school import School
from .turns import Turns
from .works import Lengths, timed_in, works_of

Until = Literal["label", "distill", "evaluate", "export"]
AT_ONCE = 10_000
"""Threads, of which most wait; a bound that no recipe comes near."""


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
    learners = [name for names in generations for name in names]
    transfer_set = TransferSet.open(results.prepared.folder)
    lengths = lengths_in(context, transfer_set)
    results.estimates = estimates(context.recipe, transfer_set, learners, lengths)
    context.journal.estimated(results.estimates)
    works = ranked(works_of(context.recipe, learners, [{}], lengths))  # on one node: of needs only lengths count here
    with SideBySide("stage", AT_ONCE) as threads:
        turns = Turns(context.cluster, works, threads)
        School(context, results, turns, threads).teach(learners)
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
        *unlabelled_followed(recipe, transfer_set.report["labelled"]),
    ]:
        raise RecipeError("\n".join(problems))
    questions(recipe, transfer_set.columns, transfer_set.made_of, transfer_set.space)
    if problems := [*fold_problems(recipe, transfer_set)]:
        raise DataError("\n".join(problems))


def _in_validation(transfer_set: TransferSet) -> Mapping[str, int]:
    """Labelled rows of each class."""
    return count_prepared(transfer_set).of_class("validation")


def lengths_in(context: Context, transfer_set: TransferSet) -> Lengths:
    """How long what there may be to do takes, to find out what everything else waits for."""
    rows = sum(segment.num_rows for segment in transfer_set.of("train"))
    return Lengths(rows, transfer_set.num_labelled, timed_in(context.stages.out))


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
