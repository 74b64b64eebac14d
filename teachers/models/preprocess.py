"""From canonical inputs to what one network takes: resize, normalise; or a function of the user's.

Plain tensor operations on whatever device the inputs are on. Knows nothing of networks or of where rows come from.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..config.preprocess import Normalise, Preprocess
from ..errors import RecipeError
from ..transfer_set.columns import FEATURES, Column, Kind
from ..users_code.calls import calling
from ..users_code.imports import load
from .categories import CategoryTransform
from .text import Derived, TextTransform, text_transform
from .text import of_document as text_of_document

Shape = tuple[int, ...]
Inputs = Tensor | dict[str, Tensor]
WIDE = (torch.float64, torch.int32, torch.int64, torch.uint32, torch.uint64)
"""Hold numbers that float32 does not: normalised in float64, so that what is left of them is not rounded away before."""
DTYPES = {"image": torch.uint8, "category": torch.int32}


@dataclass(frozen=True)
class ColumnTransform:
    """What is done to images or numbers; `mean` and `std` are None where they are not normalised."""

    name: str
    kind: Kind
    shape: Shape
    resize: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    wide: bool = False
    """Its rows come in float64; known of columns that are being trained on, not of a model folder."""
    fill: tuple[float, ...] | None = None
    """What stands in for a number that is missing; None: it stays NaN, or none can be."""
    indicator: tuple[int, ...] = ()
    """Numbers of which one more feature says whether they are missing."""
    on_device: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def document(self) -> dict[str, Any]:
        """JSON for a model folder; `fill` and `indicator` where a number may be missing."""
        found = {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "resize": self.resize,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
        }
        if self.fill is None and not self.indicator:
            return found
        return found | {"fill": None if self.fill is None else list(self.fill), "indicator": list(self.indicator)}

    @property
    def output_shape(self) -> Shape:
        if self.kind == "number":
            return (self.shape[0] + len(self.indicator),)
        height, width, channels = self.shape
        return channels, self.resize or height, self.resize or width

    def __call__(self, values: Tensor) -> Tensor:
        if self.kind == "number":
            return self._of_numbers(values.to(torch.float64 if values.dtype in WIDE else torch.float32))
        pixels = values.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if self.resize is not None and pixels.shape[2:] != (self.resize, self.resize):
            pixels = F.interpolate(pixels, (self.resize, self.resize), mode="bilinear", antialias=True)
        return self._normalised(pixels, 255.0)

    def _of_numbers(self, values: Tensor) -> Tensor:
        lacks = values.isnan() if self.fill is not None or self.indicator else None
        if lacks is not None and self.fill is not None:
            values = torch.where(lacks, torch.tensor(self.fill, dtype=values.dtype, device=values.device), values)
        made = self._normalised(values, 1.0).to(torch.float32)
        if lacks is None or not self.indicator:
            return made
        told = torch.stack([lacks[:, at] for at in self.indicator], 1)
        return torch.cat([made, told.to(torch.float32)], 1)

    def _normalised(self, values: Tensor, scale: float) -> Tensor:
        """(values / scale - mean) / std, in two operations."""
        if self.mean is None or self.std is None:
            return values / scale if scale != 1.0 else values
        where = values.device, values.dtype
        if torch.compiler.is_compiling():  # constants of the graph; kept, they would be tensors of nowhere ever after
            mean, std = self._numbers(values, scale)
            return (values - mean) / std
        if where not in self.on_device:  # moved there once, not with every batch
            with torch.inference_mode(False):
                self.on_device[where] = self._numbers(values, scale)
        mean, std = self.on_device[where]
        return values.sub(mean).div_(std)

    def _numbers(self, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        numbers = torch.tensor([self.mean, self.std], dtype=torch.float64) * scale
        mean, std = numbers.to(values.device, values.dtype).view(2, -1, *[1] * (values.ndim - 2))
        return mean, std


@dataclass(frozen=True)
class DerivedTransform:
    """An array that was made of text, as it is; float16 of it becomes float32."""

    name: str
    shape: Shape
    dtype: torch.dtype

    kind = "derived"
    wide = False

    @classmethod
    def of(cls, derived: Derived) -> Self:
        return cls(derived.name, derived.shape, torch.from_numpy(np.empty(0, derived.dtype)).dtype)

    @property
    def output_shape(self) -> Shape:
        return self.shape

    def __call__(self, values: Tensor) -> Tensor:
        return values.to(torch.float32) if values.is_floating_point() else values


@dataclass(frozen=True)
class RawText:
    """Text as it is, `str` arrays `[rows]`: for a function, or for an estimator that reads it."""

    name: str
    shape: Shape = ()

    kind = "text"
    wide = False
    output_shape: Shape = ()

    def document(self) -> dict[str, Any]:
        """JSON for a model folder."""
        return {"name": self.name, "kind": self.kind, "shape": list(self.shape)}

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        return values


Transform = ColumnTransform | CategoryTransform | DerivedTransform | RawText


class Preprocessor:
    """`{column: [rows, *column.shape]}` (arrays, or tensors on any device) to float32 inputs on the same device.

    Images become [rows, C, H, W], numbers [rows, F]; what is made of categories stands behind the numeric features, codes
    of them alone; what `derive` makes of text stands by itself. One column gives a tensor, several a dict by name. A `function` gets `{column: Tensor}` of canonical
    inputs and gives the network's input itself; float64 of it becomes float32. Text that nothing is made of stays as it is.
    """

    def __init__(self, config: Preprocess, columns: Sequence[Column]) -> None:
        """Raises RecipeError when `normalise` does not fit the columns, or the function is not there."""
        explicit = isinstance(config.normalise, Normalise)
        if explicit and sum(column.kind != "category" for column in columns) > 1:
            names = ", ".join(column.name for column in columns)
            raise RecipeError(
                f"preprocess.normalise: explicit numbers fit one input column, here are {names}; use auto"
            )
        text = text_transform(config, [column.name for column in columns if column.kind == "text"])
        others = [_transform(config, column) for column in columns if column.kind != "text" or text is None]
        self._start(others, config.function, text)

    @classmethod
    def from_resolved(cls, document: Mapping[str, Any], folder: Path) -> Self:
        """What `resolved` gave, for the model in `folder`. Loads the `function` that it names, so look at that first."""
        transforms = [_of_document(column) for column in document["columns"]]
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
    def files(self) -> Mapping[str, Path]:
        """What `resolved` needs beside it, by its name in a model folder."""
        return {} if self.text is None else self.text.files

    def derive(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Inputs with text columns replaced by what is made of them; where that is there already, or nothing is, as they are."""
        if self.text is None or all(output.name in inputs for output in self.text.outputs):
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

    def zeros(self, num_rows: int, device: torch.device | str = "cpu", wide: Collection[str] = ()) -> dict[str, Tensor]:
        """Canonical rows of zeros; `wide`: columns of float64 beside those that say it themselves."""
        given = {}
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


