"""Rows that a teacher cannot answer: found by halving their shard, and named, or left unknown. Knows nothing of stores.

One image that no decoder of the user's reads, one text on which a network gives NaN, must cost neither the shard's other rows
nor a search by hand.
"""

import logging
from collections.abc import Callable

import numpy as np

from ..errors import BadRowsError, CollegiumError, TeacherError, UsersCodeError
from .heard import Heard

log = logging.getLogger(__name__)

MOST = 8
"""Bad rows of a shard; where there are more, it is the teacher that is."""
BAD_AT_ONCE = 3
"""Of single rows, when nothing else could be answered before them either: then no row is to blame."""
BLAMED = (UsersCodeError, TeacherError)
"""What a row may be to blame for."""


def answered_around(
    ask: Callable[[slice], Heard],
    rows: int,
    first: CollegiumError,
    who: str,
    named: Callable[[int], str],
    *,
    skip: bool,
) -> Heard:
    """What a teacher says of `rows` rows that it could not answer together: `first` is what came of that.

    `ask` answers consecutive rows; `named` is how people call one. Rows that it cannot answer alone either are NaN with `skip`,
    else they are named in a BadRowsError. Raises `first` where there are too many of them.
    """
    parts, bad = dict[int, Heard](), dict[int, CollegiumError]()
    waiting = _halves(slice(0, rows))
    while waiting:
        part = waiting.pop()
        try:
            parts[part.start] = ask(part)
        except BLAMED as error:
            if part.stop - part.start > 1:
                waiting += _halves(part)
            else:
                bad[part.start] = error
        if len(bad) > MOST or (not parts and len(bad) == min(BAD_AT_ONCE, rows)):
            raise first
    told = [f"{named(row)}: {str(error).splitlines()[0]}" for row, error in sorted(bad.items())]
    if told and not skip:
        raise BadRowsError(
            f"teacher {who!r} cannot answer {len(told)} row{'s' * (len(told) > 1)} ({'; '.join(told)}). What could be labelled is kept; "
            f"mend the row, or say `teachers.{who}.on_bad_row: skip`, which leaves it unknown, and run the same command again"
        )
    for line in told:
        log.warning("teacher %s: a row is left unknown: %s", who, line)
    return _together(parts, rows)


def _halves(part: slice) -> list[slice]:
    """The second one first: what is popped comes in order."""
    if part.stop - part.start == 1:
        return [part]
    middle = (part.start + part.stop) // 2
    return [slice(middle, part.stop), slice(part.start, middle)]


def _together(parts: dict[int, Heard], rows: int) -> Heard:
    """NaN where nothing is said."""
    some = next(iter(parts.values()))
    logits = np.full((rows, *some.logits.shape[1:]), np.nan, np.float32)
    more = {name: np.full((rows, *values.shape[1:]), np.nan, np.float32) for name, values in some.more.items()}
    for start, heard in parts.items():
        here = slice(start, start + len(heard.logits))
        logits[here] = heard.logits
        for name, values in heard.more.items():
            more[name][here] = values
    return Heard(logits, more)
