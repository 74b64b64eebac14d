"""Secrets and a recipe: none may stand in it, and the variables of the environment that it names instead.

A recipe is copied: into keys, records of stages, MLflow, a submitted job. What is copied has `${NAME}` alone.
"""

import os
from collections.abc import Iterator
from typing import Any

from teachers.config.secrets import looks_like, looks_like_by_name
from teachers.process.variables import missing, references

from .file import Loc

ARGUMENTS = "arguments"
WHERE_READ: Loc = ("tracking", "uri")
"""Beside all `arguments`."""
READ_BY_THE_DRIVER = ("tracking", "transfer_set")


def secret_problems(value: Any, at: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Values below `value`, a recipe as JSON, that look like a secret. The messages do not say them."""
    if isinstance(value, str):
        by_name = looks_like_by_name(str(at[-1]), value) if ARGUMENTS in at[:-1] else ""
        if found := looks_like(value) or by_name:
            yield (
                at,
                f"looks like {found}, and a recipe is copied to where others read it; put it in the environment: "
                f"${{NAME}} (which is read in `arguments`, `tracking.uri` and the `key` of an endpoint)",
            )
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str) and (found := looks_like(key)):
                yield at, f"one of its keys looks like {found}; put it in the environment: ${{NAME}}"
            yield from secret_problems(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from secret_problems(inner, (*at, number))


def variables(document: Any) -> list[tuple[Loc, str]]:
    """Where a recipe, as JSON, names variables that are read: (path, name)."""
    return [(at, name) for at, name in references(document) if ARGUMENTS in at[:-1] or at == WHERE_READ or _is_key(at)]


def _is_key(at: Loc) -> bool:
    """Of an endpoint."""
    return len(at) == 3 and (at[0], at[2]) == ("teachers", "key")


def kept_problems(document: dict[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Variables where what is read would be written down."""
    for at, name in variables(document):
        if at[0] == "teachers" and document["teachers"][at[1]]["kind"] == "sklearn":
            yield (
                at,
                f"an estimator keeps its arguments in its file, so the value of {name} would be written down there",
            )


def absent_variables(document: Any) -> dict[str, bool]:
    """Of those that this process does not have, where each is named and what to do; and whether this process reads it.

    The others are read by workers, which may have them.
    """
    absent = [(at, name) for at, name in variables(document) if name not in os.environ]
    return {missing(at, name): at[0] in READ_BY_THE_DRIVER for at, name in absent}
