"""Rows as a request brings them: a mapping each, as JSON has it. Knows nothing of servers, or of networks."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from teachers.models.folder import ModelConfig
from teachers.preparing.canonical import decode
from teachers.preparing.categories import with_codes
from teachers.preparing.refit import refitted
from teachers.sources.lines import column_of

from .columns import columns_for
from .source import Rows, plans_of


def of_records(config: ModelConfig, records: Sequence[Any]) -> Rows:
    """The rows as a model takes them; an image is its file in base64, or nested lists of pixels.

    Ids are places among `records`. Raises RecipeError where no row has a column that the model takes, or all have
    something else in it.
    """
    bad: dict[int, str] = {}
    images = {name for plan in plans_of(config) if plan.kind == "image" for name in plan.sources}
    good: list[Mapping[str, Any]] = []
    places: list[int] = []
    for place, record in enumerate(records):
        try:
            good.append(_plain(record, images))
            places.append(place)
        except ValueError as why:
            bad[place] = str(why)
    ids = [str(place) for place in range(len(records))]
    if not good:
        return Rows(ids, bad, {})
    names = list(dict.fromkeys(name for record in good for name in record))
    plans = plans_of(config)
    sources = columns_for(plans, names, (), "the request")
    used = list(dict.fromkeys(name for columns in sources for name in columns))
    batch = pa.record_batch({name: column_of(good, name) for name in used})
    plans = [refitted(plan, columns, batch) for plan, columns in zip(plans, sources, strict=True)]
    inputs, wrong = decode(batch, plans, None)
    bad |= {places[row]: why for row, why in wrong.items()}
    usable = np.setdiff1d(np.arange(len(good)), [*wrong])
    values = {column["name"]: column["values"] for column in config.preprocess["columns"] if "values" in column}
    return Rows(ids, bad, with_codes({name: array[usable] for name, array in inputs.items()}, values))


def _plain(record: Any, images: set[str]) -> Mapping[str, Any]:
    """Raises ValueError for what is no row."""
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}, not an object")
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("not text: half a character (a lone surrogate)") from None
    try:
        encoded = {name: record[name] for name in images if isinstance(record.get(name), str)}
        return record | {name: base64.b64decode(text, validate=True) for name, text in encoded.items()}
    except binascii.Error as error:
        raise ValueError(f"an image is its file in base64, or nested lists of pixels ({error})") from None
