"""What the input columns of a source are, told from some of its rows: images, numbers, lists of them, categories, text; or why none.

Knows nothing of how a batch is decoded, of splits or keys.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path

import pyarrow as pa

from ..config.inputs import InputColumn
from ..config.transfer_set import TransferSetConfig
from ..errors import DataError, RecipeError
from ..transfer_set.columns import CATEGORIES, FEATURES, Kind
from ..transfer_set.images import BadRow, decode_image
from .arrow_types import is_encoded, is_number, is_wide, leaf, shape_of
from .canonical import InputPlan, payload_of
from .kinds import scalar_kind
from .scalars import How


def plan_inputs(
    config: TransferSetConfig, sample: pa.RecordBatch, root: Path | None, typed: Mapping[str, Collection[pa.DataType]]
) -> tuple[InputPlan, ...]:
    """What the input columns are, from some rows of the source. `typed`: how its files hold them, where they say so.

    Raises RecipeError for a column that is of no use, DataError when none of the rows can be decoded.
    """
    given = config.input_columns
    kinds = {each.column: scalar_kind(each, sample.column(each.column), typed.get(each.column, ())) for each in given}
    wide = {name for name, types in typed.items() if any(is_wide(leaf(kind)[0]) for kind in types)}
    plans = []
    for each in given:
        if each.most_common is not None and kinds[each.column] != "category":
            raise RecipeError(
                f"transfer_set.inputs: `most_common` is of categories, and column {each.column!r} is none"
            )
        if kinds[each.column] == "text":
            plans.append(InputPlan(each.column, "text", (each.column,), (), (), how=(How.of(each, "text"),)))
        elif kinds[each.column] is None:
            _check_whole(each)
            plans.append(_plan_column(config, each.column, sample.column(each.column), root, wide))
    joined: tuple[tuple[str, Kind], ...] = ((FEATURES, "number"), (CATEGORIES, "category"))
    for name, kind in joined:
        of_kind = [each for each in given if kinds[each.column] == kind]
        if of_kind and any(plan.name == name for plan in plans):
            raise RecipeError(
                f"transfer_set.inputs: {of_kind[0].column!r} would be joined to `{name}`, a column of its own"
            )
        if of_kind:
            plans.append(_joined(name, kind, of_kind, sample, wide))
    return tuple(plans)


def _joined(
    name: str, kind: Kind, given: Sequence[InputColumn], sample: pa.RecordBatch, wide: Collection[str]
) -> InputPlan:
    """The plan of scalar columns that lie side by side."""
    names, hows = tuple(each.column for each in given), tuple(How.of(each, kind) for each in given)
    are_wide = [
        column in wide or how.unit or is_wide(sample.column(column).type)
        for column, how in zip(names, hows, strict=True)
    ]
    return InputPlan(name, kind, names, (), (len(names),), wide=kind == "number" and any(are_wide), how=hows)


def _check_whole(given: InputColumn) -> None:
    """Raise RecipeError for what is said of a scalar's values, of a column of images or lists."""
    if given.missing == "allow" or given.nulls is not None:
        raise RecipeError(
            f"transfer_set.inputs: column {given.column!r} holds images or lists, of which none may be missing; "
            f"take `missing` and `nulls` out"
        )


def _plan_column(
    config: TransferSetConfig, name: str, array: pa.Array, root: Path | None, wide: Collection[str]
) -> InputPlan:
    sized = config.image_size, config.fit, config.resample
    if is_encoded(array.type):
        encoded = InputPlan(name, "image", (name,), None, (), *sized, encoded=config.decode == "on_read")
        return changed(encoded, shape=_encoded_shape(encoded, array, root))
    if config.decode == "on_read":
        raise RecipeError(
            f"transfer_set.decode: `on_read` is of images in files, and column {name!r} is {array.type!s:.60}; take it out"
        )
    kind, depth = leaf(array.type)
    if depth == 0 or not is_number(kind):
        raise RecipeError(f"transfer_set.inputs: column {name!r} is {array.type}{_use_of(array)}")
    shapes = Counter(shape for row in array if (shape := shape_of(row)) and 0 not in shape)
    if not shapes:
        raise DataError(f"column {name!r}: none of the {len(array)} rows that were looked at has a value")
    raw = shapes.most_common(1)[0][0]
    if len(raw) == 1:
        return InputPlan(name, "number", (name,), raw, raw, wide=name in wide or is_wide(kind))
    if problem := _no_image(kind, raw):
        raise RecipeError(f"transfer_set.inputs: column {name!r} holds {kind} of shape {list(raw)}; {problem}")
    channels = raw[2] if len(raw) == 3 else 1
    height, width = raw[:2] if config.image_size is None else (config.image_size, config.image_size)
    return InputPlan(name, "image", (name,), raw, (height, width, channels), *sized)


def _use_of(array: pa.Array) -> str:
    """What can be done with a column that is neither images nor numbers nor categories."""
    if pa.types.is_null(array.type) or not array.is_valid().true_count:
        return f"; none of the {len(array)} rows that were looked at has a value"
    return "; give images, numbers, categories, text or lists of numbers"


def _no_image(kind: pa.DataType, raw: tuple[int, ...]) -> str | None:
    """Why rows of this shape are no images [H, W] or [H, W, C]."""
    if len(raw) == 3 and raw[0] in (1, 3, 4) and raw[2] > 4:
        return "that is channels first; images are [H, W, C]: numpy.moveaxis(images, 1, -1)"
    if len(raw) > 3:
        return "images are uint8 [H, W] or [H, W, C], features are one list a row"
    if not pa.types.is_integer(kind):
        return (
            "images are uint8 [H, W] or [H, W, C] from 0 to 255 (of 0 to 1: numpy.round(255 * images)), features are one "
            "list a row"
        )
    return None


def _encoded_shape(plan: InputPlan, array: pa.Array, root: Path | None) -> tuple[int, ...]:
    """The commonest size, and colour if any row has it."""
    shapes, reasons = [], []
    for row in range(len(array)):
        try:
            shapes.append(decode_image(payload_of(array[row].as_py(), root), resize=plan.resize).shape)
        except BadRow as error:
            reasons.append(str(error))
    if not shapes:
        raise DataError(
            f"column {plan.name!r}: none of the {len(array)} rows that were looked at is an image "
            f"({reasons[0] if reasons else 'no rows'})"
        )
    (height, width), _ = Counter(shape[:2] for shape in shapes).most_common(1)[0]
    return height, width, max(shape[2] for shape in shapes)
