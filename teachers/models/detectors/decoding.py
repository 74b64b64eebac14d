"""The numbers of detectors' graphs as boxes, by layout. Knows nothing of files, of images or of how they were fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config.detecting import NMS_ABOVE, DecodeName, LayoutName
from ...errors import RecipeError, TeacherError
from .families import best_of_sigmoid, best_of_softmax, corners_of
from .said import MOST_CANDIDATES, Places

Shape = Sequence[int | str | None]
"""Of an output; what is no number is known when it is computed."""


@dataclass(frozen=True)
class Read:
    """Boxes in pixels of the graph's input, and at which overlap the lesser of two goes; None: the graph has seen to that."""

    places: Places
    nms_above: float | None


@dataclass(frozen=True)
class Reading:
    """What is known before of a graph whose outputs are read: `height` and `width` of its input, `num_classes` that it scores."""

    path: str
    num_classes: int
    height: int
    width: int
    layout: LayoutName | None = None
    strides: tuple[int, ...] = ()

    @property
    def size(self) -> Tensor:
        return torch.tensor([self.width, self.height, self.width, self.height], dtype=torch.float32)


Decode = Callable[[Reading, Mapping[str, Tensor]], Read]
Checking = Callable[[Reading, Mapping[str, Shape]], None]


def _fits(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        size == own for size, own in zip(shape, wanted, strict=True) if isinstance(size, int) and isinstance(own, int)
    )


def yolo_shapes(num_classes: int) -> dict[LayoutName, Shape]:
    """Of the one output, by layout."""
    return {
        "yolov8": ("rows", 4 + num_classes, "places"),
        "yolov5": ("rows", "places", 5 + num_classes),
        "end_to_end": ("rows", "places", 6),
    }


def check_yolo(reading: Reading, shapes: Mapping[str, Shape]) -> None:
    """Raise RecipeError for other outputs than one of a known layout."""
    layout_of(reading, shapes)


def layout_of(reading: Reading, shapes: Mapping[str, Shape]) -> LayoutName:
    """The recipe's, else the one that fits. Raises RecipeError where it does not fit, or none or several do."""
    known = yolo_shapes(reading.num_classes)
    name, shape = next(iter(shapes.items()))
    fitting = [layout for layout, wanted in known.items() if len(shapes) == 1 and _fits(shape, wanted)]
    if reading.layout is not None and reading.layout in fitting:
        return reading.layout
    if len(fitting) == 1 and reading.layout is None:
        return fitting[0]
    if reading.layout is None and len(fitting) > 1 and all(isinstance(size, int) for size in shape[1:]):
        raise RecipeError(
            f"layout: output {name!r} of {reading.path} is {[*shape]}, which may be {' or '.join(fitting)} of {reading.num_classes} "
            f"classes; say which"
        )
    if reading.layout is None and fitting:
        return fitting[0]  # of a shape that is known when it is computed, where this is asked again
    wanted = {reading.layout: known[reading.layout]} if reading.layout is not None else known
    expected = ", ".join(f"{_told(each)} ({layout})" for layout, each in wanted.items())
    found = ", ".join(f"{each!r} {[*size]}" for each, size in shapes.items())
    raise RecipeError(
        f"decode: {reading.path} gives {found}; `decode: yolo` of {reading.num_classes} classes reads one output, {expected}: export "
        f"it so, or say in `classes` which it scores"
    )


def _told(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def read_yolo(reading: Reading, outputs: Mapping[str, Tensor]) -> Read:
    layout = layout_of(reading, {name: tuple(values.shape) for name, values in outputs.items()})
    return YOLO[layout](reading, next(iter(outputs.values())).float())


def _yolov8(reading: Reading, values: Tensor) -> Read:
    values = values.transpose(1, 2)
    score, label = _scores(reading, values[..., 4:]).max(-1)
    return Read(Places(_in_pixels(reading, corners_of(values[..., :4]), score), score, label), NMS_ABOVE)


def _yolov5(reading: Reading, values: Tensor) -> Read:
    score, label = (_scores(reading, values[..., 4:5]) * _scores(reading, values[..., 5:])).max(-1)
    boxes = _out_of_grids(reading, values[..., :4]) if reading.strides else values[..., :4]
    return Read(Places(_in_pixels(reading, corners_of(boxes), score), score, label), NMS_ABOVE)


def _end_to_end(reading: Reading, values: Tensor) -> Read:
    score = _scores(reading, values[..., 4])
    return Read(Places(_in_pixels(reading, values[..., :4], score), score, values[..., 5].round().long()), None)


YOLO: dict[LayoutName, Callable[[Reading, Tensor], Read]] = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "end_to_end": _end_to_end,
}


