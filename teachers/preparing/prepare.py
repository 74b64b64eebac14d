"""Preparing a transfer set: read the source into sorted runs, decide over all rows, write them as parts, publish the manifest.

An external sort in two passes that run wherever `run` runs them: the source is read once, and what was written of it once. No process,
the driver neither, holds more than COLLEGIUM_PREPARE_BYTES say. Knows nothing of Ray, of stages or of seals.
"""

from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from pathlib import Path

from ..config.transfer_set import TransferSetConfig
from ..errors import StoreError
from ..sources import chunks_of, files_of
from ..storage import mirror
from ..storage.seal import replace as replace_file
from ..transfer_set.images import COLOUR
from ..transfer_set.transfer_set import EVERY, NAME, SPLITS, Part, Segment, TransferSet, segment_digest
from .beside import Whole, report_of, with_rows_beside
from .budget import Budget, budget
from .canonical import in_colour
from .corrections import corrected
from .dictionaries import with_dictionaries
from .extra import extra_files, reading_extra
from .gathering import Pass, gathered
from .labelling import with_labelled
from .ledger import Runner
from .look import Look, look
from .moments import Moments
from .parts import PartTask, Writing, gather_rows, write_part
from .pieces import fingerprint, tidy
from .planning import Earlier, PlannedSegment, plan_segments
from .report import report_on, training_labels
from .segments import keep_parts, part_tasks
from .shuffle import Reading, read_chunks
from .statistics import OfParts, check_there_are_values, lacks, with_moments
from .stretches import Stretches, last_keys, stretches_of
from .taking import ids_of
from .tasks import LABELS

CHUNK_ROWS = 4096
"""Read by one task, at least, where there are so many."""


def prepare(
    config: TransferSetConfig,
    folder: Path,
    *,
    earlier: Path | None = None,
    run: Runner = map,
    chunk_rows: int = CHUNK_ROWS,
) -> TransferSet:
    """Prepare `config`'s rows into `folder` and return the set; seal its `files()`.

    `run(function, items)` yields results in the order of the items; functions, items and results can be pickled.
    `earlier` is the folder of a set of the same config: its segments stay as they are when all their rows are still
    there unchanged. The outcome depends on neither `run` nor `chunk_rows`, of which one task reads some, nor on the budget;
    a killed call, made again, ends the same. Raises RecipeError, DataError, EnvironmentUnfit.
    """
    try:
        return _prepare(config, folder, earlier, run, chunk_rows)
    except FileNotFoundError:
        if not mirror.there(folder / NAME):
            raise
        return TransferSet.open(folder)  # another call finished first, and removed the pieces under us


def _prepare(
    config: TransferSetConfig, folder: Path, earlier_folder: Path | None, run: Runner, chunk_rows: int
) -> TransferSet:
    folder = folder.resolve()  # workers run in another folder
    seen, room = look(config), budget()
    own, beside = (chunks_of(files, chunk_rows) for files in (files_of(config), extra_files(config)))
    stretches = Stretches(*(stretches_of(chunks, seen.plans, room, chunk_rows) for chunks in (own, beside)))
    read = _read_all(config, seen, stretches, folder, run, room)
    if colour := _in_colour(seen, read):  # in rows that nobody had looked at
        seen = colour
        read = _read_all(config, seen, stretches, folder, run, room)
    found, pieces = gathered(config, seen, read, run), read.told.pieces

    width = len(found.classes)
    ledger = with_labelled(found.ledger, config, width)
    ledger, counts = corrected(config, ledger, found.everyone, partial(ids_of, found.runs, pieces), found.classes)
    columns = with_dictionaries(seen.columns, config, ledger, found.runs, pieces)
    before = _open_earlier(earlier_folder, pieces, run)
    whole = Whole(found.runs, plan_segments(ledger, columns, before), {})
    whole = with_rows_beside(config, whole, ledger, found.extra, read.told, columns, before, width)
    told = Writing(
        folder, pieces, columns, tuple(run.path for run in whole.runs), earlier_folder and earlier_folder.resolve()
    )
    segments, parts = _second_pass(whole, told, run)

    columns = with_moments(columns, parts["train"])
    report, num_train = report_on(found, ledger), ledger.counts()["train"]
    check_there_are_values(columns, seen.plans, num_train)
    space = LABELS[config.task].space(found.classes, partial(training_labels, ledger))
    report |= {"columns": lacks(columns, seen.plans, parts)}
    report |= report_of(whole, seen.labels_not_read) | ({"corrected": counts} if counts else {})
    made_of = tuple(plan.document() for plan in seen.plans)
    prepared = TransferSet(folder, columns, space, tuple(segments), report["labelled"]["train"], report, made_of)
    replace_file(folder / NAME, prepared.manifest())
    tidy(folder)
    return prepared


