"""A run: every stage of a recipe in order, what is ready side by side; then the report."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from students.tasks.figure import figure
from teachers.config.bars import Bars
from teachers.config.task import TaskName
from teachers.errors import DataError, RecipeError
from teachers.preparing.count import count_prepared
from teachers.process.waiting import POLL_S, SideBySide, go_on, outcome, until_done
from teachers.transfer_set.transfer_set import TransferSet

from ..recipe.checks import class_problems, fold_problems, folder_problems, judging_problems, questions, text_problems
from ..recipe.combining import expert_problems, route_problems
from ..recipe.detecting import rows_to_choose_by
from ..recipe.dividing import divides, division_problems
from ..recipe.losses import unlabelled_problems
from ..recipe.mixing import unmixable_problems
from ..recipe.model import Recipe, is_trained_here, learner_of, name_in_recipe
from ..recipe.seen_rows import seen_problems
from ..recipe.tasks import rows_to_calibrate_by
from ..reporting.headline import mean_of
from ..scheduling.planner import Work, ranked
from ..stages import keys
from ..stages.stages import Built
from . import export as exporting
from . import prepare
from .context import Context, Taught
from .derive import derive, reads_arrays
from .evaluate import evaluate_cohort, evaluate_student, evaluate_teachers
from .judge import Standings, judge
from .label import check_outputs, label
from .learn import Learners
from .learned import Learned
from .train import folder_of, train_teacher
from .turns import Turns
from .works import Lengths, timed_in, works_of

Until = Literal["label", "distill", "evaluate", "export"]
Judged = tuple[Built | None, Standings]
AT_ONCE = 10_000
"""Threads, of which most wait; a bound that no recipe comes near."""
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
    learners = [name for names in generations for name in names]
    works = ranked(works_in(context, results.prepared, learners))
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


def works_in(context: Context, prepared: Built, learners: Sequence[str]) -> list[Work]:
    """What there may be to do, to find out what everything else waits for; on one node, since of needs only lengths count here."""
    transfer_set = TransferSet.open(prepared.folder)
    rows = sum(segment.num_rows for segment in transfer_set.of("train"))
    lengths = Lengths(rows, transfer_set.num_labelled, timed_in(context.stages.out))
    return list(works_of(context.recipe, learners, [{}], lengths))


class School:
    """All who teach and learn in one run, each in a thread that waits for those whom it hears. The first that fails ends all others.

    Arrays are made of text meanwhile, for which only those wait that read them.
    """

    def __init__(self, context: Context, results: Results, turns: Turns, threads: SideBySide) -> None:
        self.context, self.results, self.turns, self.threads = context, results, turns, threads
        self.prepared = results.prepared

    def teach(self, learners: Sequence[str]) -> None:
        recipe, results, start, come = self.context.recipe, self.results, self.threads.start, self.threads.outcome
        derived = start(derive, self.context, self.prepared)
        trained = {n: start(self._train, derived, n) for n, each in recipe.teachers.items() if is_trained_here(each)}
        labelled = {name: start(self._label, derived, name, trained.get(name)) for name in recipe.teachers}
        judged = {"teachers": start(self._judge, "teachers", {**labelled})}
        by_whom = self._judged_by_whom(learners, {**labelled}, judged["teachers"])
        ready = dict[str, Future[Taught]]()
        everyone, learnt = Learners(self.context, self.turns, self.prepared), dict[str, Future[Learned]]()
        for name in learners:
            teachers = recipe.learners[name].teachers
            gate = by_whom[frozenset(each for each in teachers if each in recipe.teachers)]
            heard = {each: ready.get(each) or start(self._ready, labelled[each], gate) for each in teachers}
            learnt[name] = start(self._learn, derived, everyone, name, heard)
            for assistant in recipe.assistants():
                if learner_of(assistant) == name:
                    labelled[assistant] = start(self._label_as_assistant, assistant, learnt[name])
                    judged[assistant] = start(self._judge, assistant, {assistant: labelled[assistant]})
                    ready[assistant] = start(self._ready, labelled[assistant], judged[assistant])
        results.trained = {name: come(future) for name, future in trained.items()}
        results.taught = {name: come(future) for name, future in labelled.items()}
        for title, future in judged.items():
            built, standings = come(future)
            results.judged |= {title: built} if built is not None else {}
            results.standings |= standings
        results.students = everyone.in_order({name: come(future) for name, future in learnt.items()})
        results.derived = come(derived)

    def _train(self, derived: "Future[list[Built]]", name: str) -> Built:
        if reads_arrays(self.context.recipe.teachers[name]):
            outcome(derived)
        return train_teacher(self.context, self.turns, name, self.prepared)

    def _label(self, derived: "Future[list[Built]]", name: str, trained: "Future[Built] | None") -> Taught:
        recipe, folder = self.context.recipe, None
        config = recipe.teachers[name]
        if trained is not None:
            built = outcome(trained)
            weights, folder = built.digest, folder_of(recipe, name, built)
        else:
            weights = keys.teacher_digest(recipe, name, None, self.prepared.stage.inputs["source"])
        if reads_arrays(config):
            outcome(derived)
        return label(self.context, self.turns, name, config, weights, folder, self.prepared)

    def _label_as_assistant(self, name: str, learnt: "Future[Learned]") -> Taught:
        """A student, or a member of a cohort, that teaches another one labels what its delivered seed says."""
        network = outcome(learnt).delivered(name.partition(".")[2] or None)
        config = keys.assistant_as_teacher(self.context.recipe, name, str(network.folder))
        return label(self.context, self.turns, name, config, network.digest, None, self.prepared)

    def _judge(self, title: str, labelled: "Mapping[str, Future[Taught]]") -> Judged:
        """Before anybody hears them. Raises GateMissed."""
        taught = {name: outcome(future) for name, future in labelled.items()}
        return judge(self.context, self.turns, title, self.prepared, taught) if taught else (None, {})

    def _judged_by_whom(
        self, learners: Sequence[str], labelled: "Mapping[str, Future[Taught]]", all_judged: "Future[Judged]"
    ) -> "dict[frozenset[str], Future[Judged]]":
        """By teachers that somebody hears, when they are judged: with all others, or before these where these take longer."""
        recipe = self.context.recipe
        found = {frozenset[str](): all_judged, frozenset(recipe.teachers): all_judged}
        for name in learners:
            heard = frozenset(each for each in recipe.learners[name].teachers if each in recipe.teachers)
            if heard not in found:
                found[heard] = self.threads.start(self._judge_before_others, name, heard, labelled, all_judged)
        return found

    def _judge_before_others(
        self,
        learner: str,
        names: frozenset[str],
        labelled: "Mapping[str, Future[Taught]]",
        all_judged: "Future[Judged]",
    ) -> Judged:
        until_done([labelled[name] for name in names])
        others = [name for name in self.context.recipe.teachers if name not in names]
        while left := {labelled[name] for name in others if not labelled[name].done()}:
            go_on()
            if self.turns.are_under_way([f"{kind}/{name}" for kind in ("train_teacher", "label") for name in others]):
                mine = {name: labelled[name] for name in self.context.recipe.teachers if name in names}
                return self._judge(f"teachers-of-{learner}", mine)
            wait(left, timeout=POLL_S)
        return outcome(all_judged)

    def _ready(self, labelled: "Future[Taught]", judged: "Future[Judged]") -> Taught:
        outcome(judged)
        return outcome(labelled)

    def _learn(
        self,
        derived: "Future[list[Built]]",
        everyone: Learners,
        name: str,
        heard: "Mapping[str, Future[Taught]]",
    ) -> Learned:
        outcome(derived)
        return everyone.learn(name, heard)


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
