"""Images of any size as the one size that a graph takes, and boxes in that back in the image. Knows nothing of graphs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ...config.detecting import FitName

GREY = 114
"""Around an image in a letterbox, of 255."""


@dataclass(frozen=True)
class Fitted:
    """An image f32 `[3, H, W]` in 0 to 255, whole numbers, and the part of it that shows something, in pixels."""

    pixels: Tensor
    left: int
    top: int
    width: int
    height: int

    def back(self, corners: Tensor) -> Tensor:
        """Corners `[..., 4]` in pixels of the fitted image as parts of the image itself."""
        first = torch.tensor([self.left, self.top, self.left, self.top], device=corners.device)
        size = torch.tensor([self.width, self.height, self.width, self.height], device=corners.device)
        return (corners - first) / size


def squash(image: NDArray[np.uint8], height: int, width: int) -> Fitted:
    """Stretched, bilinear with antialiasing, as Pillow does it."""
    return Fitted(_resized(image, height, width, antialias=True), 0, 0, width, height)


def letterbox(image: NDArray[np.uint8], height: int, width: int) -> Fitted:
    """As large as fits, bilinear without antialiasing, as OpenCV does it, in the middle of grey."""
    scale = min(height / image.shape[0], width / image.shape[1])
    high, wide = round(image.shape[0] * scale), round(image.shape[1] * scale)
    top, left = (height - high) // 2, (width - wide) // 2
    around = (left, width - wide - left, top, height - high - top)
    return Fitted(pad(_resized(image, high, wide, antialias=False), around, value=GREY), left, top, wide, high)


FITS: dict[FitName, Callable[[NDArray[np.uint8], int, int], Fitted]] = {"letterbox": letterbox, "squash": squash}


def _resized(image: NDArray[np.uint8], height: int, width: int, *, antialias: bool) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
    if pixels.shape[1:] == (height, width):
        return pixels
    found = interpolate(pixels[None], (height, width), mode="bilinear", align_corners=False, antialias=antialias)[0]
    return found.round()
