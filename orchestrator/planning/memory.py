"""What each training of a recipe would hold in memory, and what finds no room: from sizes, before anything is read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from students.config.cohort import CohortCommon
from students.config.cohort_terms import CohortTerm
from students.config.estimator import EstimatorStudent
from students.config.hints import Hint
from students.config.terms import Term
from students.data.memory import Division, Needs, Target, divide, memory_for
from teachers.config.preprocess import Preprocess
from teachers.config.resources import Resources
from teachers.config.task import ANSWER_OF
from teachers.config.training import TrainConfig
from teachers.errors import CollegiumError
from teachers.preparing.look import Look
from teachers.tasks.boxes import width_of

from ..cluster.capacity import Node, request_of, workers_of
from ..recipe.model import Recipe, name_in_recipe


@dataclass(frozen=True)
class Holding:
    """What one worker of a training holds; `who` is its key in the recipe."""

    who: str
    division: Division

    def record(self) -> dict[str, Any]:
        division = self.division
        return {
            "who": self.who,
            "budget": division.total,
            "held": dict(division.taken),
            "not_held": list(division.too_large),
        }

    def line(self) -> str:
        """For people."""
        held = ", ".join(f"{part} {in_units(size)}" for part, size in self.division.taken.items())
        told = f"{self.who}: {held or 'nothing'} held, of {in_units(self.division.total)} a worker"
        if self.division.too_large:
            told += f"; too large to hold: {', '.join(self.division.too_large)} (train.memory_gib)"
        return told


def in_units(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:,.1f} KiB"


@dataclass(frozen=True)
class Asking:
    """One network that is to be trained. `beside`: networks that share its budget, `workers`: those that share the host's RAM."""

    who: str
    preprocess: Preprocess
    train: TrainConfig
    resources: Resources
    workers: int = 1
    beside: int = 1
    teachers: Sequence[str] = ()
    objective: Sequence[Term | CohortTerm] = ()
    hints: Sequence[Hint] = ()
    views: int = 1
    """In which it sees its rows by turns."""
    labelled_only: bool = False


def holdings(
    recipe: Recipe, seen: Look, nodes: Sequence[Node], outputs: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> list[Holding]:
    """Of every training; none where only reading the source tells how many rows there are. Controls need no more.

    `outputs`: by teacher and name, the shape of what a layer gives of one row.
    """
    if seen.rows_by_split is None or seen.classes is None:
        return []
    found = []
    for asking in _askings(recipe):
        on_gpu = request_of(nodes, asking.resources).get("GPU", 0) > 0
        total = memory_for(asking.train, "cuda" if on_gpu else "cpu", asking.workers) // asking.beside
        try:
            found.append(Holding(asking.who, divide(total, _needs(recipe, seen, asking, outputs))))
        except CollegiumError:  # of a preprocess function: `--check` tells
            continue
    return found


def _askings(recipe: Recipe) -> Iterator[Asking]:
    for name, teacher in recipe.teachers.items():
        if teacher.kind == "module" and (train := teacher.train):
            here = f"teachers.{name}", teacher.preprocess, train, teacher.resources
            yield Asking(*here, train.workers, labelled_only=True)
    views = max(recipe.transfer_set.views, 1)
    for name, learner in recipe.learners.items():
        where, heard = name_in_recipe(recipe, name), (learner.teachers, learner.objective)
        if isinstance(learner, EstimatorStudent):
            continue  # it holds all of its rows
        if not isinstance(learner, CohortCommon):
            who = where, learner.preprocess, learner.train, learner.resources
            yield Asking(*who, workers_of(learner), 1, *heard, learner.hints, views)
            continue
        together = len(learner.members) if learner.members_in_one_process else 1
        for member, own in learner.members.items():
            who = f"{where}.members.{member}", own.preprocess, learner.member_train(member), learner.resources
            yield Asking(*who, workers_of(learner), together, *heard, views=views)


def _needs(recipe: Recipe, seen: Look, asking: Asking, outputs: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Needs:
    from teachers.models.preprocess import Preprocessor
    from teachers.soft_targets.encodings.features import bytes_of

    assert seen.rows_by_split is not None
    rows = seen.rows_by_split["train"]
    if asking.labelled_only:
        rows -= sum(beside or 0 for beside in seen.beside.values())  # which have no label
        rows = min(rows, recipe.transfer_set.labelled_by_split.get("train", rows))
    fixed, text = (
        [column for column in seen.columns if column.kind != "text"],
        [column for column in seen.columns if column.kind == "text"],
    )
    blank = [replace(c, mean=(0.0,) * c.shape[-1], std=(1.0,) * c.shape[-1]) for c in fixed]
    preprocessor = Preprocessor(asking.preprocess, [*blank, *text])
    per_row = preprocessor.bytes_per_row
    stored = sum(column.bytes_per_row for column in fixed)
    stored += preprocessor.text.bytes_per_row if preprocessor.text is not None else 0
    live = [name for name in asking.teachers if name in recipe.teachers and recipe.teachers[name].mode == "live"]
    stored_of_hints = {
        (hint.teacher, output) for hint in asking.hints for output in hint.outputs if hint.teacher not in live
    }
    validation = -(-seen.rows_by_split["validation"] // asking.train.workers)
    return Needs(
        inputs=None if asking.train.augment or asking.train.mix or live or asking.views > 1 else rows * per_row,
        stored_inputs=rows * stored,
        targets=_targets(recipe, seen, asking, live, asking.views * rows),
        stored_labels=_stored_labels(recipe, seen, asking, asking.views * rows),
        validation=validation * per_row,
        hints=asking.views * rows * sum(bytes_of(outputs[teacher][output]) for teacher, output in stored_of_hints),
        copies=2 if asking.train.labelled_fraction else 1,
    )


def _targets(recipe: Recipe, seen: Look, asking: Asking, live: Sequence[str], rows: int) -> tuple[Target, ...]:
    from students.objective.combination import combination_of
    from students.runs.run import Source

    sources = [Source(name, {}) for name in asking.teachers]
    found = [combination_of(term, sources, number, recipe.task) for number, term in enumerate(asking.objective)]
    once = 4 * rows * (width_of(seen.classes or (), recipe.transfer_set.boxes) + 1)
    return tuple(
        Target(
            each.teachers, once if each.is_ours and not each.is_late and not set(each.teachers) & set(live) else None
        )
        for each in dict.fromkeys(found)
        if each is not None
    )


def _stored_labels(recipe: Recipe, seen: Look, asking: Asking, rows: int) -> Mapping[str, int]:
    from teachers.soft_targets.encodings.table import ENCODINGS

    found = {}
    for name in asking.teachers:
        config = recipe.teachers.get(name)
        width = width_of((config.classes if config else None) or seen.classes or (), recipe.transfer_set.boxes)
        answer = ANSWER_OF[recipe.task]
        fields = ENCODINGS[answer][config.encoding if config else "dense"].fields(width)
        live = config is not None and config.mode == "live"
        found[name] = 0 if live else rows * sum(field.nbytes for field in fields)
    return found
