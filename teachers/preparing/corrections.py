"""Labels that somebody has corrected, from a source of their own: they win over the source's, row by row.

They move no row and no input: who is in which split, and whose label counts besides, the source's own labels decide. Knows nothing
of how rows are written.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

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
from .bad_rows import NAMED_BAD_ROWS, Bad
from .census import Census
from .ledger import Ledger
from .shuffle import Reading, ids_in, labels_in
from .splits import sample_keys
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


Read = Callable[[Census], Sequence[str]]
"""What the rows of a census are called."""


def corrected(
    config: TransferSetConfig, ledger: Ledger, everyone: Sequence[Ledger], names: Read, classes: tuple[str, ...]
) -> tuple[Ledger, dict[str, int]]:
    """(the ledger with corrected labels, which may be used; how many there are, by split).

    `everyone`: all rows, with those that are not in the ledger. A label is of the row with its id; without `id` of the image that is
    called so, by its path or the end of it, or of the one whose key stands in the name, as `collegium review` writes it. Raises
    DataError for a label that is none, one of no row, and two of one row.
    """
    if config.corrections is None:
        return ledger, {}
    places, meant = _read(config, classes)
    like = _like(config, everyone, names, places)
    keys = [each[0] if each else _key_in(place) for each, place in zip(like, places, strict=True)]
    wanted = np.array([key for key in keys if key is not None], np.uint64)
    there = {*np.concatenate([*ledger.each(partial(_keys, wanted))]).tolist()}
    found: dict[int, int] = {}
    for number, (place, key) in enumerate(zip(places, keys, strict=True)):
        if len(like[number]) > 1:
            raise DataError(
                f"{WHERE}: {place!r} may be the label of any of {len(like[number])} rows; give its folder, too, or set "
                f"`transfer_set.id`"
            )
        if key is None or key not in there:
            if config.limit is None:
                rows = sum(ledger.counts().values())
                raise DataError(f"{WHERE}: {place!r} is the label of none of the {rows:,} rows; leave it out")
        elif key in found:
            raise DataError(f"{WHERE}: {places[found[key]]!r} and {place!r} are labels of one row; leave one out")
        else:
            found[key] = number
    labels = LABELS[config.task].placed(meant, classes, {name: name for name in classes})
    order = sorted(found)
    mine = np.array(order, np.uint64), labels[np.array([found[key] for key in order], np.int64)]
    counts = np.asarray(ledger.total(partial(_counts, mine[0]))).tolist()
    counted: dict[str, int] = {split: count for split, count in zip(EVERY, counts, strict=True) if count}
    return ledger.changed("corrected", partial(_corrected, *mine)), counted


def _like(config: TransferSetConfig, everyone: Sequence[Ledger], names: Read, places: Sequence[str]) -> list[list[int]]:
    """Of each label, the keys of the rows that may be called so."""
    if config.id is not None:
        keys = sample_keys(places, config.key_salt)
        there = np.concatenate([here for ledger in everyone for here in ledger.each(partial(_keys, keys))])
        return [
            [key] if is_row else [] for key, is_row in zip(keys.tolist(), np.isin(keys, there).tolist(), strict=True)
        ]
    parts = [part for ledger in everyone for part in ledger.each(partial(_named, names, places))]
    found = []
    for number in range(len(places)):
        fitting, called_so = ([key for part in parts for key in part[number][at]] for at in range(2))
        found.append(fitting or (called_so if len(called_so) == 1 else []))
    return found


def _named(names: Read, places: Sequence[str], census: Census) -> list[tuple[list[int], list[int]]]:
    """As `Names.both`, by keys."""
    known, keys = Names(names(census)), census.keys
    both = [known.both(place) for place in places]
    return [(keys[fitting].tolist(), keys[called_so].tolist()) for fitting, called_so in both]


def _keys(keys: Keys, census: Census) -> Keys:
    """Those that are rows."""
    return np.intersect1d(keys, census.keys)


def _counts(keys: Keys, census: Census) -> NDArray[np.int64]:
    return np.bincount(census.split[np.isin(census.keys, keys)], minlength=len(EVERY))


def _corrected(keys: Keys, labels: NDArray[Any], census: Census) -> Census:
    """`keys` ascending."""
    rows = np.flatnonzero(np.isin(census.keys, keys))
    changed, usable = census.labels.copy(), census.labelled.copy()
    changed[rows], usable[rows] = labels[np.searchsorted(keys, census.keys[rows])], True
    return replace(census, labels=changed, labelled=usable)


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
