"""The recipe's JSON schema, from the models and from nothing else."""

import json

from .model import Recipe


def json_schema() -> str:
    """What `recipe.schema.json` beside this file holds, for editors."""
    return json.dumps(Recipe.model_json_schema(), indent=1, sort_keys=True) + "\n"
