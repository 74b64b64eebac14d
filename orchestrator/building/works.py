"""What a run has to do as a planner sees it: trainings, labellings and judgements, with what each asks for, waits for and takes.

How long something takes is known where an earlier run in the same OUT has done it; else only what is long beside what.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from students.config.cohort import CodistillationCohort, CohortCommon
from students.config.estimator import EstimatorStudent
from teachers.config.resources import Resources
from teachers.config.teacher import TeacherConfig
from teachers.config.training import TrainConfig
from teachers.resources.bundles import room_for
from teachers.transfer_set.folds import Folds

from ..cluster.capacity import Node, request_of
from ..cluster.gangs import GANGS, Gang, parts_of
from ..recipe.following import follows
from ..recipe.model import Learner, Recipe, is_trained_here, learner_of
from ..scheduling.planner import Work
from ..stages.trainings import Kind, kinds_of, part_of
from ..watching.journal import journals

STEP_S, UNKNOWN_STEPS = 0.004, 1000
FIT_S, LABEL_S, JUDGE_S = 5.0, 5.0, 2.0
"""Of who was never timed here."""
JUDGED_BY: Gang = [("judge", 1, Resources())]


@dataclass(frozen=True)
class Lengths:
    """How long works take. `rows`, `labelled`: of the train split, None where not counted yet; `timed`: see `timed_in`."""

    rows: int | None = None
    labelled: int | None = None
    timed: Mapping[str, float] = field(default_factory=dict)

    def of_steps(self, title: str, train: TrainConfig, rows: int | None, networks: int = 1) -> float:
        from students.training.optimize import resolve_steps

        known = train.steps is not None or train.epochs is None or rows
        steps = resolve_steps(train, rows or 0) if known else UNKNOWN_STEPS
        return steps * self.timed.get(title, STEP_S * networks)

    def of(self, title: str, seconds: float) -> float:
        return self.timed.get(title, seconds)


def timed_in(out: Path) -> dict[str, float]:
    """By kind and name of a stage (`distill/small`), how long the newest run in OUT that built it took: a step, where it has
    steps, else from the beginning of its first part to the end of its last."""
    found: dict[str, float] = {}
    for run in journals(out):
        built: dict[str, list[Mapping[str, Any]]] = {}
        for title, entry in run["stages"].items():
            if entry["state"] == "built" and "begun" in entry["facts"]:
                built.setdefault("/".join(title.split("/")[:2]), []).append(entry)
        found = {name: _took(parts) for name, parts in built.items()} | found
    return found


def _took(parts: Sequence[Mapping[str, Any]]) -> float:
    facts = [part["facts"] for part in parts]
    if steps := sum(fact.get("steps", 0) for fact in facts):
        return float(sum(part["seconds"] for part in parts) / steps)
    return float(max(fact["ended"] for fact in facts) - min(fact["begun"] for fact in facts))


def works_of(recipe: Recipe, learners: Sequence[str], nodes: Sequence[Node], lengths: Lengths) -> Iterator[Work]:
    """All that teaches `learners` and they themselves, named as their stages are; a labelling is one work, whatever its segments."""
    for name, teacher in recipe.teachers.items():
        trained = list(_of_teacher(recipe, name, teacher, nodes, lengths)) if is_trained_here(teacher) else []
        yield from trained
        asked = () if teacher.kind == "predictions" else parts_of(GANGS["label"](recipe, name), nodes)
        title = f"label/{name}"
        yield Work(title, asked, lengths.of(title, LABEL_S), tuple(work.name for work in trained))
    judge = parts_of(JUDGED_BY, nodes)
    if recipe.teachers:
        labels = tuple(f"label/{name}" for name in recipe.teachers)
        yield Work("judge/teachers", judge, lengths.of("judge/teachers", JUDGE_S), labels)
    for name in learners:
        yield from (work for _, _, work in trainings_of(recipe, name, nodes, lengths))
        for assistant in (each for each in recipe.assistants() if learner_of(each) == name):
            mine = tuple(work.name for kind, _, work in trainings_of(recipe, name, nodes, lengths) if kind == "student")
            label, judged = f"label/{assistant}", f"judge/{assistant}"
            yield Work(label, parts_of(GANGS["label"](recipe, assistant), nodes), lengths.of(label, LABEL_S), mine)
            yield Work(judged, judge, lengths.of(judged, JUDGE_S), (label,))


def _of_teacher(
    recipe: Recipe, name: str, teacher: TeacherConfig, nodes: Sequence[Node], lengths: Lengths
) -> Iterator[Work]:
    """One work a part, of a teacher in folds."""
    title, gang = f"train_teacher/{name}", parts_of(GANGS["train_teacher"](recipe, name), nodes)
    if teacher.kind != "module" or teacher.train is None:
        yield Work(title, gang, lengths.of(title, FIT_S))
        return
    folds, took = Folds.of_config(teacher.train, teacher.train.seed), None
    took = lengths.of_steps(title, teacher.train, lengths.labelled)
    for part in folds.parts if folds is not None else [""]:
        yield Work(f"{title}/{part}".rstrip("/"), gang, took)


def trainings_of(
    recipe: Recipe, name: str, nodes: Sequence[Node], lengths: Lengths
) -> Iterator[tuple[Kind, int, Work]]:
    """Of a student or cohort, by kind and seed. Controls wait for nobody, who follows for the beginning of labels."""
    learner = recipe.learners[name]
    labels = tuple(f"label/{teacher}" for teacher in learner.teachers)
    taught = tuple(
        each for teacher in learner.teachers for each in (f"label/{teacher}", _judged(recipe, learner, teacher))
    )
    for kind in kinds_of(learner):
        gang = parts_of(gang_of(recipe, name, kind, nodes), nodes)
        waits = kind != "control" and not follows(learner)
        after = tuple(dict.fromkeys(taught)) if waits else ()
        beside = labels if kind == "student" and not waits else ()
        for seed in learner.train.seeds:
            title = f"distill/{name}/{part_of(learner, kind, seed)}"
            yield kind, seed, Work(title, gang, _length(f"distill/{name}", learner, lengths), after, beside=beside)


def gang_of(recipe: Recipe, name: str, kind: Kind, nodes: Sequence[Node]) -> Gang:
    """Workers, and beside them live teachers, whom a control does not ask.

    Of members that are trained apart all, or as many as there is room for: the others come later.
    """
    config = recipe.learners[name]
    (who, workers, resources), *live = GANGS["distill"](recipe, name)
    if isinstance(config, CodistillationCohort) and config.workers_per_member is not None:
        groups = room_for(request_of(nodes, resources), nodes) // workers
        workers *= max(1, min(len(config.members), groups))
    return [(who, workers, resources), *(live if kind != "control" else ())]


def _judged(recipe: Recipe, learner: Learner, teacher: str) -> str:
    """By which a teacher or an assistant is judged; who hears some of the teachers alone does not wait for the others'."""
    if teacher not in recipe.teachers:
        return f"judge/{teacher}"
    return "judge/teachers" if recipe.teachers.keys() <= {*learner.teachers} else f"label/{teacher}"


def _length(title: str, learner: Learner, lengths: Lengths) -> float:
    if isinstance(learner, EstimatorStudent):
        return lengths.of(title, FIT_S)
    networks = len(learner.members) if isinstance(learner, CohortCommon) and learner.members_in_one_process else 1
    return lengths.of_steps(title, learner.train, lengths.rows, networks)
