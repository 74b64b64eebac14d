"""The plan of a column that was prepared before, fitted to how another source holds the same: other files, other types.

What comes out is what the transfer set had. Knows nothing of models, or of who found out which column is meant.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from ..errors import RecipeError
from .arrow_types import is_binary, is_encoded, is_number, is_text, is_time, leaf, shape_of
from .canonical import InputPlan
from .scalars import How

COLOURS = (1, 3)
"""Channels that become each other."""


def refitted(plan: InputPlan, sources: Sequence[str], sample: pa.RecordBatch) -> InputPlan:
    """`plan` for rows like `sample`, made of its columns `sources`: one for each of the plan's, or one for all of them.

    Raises RecipeError for a column of another kind or shape.
    """
    columns = [sample.column(name) for name in sources]
    if plan.kind == "text":
        if len(columns) > 1 or not (is_text(kind := columns[0].type) or is_binary(kind) or pa.types.is_null(kind)):
            raise RecipeError(f"column {sources[0]!r} holds {columns[0].type}, the model takes text")
        return replace(plan, sources=tuple(sources))
    if plan.kind == "category":
        _check_categories(plan, sources, columns)
        return replace(plan, sources=tuple(sources))
    raw = _of_images(plan, sources[0], columns[0]) if plan.kind == "image" else _of_numbers(plan, sources, columns)
    how = plan.how if raw != () or plan.how else (How(),) * len(sources)
    return replace(plan, sources=tuple(sources), raw=raw, how=how, fixed=True)


def _of_numbers(plan: InputPlan, names: Sequence[str], columns: Sequence[pa.Array]) -> tuple[int, ...]:
    """() where each column holds a number, the shape of the plan where one column holds them all."""
    for at, (name, column) in enumerate(zip(names, columns, strict=True)):
        kind, depth = leaf(column.type)
        if depth == 1 and len(columns) == 1 and is_number(kind):
            if (found := _commonest(column)) is not None and found != plan.shape:
                raise _other(plan, name, f"lists of {found[0]}")
            return plan.shape
        is_date = is_time(kind) and len(plan.how) == len(columns) and plan.how[at].unit is not None
        if depth or not (is_number(kind) or is_text(kind) or pa.types.is_null(kind) or is_date):
            raise _other(plan, name, str(column.type))
    if len(columns) != plan.shape[0]:
        raise _other(plan, names[0], "one number")
    return ()


def _check_categories(plan: InputPlan, names: Sequence[str], columns: Sequence[pa.Array]) -> None:
    """Raise RecipeError for a column whose values name nothing, or one that is to stand for several."""
    if len(columns) != len(plan.sources):
        raise RecipeError(
            f"column {names[0]!r} cannot hold the categories {', '.join(plan.sources)}; give one column each"
        )
    for name, column in zip(names, columns, strict=True):
        kind = column.type
        if not (is_number(kind) or is_text(kind) or pa.types.is_null(kind)):
            raise RecipeError(
                f"column {name!r} holds {kind}, the model takes a category: text, whole numbers or truth values"
            )


def _of_images(plan: InputPlan, name: str, column: pa.Array) -> tuple[int, ...] | None:
    """None for encoded images; of arrays the shape that they have, where it can become the plan's."""
    if is_encoded(column.type):
        return None
    kind, depth = leaf(column.type)
    if depth not in (2, 3) and not isinstance(column.type, pa.FixedShapeTensorType):
        raise _other(plan, name, str(column.type))
    found = _commonest(column)
    if found is None:
        return plan.shape
    height, width, channels = (*found, 1)[:3] if len(found) in (2, 3) else (0, 0, 0)
    same_channels = channels == plan.shape[2] or (channels in COLOURS and plan.shape[2] in COLOURS)
    same_size = plan.edge is not None or (height, width) == plan.shape[:2]
    if not (pa.types.is_integer(kind) and same_channels and same_size):
        raise _other(plan, name, f"{kind} {list(found)}")
    return found


def _commonest(column: pa.Array) -> tuple[int, ...] | None:
    shapes = Counter(shape for row in column if (shape := shape_of(row)) and 0 not in shape)
    return shapes.most_common(1)[0][0] if shapes else None


def _other(plan: InputPlan, name: str, found: str) -> RecipeError:
    expected = f"images {list(plan.shape)}" if plan.kind == "image" else _numbers(plan)
    return RecipeError(f"column {name!r} holds {found}, the model takes {plan.name}: {expected}")


def _numbers(plan: InputPlan) -> str:
    made_of = f" ({', '.join(plan.sources)})" if len(plan.sources) > 1 else ""
    return f"{plan.shape[0]} number{'s' * (plan.shape[0] != 1)} a row{made_of}"
