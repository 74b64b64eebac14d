"""Labels that somebody has corrected, from a source of their own: they win over the source's, row by row.

They move no row and no input: who is in which split, and whose label counts besides, the source's own labels decide. Knows nothing
of how rows are written.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import SplitConfig, TransferSetConfig
from ..errors import DataError, RecipeError
from ..models.row_names import Names
from ..sources import chunks_of, files_of, read
from ..sources.files import Batch, File
from ..tasks.labels import has_label
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import EVERY
from .bad_rows import Bad
from .census import NAMED_BAD_ROWS, Census
from .shuffle import Reading, ids_in, labels_in
from .tasks import LABELS
from .tasks.reader import Meant

WHERE = "transfer_set.corrections"
AT_ONCE = 4096
KEY = re.compile(r"(?:^|[-/])([0-9a-f]{16})(?:\.[^.#/]*)?#0$")


def corrections_of(config: TransferSetConfig) -> TransferSetConfig:
    """What is said of them: as of the rows themselves, but without splits."""
    nothing = {"corrections": None, "extra": None, "munge": None, "labelled": None, "limit": None}
    return config.model_copy(update={"source": config.corrections, "split": SplitConfig(), **nothing})


def correction_files(config: TransferSetConfig) -> list[File]:
    """Of `transfer_set.corrections`; none where there are none. Raises RecipeError for what is not there."""
    if config.corrections is None:
        return []
    try:
        return files_of(corrections_of(config))
    except RecipeError as error:
        raise RecipeError(str(error).replace("transfer_set.source", WHERE)) from None


def corrected(
    config: TransferSetConfig,
    census: Census,
    labelled: NDArray[np.bool_],
    names: Sequence[tuple[Sequence[str], Keys]],
    classes: tuple[str, ...],
) -> tuple[Census, NDArray[np.bool_], dict[str, int]]:
    """(the census with corrected labels; whose label may be used, these too; how many there are, by split).

    `names`: ids and keys of all rows, in any order. A label is of the row with its id; without `id` of the image that is called so, by
    its path or the end of it, or of the one whose key stands in the name, as `collegium review` writes it. Raises DataError for a
    label that is none, one of no row, and two of one row.
    """
    if config.corrections is None:
        return census, labelled, {}
    places, meant = _read(config, classes)
    rows_called = _called([name for ids, _ in names for name in ids], exactly=config.id is not None)
    keys = np.concatenate([np.zeros(0, np.uint64), *(of_ids for _, of_ids in names)])
    at = {key: row for row, key in enumerate(census.keys.tolist())}
    found: dict[int, int] = {}
    for number, place in enumerate(places):
        like = rows_called(place)
        if len(like) > 1:
            raise DataError(
                f"{WHERE}: {place!r} may be the label of any of {len(like)} rows; give its folder, too, or set `transfer_set.id`"
            )
        row = at.get(int(keys[like[0]]) if like else _key_in(place))
        if row is None and config.limit is None:
            raise DataError(f"{WHERE}: {place!r} is the label of none of the {len(census.keys):,} rows; leave it out")
        if row is not None and row in found:
            raise DataError(f"{WHERE}: {places[found[row]]!r} and {place!r} are labels of one row; leave one out")
        if row is not None:
            found[row] = number
    rows, numbers = (np.fromiter(each, np.int64, len(found)) for each in (found, found.values()))
    labels, usable = census.labels.copy(), labelled.copy()
    labels[rows], usable[rows] = (
        LABELS[config.task].placed(meant, classes, {name: name for name in classes})[numbers],
        True,
    )
    counts = np.bincount(census.split[rows], minlength=len(EVERY)).tolist()
    counted: dict[str, int] = {split: count for split, count in zip(EVERY, counts, strict=True) if count}
    return replace(census, labels=labels), usable, counted


def _called(names: Sequence[str], *, exactly: bool) -> Callable[[str], Sequence[int]]:
    """Which rows may be called so."""
    if exactly:
        places = {name: at for at, name in enumerate(names)}
        return lambda name: [places[name]] if name in places else []
    return Names(names).like


def _key_in(name: str) -> int | None:
    """At the end of an image's name, or all of it, where `collegium review` had to put it there."""
    found = KEY.search(name)
    return int(found[1], 16) if found else None


def _read(config: TransferSetConfig, classes: tuple[str, ...]) -> tuple[list[str], Meant]:
    """(what each label's row is called, the labels). Raises DataError for labels that cannot be used, whatever `on_bad_row` says."""
    own, files = corrections_of(config), correction_files(config)
    _, integers = LABELS[config.task].names(own, files)
    told = Reading(own, (), classes, integers, files[0].root, files[0].path, last_key=None)
    named, parts, bad = list[str](), list[Meant](), list[tuple[str, str]]()
    for batch in _batches(told):
        bad += batch.bad
        if not batch.positions:
            continue
        reasons: Bad = {}
        ids, meant = ids_in(told, batch, reasons), labels_in(told, batch.data, reasons)
        bad += [(batch.positions[row], reasons[row]) for row in sorted(reasons)]
        there = has_label(meant.labels)
        named += [name for name, has in zip(ids.to_pylist(), there.tolist(), strict=True) if has]
        parts.append(Meant(meant.labels[there], meant.names))
    if bad:
        lines = [f"  {position}: {reason}" for position, reason in bad[:NAMED_BAD_ROWS]]
        more = [f"  and {len(bad) - len(lines)} more"] if len(bad) > len(lines) else []
        raise DataError("\n".join([f"{WHERE}: {len(bad)} cannot be used; mend them", *lines, *more]))
    if not named:
        raise DataError(f"{WHERE}: there is no label in it; take it out, or give other files")
    return named, told.labels.joined(parts)


def _batches(told: Reading) -> Iterator[Batch]:
    """Labels and ids, and of boxes their images, whose sizes count."""
    names = [*told.columns, *(told.config.input_names if told.config.boxes else ())]
    for chunk in chunks_of(files_of(told.config), AT_ONCE):
        yield from read(chunk, names, AT_ONCE)
