"""Rows that are worth looking at side by side, with what they look like. Knows nothing of how they are shown."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..tasks.task import Model
from .labelled import Labelled

SHOWN = 12
EDGE = 320
"""Pixels of a picture; it is drawn as large as is said with it."""


def sheet_of(everybody: Mapping[str, Model], rows: Labelled) -> dict[str, Any]:
    """`sheet`, of a task that has one and rows with an image: of each row its id, `jpeg` in base64, and what the task says of it."""
    column = next((each for each in rows.transfer_set.columns if each.kind == "image"), None)
    if rows.task.sheet is None or column is None:
        return {}
    found = []
    for number, said in rows.task.sheet(everybody, rows.labels, rows.space, SHOWN):
        segment, row = rows.place(number)
        pixels = rows.transfer_set.inputs(segment, row, 1)[column.name][0]
        found.append({"id": rows.transfer_set.ids(segment)[row].as_py(), **said, "jpeg": _jpeg(pixels)})
    return {"sheet": found}


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """Base64, of u8 `[H, W, C]`."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")
    image.thumbnail((EDGE, EDGE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
