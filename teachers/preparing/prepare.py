"""Preparing a transfer set: read the source in chunks, sort its rows by key into parts, publish the manifest.

An external shuffle in two passes that run wherever `run` runs them. Knows nothing of Ray, of stages or of seals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError, StoreError
from ..sources import chunks_of, files_of, positions_of
from ..sources.files import Chunk
from ..storage import mirror
from ..storage.seal import replace as replace_file
from ..tasks.labels import per_name, usable
from ..transfer_set.hashes import Keys
from ..transfer_set.images import COLOUR
from ..transfer_set.transfer_set import EVERY, NAME, SPLITS, Part, Segment, TransferSet, segment_digest
from .beside import Whole, report_of, with_rows_beside
from .canonical import in_colour
from .census import (
    NAMED_BAD_ROWS,
    Census,
    check_classes,
    check_splits,
    duplicates_across_splits,
    judge_bad_rows,
    limited,
    take_census,
    with_labelled,
    without_duplicates,
)
from .corrections import corrected
from .dictionaries import with_dictionaries
from .extra import extra_files, gathered_extra, reading_extra, without_copies
from .look import Look, look
from .moments import Moments
from .parts import PartTask, Writing, write_part
from .pieces import fingerprint, tidy
from .segments import PlannedSegment, Runner, ids_of, keep_parts, part_moments, part_tasks, plan_segments, write_rows
from .shuffle import BadPosition, ChunkDone, Reading, Run, read_chunk, run_batch
from .splits import sample_keys, split_numbers
from .statistics import OfParts, check_there_are_values, lacks, with_moments
from .stratify import stratified
from .tasks import LABELS

CHUNK_ROWS = 4096
"""Read by one task, about."""

NONE_HOLDS = "no class at all"
"""Of rows with several classes that each hold or not: one more stratum, called so in the report."""


@dataclass(frozen=True)
class Gathered:
    """The first pass's outcome: all usable rows in order, and what is left over."""

    census: Census
    classes: tuple[str, ...]
    runs: tuple[Run, ...]
    bad: tuple[BadPosition, ...]
    num_unused: int
    divided: tuple[str, ...]
    """Classes of which rows are in another split than their hash says."""
    duplicates: Mapping[str, int]
    """By two splits, rows of the later one that stood in the earlier one too."""
    dropped: Mapping[str, int]
    """By split, how many of these were taken out of it."""
    extra: Census | None
    """The rows of `transfer_set.extra`, where there is one."""
    num_cut: int
    """Rows that have lost a part of their label, which was too long."""


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
    there unchanged. The outcome depends on neither `run` nor `chunk_rows`; a killed call, made again, ends the same.
    Raises RecipeError, DataError.
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
    seen, chunks = look(config), chunks_of(files_of(config), chunk_rows)
    beside = chunks_of(extra_files(config), chunk_rows)
    reading, done, done_beside = _read_all(config, seen, chunks, beside, folder, run)
    if colour := _in_colour(seen, done):  # in rows that nobody had looked at
        seen = colour
        reading, done, done_beside = _read_all(config, seen, chunks, beside, folder, run)
    gathered = _gathered(config, seen, done, done_beside, reading)
    earlier, pieces = _open_earlier(earlier_folder), reading.pieces

    census, labelled = with_labelled(gathered.census, config, len(gathered.classes))
    census, labelled, counts = corrected(
        config, census, labelled, _names(config, gathered.runs, pieces), gathered.classes
    )
    gathered = changed(gathered, census=census)
    columns = with_dictionaries(seen.columns, config, census, gathered.runs, pieces)
    whole = Whole(census, gathered.runs, plan_segments(census, columns, earlier, run), {})
    about = reading, columns, earlier, run, len(gathered.classes)
    whole = with_rows_beside(config, whole, gathered.extra, *about)
    planned = sorted(whole.planned, key=lambda segment: EVERY.index(segment.split))
    segments, parts = _second_pass(planned, whole, Writing(folder, pieces, columns), earlier, run)
    for segment, plan in zip(segments, planned, strict=True):
        ids = ids_of(segment, pieces, earlier if plan.kept else None)
        mine = whole.census.take(plan.rows)
        named: dict[str, NDArray[Any]] = {
            "sample_key": mine.keys,
            "group": mine.group,
            "label": mine.labels,
            "labelled": np.append(labelled, False)[np.minimum(plan.rows, len(labelled))],
        }
        if any(column.kind == "category" for column in columns):
            named["content"] = mine.content
        write_rows(folder / segment.rows_path, named, ids)

    columns = with_moments(columns, parts["train"])
    train = census.of("train")
    check_there_are_values(columns, seen.plans, train.stop - train.start)
    num_labelled = int(labelled[train].sum())
    space = LABELS[config.task].space(gathered.classes, usable(census.labels[train], labelled[train]))
    report = _report(gathered, labelled) | {"columns": lacks(columns, seen.plans, parts)}
    report |= report_of(whole, seen.labels_not_read) | ({"corrected": counts} if counts else {})
    made_of = tuple(plan.document() for plan in seen.plans)
    prepared = TransferSet(folder, columns, space, tuple(segments), num_labelled, report, made_of)
    replace_file(folder / NAME, prepared.manifest())
    tidy(folder)
    return prepared


