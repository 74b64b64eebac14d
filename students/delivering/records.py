"""Rows as a request brings them: a mapping each, as JSON has it. Knows nothing of servers, or of networks."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from teachers.errors import RecipeError
from teachers.models.folder import ModelConfig
from teachers.preparing.canonical import InputPlan, decode, no_scalar
from teachers.preparing.categories import with_codes
from teachers.preparing.refit import refitted
from teachers.preparing.scalars import dates
from teachers.sources.lines import column_of

from .columns import columns_for
from .source import Rows, plans_of


def of_records(config: ModelConfig, records: Sequence[Any]) -> Rows:
    """The rows as a model takes them; an image is its file in base64, or nested lists of pixels; a date is text, as the model's
    rows had it or in ISO 8601, or a number that is counted as theirs was.

    Ids are places among `records`. Raises RecipeError where no row has a column that the model takes, or all have
    something else in it.
    """
    bad: dict[int, str] = {}
    plans = plans_of(config)
    images = {name for plan in plans if plan.kind == "image" for name in plan.sources}
    good: list[dict[str, Any]] = []
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
    for plan in plans:
        lacking = [name for name in plan.sources if name not in names]
        if lacking and plan.name not in names:
            raise RecipeError(f"no row has {lacking[0]!r}, which the model takes; give null where there is no value")
    sources = columns_for(plans, names, (), "the request")
    used = list(dict.fromkeys(name for columns in sources for name in columns))
    batch = pa.record_batch({name: column_of(good, name) for name in used})
    plans = [refitted(plan, columns, batch) for plan, columns in zip(plans, sources, strict=True)]
    batch, plans, wrong = _with_dates(batch, good, plans)
    inputs, odd = decode(batch, plans, None)
    wrong = odd | wrong
    bad |= {places[row]: why for row, why in wrong.items()}
    usable = np.setdiff1d(np.arange(len(good)), [*wrong])
    values = {column["name"]: column["values"] for column in config.preprocess["columns"] if "values" in column}
    return Rows(ids, bad, with_codes({name: array[usable] for name, array in inputs.items()}, values))


def _with_dates(
    batch: pa.RecordBatch, records: Sequence[Mapping[str, Any]], plans: Sequence[InputPlan]
) -> tuple[pa.RecordBatch, list[InputPlan], dict[int, str]]:
    """The same rows and plans with dates as numbers, and why rows have none: JSON has no dates, only numbers and text."""
    wrong: dict[int, str] = {}
    found = []
    for plan in plans:
        hows = list(plan.how)
        for number, (name, how) in enumerate(zip(plan.sources, plan.how, strict=False)):
            if how.unit is None or plan.raw != ():
                continue
            values = [record.get(name) for record in records]
            counted, odd = dates(values, how)
            for row in np.flatnonzero(odd).tolist():
                wrong.setdefault(row, no_scalar(name, values[row], how))
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, name, counted)
            hows[number] = replace(how, unit=None, format=None)
        found.append(replace(plan, how=tuple(hows)))
    return batch, found, wrong


def _plain(record: Any, images: set[str]) -> dict[str, Any]:
    """Raises ValueError for what is no row."""
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}, not an object")
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("not text: half a character (a lone surrogate)") from None
    return record | {name: _image(name, record[name]) for name in images if record.get(name) is not None}


def _image(name: str, value: Any) -> Any:
    """The bytes of a file, or pixels as they are."""
    try:
        return value if isinstance(value, list) else base64.b64decode(value, validate=True)
    except (TypeError, binascii.Error):
        raise ValueError(f"{name} is neither an image file in base64 nor nested lists of pixels") from None
