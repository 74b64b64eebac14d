"""One value a row of a source, as numbers: of numbers, of text in any country's writing, of dates and times.

Row by row nothing is done in Python. Knows nothing of lists, images or categories.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..config.inputs import InputColumn
from ..transfer_set.columns import Kind
from .arrow_types import is_number, is_text, is_time

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:nan|inf|infinity)$"
NULLS = ("NA", "N/A", "null", "NULL", "None")
"""Text that stands for no number, where one may be missing."""
ISO = (
    r"^(?P<day>\d{4}-\d{2}-\d{2})(?:[T ](?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)"
    r"(?::(?P<second>[0-5]\d(?:\.\d+)?))?(?P<zone>Z|[+-]\d{2}:?\d{2})?)?$"
)
SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class How:
    """How the values of one column of a source are read. `unit`: of a date, in seconds; None: it is none.

    `nulls`: text that stands for no value, beside what is empty (which of text is a value)."""

    unit: int | None = None
    format: str | None = None
    missing: bool = False
    nulls: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str | None = None

    @classmethod
    def of(cls, given: InputColumn, kind: Kind) -> "How":
        missing = kind == "category" if given.missing is None else given.missing == "allow"
        nulls = tuple(given.nulls) if given.nulls is not None else NULLS if kind == "number" and missing else ()
        unit = SECONDS[given.unit] if given.as_ == "date" else None
        return cls(unit, given.format, missing, nulls, given.decimal, given.thousands)


def numbers(array: pa.Array, how: How) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """(values [rows], 0 where there is none; bool [rows]: where is none; where what is there is no such number)."""
    if isinstance(array, pa.ExtensionArray):
        return numbers(array.storage, how)
    if is_text(array.type):
        array = pc.utf8_trim_whitespace(array.cast(pa.string()))
        array = _without(array, pc.equal(array, ""))
        if how.nulls:
            array = _without(array, pc.is_in(array, pa.array(how.nulls, pa.string())))
    none = np.asarray(array.is_null())
    if how.unit is not None:
        values = _times(array, how)
    elif how.decimal != "." or how.thousands is not None:
        values = _written(array, how)
    else:
        values = array
    found, wrong = leaves(values)
    return found, none, wrong & ~none


def dates(values: Sequence[Any], how: How) -> tuple[pa.Array, NDArray[np.bool_]]:
    """(of values of JSON how many `how.unit`s, float64, null where there is none; bool [rows]: where what is there is no date).

    Numbers are counted already; text has `how.format`, or is ISO 8601.
    """
    counted = pa.array([_count(value) for value in values], pa.float64())
    text = pa.array([value if isinstance(value, str) else None for value in values], pa.string())
    written = [numbers(text, each) for each in dict.fromkeys((how, replace(how, format=None)))]
    for found, none, wrong in written:
        counted = pc.coalesce(counted, pa.array(found, pa.float64(), mask=none | wrong))
    there = np.array([value is not None for value in values], bool) & ~(np.asarray(text.is_valid()) & written[0][1])
    return counted, there & np.asarray(counted.is_null())


def _count(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def leaves(array: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(numbers [values], 0 where there is none; bool [values]: where)."""
    if is_text(array.type):
        text = pc.utf8_trim_whitespace(array)
        text = pc.if_else(pc.match_substring_regex(text, NUMBER), text, pa.scalar(None, text.type))
        array = pc.cast(pc.utf8_ltrim(text, "+"), pa.float64())
    elif pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.uint8())
    elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        array = pc.cast(array, pa.float64()) if is_number(array.type) else pa.nulls(len(array), pa.float64())
    wrong = np.asarray(array.is_null())
    if array.null_count:
        array = pc.fill_null(array, 0)
    return array.to_numpy(zero_copy_only=False), wrong


def grouped(text: pa.Array, decimal: str, thousands: str | None) -> pa.Array:
    """Which texts are numbers with these marks, bool [rows]; groups have three digits."""
    return pc.match_substring_regex(text, grouped_as(decimal, thousands))


