"""Which input columns hold one value a row, and whether that is a number, a category or text; by itself, or as the recipe says.

A guess that would be a bad surprise is none: what looks like numbers, dates or files is asked about.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from ..config.inputs import InputColumn
from ..errors import RecipeError
from ..sources.folders import SUFFIXES
from .arrow_types import is_binary, is_number, is_text, is_time
from .scalars import NULLS, How, grouped, leaves, numbers

DATE = r"^\d{4}-\d{2}-\d{2}|^\d{1,2}[./]\d{1,2}[./]\d{2,4}"
DIGITS = r"^[^A-Za-z]*\d[^A-Za-z]*$"
"""No letter, but a digit: more likely a number with its unit than a name."""

THREE_WORDS = r"\p{L}{2,}\P{L}+\p{L}{2,}\P{L}+\p{L}{2,}"
LONG = 100
"""Characters of a value that names nothing, whatever it holds."""
DISTINCT = 0.9
"""Of values that are read, not met again: this share at least."""

ScalarKind = Literal["number", "category", "text"]


def scalar_kind(given: InputColumn, array: pa.Array, types: Collection[pa.DataType]) -> ScalarKind | None:
    """What a column is, from some rows of it; None: no scalar. `types`: how the source's files hold it, if they say.

    Raises RecipeError for one that is not what the recipe says, or of which nobody can say.
    """
    if given.as_ == "category":
        return _as_category(given, array)
    if given.as_ == "text":
        return _as_text(given, array)
    if given.as_ == "date":
        return _as_date(given, array)
    if given.as_ == "number" or given.decimal != "." or given.thousands is not None:
        return _as_number(given, array)
    if pa.types.is_boolean(array.type) or any(pa.types.is_dictionary(kind) for kind in types):
        return "category"
    if is_text(array.type):
        return _of_text(given, array)
    if is_time(array.type):
        raise RecipeError(
            f"transfer_set.inputs: column {given.column!r} is {array.type}, a time; say {{column: {given.column}, as: date, unit: days}} "
            f"for a number of days (or hours, minutes, seconds)"
        )
    if pa.types.is_null(array.type):
        raise _nothing(given, array)
    return "number" if is_number(array.type) else None


def _nothing(given: InputColumn, array: pa.Array) -> RecipeError:
    return RecipeError(
        f"transfer_set.inputs: column {given.column!r} is {array.type}; none of the {len(array)} rows that were looked at has a value; "
        f"take it out, or say what it would be: `as: number`, `as: category` or `as: text`"
    )


def _as_category(given: InputColumn, array: pa.Array) -> ScalarKind:
    if not (is_text(array.type) or is_number(array.type) or pa.types.is_null(array.type)):
        raise RecipeError(
            f"transfer_set.inputs: column {given.column!r} is {array.type}, whose values name no category; give text, whole "
            f"numbers or truth values"
        )
    return "category"


def _as_text(given: InputColumn, array: pa.Array) -> ScalarKind:
    if not (is_text(array.type) or is_binary(array.type) or pa.types.is_null(array.type)):
        raise RecipeError(f"transfer_set.inputs: column {given.column!r} is {array.type}, no text")
    return "text"


def _as_date(given: InputColumn, array: pa.Array) -> ScalarKind:
    if is_time(array.type) or pa.types.is_null(array.type):
        return "number"
    if not is_text(array.type):
        raise RecipeError(
            f"transfer_set.inputs: column {given.column!r} is {array.type}, no date; of a number say `as: number`, it is one already"
        )
    _, none, wrong = numbers(array, How.of(given, "number"))
    if wrong.sum() > (~none).sum() / 2:
        form = given.format or "2026-11-29 or 2026-11-29T08:30:00Z"
        raise RecipeError(
            f"transfer_set.inputs: column {given.column!r} has {_some(array.filter(pa.array(wrong)))}, which is no date like {form}; "
            f"say `format:` as strptime has it, %d.%m.%Y"
        )
    return "number"


def _as_number(given: InputColumn, array: pa.Array) -> ScalarKind:
    if not (is_text(array.type) or is_number(array.type) or pa.types.is_null(array.type)):
        raise RecipeError(f"transfer_set.inputs: column {given.column!r} is {array.type}, no number")
    _, none, wrong = numbers(array, How.of(given, "number"))
    if wrong.sum() > (~none).sum() / 2:
        raise RecipeError(
            f"transfer_set.inputs: column {given.column!r} has {_some(array.filter(pa.array(wrong)))}, which is no number"
            f"{_marks(given.column, array.filter(pa.array(wrong)))}"
        )
    return "number"


def _of_text(given: InputColumn, array: pa.Array) -> ScalarKind:
    """Numbers, where half of it or more reads so, as all of CSV is text; text, where it is words in a row or long, and hardly
    a value comes twice; else categories, where nothing speaks against it."""
    text = pc.utf8_trim_whitespace(array.cast(pa.string())).drop_null()
    text = text.filter(pc.not_equal(text, ""))
    others = text.filter(pc.invert(pc.is_in(text, pa.array([*NULLS, *(given.nulls or ())]))))
    if not len(others):
        raise _nothing(given, array)
    is_no_number = pa.array(leaves(others)[1])
    odd = others.filter(is_no_number)
    if 2 * len(odd) <= len(others):
        return "number"
    told = f"transfer_set.inputs: column {given.column!r} is {array.type} ({_some(odd)})"
    named = f"{{column: {given.column}, as: category}} takes it for names"
    if all(value.lower().endswith(SUFFIXES) for value in odd.to_pylist()):
        raise RecipeError(
            f"{told}, names of files; images are struct<bytes, path> (as Hugging Face writes them), or the files of an image_folder"
        )
    if len(_distinct(odd)) >= DISTINCT * len(odd) and (_most(odd, THREE_WORDS) or _are_long(odd)):
        return "text"
    if _most(odd, DATE):
        raise RecipeError(
            f"{told}, which looks like dates; say {{column: {given.column}, as: date, unit: days}}; {named}"
        )
    if _most(odd, DIGITS):
        raise RecipeError(
            f"{told}, which looks like numbers{_marks(given.column, odd) or '; write plain numbers, 1234.5'}; {named}"
        )
    return "category"


def _marks(name: str, text: pa.Array) -> str:
    """What to say of numbers that are written with other marks; empty where no way is known to read them."""
    for decimal, thousands in ((".", ","), (",", None), (",", "."), (".", " "), (",", " "), (".", "'"), (".", "_")):
        if pc.all(grouped(text, decimal, thousands)).as_py():
            said = {"decimal": decimal} if decimal != "." else {}
            said |= {"thousands": thousands} if thousands else {}
            return f"; say {{column: {name}, {', '.join(f'{key}: {value!r}' for key, value in said.items())}}}"
    return ""


def _most(text: pa.Array, pattern: str) -> bool:
    return bool(2 * pc.sum(pc.match_substring_regex(text, pattern)).as_py() > len(text))


def _are_long(text: pa.Array) -> bool:
    return bool(2 * pc.sum(pc.greater_equal(pc.utf8_length(text), LONG)).as_py() > len(text))


def _some(text: pa.Array) -> str:
    return ", ".join(f"{value!r:.80}" for value in _distinct(text)[:3])


def _distinct(text: pa.Array) -> Sequence[str]:
    return list(dict.fromkeys(text.drop_null().to_pylist()))
