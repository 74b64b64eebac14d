"""What is done to each column on its way from canonical rows to what a network takes. Plain tensor operations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.preprocess import Normalise, Preprocess
from ..errors import RecipeError
from ..transfer_set.columns import FEATURES, Column, Kind
from ..transfer_set.derived import Derived
from ..transfer_set.images import Resize
from .categories import CategoryTransform

Shape = tuple[int, ...]
WIDE = (torch.float64, torch.int32, torch.int64, torch.uint32, torch.uint64)
"""Hold numbers that float32 does not: normalised in float64, so that what is left of them is not rounded away before."""


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
    sees: Resize | None = None
    """Of encoded images: what makes of them what it gets."""
    on_device: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def document(self) -> dict[str, Any]:
        """JSON for a model folder; `fill` and `indicator` where a number may be missing."""
        found: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "resize": self.resize,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
        }
        if self.sees is not None:
            found |= {"sees": asdict(self.sees)}
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

    def __call__(self, values: Any) -> Any:
        return values


Transform = ColumnTransform | CategoryTransform | DerivedTransform | RawText


def joined(made: Sequence[tuple[Transform, Tensor]]) -> dict[str, Tensor]:
    """By name what the network takes: what is made of categories behind the numeric features, under their name."""
    found: dict[str, Tensor] = {}
    for column, values in made:
        name = output_name(column)
        found[name] = torch.cat([found[name], values], 1) if name in found else values
    return found


def output_name(column: Transform) -> str:
    return FEATURES if isinstance(column, CategoryTransform) and column.is_joined else column.name


def transform_of_document(document: Mapping[str, Any]) -> Transform:
    if document["kind"] == "category":
        return CategoryTransform.of_document(document)
    if document["kind"] == "text":
        return RawText(document["name"])
    mean, std, fill = (
        None if (given := document.get(key)) is None else tuple(given) for key in ("mean", "std", "fill")
    )
    shape, indicator = tuple(document["shape"]), tuple(document.get("indicator", ()))
    sees = Resize(**document["sees"]) if "sees" in document else None
    return ColumnTransform(
        document["name"],
        document["kind"],
        shape,
        document["resize"],
        mean,
        std,
        fill=fill,
        indicator=indicator,
        sees=sees,
    )


def transform_of_column(config: Preprocess, column: Column) -> Transform:
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
    sees = column.resize if column.encoded else None
    return ColumnTransform(
        column.name, column.kind, column.shape, resize, mean, std, column.wide, fill, indicator, sees
    )
