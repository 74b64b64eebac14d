"""All rows of one training, side by side: inputs, labels and what teachers say, and what of it is held in memory."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from teachers.errors import DataError, RecipeError
from teachers.models.preprocess import Preprocessor
from teachers.rows.rows import Rows, chosen
from teachers.tasks.labels import has_label
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import within

from ..config.cohort_terms import CohortTerm
from ..config.hints import first_stage
from ..config.lfme_term import curriculum_of
from ..config.own_terms import PsKdTerm
from ..config.terms import HardTerm, PeerLossName, Term
from ..objective.asks import COUNTS, as_they_count, check_encodings, every_row, labels_of, with_labels
from ..objective.class_weights import class_weights
from ..objective.combination import Combination, combination_of, teachers_of
from ..objective.curriculum import START, labels_by_curriculum, starts
from ..objective.energy import judging, weights_of
from ..objective.growing import GrowingVoice
from ..objective.hints import ROW_NUMBER, HintAtWork, columns_of, hints_at_work, remembers, terms_of
from ..objective.judging import JUDGED_BY
from ..objective.keeping import keeping
from ..objective.mixed import compares_with_labels, mixed_terms, terms_of_labels
from ..objective.objective import Objective
from ..objective.own import OWN_ASKS, ROW, row_numbers
from ..objective.peer_targets import NEED_LABELS
from ..objective.ready import make_ready
from ..objective.spread import spread_for
from ..objective.stores import classes_asked
from ..objective.targets import Ask, Column, Targets
from ..objective.voices import Voice, voice_of
from ..runs.run import Run
from .balance import times_longer
from .boxes import Moves, moving
from .following import Following
from .inputs import (
    KEY,
    Canonical,
    Inputs,
    Only,
    augmenting,
    bytes_of_validation,
    made_anew,
    made_before,
    made_once,
    stored_columns,
)
from .labels import batch_labels
from .memory import Division, divide
from .mixes import Mixing
from .needs import live_sources, needs_of
from .partners import Partners, partners_of
from .told import late_of, told_of_rows


@dataclass(frozen=True)
class TrainingRows:
    """Row-aligned columns for the reader, and what turns them into a step: shared by the seeds of one stage."""

    columns: dict[str, Column]
    """Of `[num_rows]`, or in views of `[views * num_rows]`, view after view."""
    labelled: np.ndarray
    """bool `[num_rows]`."""
    objective: Objective
    inputs: Inputs
    """A batch, and from what it is augmented, to what the network takes."""
    division: Division
    """What of all this is held in memory."""
    canonical: Canonical | None = None
    """The same before the network's own preprocess; None where a batch does not bring it."""
    live: "LiveRows | None" = None
    """Of a run with live teachers: its batches must pass `students.training.look_ahead` before they become a step."""
    hints: tuple[HintAtWork, ...] = ()
    """Of the objective: what a batch brings of teachers' layers."""
    mixing: Mixing | None = None
    """How rows of a batch are mixed two by two."""
    views: int = 1
    """By turns, epoch by epoch."""
    moves: Moves | None = None
    """Of boxes: what becomes of those that a term compares with, when images are augmented."""
    following: Following | None = None
    """Of who learns while its teachers label: which rows are there."""
    partners: Partners | None = None
    """Of views that are mixed: what batches bring besides."""


@dataclass(frozen=True)
class LiveRows:
    """Who is asked about every batch, how many batches ahead, and about what: the rows as the student will see them."""

    teachers: tuple[str, ...]
    prefetch: int
    augmented: Canonical
    """Canonical inputs by column, after augmentation; put back into the batch, `inputs` augments them no more."""
    derived: tuple[str, ...] = ()
    """What of these the student makes of text itself: nobody is told, who is asked finds the text by the rows' keys."""


