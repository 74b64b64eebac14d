"""`predict.py` beside an exported graph: what `collegium predict` says of raw rows, by NumPy and onnxruntime alone.

One template, of which those parts are taken that a model needs; names, dictionaries and how cells are read lie in
`model.json`. Knows nothing of graphs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.models.folder import ModelConfig
from teachers.models.ngrams import word_pattern
from teachers.preparing.canonical import InputPlan
from teachers.preparing.scalars import ISO, NUMBER, How, grouped_as
from teachers.transfer_set.columns import FIRST, MISSING

from ..tasks.class_set import THRESHOLD
from .manifest import decoding_of
from .source import plans_of

SCRIPT, MODEL = "predict.py", "model.json"
NOTHING: dict[AnswerName, str] = {
    "class_axis": '{"class": None, "probability": None}',
    "class_set": '{"classes": None}',
    "values": 'dict.fromkeys(MODEL["names"])',
    "boxes": '{"boxes": None, "classes": None, "scores": None}',
}
"""What is said of a row that cannot be used."""
PACKAGES = {"tokenizer": ("tokenizers",), "ngrams": ()}
"""By what is made of text, what that needs."""
MOST_LINES = 80
PLAIN = (".", None)
"""Marks of a number as a computer writes it: between it and its decimals, between its thousands."""
Cells = list[dict[str, Any]]


def standalone(
    config: ModelConfig, name: str, thresholds: Sequence[float] | None, graph: str = "model.onnx"
) -> dict[str, bytes]:
    """`predict.py`, `model.json` and what else they need by name; the script asks `graph`. Raises RecipeError for a model that takes what the
    template does not read."""
    plans = plans_of(config)
    texts = [plan for plan in plans if plan.kind == "text"]
    columns = [plan for plan in plans if plan.kind != "text"]
    if len(plans) > 1 and any(plan.kind == "image" for plan in plans):
        raise RecipeError(
            f"it reads tables, or images, and the model takes {' and '.join(plan.name for plan in plans)}"
        )
    text: Mapping[str, Any] = config.preprocess.get("text", {"kind": None})
    if texts and text["kind"] not in PACKAGES:
        raise RecipeError(f"it makes token ids and n-grams of text, and not {text['kind'] or 'text as it is'}")
    values = {column["name"]: column.get("values", ()) for column in config.preprocess["columns"]}
    said: dict[str, Any] = {
        "graph": graph,
        "names": config.classes,
        "sources": [source for plan in plans for source in plan.sources],
        "columns": {plan.name: _column(plan, values.get(plan.name, ())) for plan in columns},
    }
    if texts:
        said["texts"] = [
            {"source": plan.sources[0], "missing": plan.how[0].missing, "nulls": plan.how[0].nulls} for plan in texts
        ]
    if text["kind"] == "ngrams":
        said["word"] = word_pattern()
    if config.space.answer in ("class_set", "boxes"):
        said["thresholds"] = thresholds or [THRESHOLD] * len(config.space.names)
    if config.space.answer == "boxes":
        said["decoding"] = decoding_of(config.space)
    script = _script(re.sub(r"[^\w. -]", "_", name), columns, said["columns"], text, config.space.answer)
    if (lines := len(script.splitlines())) > MOST_LINES:
        raise RecipeError(f"it would have {lines} lines, more than anybody reads, for all that the model takes")
    beside = {name: path.read_bytes() for name, path in config.files.items() if texts}
    return {MODEL: json.dumps(said, ensure_ascii=False, indent=1).encode(), SCRIPT: script.encode(), **beside}


def _column(plan: InputPlan, values: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {"dtype": plan.column.dtype.name, "shape": plan.shape, "cells": _cells(plan, values)}


def _cells(plan: InputPlan, values: Sequence[Sequence[str]]) -> Cells:
    """How each cell is read that a column is made of."""
    if plan.kind == "category":
        each = zip(plan.sources, plan.how, values, strict=True)
        return [_cell(source, how) | {"none": MISSING, "codes": _codes(known)} for source, how, known in each]
    if plan.kind == "number":
        hows = plan.how or [How()] * len(plan.sources)
        return [_cell(source, how) | _number(how) for source, how in zip(plan.sources, hows, strict=True)]
    return [{"source": plan.sources[0]}]


def _cell(source: str, how: How) -> dict[str, Any]:
    """`none`: what stands for no value, where there may be none."""
    return {"source": source, "missing": how.missing, "nulls": ["", *how.nulls], "none": None}


def _codes(known: Sequence[str]) -> dict[str, int]:
    """Of truth values in all three spellings."""
    codes = {value: place for place, value in enumerate(known, FIRST)}
    truths = [value for value in ("true", "false") if value in codes]
    return codes | {spelt: codes[value] for value in truths for spelt in (value.title(), value.upper())}


def _number(how: How) -> dict[str, Any]:
    if how.unit is not None:
        return {"pattern": "" if how.format else ISO, "wrong": "no date", "unit": how.unit, "format": how.format}
    pattern = grouped_as(how.decimal, how.thousands) if (how.decimal, how.thousands) != PLAIN else NUMBER
    marks = {"decimal": how.decimal, "thousands": how.thousands or ""}
    return {"pattern": pattern, "wrong": "not a number", "unit": None} | marks


def _script(
    name: str, plans: Sequence[InputPlan], columns: Mapping[str, Any], text: Mapping[str, Any], answer: AnswerName
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("students.delivering"),
        autoescape=False,  # Python; what comes from users goes through `repr`, or lies in model.json
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"repr": repr}
    cells = [cell for column in columns.values() for cell in column["cells"]]
    has = {
        "numbers": any("pattern" in cell for cell in cells),
        "categories": any("codes" in cell for cell in cells),
        "dates": any(cell.get("unit") for cell in cells),
        "marks": any((cell.get("decimal", "."), cell.get("thousands", "")) != (".", "") for cell in cells),
    }
    image = next((_image(plan) for plan in plans if plan.kind == "image"), None)
    needs_re = has["numbers"] or text["kind"] == "ngrams"
    return environment.get_template("predict.py.j2").render(
        name=name,
        packages=["numpy", "onnxruntime", *["pillow"] * bool(image), *PACKAGES.get(text["kind"], ())],
        modules=[*["csv"] * (image is None), "json", *["re"] * needs_re, "sys"],
        has=has,
        image=image,
        text=text,
        columns=columns,
        answer=answer,
        nothing=NOTHING[answer],
    )


def _image(plan: InputPlan) -> Mapping[str, Any]:
    height, width, channels = plan.shape
    size, filtered = (width, height), f"Image.Resampling.{plan.resample.upper()}"
    resizes = {
        "squash": f"found.resize({size}, {filtered})",
        "crop": f"ImageOps.fit(found, {size}, {filtered})",
        "pad": f"ImageOps.pad(found, {size}, {filtered}, color=0)",
    }
    resize = None if plan.edge is None else resizes[plan.fit]
    return {"source": plan.sources[0], "size": size, "channels": channels, "resize": resize}
