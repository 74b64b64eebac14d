"""The recipe's JSON schema, and the reference that the README quotes; both come from the models and from nothing else."""

import json
from typing import Any

from .model import Recipe


def json_schema() -> str:
    """The committed `recipe.schema.json`."""
    return json.dumps(Recipe.model_json_schema(), indent=1, sort_keys=True) + "\n"


def reference() -> str:
    """Markdown: one table a model, every key with its type, default and meaning."""
    schema = Recipe.model_json_schema()
    parts = [_table("Recipe", schema)]
    parts += [_table(name, model) for name, model in schema["$defs"].items() if "properties" in model]
    return "\n".join(parts)


def _table(title: str, model: dict[str, Any]) -> str:
    lines = [
        f"#### {title}",
        "",
        model.get("description", "").replace("\n", " "),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    required = set(model.get("required", []))
    for key, field in model["properties"].items():
        default = "required" if key in required else f"`{json.dumps(field.get('default'))}`"
        meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(field)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in field:
            return " or ".join(dict.fromkeys(_type(member) for member in field[union]))
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping to {_type(field['additionalProperties'])}"
    return {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}.get(kind, kind)
