"""Pydantic's findings, told in the words of the user's file: no tags of unions, the nearest key named."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from students.config.terms import LossName, StudentLossName
from teachers.config.strict import IMPORT_PATTERN, IN_WORDS
from teachers.config.teacher import CombineName
from teachers.config.training import AugmentName

from .file import Loc, nearest


def told(model: Any, value: Any, error: ValidationError) -> Iterator[tuple[Loc, str]]:
    """What pydantic found wrong in `value`, in the words of the file: (path, message). `model`: or a union of models."""
    names = {_untagged(value, found["loc"]) for found in error.errors() if _is_no_import_string(found)}
    for found in error.errors():
        loc = _untagged(value, found["loc"], absent=found["type"] == "missing")
        if found["type"] == "literal_error" and loc in names:
            continue  # told once, with both of what is expected
        if found["type"] == "extra_forbidden":
            yield loc, f"unknown key{nearest(str(loc[-1]), _fields_at(model, found['loc'][:-1]))}"
        elif found["type"] == "missing":
            yield loc, "is missing"
        elif found["type"] in ("union_tag_invalid", "union_tag_not_found", "literal_error"):
            yield loc, _choice_message(found)
        elif found["type"] in ("string_type", "invalid_key") and isinstance(found["input"], bool | int | float | date):
            yield loc, f"expected text, found {_as_yaml_reads(found['input'])}; put it in quotes"
        elif _is_no_import_string(found):
            losses = get_args(LossName if loc[0] == "cohorts" else StudentLossName)
            known = {"loss": losses, "combine": get_args(CombineName), "augment": get_args(AugmentName)}
            key = next(str(part) for part in reversed(loc) if isinstance(part, str))  # `augment.1` is of `augment`
            own = list(known.get(key, ()))
            either = f"one of {', '.join(own)}, or " if own else ""
            close = nearest(str(found["input"]), own)
            hint = close if close.startswith(",") else ""
            yield loc, f"expected {either}`package.module:name`, found {found['input']!r}{hint}"
        elif found["type"] == "string_pattern_mismatch":
            yield loc, f"{IN_WORDS[found['ctx']['pattern']]} (found {found['input']!r})"
        else:
            message = found["msg"].removeprefix("Value error, ")
            given = found.get("input")
            short = "" if isinstance(given, dict | list | BaseModel) else f" (found {given!r})"
            yield loc, message[0].lower() + message[1:] + short


def _as_yaml_reads(value: Any) -> str:
    if isinstance(value, bool):
        words = "true, yes and on" if value else "false, no and off"
        return f"the truth value that YAML reads {words} as"
    return f"the {'date' if isinstance(value, date) else 'number'} {value}"


def _is_no_import_string(found: Mapping[str, Any]) -> bool:
    return bool(found["type"] == "string_pattern_mismatch" and found["ctx"]["pattern"] == IMPORT_PATTERN)


def _choice_message(found: Mapping[str, Any]) -> str:
    context = found.get("ctx", {})
    expected = [
        text.strip(" '") for text in re.split(r",| or ", context.get("expected_tags") or context.get("expected", ""))
    ]
    key = str(context.get("discriminator", "")).strip("'")
    if found["type"] == "union_tag_not_found":
        return f"`{key}` is missing"
    given = context.get("tag", found.get("input"))
    close = nearest(str(given), expected)
    hint = close if close.startswith(",") else ""
    return f"{key + ' ' if key else ''}{given!r} is not one of {', '.join(expected)}{hint}"


def _untagged(value: Any, loc: Sequence[str | int], *, absent: bool = False) -> Loc:
    """Pydantic's location without the tags of unions, which the file does not have; `absent`: its last part is no tag."""
    kept: list[str | int] = []
    for number, part in enumerate(loc):
        there = (isinstance(value, dict) and part in value) or (isinstance(value, list) and part in range(len(value)))
        if there:
            value = value[part]
        if there or (absent and number == len(loc) - 1):
            kept.append(part)
    return tuple(kept)


def _fields_at(model: Any, loc: Sequence[str | int]) -> list[str]:
    """The keys that the model at `loc` (tags included) has."""
    at = _models(model)
    for part in loc:
        at = _step(at, part)
    if not (isinstance(at, type) and issubclass(at, BaseModel)):
        return []
    return [field.alias or name for name, field in at.model_fields.items()]


def _step(at: Any, part: str | int) -> Any:
    """The type that stands under `part` of a model, dict, list or union."""
    if get_origin(at) in (dict, list):
        return _models(get_args(at)[-1])
    if isinstance(at, type) and issubclass(at, BaseModel) and str(part) in at.model_fields:
        return _models(at.model_fields[str(part)].annotation)
    if isinstance(at, dict):
        return at.get(part)
    return None


def _models(annotation: Any) -> Any:
    """A model, a dict or list type, or {tag: model} for a union of models told apart by a literal or a Tag."""
    tags: list[str] = []
    while get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        tags += [entry.tag for entry in metadata if isinstance(entry, Tag)]
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    members = [member for member in get_args(annotation) if member is not type(None)]
    if len(members) == 1:
        return _models(members[0])
    if not all(_tags(member) for member in members):
        return next(
            (_models(member) for member in members if get_origin(member) in (dict, list) or _is_model(member)), None
        )
    return {tag: _models(member) for member in members for tag in _tags(member)}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tags(member: Any) -> list[str]:
    """By which a tagged union knows `member`."""
    if get_origin(member) is Annotated:
        own = [entry.tag for entry in get_args(member)[1:] if isinstance(entry, Tag)]
        return own or _tags(get_args(member)[0])
    if not _is_model(member):
        return []
    kinds = [
        get_args(member.model_fields[key].annotation)
        for key in ("kind", "method", "loss")
        if key in member.model_fields
    ]
    return list(kinds[0]) if kinds else []