def _out_of_grids(reading: Reading, boxes: Tensor) -> Tensor:
    """Centre and size in pixels of offsets in the cells of grids, row by row: (offset + cell) * stride, exp(size) * stride."""
    cells, sizes = [], []
    for stride in reading.strides:
        high, wide = reading.height // stride, reading.width // stride
        rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        cells.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        sizes.append(torch.full((high * wide, 1), stride))
    cell, size = torch.cat(cells), torch.cat(sizes)
    if len(cell) != boxes.shape[1]:
        raise RecipeError(
            f"strides: {list(reading.strides)} of {reading.width} x {reading.height} pixels are {len(cell)} cells, {reading.path} has "
            f"{boxes.shape[1]} places"
        )
    return torch.cat([(boxes[..., :2] + cell) * size, boxes[..., 2:].exp() * size], -1)


def _scores(reading: Reading, values: Tensor) -> Tensor:
    if len(values) and values.numel() and not bool(((values > -1e-3) & (values < 1 + 1e-3)).all()):
        raise TeacherError(
            f"{reading.path} gives scores from {float(values.min()):.4g} to {float(values.max()):.4g}, expected 0 to 1: export it "
            f"with the sigmoid at its end, or say another `layout`"
        )
    return values.clamp(0, 1)


def _in_pixels(reading: Reading, corners: Tensor, score: Tensor) -> Tensor:
    if score.numel() and float(score.max()) > 0 and float(corners.abs().max()) <= 2:
        raise TeacherError(
            f"{reading.path} gives boxes of at most {float(corners.abs().max()):.4g}, expected pixels of its input "
            f"({reading.width} x {reading.height}); of boxes in 0 to 1 say `decode: raw` or `detr`"
        )
    return corners


def check_detr(reading: Reading, shapes: Mapping[str, Shape]) -> None:
    """Raise RecipeError for other outputs than scores and boxes of places."""
    _boxes_and_logits(reading, shapes)


def _boxes_and_logits(reading: Reading, shapes: Mapping[str, Shape]) -> tuple[str, str]:
    """Which output holds the boxes, and which the logits: by its name where both might."""
    of_boxes = [name for name, shape in shapes.items() if _fits(shape, ("rows", "places", 4))]
    widths = (reading.num_classes, reading.num_classes + 1)
    of_logits = [name for name, shape in shapes.items() if any(_fits(shape, ("rows", "places", w)) for w in widths)]
    boxes = next(
        (name for name in of_boxes if "box" in name.lower()), next((n for n in of_boxes if n not in of_logits), None)
    )
    logits = next((name for name in of_logits if name != boxes), None)
    if len(shapes) != 2 or boxes is None or logits is None:
        found = ", ".join(f"{name!r} {[*shape]}" for name, shape in shapes.items())
        raise RecipeError(
            f"decode: {reading.path} gives {found}; `decode: detr` reads two outputs, logits [rows, places, {widths[0]}] (or "
            f"{widths[1]}, the last being none) and boxes [rows, places, 4]: export it so, or say in `classes` which it scores"
        )
    return boxes, logits


def read_detr(reading: Reading, outputs: Mapping[str, Tensor]) -> Read:
    boxes, logits = _boxes_and_logits(reading, {name: tuple(values.shape) for name, values in outputs.items()})
    decode = best_of_sigmoid if outputs[logits].shape[-1] == reading.num_classes else best_of_softmax
    places = decode(outputs[logits], outputs[boxes], MOST_CANDIDATES)
    return Read(Places(places.corners * reading.size, places.score, places.label), None)


def check_raw(reading: Reading, shapes: Mapping[str, Shape]) -> None:
    """Raise RecipeError for another output than boxes."""
    if len(shapes) != 1 or not _fits(next(iter(shapes.values())), ("rows", "places", 6)):
        found = ", ".join(f"{name!r} {[*shape]}" for name, shape in shapes.items())
        raise RecipeError(
            f"decode: {reading.path} gives {found}; `decode: raw` reads one output, [rows, places, 6]: corners in 0 to 1 of its input, "
            f"score, number of the class"
        )


def read_raw(reading: Reading, outputs: Mapping[str, Tensor]) -> Read:
    check_raw(reading, {name: tuple(values.shape) for name, values in outputs.items()})
    values = next(iter(outputs.values())).float()
    corners = values[..., :4] * reading.size
    return Read(Places(corners, _scores(reading, values[..., 4]), values[..., 5].round().long()), None)


DECODES: dict[DecodeName, tuple[Checking, Decode]] = {
    "yolo": (check_yolo, read_yolo),
    "detr": (check_detr, read_detr),
    "raw": (check_raw, read_raw),
}
"""What refuses other outputs, as far as their shapes are known before; what reads them."""
