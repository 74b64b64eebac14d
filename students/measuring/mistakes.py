"""The worst answers of a network, with the rows that it gave them to. Knows nothing of how they are shown."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from teachers.transfer_set.columns import FIRST, MISSING, UNKNOWN, Column
from teachers.transfer_set.dates import date_of, date_units

from ..tasks.task import Model
from .judged import Voice
from .labelled import Labelled

SHOWN = 12
CHARACTERS = 300
"""Of a text, the first so many are told."""
EDGE = 96
"""Pixels: a larger image is drawn smaller."""
VALUES = 16
"""Of a column of numbers, the first so many are told."""


def worst_mistakes(voice: Voice, together: Tensor, rows: Labelled) -> list[dict[str, Any]]:
    """Rows of which `voice` is most wrong: id, what is said and what is so, and what the row looks like.

    `inputs` holds of each column the first `values` (null: missing; of categories their text, of dates ISO 8601) and their `names`, the first
    characters of its `text`, or the image as `png` in base64 (not larger than 96 pixels).
    """
    model = Model([voice.said], voice.sure, [voice.thresholds])
    found = rows.task.mistakes(model, together, rows.labels, rows.space, SHOWN)
    places = [rows.place(number) for number, _ in found]
    inputs = [rows.transfer_set.inputs(segment, row, 1) for segment, row in places]
    made_of = {made["name"]: made for made in rows.transfer_set.made_of}
    brightest = {
        column.name: max((int(each[column.name].max()) for each in inputs), default=0)
        for column in rows.transfer_set.columns
        if column.kind == "image"
    }
    return [
        {
            "id": rows.transfer_set.ids(segment)[row].as_py(),
            **wrong,
            "inputs": [
                _looks(column, shown[column.name][0], brightest, made_of.get(column.name, {}))
                for column in rows.transfer_set.columns
            ],
        }
        for (_, wrong), (segment, row), shown in zip(found, places, inputs, strict=True)
    ]


def _looks(
    column: Column, value: NDArray[Any], brightest: dict[str, int], made_of: Mapping[str, Any]
) -> dict[str, Any]:
    if column.kind == "image":
        return {"column": column.name, "png": _png(value, brightest[column.name])}
    if column.kind == "category":
        said = [_category(int(code), known) for code, known in zip(value, column.values, strict=True)]
        return {"column": column.name, "names": list(column.names)[:VALUES], "values": said[:VALUES], "of": len(said)}
    if column.kind == "text":
        return {"column": column.name, "text": str(value)[:CHARACTERS], "of": len(str(value))}
    numbers: list[Any] = [None if np.isnan(number) else number for number in value[:VALUES].tolist()]
    sources, names = list(made_of.get("sources", ())), dict[str, Any]()
    if len(sources) == len(value):  # each its own column of the source
        dates = date_units(made_of)
        numbers = [
            date_of(number, dates[name]) if number is not None and name in dates else number
            for name, number in zip(sources, numbers, strict=False)
        ]
        names = {"names": sources[:VALUES]} if len(value) > 1 else {}
    return {"column": column.name, **names, "values": numbers, "of": len(value)}


def _category(code: int, known: Sequence[str]) -> str | None:
    return {MISSING: None, UNKNOWN: "unknown"}[code] if code < FIRST else known[code - FIRST]


def _png(pixels: NDArray[np.uint8], brightest: int) -> str:
    """Base64 of a PNG of uint8 [H, W, C]; `brightest` becomes white, since some images are 0 to 16."""
    bright = (pixels.astype(np.float64) * (255 / max(brightest, 1))).round().astype(np.uint8)
    image = Image.fromarray(bright if bright.shape[2] in (3, 4) else bright[:, :, 0])
    image.thumbnail((EDGE, EDGE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
