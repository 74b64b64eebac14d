"""What the input columns of a source are, told from some of its rows: images, numbers, lists of them; or why they are none.

Knows nothing of how a batch is decoded, of splits or keys.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace as changed
from pathlib import Path

import pyarrow as pa

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError, RecipeError
from ..sources.folders import SUFFIXES
from .arrow_types import is_encoded, is_number, is_text, is_wide, leaf, shape_of
from .canonical import FEATURES, InputPlan, leaves, payload_of
from .images import BadRow, decode_image


def plan_inputs(
    config: TransferSetConfig, sample: pa.RecordBatch, root: Path | None, wide: Collection[str] = ()
) -> tuple[InputPlan, ...]:
    """What the input columns are, from some rows of the source. `wide`: columns that any of its files holds in float64.

    Raises RecipeError for a column that is of no use, DataError when none of the rows can be decoded.
    """
    names = [config.inputs] if isinstance(config.inputs, str) else config.inputs
    scalars = tuple(name for name in names if _is_scalar(sample.column(name)))
    plans = [_plan_column(config, name, sample.column(name), root, wide) for name in names if name not in scalars]
    if scalars:
        if any(plan.name == FEATURES for plan in plans):
            raise RecipeError(
                f"transfer_set.inputs: {scalars[0]!r} would be joined to `{FEATURES}`, a column of its own"
            )
        is_any_wide = any(name in wide or is_wide(sample.column(name).type) for name in scalars)
        plans.append(InputPlan(FEATURES, "number", scalars, (), (len(scalars),), wide=is_any_wide))
    return tuple(plans)


def _plan_column(
    config: TransferSetConfig, name: str, array: pa.Array, root: Path | None, wide: Collection[str]
) -> InputPlan:
    sized = config.image_size, config.fit, config.resample
    if is_encoded(array.type):
        encoded = InputPlan(name, "image", (name,), None, (), *sized)
        return changed(encoded, shape=_encoded_shape(encoded, array, root))
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
    """What can be done with a column that is neither images nor numbers."""
    if pa.types.is_null(array.type) or not array.is_valid().true_count:
        return f"; none of the {len(array)} rows that were looked at has a value"
    if is_text(array.type):
        values = [*dict.fromkeys(array.filter(pa.array(leaves(array)[1])).drop_null().to_pylist())][:3]
        if all(value.lower().endswith(SUFFIXES) for value in values):
            cure = "images are struct<bytes, path> (as Hugging Face writes them), or the files of an image_folder"
        elif any(character.isdigit() for value in values for character in value):
            cure = "write plain numbers, 1234.5"
        else:
            cure = "write a column of 0 and 1 for each of its values, or a list of numbers (an embedding) a row"
        return f" ({', '.join(map(repr, values))}), which is no number; {cure}"
    if pa.types.is_temporal(array.type):
        return ", a time; write it as a number (seconds since 1970, the hour of the day)"
    return "; give images, numbers or lists of them"


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


def _is_scalar(array: pa.Array) -> bool:
    """A column of numbers; also of text that mostly reads as numbers, which is how CSV comes."""
    if is_text(array.type):
        numbers: int = int((~leaves(array)[1]).sum())
        return numbers > 0 and bool(len(array) - array.null_count <= 2 * numbers)
    return is_number(array.type)