def grouped_as(decimal: str, thousands: str | None) -> str:
    """The pattern of such numbers."""
    point = rf"(\{decimal}\d*)?([eE][+-]?\d+)?$"
    digits = rf"(\d{{1,3}}(\{thousands}\d{{3}})+|\d+)" if thousands is not None else r"\d+"
    return rf"^[+-]?{digits}{point}|^[+-]?\{decimal}\d+([eE][+-]?\d+)?$"


def _written(array: pa.Array, how: How) -> pa.Array:
    """Text as it is written with `thousands` and `decimal`, to text as a computer writes it; null where it is not so."""
    if not is_text(array.type):
        return array
    text = _without(array, pc.invert(grouped(array, how.decimal, how.thousands)))
    if how.thousands is not None:
        text = pc.replace_substring(text, how.thousands, "")
    return pc.replace_substring(text, how.decimal, ".")


def _times(array: pa.Array, how: How) -> pa.Array:
    """Dates, times and durations in units of `how`, float64; null where they are none."""
    assert how.unit is not None
    if is_text(array.type):
        seconds = _iso(array) if how.format is None else _formatted(array, how.format)
        return pc.divide(seconds, float(how.unit))
    if not is_time(array.type):
        return pa.nulls(len(array), pa.float64())
    if pa.types.is_date32(array.type):
        return pc.divide(array.cast(pa.int32()).cast(pa.float64()), how.unit / SECONDS["days"])
    per_second = PER_SECOND["ms" if pa.types.is_date64(array.type) else array.type.unit]
    whole = array.cast(pa.int32() if pa.types.is_time32(array.type) else pa.int64())
    return pc.divide(whole.cast(pa.float64(), safe=False), float(how.unit * per_second))


def _iso(text: pa.Array) -> pa.Array:
    """Seconds since 1970 in UTC of ISO 8601, float64; a time without a zone is UTC."""
    parts = pc.extract_regex(text, ISO)
    day = pc.struct_field(parts, "day")
    days = _of_format(day, "%Y-%m-%d")
    days = _without(days, pc.not_equal(pc.strftime(pc.fill_null(days, 0), "%Y-%m-%d"), day))  # 30 February is no day
    seconds = days.cast(pa.int64()).cast(pa.float64())
    for name, unit in (("hour", 3600.0), ("minute", 60.0), ("second", 1.0)):
        part = pc.struct_field(parts, name)
        part = pc.if_else(pc.equal(part, ""), "0", part).cast(pa.float64())
        seconds = pc.add(seconds, pc.multiply(part, unit))
    zone = pc.replace_substring(pc.struct_field(parts, "zone"), ":", "")
    zone = pc.if_else(pc.is_in(zone, pa.array(["", "Z"])), "+0000", zone)
    away = pc.add(
        pc.multiply(pc.utf8_slice_codeunits(zone, 1, 3).cast(pa.float64()), 3600.0),
        pc.multiply(pc.utf8_slice_codeunits(zone, 3, 5).cast(pa.float64()), 60.0),
    )
    return pc.if_else(pc.starts_with(zone, "-"), pc.add(seconds, away), pc.subtract(seconds, away))


def _formatted(text: pa.Array, form: str) -> pa.Array:
    """The same of text in a format of strptime's."""
    found = _of_format(text, form)
    again = pc.strftime(pc.fill_null(found, 0), form)
    found = _without(found, pc.not_equal(_plain(again), _plain(text)))  # 30 February is read as 1 March
    return found.cast(pa.int64()).cast(pa.float64())


def _of_format(text: pa.Array, form: str) -> pa.Array:
    return pc.strptime(text, format=form, unit="s", error_is_null=True)


def _plain(text: pa.Array) -> pa.Array:
    """Without the zeros that pad numbers, in small letters."""
    return pc.replace_substring_regex(pc.utf8_lower(text), r"\b0+(\d)", r"\1")


def _without(array: pa.Array, where: pa.Array) -> pa.Array:
    return pc.if_else(pc.fill_null(where, False), pa.scalar(None, array.type), array)