def _names(config: TransferSetConfig, runs: Sequence[Run], pieces: Path) -> list[tuple[list[str], Keys]]:
    """Ids and keys of all rows, where labels are corrected."""
    batches = [run_batch(pieces / run.path) for run in runs if config.corrections is not None]
    return [(batch.column("id").to_pylist(), batch.column("sample_key").to_numpy()) for batch in batches]


def _open_earlier(folder: Path | None) -> TransferSet | None:
    try:
        return None if folder is None else TransferSet.open(folder)
    except StoreError:  # nothing there to keep
        return None


def _read_all(
    config: TransferSetConfig, seen: Look, chunks: Sequence[Chunk], beside: Sequence[Chunk], folder: Path, run: Runner
) -> tuple[Reading, list[ChunkDone], list[ChunkDone]]:
    """The first pass: (how rows were read, what each chunk gave, what each one of `extra` did)."""
    pieces = folder / f".pieces-{fingerprint(config, seen, [*chunks, *beside])}"
    pieces.mkdir(parents=True, exist_ok=True)
    told = Reading(
        config, seen.plans, seen.classes, seen.integers, seen.root, pieces, last_key=_last_keys(config, chunks)
    )
    done = list(run(partial(read_chunk, told), list(enumerate(chunks))))
    if not beside:
        return told, done, []
    numbered = list(enumerate(beside, len(chunks)))
    return told, done, list(run(partial(read_chunk, reading_extra(told)), numbered))


def _in_colour(seen: Look, done: Sequence[ChunkDone]) -> Look | None:
    """What is to be made of the inputs, where images that were thought grey are not all; None: what was thought."""
    told = {row.reason for chunk in done for row in chunk.bad}
    plans = tuple(in_colour(plan) if f"{plan.name}: {COLOUR}" in told else plan for plan in seen.plans)
    return None if plans == seen.plans else changed(seen, plans=plans, columns=tuple(plan.column for plan in plans))


def _gathered(
    config: TransferSetConfig,
    seen: Look,
    done: Sequence[ChunkDone],
    done_beside: Sequence[ChunkDone],
    reading: Reading,
) -> Gathered:
    runs = tuple(part for chunk in done for part in chunk.runs)
    bad = [row for chunk in done for row in chunk.bad]
    if not runs:
        judge_bad_rows(bad, config)
        raise DataError(f"no usable row in the source; {len(bad)} were skipped")
    census, classes = take_census(runs, reading.pieces, seen.classes, config.task)
    census, moved = stratified(census, config, len(classes))
    census, bad = limited(census, bad, config.limit)
    extra, all_runs, bad_beside = gathered_extra(config, done_beside, reading, census, runs, len(classes))
    judge_bad_rows([*bad, *bad_beside], config)
    check_classes(census, bad, classes)
    check_splits(census, {})
    bad += bad_beside
    duplicates, dropped = duplicates_across_splits(census), dict[str, int]()
    if config.duplicates == "drop":
        census, dropped = without_duplicates(census)
        check_splits(census, dropped)
    if extra is not None:
        extra, copies, gone = without_copies(census, extra, drop=config.duplicates == "drop")
        duplicates, dropped = duplicates | copies, dropped | gone
    num_unused, divided = (
        sum(chunk.num_unused for chunk in done),
        tuple((*classes, NONE_HOLDS)[number] for number in moved),
    )
    num_cut = sum(chunk.num_cut for chunk in done)
    return Gathered(census, classes, all_runs, tuple(bad), num_unused, divided, duplicates, dropped, extra, num_cut)