def load_rows(
    run: Run, transfer_set: TransferSet, preprocessor: Preprocessor, memory_bytes: int, world: int = 1
) -> TrainingRows:
    """Open the train segments and the stores of `run`; what fits `memory_bytes` is computed and held once.

    Raises DataError when no row can be drawn, RecipeError or StoreError when the stores cannot serve the objective.
    """
    train = MergedSplit(transfer_set, "train")
    labels = train.labels()
    labelled = train.labelled() & has_label(labels)
    if run.part is not None:
        folds, number = run.part
        labelled = labelled & folds.learnt_by(number, train.groups())
    counts = None if run.energy is None else weights_of(run.energy, judging(run.energy, run.by_name), train, labelled)
    only = labelled if run.labelled_only else None if counts is None else counts > 0
    only = None if only is None or only.all() else only
    of_all = labels, labelled
    if only is not None:
        labels, labelled = labels[only], labelled[only]
    check_that_there_are_rows(len(labels), run)
    voices, combinations = who_is_heard(run, train)
    stored = stored_columns(train, only)
    together = [*dict.fromkeys(each for each in combinations if each is not None)]
    hints = hints_at_work(run, train)
    drawn = numbers_of(only, train.num_rows, train.views)
    of_hints = {name: chosen(column, drawn) for name, column in columns_of(hints).items()}
    needs = needs_of(run, preprocessor, labelled, train.views, stored, voices, together)
    hint_bytes = sum(column.nbytes for column in of_hints.values())
    needs = replace(needs, validation=bytes_of_validation(transfer_set, preprocessor, world), hints=hint_bytes)
    if run.train.balanced is not None:
        needs = replace(needs, copies=1 + times_longer(np.where(labelled, labels, -1)))
    division = divide(memory_bytes, needs)
    shapes = {name: tuple(column.shape) for name, column in stored.items()}
    mixing = Mixing.of(run.train.mix, shapes, by_labels=any(compares_with_labels(term) for term in run.objective))
    columns, inputs, augmented, asked = columns_of_inputs(run, train, preprocessor, stored, only, division, mixing)
    columns["label"] = batch_labels(labels, transfer_set.space)
    if not labelled.all():
        columns["has_label"] = torch.from_numpy(labelled.astype(np.float32))
    columns |= columns_of_selves(run, voices, labels, labelled)
    held = {each for each, once in zip(together, division.targets, strict=True) if once}
    weights = class_weights(run.train.class_weights, labels[labelled], transfer_set.space.names, run.stage_name)
    moves = moving(run.train.augments, transfer_set.space)
    objective, targets = bring_targets(run, train, voices, combinations, held, weights, moves)
    columns |= {name: chosen(column, drawn) for name, column in targets.columns.items()}
    if counts is not None and run.energy is not None and run.energy.rows == "weigh":
        columns[COUNTS] = torch.from_numpy(counts)
    objective.add_hints(terms_of(hints, run.train, len(labels)), first_stage(run.hints))
    columns |= of_hints | ({ROW_NUMBER: torch.arange(len(labels))} if remembers(run) else {})
    if run.views is not None:
        keys = train.keys()
        columns[KEY] = torch.from_numpy(np.array(keys if only is None else keys[only]).view(np.int64))
    growing = [voice for voice in voices.values() if isinstance(voice, GrowingVoice)]
    following = Following(growing, targets, columns, train) if run.follow else None
    partners = partners_of(run, train, only, *of_all)
    held_so = columns, labelled, objective, inputs, division, augmented, asked
    return TrainingRows(*held_so, hints, mixing, train.views, moves, following, partners)


def columns_of_selves(
    run: Run, voices: Mapping[str, Voice], labels: np.ndarray, labelled: np.ndarray
) -> dict[str, Column]:
    """What a student needs that remembers what it said of a row, or is in a curriculum."""
    columns: dict[str, Column] = {}
    if any(isinstance(term, PsKdTerm) for term in run.objective):
        columns[ROW] = row_numbers(labelled)
    if (paced := curriculum_of(run.objective)) is not None:
        number, _ = paced
        experts = [voices[name] for name in teachers_of(run.objective[number], run.sources)]
        columns[START] = starts(experts, np.where(labelled, labels, -1), f"{run.key}.objective.{number}")
    return columns


def numbers_of(only: Only, num_rows: int, views: int) -> np.ndarray | None:
    """Of the rows that are drawn, in each of `views`; None: all."""
    if only is None:
        return None
    return np.concatenate([np.flatnonzero(only) + view * num_rows for view in range(views)])


def columns_of_inputs(
    run: Run,
    train: MergedSplit,
    preprocessor: Preprocessor,
    stored: dict[str, Rows],
    only: Only,
    division: Division,
    mixing: Mixing | None,
) -> tuple[dict[str, Column], Inputs, Canonical | None, "LiveRows | None"]:
    """Of `TrainingRows`: the columns of inputs, what makes them of a batch, what augments it, and who is asked about it."""
    if division.inputs:
        columns, inputs = made_once(stored, preprocessor)
        return columns, inputs, None, None
    augmented = augmenting([*stored], run, mixing)
    if live := live_sources(run):
        keys = train.keys()
        columns, inputs = made_before(stored, keys if only is None else keys[only], preprocessor)
        made = () if preprocessor.text is None else tuple(output.name for output in preprocessor.text.outputs)
        return columns, inputs, augmented, LiveRows(tuple(live), max(live.values()), augmented, made)
    columns, inputs = made_anew(stored, augmented, preprocessor)
    return columns, inputs, augmented, None


