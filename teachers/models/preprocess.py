"""From canonical inputs to what one network takes: resize, normalise; or a function of the user's.

Plain tensor operations on whatever device the inputs are on. Knows nothing of networks or of where rows come from.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.preprocess import Normalise, Preprocess
from ..errors import RecipeError
from ..transfer_set.columns import Column
from ..transfer_set.images import Resize
from ..users_code.calls import calling
from ..users_code.imports import load
from .categories import CategoryTransform
from .scores import tensor_of
from .text import TextTransform, text_transform
from .text import of_document as text_of_document
from .transforms import (
    ColumnTransform,
    DerivedTransform,
    RawText,
    Shape,
    Transform,
    joined,
    output_name,
    transform_of_column,
    transform_of_document,
)

Inputs = Tensor | dict[str, Tensor]
DTYPES = {"image": torch.uint8, "category": torch.int32}


class Preprocessor:
    """`{column: [rows, *column.shape]}` (arrays, or tensors on any device) to float32 inputs on the same device.

    Images become [rows, C, H, W], numbers [rows, F]; what is made of categories stands behind the numeric features, codes
    of them alone; what `derive` makes of text stands by itself. One column gives a tensor, several a dict by name. A
    `function` gets `{column: Tensor}` of canonical inputs and gives the network's input itself; float64 of it becomes
    float32. Text that nothing is made of stays as it is, a `str` array.
    """

    def __init__(self, config: Preprocess, columns: Sequence[Column]) -> None:
        """Raises RecipeError when `normalise` does not fit the columns, or the function is not there."""
        columns = seen_at(config, columns)
        explicit = isinstance(config.normalise, Normalise)
        if explicit and sum(column.kind in ("image", "number") for column in columns) > 1:
            names = ", ".join(column.name for column in columns)
            raise RecipeError(
                f"preprocess.normalise: explicit numbers fit one input column, here are {names}; use auto"
            )
        text = text_transform(config, [column.name for column in columns if column.kind == "text"])
        made = [] if text is None else [output.name for output in text.outputs]
        if taken := [column.name for column in columns if column.kind != "text" and column.name in made]:
            raise RecipeError(f"preprocess: column {taken[0]!r} has the name of what is made of text; give it another")
        others = [transform_of_column(config, column) for column in columns if column.kind != "text" or text is None]
        self._start(others, config.function, text)

    @classmethod
    def from_resolved(cls, document: Mapping[str, Any], folder: Path) -> Self:
        """What `resolved` gave, for the model in `folder`. Loads the `function` that it names, so look at that first."""
        transforms = [transform_of_document(column) for column in document["columns"]]
        made = cls.__new__(cls)
        text = text_of_document(document["text"], folder) if "text" in document else None
        made._start(transforms, document["function"], text)
        return made

    def _start(self, transforms: Sequence[Transform], function: str | None, text: TextTransform | None) -> None:
        made = [] if text is None else [DerivedTransform.of(each) for each in text.outputs]
        self.text, self.columns = text, (*transforms, *made)
        self._name = function
        self._function = None if function is None else load(function)

    def resolved(self) -> dict[str, Any]:
        """JSON for a model folder, numbers filled in."""
        columns = [column.document() for column in self.columns if not isinstance(column, DerivedTransform)]
        return {"columns": columns, "function": self._name} | (
            {} if self.text is None else {"text": self.text.document()}
        )

    @property
    def sees(self) -> dict[str, Resize]:
        """By column of encoded images, what makes of them what it takes."""
        return {each.name: each.sees for each in self.columns if isinstance(each, ColumnTransform) and each.sees}

    @property
    def files(self) -> Mapping[str, Path]:
        """What `resolved` needs beside it, by its name in a model folder."""
        return {} if self.text is None else self.text.files

    def derive(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Inputs with text columns replaced by what is made of them; where that is there already, or nothing is, as they are."""
        made = [] if self.text is None else [inputs.get(output.name) for output in self.text.outputs]
        if self.text is None or not any(values is None or is_text(values) for values in made):
            return inputs
        if lacking := [name for name in self.text.names if name not in inputs]:
            raise RecipeError(f"preprocess: no column {lacking[0]!r} among the inputs; there are {', '.join(inputs)}")
        others = {name: values for name, values in inputs.items() if name not in self.text.names}
        return others | self.text.derive([inputs[name] for name in self.text.names])

    def __call__(self, inputs: Mapping[str, NDArray[Any] | Tensor]) -> Inputs:
        """Raises RecipeError when a column is missing or of another shape."""
        inputs = self.derive(inputs)
        given = {column.name: _tensor(column, inputs) for column in self.columns}
        if self._function is not None:
            with calling("preprocess.function", self._name or ""):
                return _as_inputs(self._function(given), self._name)
        made = joined([(column, column(given[column.name])) for column in self.columns])
        return next(iter(made.values())) if len(made) == 1 else made

    @cached_property
    def input_shape(self) -> Shape | dict[str, Shape]:
        """Of one row as a network takes it: a tuple, or a dict by name. Raises RecipeError for text, which none does."""
        raw = [column.name for column in self.columns if isinstance(column, RawText)]
        if raw and self._function is None:
            raise RecipeError(
                f"preprocess: column {raw[0]!r} is text, of which a network takes what is made of it; say `ngrams: {{}}`, "
                f"`tokenizer: {{path: FOLDER}}` or `encoder: {{path: FOLDER}}`"
            )
        return self._shape()

    def of_zeros(self, num_rows: int, device: torch.device | str = "cpu") -> Inputs:
        """What the network takes of `num_rows` rows of zeros: in its shapes, its names and its dtypes."""
        return self(self.zeros(num_rows, device))

    def zeros(self, num_rows: int, device: torch.device | str = "cpu", wide: Collection[str] = ()) -> dict[str, Any]:
        """Canonical rows of zeros, of text empty ones; `wide`: columns of float64 beside those that say it themselves."""
        given: dict[str, Any] = {}
        for column in self.columns:
            is_wide = column.wide or column.name in wide
            dtype = DTYPES.get(column.kind, torch.float64 if is_wide else torch.float32)
            if isinstance(column, RawText):
                given[column.name] = np.full(num_rows, "", object)
                continue
            dtype = column.dtype if isinstance(column, DerivedTransform) else dtype
            given[column.name] = torch.zeros(num_rows, *column.shape, dtype=dtype, device=device)
        return given

    @property
    def categorical_positions(self) -> tuple[int, ...]:
        """Which of the features that an estimator gets, all columns side by side, are one category each; i32 codes as floats.

        None of one-hot features. `num_codes` of their transform says how many values each has.
        """
        if self._function is not None:
            return ()
        before = 0
        for column in self.columns:
            if isinstance(column, CategoryTransform):
                own = range(before, before + column.width) if column.treatment != "one_hot" else range(0)
                return tuple(own)
            before += math.prod(column.output_shape)
        return ()

    @property
    def network_arguments(self) -> dict[str, Any]:
        """What `build_module` tells who makes a network for this."""
        size = None if self.text is None else self.text.vocabulary_size
        return {"input_shape": self.input_shape, "num_codes": self.num_codes, "vocabulary_size": size}

    @property
    def num_codes(self) -> tuple[int, ...]:
        """How many codes each category has, where the network gets them (`categories: codes`); else none."""
        found = [column for column in self.columns if isinstance(column, CategoryTransform)]
        return found[0].num_codes if found and not found[0].is_joined else ()

    @property
    def bytes_per_row(self) -> int:
        """Of what the network takes."""
        row = self.of_zeros(1)
        return sum(column.nbytes for column in (row.values() if isinstance(row, dict) else [row]))

    def _shape(self) -> Shape | dict[str, Shape]:
        if self._function is None:
            shapes: dict[str, Shape] = {}
            for column in self.columns:
                name, beside = output_name(column), column.output_shape
                shapes[name] = (shapes[name][0] + beside[0],) if name in shapes else beside
            return next(iter(shapes.values())) if len(shapes) == 1 else shapes
        made = self.of_zeros(2)
        if isinstance(made, Tensor):
            return tuple(made.shape[1:])
        return {name: tuple(values.shape[1:]) for name, values in made.items()}