def _open_earlier(folder: Path | None, pieces: Path, run: Runner) -> Earlier | None:
    try:
        return None if folder is None else Earlier(TransferSet.open(folder.resolve()), pieces, run)
    except StoreError:  # nothing there to keep
        return None


def _read_all(
    config: TransferSetConfig, seen: Look, stretches: Stretches, folder: Path, run: Runner, room: Budget
) -> Pass:
    """The first pass."""
    pieces = folder / f".pieces-{fingerprint(config, seen, stretches, room)}"
    pieces.mkdir(parents=True, exist_ok=True)
    last = last_keys(config, stretches.source)
    told = Reading(config, seen.plans, seen.classes, seen.integers, seen.root, pieces, last, room)
    done = list(run(partial(read_chunks, told), list(enumerate(stretches.source))))
    beside = list(enumerate(stretches.extra, len(stretches.source)))
    return Pass(told, done, list(run(partial(read_chunks, reading_extra(told)), beside)) if beside else [])


def _in_colour(seen: Look, read: Pass) -> Look | None:
    """What is to be made of the inputs, where images that were thought grey are not all; None: what was thought."""
    grey = {f"{plan.name}: {COLOUR}" for plan in seen.plans if plan.kind == "image"}
    told = {row.reason for row in (*read.bad, *read.bad_beside) if row.reason in grey} if grey else grey
    plans = tuple(in_colour(plan) if f"{plan.name}: {COLOUR}" in told else plan for plan in seen.plans)
    return None if plans == seen.plans else changed(seen, plans=plans, columns=tuple(plan.column for plan in plans))


def _second_pass(whole: Whole, told: Writing, run: Runner) -> tuple[list[Segment], OfParts]:
    """(the segments, written or kept; by split and part of the source, the moments of each column, as far as somebody asks)."""
    planned = sorted(whole.planned, key=lambda segment: EVERY.index(segment.split))
    tasks: list[PartTask] = []
    for plan in planned:
        (told.folder / "segments" / plan.name / "inputs").mkdir(parents=True, exist_ok=True)
        if plan.kept is not None:
            assert told.earlier is not None
            keep_parts(plan.kept, told.earlier, told.folder)
        tasks += part_tasks(plan, told.columns)
    written: dict[str, list[tuple[Part | None, list[Moments]]]] = {}
    for task, done in zip(tasks, run(partial(write_part, told), tasks), strict=True):
        written.setdefault(task.path.split("/")[1], []).append(done)
    segments = [_segment(plan, told, [part for part, _ in written[plan.name] if part]) for plan in planned]
    list(run(partial(gather_rows, told), [(each.rows_path, [part.path for part in each.parts]) for each in segments]))
    found: OfParts = {split: [] for split in (*SPLITS, *(plan.split for plan in planned))}
    for segment in segments:
        if segment.kind == segment.split:
            found[segment.split] += [moments for _, moments in written[segment.name] if moments]
    return segments, found


def _segment(plan: PlannedSegment, told: Writing, parts: Sequence[Part]) -> Segment:
    if plan.kept is not None:
        return plan.kept
    digest = segment_digest(told.columns, 0, parts)
    return Segment(plan.name, plan.split, 0, plan.num_rows, digest, tuple(parts))