def who_is_heard(run: Run, train: MergedSplit) -> tuple[dict[str, Voice], list[Combination | None]]:
    """The teachers that the objective of `run` listens to, and how each term combines them."""
    task = train.transfer_set.space.task
    given = [combination_of(term, run.sources, number, task) for number, term in enumerate(run.objective)]
    combinations = [each and replace(each, of_heads=run.hydra is not None) for each in given]
    heard = {name for combination in combinations if combination for name in combination.teachers}
    voice = GrowingVoice if run.follow else voice_of
    voices = {source.name: voice(source, train) for source in run.sources if source.name in heard}
    if silent := sorted(heard - set(voices)):
        raise RecipeError(f"{run.stage_name}: the objective listens to {silent}, who have no soft targets here")
    return voices, [each and judged(each, run, train.transfer_set) for each in combinations]


def judged(combination: Combination, run: Run, transfer_set: TransferSet) -> Combination:
    """The same; with a rule that weighs teachers by labelled validation rows it knows what that found of each, of boxes which
    classes each looks for."""
    sources = [run.by_name[name] for name in combination.teachers]
    found: dict[str, Any] = {**classes_asked(sources, transfer_set.space)}
    if combination.rule in JUDGED_BY:
        with within(combination.key):
            found |= JUDGED_BY[combination.rule](sources, transfer_set, combination.options)
    return replace(combination, found=found) if found else combination


def bring_targets(
    run: Run,
    train: MergedSplit,
    voices: Mapping[str, Voice],
    combinations: Sequence[Combination | None],
    held: Set[Combination],
    weights: Tensor | None,
    moves: Moves | None,
) -> tuple[Objective, Targets]:
    """The objective of `run`, and the columns of soft targets that it needs; those of `held` are combined once.

    `weights`: of classes.
    """
    space = train.transfer_set.space
    as_seen = None if moves is None else moves.as_seen
    targets = Targets(voices, train.views * train.num_rows, space, held, told_of_rows(train, combinations), as_seen)
    asks: list[Ask] = []
    for number, (term, combination) in enumerate(zip(run.objective, combinations, strict=True)):
        if combination is not None:
            check_encodings(term, number, combination, voices)
        if combination is None:
            asks.append(ask_without_teachers(term, run))
            continue
        ask = with_labels(term, targets.answer(combination))
        asks.append(ask if run.energy is None or run.energy.rows == "drop" else as_they_count(ask))
    over_known = [each is not None and each not in targets.gapless for each in combinations]
    late = [None if each is None else late_of(each, run, train.transfer_set, targets) for each in combinations]
    counts = [{} if each is None else each.counts or targets.counts.get(each, {}) for each in combinations]
    asking = zip(run.objective, combinations, strict=True)
    scales = [spread_for(term, number, each, targets) for number, (term, each) in enumerate(asking)]
    terms = [
        keeping(term, number, each, run.sources, train.transfer_set)
        for number, (term, each) in enumerate(zip(run.objective, combinations, strict=True))
    ]
    ready = make_ready(space.task, terms, combinations, targets)
    objective = Objective(space.task, terms, asks, weights, over_known, counts, scales, late, ready)
    named = zip(objective.names, combinations, strict=True)
    objective.seen = frozenset(name for name, each in named if each is not None and targets.is_seen(each))
    if run.train.mix is not None:
        objective.pairs = mixed_terms(run, combinations)
    if run.views is not None and run.views.mixes:
        objective.pairs = terms_of_labels(run)
    return objective, targets


def ask_without_teachers(term: Term | CohortTerm, run: Run) -> Ask:
    """Of a term that compares with labels, with the student itself, or with what peers say of every row, or of the labelled ones."""
    if term.loss in OWN_ASKS:
        return OWN_ASKS[term.loss]
    if isinstance(term, HardTerm) and curriculum_of(run.objective) is not None:
        return labels_by_curriculum
    of_peers = term.loss in get_args(PeerLossName)
    return every_row if of_peers and run.membership.peer_rule not in NEED_LABELS else labels_of


def check_that_there_are_rows(found: int, run: Run) -> None:
    if found == 0:
        needed = "labelled rows" if run.labelled_only else "rows"
        raise DataError(f"{run.stage_name}: there are no {needed} to train {run.name} on")