def _last_keys(config: TransferSetConfig, chunks: Sequence[Chunk]) -> tuple[int, ...] | None:
    """Per split, the key of the last row that `limit` lets in, where ids are known before rows are read."""
    if config.stratifies != "no":  # labels are known when all rows are read
        return None
    if config.limit is None or config.id is not None or config.split.group_by is not None:
        return None
    keys: list[list[NDArray[np.uint64]]] = [[np.zeros(0, np.uint64)] for _ in SPLITS]
    for chunk in chunks:
        positions = positions_of(chunk)
        if positions is None:
            return None
        of_chunk = sample_keys(positions, config.key_salt)
        split = split_numbers(of_chunk, config.split, chunk.file.split)
        for number in range(len(SPLITS)):
            keys[number].append(of_chunk[split == number])
    ordered = [np.sort(np.concatenate(of_split)) for of_split in keys]
    return tuple(int(of_split[min(config.limit, len(of_split)) - 1]) if len(of_split) else 0 for of_split in ordered)


def _second_pass(
    planned: Sequence[PlannedSegment], whole: Whole, told: Writing, earlier: TransferSet | None, run: Runner
) -> tuple[list[Segment], OfParts]:
    """(the segments, written or kept; by split and part of the source, the moments of each column, as far as somebody asks)."""
    tasks: list[PartTask] = []
    for plan in planned:
        if plan.kept is None:
            (told.folder / "segments" / plan.name / "inputs").mkdir(parents=True, exist_ok=True)
            tasks += part_tasks(plan, whole.census, whole.runs, told.columns)
    written: dict[str, list[tuple[Part, list[Moments]]]] = {}
    for task, done in zip(tasks, run(partial(write_part, told), tasks), strict=True):
        written.setdefault(task.path.split("/")[1], []).append(done)

    segments: list[Segment] = []
    found: OfParts = {split: [] for split in (*SPLITS, *(plan.split for plan in planned))}
    for plan in planned:
        if plan.kept is not None:
            assert earlier is not None
            keep_parts(plan.kept, earlier.folder, told.folder)
            segments.append(plan.kept)
            looked_at = plan.split == "train" or any(column.can_lack for column in told.columns)
            if plan.kept.kind == plan.split and looked_at:
                paths = [part.path for part in plan.kept.parts]
                found[plan.split] += list(run(partial(part_moments, earlier.folder, told.columns), paths))
            continue
        parts = tuple(part for part, _ in written[plan.name])
        digest = segment_digest(told.columns, 0, parts)
        segments.append(Segment(plan.name, plan.split, 0, len(plan.rows), digest, parts))
        if segments[-1].kind == plan.split:
            found[plan.split] += [moments for _, moments in written[plan.name]]
    return segments, found


def _report(gathered: Gathered, labelled: NDArray[np.bool_]) -> dict[str, Any]:
    """What the manifest tells people: counts, and rows that were dropped or look wrong."""
    census, train, own = gathered.census, gathered.census.of("train"), gathered.census.of("teachers")
    per_class = per_name(census.labels[train][labelled[train]], len(gathered.classes), census.task)
    return {
        "rows": census.counts() | {"unused": gathered.num_unused},
        "labelled": {split: int(labelled[census.of(split)].sum()) for split in SPLITS},
        "labelled_per_class": dict(zip(gathered.classes, per_class.tolist(), strict=True)),
        "stratified": list(gathered.divided),
        **({"of_teachers": own.stop - own.start} if own.stop > own.start else {}),
        "without_label": int((~census.has_label[train]).sum()),
        "bad_rows": len(gathered.bad),
        "first_bad_rows": [f"{row.position}: {row.reason}" for row in gathered.bad[:NAMED_BAD_ROWS]],
        "duplicates_across_splits": dict(gathered.duplicates),
        "dropped_duplicates": dict(gathered.dropped),
        **({"truncated_labels": gathered.num_cut} if gathered.num_cut else {}),
    }