def seen_at(config: Preprocess, columns: Sequence[Column]) -> list[Column]:
    """The columns with images in the size that `config` says. Raises RecipeError where they have one size for all."""
    if config.image_size is None:
        return list(columns)
    encoded = [column for column in columns if column.encoded]
    if not encoded:
        stored = next((f", which are stored at {c.shape[0]} x {c.shape[1]}" for c in columns if c.kind == "image"), "")
        raise RecipeError(
            f"preprocess.image_size: is of images that stay encoded{stored}; say `transfer_set.decode: on_read`, or "
            f"`preprocess.resize` for what is stored"
        )
    seen = {each.name: replace(each.resize, edge=config.image_size, fit=config.fit or each.fit) for each in encoded}
    return [column.seen(seen[column.name]) if column.name in seen else column for column in columns]


def sees_of(resolved: Mapping[str, Any]) -> dict[str, Resize]:
    """As `Preprocessor.sees`, of what `resolved` gave."""
    return {each["name"]: Resize(**each["sees"]) for each in resolved["columns"] if "sees" in each}


def _tensor(column: Transform, inputs: Mapping[str, NDArray[Any] | Tensor]) -> Any:
    values = inputs.get(column.name)
    if values is None:
        raise RecipeError(f"preprocess: no column {column.name!r} among the inputs; there are {', '.join(inputs)}")
    if isinstance(column, RawText):
        return values
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values if values.flags.writeable else values.copy())
    if tuple(values.shape[1:]) != column.shape:
        raise RecipeError(
            f"preprocess: column {column.name!r} has rows of shape {list(values.shape[1:])}, expected {list(column.shape)}"
        )
    return values


def _as_inputs(made: Any, name: str | None) -> Inputs:
    """The outcome of a user's function as tensors."""
    if isinstance(made, Mapping):
        return {str(key): _narrowed(tensor_of(values)) for key, values in made.items()}
    if isinstance(made, np.ndarray | Tensor):
        return _narrowed(tensor_of(made))
    raise RecipeError(f"{name} gives a {type(made).__name__}; return a tensor [rows, ...], or a dict of them")


def _narrowed(values: Tensor) -> Tensor:
    return values.to(torch.float32) if values.dtype == torch.float64 else values


def is_text(values: Any) -> bool:
    """Whether an input column holds `str`, and no tensor is to be made of it."""
    return isinstance(values, np.ndarray) and values.dtype.kind in "OU"
