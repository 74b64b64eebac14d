"""An ONNX graph that detects, as a teacher: each image fitted into its input, its numbers read as boxes, those back in the image."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config.preprocess import Normalise
from ...config.published import OnnxTeacher
from ...errors import RecipeError, TeacherError
from ...tasks.boxes import BOX
from ...tasks.space import Space
from ...transfer_set.columns import Column
from ...users_code.calls import told_as
from ..folded import Batch
from .decoding import DECODES, Reading
from .fitting import FITS, Fitted
from .images import images_of
from .said import Keeping, Places
from .session import open_session

DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
"""Of images, by onnxruntime's name of a type. Bytes are given as they are."""


class DetectingGraph:
    """Canonical images to f32 `[rows, M * 6]`."""

    def __init__(self, config: OnnxTeacher, columns: Sequence[Column], names: Sequence[str], space: Space) -> None:
        """Raises RecipeError for another input or other outputs than `decode` reads, as far as the graph says so."""
        assert config.decode is not None, "the recipe was checked"
        self.config, self.path, self.space, self.num_classes = config, config.path, space, len(names)
        self.session = open_session(config.path)
        self.column = _image_column(columns)
        self.input = self._input()
        self.fit = FITS[config.fit or ("letterbox" if config.decode == "yolo" else "squash")]
        check, self.read = DECODES[config.decode]
        self.outputs = [each.name for each in self.session.get_outputs()]
        height, width = self._size()
        layout, strides = config.layout, tuple(config.strides or ())
        self.reading = Reading(config.path, len(names), height, width, layout, strides)
        check(self.reading, {each.name: tuple(each.shape) for each in self.session.get_outputs()})
        size = self.input.shape[0]
        self.batch_size: int | None = size if isinstance(size, int) else None
        """Rows of every call, where the graph fixes them."""

    def _input(self) -> Any:
        """Raises RecipeError for a graph that takes anything but images."""
        inputs = self.session.get_inputs()
        shape = inputs[0].shape
        channels = shape[1] if len(shape) == 4 else None
        if (
            len(inputs) != 1
            or len(shape) != 4
            or (channels not in (3, None) and isinstance(channels, int))
            or inputs[0].type not in DTYPES
        ):
            found = ", ".join(f"{each.name!r} {each.type} {each.shape}" for each in inputs)
            raise RecipeError(
                f"path: {self.path} takes {found}; expected one input, images [rows, 3, height, width]: export it without what comes "
                f"after its head"
            )
        return inputs[0]

    def _size(self) -> tuple[int, int]:
        """(height, width) of its input: the graph's own, else the recipe's, else what its exporter wrote into it."""
        own = self.input.shape[2:]
        edge = self.config.preprocess.resize
        if all(isinstance(size, int) for size in own):
            if edge is not None and [edge, edge] != list(own):
                raise RecipeError(
                    f"preprocess.resize: is {edge}, and {self.path} takes {own[0]} x {own[1]} pixels; leave it out"
                )
            return own[0], own[1]
        if edge is not None:
            return edge, edge
        written = self.session.get_modelmeta().custom_metadata_map.get("imgsz", "")
        try:
            height, width = ast.literal_eval(written)
            return int(height), int(width)
        except (ValueError, SyntaxError, TypeError):
            raise RecipeError(
                f"preprocess.resize: {self.path} takes images of any size, and nothing says which it was made for; say the edge in "
                f"pixels, `preprocess: {{resize: 640, normalise: null}}`"
            ) from None

    def __call__(self, batch: Batch) -> Tensor:
        images = images_of(batch[self.column.name])
        step = self.batch_size or max(len(images), 1)
        parts = [self._some(images[first : first + step]) for first in range(0, len(images), step)]
        return torch.cat(parts) if parts else torch.zeros(0, self.space.max_boxes * len(BOX))

    def _some(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        fitted = [self.fit(image, self.reading.height, self.reading.width) for image in images]
        found = self.read(self.reading, self._computed(fitted))
        corners = torch.stack([each.back(corners) for each, corners in zip(fitted, found.places.corners, strict=True)])
        keeping = Keeping.of(self.config, self.space.max_boxes, found.nms_above)
        return keeping.rows(Places(corners, found.places.score, found.places.label))

    def _computed(self, fitted: Sequence[Fitted]) -> Mapping[str, Tensor]:
        """What the graph gives of them; behind the last one images of nothing, where it wants more, which are cut off."""
        rows, lacking = len(fitted), (self.batch_size or len(fitted)) - len(fitted)
        pixels = self._fed(torch.stack([each.pixels for each in fitted])).numpy()
        pixels = np.pad(pixels, [(0, lacking), *[(0, 0)] * 3], "edge") if lacking else pixels
        feed = {self.input.name: pixels.astype(DTYPES[self.input.type], copy=False)}
        with told_as(lambda what: TeacherError(f"{self.path}: onnxruntime cannot compute it: {what}")):
            said = self.session.run(self.outputs, feed)
        return {
            name: torch.from_numpy(np.asarray(values)[:rows]) for name, values in zip(self.outputs, said, strict=True)
        }

    def _fed(self, pixels: Tensor) -> Tensor:
        """f32 `[rows, 3, H, W]` in 0 to 255 as the recipe says that the graph is fed; bytes stay what they are."""
        normalise = self.config.preprocess.normalise
        if DTYPES[self.input.type] is np.uint8 or normalise is None:
            return pixels if DTYPES[self.input.type] is np.uint8 else pixels / 255
        mean, std = (
            (normalise.mean, normalise.std) if isinstance(normalise, Normalise) else (self.column.mean, self.column.std)
        )
        by_channel = (torch.tensor(each, dtype=torch.float32).reshape(1, -1, 1, 1) for each in (mean, std))
        own_mean, own_std = by_channel
        return (pixels / 255 - own_mean) / own_std


def _image_column(columns: Sequence[Column]) -> Column:
    """Raises RecipeError where there is not one."""
    found = [column for column in columns if column.kind == "image"]
    if len(found) != 1:
        told = ", ".join(column.name for column in found) or "none"
        raise RecipeError(
            f"path: a detector reads one image column, and of the transfer set's columns image are {told}"
        )
    return found[0]