def joined(made: Sequence[tuple[Transform, Tensor]]) -> dict[str, Tensor]:
    """By name what the network takes: what is made of categories behind the numeric features, under their name."""
    found: dict[str, Tensor] = {}
    for column, values in made:
        name = output_name(column)
        found[name] = torch.cat([found[name], values], 1) if name in found else values
    return found


def output_name(column: Transform) -> str:
    return FEATURES if isinstance(column, CategoryTransform) and column.is_joined else column.name


def _of_document(document: Mapping[str, Any]) -> Transform:
    if document["kind"] == "category":
        return CategoryTransform.of_document(document)
    if document["kind"] == "text":
        return RawText(document["name"])
    mean, std, fill = (
        None if (given := document.get(key)) is None else tuple(given) for key in ("mean", "std", "fill")
    )
    shape, indicator = tuple(document["shape"]), tuple(document.get("indicator", ()))
    return ColumnTransform(
        document["name"], document["kind"], shape, document["resize"], mean, std, fill=fill, indicator=indicator
    )


def _transform(config: Preprocess, column: Column) -> Transform:
    if column.kind == "category":
        return CategoryTransform.of(column, config.categories)
    if column.kind == "text":
        return RawText(column.name)
    resize = config.resize if column.kind == "image" else None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    match config.normalise:
        case None:
            mean = std = None
        case "auto":
            mean, std = column.mean, column.std
        case Normalise():
            mean, std = tuple(config.normalise.mean), tuple(config.normalise.std)
            if len(mean) != column.shape[-1]:
                what = "channels" if column.kind == "image" else "features"
                raise RecipeError(
                    f"preprocess.normalise has {len(mean)} numbers, column {column.name!r} has {column.shape[-1]} {what}"
                )
    fill, indicator = None, tuple[int, ...]()
    if column.missing:
        fill = {"mean": mean or column.mean, "zero": (0.0,) * column.shape[0], "keep": None}[config.missing]
        indicator = tuple(at for at, lack in enumerate(column.missing) if lack) if config.missing_indicator else ()
    return ColumnTransform(column.name, column.kind, column.shape, resize, mean, std, column.wide, fill, indicator)


def _tensor(column: Transform, inputs: Mapping[str, NDArray[Any] | Tensor]) -> Tensor:
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
        return {str(key): _narrowed(torch.as_tensor(values)) for key, values in made.items()}
    if isinstance(made, np.ndarray | Tensor):
        return _narrowed(torch.as_tensor(made))
    raise RecipeError(f"{name} gives a {type(made).__name__}; return a tensor [rows, ...], or a dict of them")


def _narrowed(values: Tensor) -> Tensor:
    return values.to(torch.float32) if values.dtype == torch.float64 else values
