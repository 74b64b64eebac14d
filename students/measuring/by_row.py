"""How good each training is row by row, so that any two can be compared on the same rows: made once, kept in documents.

Of a headline that is a mean over rows it is which rows are right, a bit each; of another one its value on rows drawn anew,
and how good each row's answer is. Who reads them needs no torch.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from teachers.config.task import TaskName

from ..tasks.figure import headline
from ..tasks.resampling import resampled
from .gain import Gain, Scored, paired_gain, resampled_gain

if TYPE_CHECKING:
    from .judged import Voice
    from .labelled import Labelled

Groups = NDArray[np.uint64] | None
RowByRow = NDArray[np.bool_] | list[Scored]
"""By seed: who is right bool[seeds, rows], or a headline and its parts."""


def row_by_row(rows: "Labelled", by_seed: Mapping[int, "Voice"]) -> RowByRow:
    """In the order of seeds."""
    from .judged import metered

    voices = [by_seed[seed] for seed in sorted(by_seed)]
    merits = [
        rows.task.merits(voice.said, rows.labels, rows.space).float().numpy() for voice in voices
    ]  # as documents keep them
    if rows.task.is_mean_of_merits:
        return np.stack(merits) > 0
    key, scored = headline(rows.task.name).key, []
    for voice, own in zip(voices, merits, strict=True):
        meter = metered(rows, voice)
        value = meter.figures(keys=(key,))[key]
        scored.append(
            Scored(np.nan if value is None else value, resampled(meter, key, rows.groups), own.astype(np.float64))
        )
    return scored


def gain_between(task: TaskName, one: RowByRow, other: RowByRow | None, groups: Groups) -> Gain | None:
    """Seeds are paired in their order, as many as both have; None without another one."""
    if other is None:
        return None
    seeds = min(len(one), len(other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return paired_gain(one[:seeds], other[:seeds], groups)
    assert isinstance(one, list) and isinstance(other, list)
    return resampled_gain(headline(task), one[:seeds], other[:seeds], groups)


def gain_of_class(rows: "Labelled", one: RowByRow, other: RowByRow | None, number: int) -> Gain | None:
    """The gain over the rows of one class alone; None without such rows, or where the headline is no mean over rows."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return None
    own = (rows.labels == number).numpy()
    if own.ndim > 1 or not own.any():
        return None
    return gain_between(rows.space.task, one[:, own], other[:, own], rows.groups[own])


def to_document(found: RowByRow) -> list[Any]:
    """A string a seed of who is right; else `value`, `resampled` and `merits` (f32 in base64)."""
    if isinstance(found, np.ndarray):
        return [_text(np.packbits(row)) for row in found]
    return [
        {
            "value": _or_none(each.value),
            "resampled": [_or_none(value) for value in each.resampled.tolist()],
            "merits": _text(each.merits.astype("<f4")),
        }
        for each in found
    ]


def from_document(document: Sequence[Any], num_rows: int) -> RowByRow:
    if isinstance(document[0], str):
        bits = [np.frombuffer(base64.b64decode(each), np.uint8) for each in document]
        return np.stack([np.unpackbits(each, count=num_rows).astype(bool) for each in bits])
    return [
        Scored(
            _number(each["value"]),
            np.array([_number(value) for value in each["resampled"]]),
            np.frombuffer(base64.b64decode(each["merits"]), "<f4").astype(np.float64),
        )
        for each in document
    ]


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _number(value: float | None) -> float:
    return np.nan if value is None else value
