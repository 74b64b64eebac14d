"""What the integers of a label, or the classes of its boxes, are called by a table's metadata, as Hugging Face writes it."""

import json
from typing import Any

import pyarrow as pa


def class_label(schema: pa.Schema, label: str) -> list[str] | None:
    """Names of the classes of a column; None where the metadata do not say."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return _names(features[label])
    except (ValueError, KeyError, TypeError):
        return None


def _names(feature: Any) -> list[str] | None:
    """Of a ClassLabel, or of the `class` in a list of boxes."""
    if not isinstance(feature, dict):
        return None
    if isinstance(inner := feature.get("feature"), dict):
        return _names(inner.get("class"))
    if feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else None


def of_boxes(names: list[str]) -> dict[str, str]:
    """Metadata that say what the classes of the column `boxes` are called, all of them."""
    named = {"_type": "List", "feature": {"class": {"_type": "ClassLabel", "names": names}}}
    return {"huggingface": json.dumps({"info": {"features": {"boxes": named}}})}
