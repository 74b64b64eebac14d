"""Boxes of images: a column of lists of {x1, y1, x2, y2, class} in pixels of the upright image, perhaps with `crowd`.

An image of null has no label, one with an empty list holds nothing. No Python per box but where one is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...config.transfer_set import TransferSetConfig
from ...errors import RecipeError
from ...sources.files import File
from ...tasks.boxes import CLASS, HEIGHT, LABEL, NO_CLASS, SCORE, labels_of, no_boxes
from ...tasks.space import Space
from ..arrow_types import is_list
from ..classes import classes_of_source
from ..image_sizes import sizes_of
from ..labels import as_text, class_numbers, classes_of, codes
from .reader import Bad, Meant, Names, Training

CORNERS = ("x1", "y1", "x2", "y2")
CROWD = "crowd"
SLACK = 1.0
"""Pixels by which a box may reach over the image: some count pixels from 1. What is over is cut off."""


class Detection:
    def names(self, config: TransferSetConfig, files: Sequence[File]) -> tuple[Names, Names]:
        return classes_of_source(config, files)

    def check(self, config: TransferSetConfig, sample: pa.RecordBatch) -> None:
        if len(config.labels) > 1:
            raise RecipeError(
                f"transfer_set.label: {', '.join(config.labels)} are columns of several; name one, of boxes"
            )
        if len(config.input_names) != 1:
            raise RecipeError(
                f"transfer_set.inputs: boxes lie in one image, and {len(config.input_names)} columns are named; name its column"
            )
        for name in config.labels:
            kind = sample.schema.field(name).type
            if pa.types.is_null(kind) or (is_list(kind) and pa.types.is_null(kind.value_type)):
                continue
            lacks = [each for each in (*CORNERS, "class") if not _has_field(kind, each)]
            if lacks:
                raise RecipeError(
                    f"transfer_set.label: {name!r} is {kind!s:.80}, expected a list of boxes, each with {', '.join(CORNERS)} "
                    f"(pixels) and class"
                )

    def read(
        self,
        config: TransferSetConfig,
        names: Names,
        integers: Names,
        data: pa.RecordBatch,
        bad: Bad,
        root: Path | None = None,
    ) -> Meant:
        """Corners stay in pixels, and sizes are 0, where the batch has no images, as where rows are only counted."""
        out = no_boxes(data.num_rows, len(LABEL), config.max_boxes)
        known = names or ()
        if not config.labels or pa.types.is_null(data.column(config.labels[0]).type):
            out[:] = np.nan
            return Meant(out, known)
        array = data.column(config.labels[0])
        missing = np.asarray(array.is_null())
        found = Found.of(array, integers)
        size = _sizes(config, data, ~missing, bad, root)
        told = found.told(names, size)
        for box, why in sorted(told.items()):
            bad.setdefault(int(found.row[box]), f"label {config.labels[0]}[{found.place[box]}]: {why}")
        found = found.take(np.setdiff1d(np.arange(len(found.row)), np.fromiter(told, np.int64, len(told))))
        found, over = _fitting(found, config, data.num_rows, bad)
        numbers = found.number
        if names is None:
            known = tuple(found.names)
        else:
            numbers = np.asarray(class_numbers(found.names, names)[0], np.int64)[numbers] if found.names else numbers
        each = labels_of(out)
        each[..., HEIGHT:] = size[:, None]
        sizes = size[found.row][:, [1, 0, 1, 0]]
        corners = found.corners / np.where(sizes > 0, sizes, 1.0)
        each[found.row, found.place, :SCORE] = np.where(sizes > 0, corners.clip(0, 1), corners)
        each[found.row, found.place, SCORE] = ~found.crowd
        each[found.row, found.place, CLASS] = numbers
        out[missing] = np.nan
        return Meant(out, known, over)

    def joined(self, parts: Sequence[Meant]) -> Meant:
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        place = {name: at for at, name in enumerate(names)}
        labels = [_renumbered(part.labels, [place[name] for name in part.names]) for part in parts]
        return Meant(np.concatenate(labels), names, sum(part.cut for part in parts))

    def discovered(self, found: Sequence[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        return classes_of(found)

    def placed(self, meant: Meant, names: Sequence[str], stands_for: Mapping[str, str]) -> NDArray[Any]:
        place = {name: at for at, name in enumerate(names)}
        return _renumbered(meant.labels, [place[stands_for[name]] for name in meant.names])

    def space(self, names: tuple[str, ...], training: Training) -> Space:
        return Space("detection", names, max_boxes=next(iter(training())).shape[1] // len(LABEL))


def _has_field(kind: pa.DataType, name: str) -> bool:
    return is_list(kind) and pa.types.is_struct(kind.value_type) and kind.value_type.get_field_index(name) >= 0


@dataclass(frozen=True)
class Found:
    """Boxes of a batch, one after the other: of which row, the how many-th there, f64 corners in pixels, whether a crowd, and
    which of `names` (-1: none)."""

    row: NDArray[np.int64]
    place: NDArray[np.int64]
    corners: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    number: NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(cls, array: pa.Array, integers: Names) -> "Found":
        counts = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
        row = np.repeat(np.arange(len(array)), counts)
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        if not len(row):
            return cls(row, place, np.zeros((0, 4)), np.zeros(0, bool), row, [])
        inner = array.flatten()
        columns = [
            pc.cast(pc.struct_field(inner, name), pa.float64()).to_numpy(zero_copy_only=False) for name in CORNERS
        ]
        crowd = np.zeros(len(row), bool)
        if array.type.value_type.get_field_index(CROWD) >= 0:
            crowd = np.asarray(pc.fill_null(pc.cast(pc.struct_field(inner, CROWD), pa.bool_()), False))
        text, _ = as_text(pc.struct_field(inner, "class"), integers)
        number, names = codes(text)
        return cls(row, place, np.stack(columns, 1).reshape(-1, 4), crowd, number.astype(np.int64), names)

    def take(self, boxes: NDArray[np.int64]) -> "Found":
        own = self.corners[boxes], self.crowd[boxes], self.number[boxes]
        return Found(self.row[boxes], self.place[boxes], *own, self.names)

    def told(self, names: Names, size: NDArray[np.float64]) -> dict[int, str]:
        """Why boxes cannot be used. `size`: (height, width) of each row, 0 where nobody has seen it."""
        x1, y1, x2, y2 = self.corners.T
        height, width = size[self.row].T
        with np.errstate(invalid="ignore"):
            outside = np.asarray(np.maximum.reduce([-x1, -y1, x2 - width, y2 - height]) > SLACK)
            gone = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
            flat = (x2 <= x1) | (y2 <= y1)
        found: dict[int, str] = {}

        def tell(wrong: NDArray[np.bool_], why: Callable[[int], str]) -> None:
            for box in np.flatnonzero(wrong).tolist():
                found.setdefault(box, why(box))

        no_number = ~np.asarray(np.isfinite(self.corners).all(1))
        tell(no_number, lambda box: f"corners {self._corners(box)}, expected four numbers")
        tell(self.number < 0, lambda box: "it has no class")
        if names is not None:
            _, strange = class_numbers(self.names, names)
            tell(np.isin(self.number, list(strange)), lambda box: strange[int(self.number[box])].removeprefix("label "))
        tell(flat, lambda box: f"corners {self._corners(box)} have no area")
        tell((outside | gone) & (height > 0), lambda box: f"{self._corners(box)} lies outside the image of {width[box]:g} x {height[box]:g}")  # fmt: skip
        tell(
            self._again(),
            lambda box: f"corners {self._corners(box)} of {self.names[self.number[box]]!r} are there twice",
        )
        return found

    def _again(self) -> NDArray[np.bool_]:
        """Boxes that stand in their row already, of the same class."""
        all_of_it = np.column_stack([self.row, self.corners, self.number])
        _, first = np.unique(all_of_it, axis=0, return_index=True)
        again = np.ones(len(self.row), bool)
        again[first] = False
        return again

    def _corners(self, box: int) -> str:
        return " ".join(f"{value:g}" for value in self.corners[box])


def _fitting(found: Found, config: TransferSetConfig, rows: int, bad: Bad) -> tuple[Found, int]:
    """(at most `max_boxes` of each row, of which `place` is the number now; rows of which some are left out). Without `truncate` a
    row with more is bad."""
    counts = np.bincount(found.row, minlength=rows)
    over = np.flatnonzero(counts > config.max_boxes)
    for row in over.tolist() if not config.truncate else ():
        bad.setdefault(
            row,
            f"label {config.labels[0]} has {counts[row]:,} boxes, more than max_boxes {config.max_boxes}; raise it, or say "
            f"`truncate: true`",
        )
    if len(over):  # the largest stay, in their order
        areas = (found.corners[:, 2] - found.corners[:, 0]) * (found.corners[:, 3] - found.corners[:, 1])
        order = np.lexsort((found.place, -areas, found.row))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = found.take(np.flatnonzero(rank < config.max_boxes))
        counts = np.bincount(found.row, minlength=rows)
    place = np.arange(len(found.row)) - np.repeat(np.cumsum(counts) - counts, counts)
    boxes = Found(found.row, place, found.corners, found.crowd, found.number, found.names)
    return boxes, len(over) if config.truncate else 0


def _sizes(
    config: TransferSetConfig, data: pa.RecordBatch, wanted: NDArray[np.bool_], bad: Bad, root: Path | None
) -> NDArray[np.float64]:
    """(height, width) of each upright image that has a label, f64 `[rows, 2]`; 0 where the batch has none."""
    name = config.input_names[0]
    if name not in data.schema.names:
        return np.zeros((data.num_rows, 2))
    return sizes_of(data.column(name), np.flatnonzero(wanted).tolist(), bad, root)


def _renumbered(labels: NDArray[Any], table: Sequence[int]) -> NDArray[Any]:
    """With the classes through a table."""
    out = labels.copy()
    numbers = labels_of(out)[..., CLASS]
    there = numbers >= 0
    numbers[there] = np.asarray([*table, NO_CLASS], np.float32)[numbers[there].astype(np.int64)]
    return out
