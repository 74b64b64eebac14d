"""From an import string and its arguments to an `nn.Module`, told what it is to take and to give.

Knows nothing of weights, nor of folders.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import RecipeError, UsersCodeError
from ..process.variables import resolved
from ..users_code import imports
from ..users_code.calls import calling
from .preprocess import Preprocessor


def build_module(model: str, arguments: Mapping[str, Any], **told: Any) -> nn.Module:
    """`make_module` with variables of the environment put into `arguments`. Raises EnvironmentUnfit without one."""
    return make_module(model, resolved(arguments), **told)


def make_module(
    model: str,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    input_shape: Any,
    num_codes: Sequence[int] = (),
    vocabulary_size: int | None = None,
    classes: Sequence[str] = (),
) -> nn.Module:
    """Call what the import string `model` names with `arguments`.

    `num_classes` (of numbers: how many; `num_outputs` is another name for it), `input_shape`, `num_codes` (of each
    category, where it gets codes), `vocabulary_size` (how many ids are made of text, where any are) and `classes` (names of
    what it is to score) are passed too where its signature names them and `arguments` does not. Raises RecipeError when it
    cannot be called so, or does not return a module, UsersCodeError for what it raises itself.
    """
    make = imports.load(model)
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{model} is no function or class that makes an nn.Module: {error}") from error
    known = {"num_classes": num_classes, "num_outputs": num_classes, "input_shape": input_shape}
    known |= {"num_codes": tuple(num_codes), "vocabulary_size": vocabulary_size, "classes": tuple(classes)}
    passed = {name: value for name, value in known.items() if name in signature.parameters} | dict(arguments)
    try:
        signature.bind(**passed)
    except TypeError as error:
        raise RecipeError(f"{model}{signature} cannot be called with {sorted(passed)}: {error}") from error
    with calling("model", model):
        module = make(**passed)
    if not isinstance(module, nn.Module):
        raise RecipeError(f"{model} returned a {type(module).__name__}, expected an nn.Module")
    return module


def network_for(
    preprocessor: Preprocessor,
    model: str,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    classes: Sequence[str] = (),
) -> nn.Module:
    """`build_module` for what `preprocessor` gives. Raises RecipeError too for one that knows fewer ids than text has."""
    given = preprocessor.network_arguments
    module = build_module(model, arguments, num_classes=num_classes, classes=classes, **given)
    size = given["vocabulary_size"]
    tables = [each.num_embeddings for each in module.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)]
    if size is None or not tables or max(tables) >= size:
        return module
    last = {name: values.fill_(size - 1) for name, values in preprocessor.zeros(1).items()}
    try:
        with torch.no_grad(), calling("model", model):
            module.eval()(preprocessor(last))
    except UsersCodeError as error:
        if not isinstance(error.__cause__, IndexError):
            raise
        raise RecipeError(
            f"{model} knows {max(tables):,} ids, and what the preprocess makes of text has {size:,}; they belong to two "
            f"models, or give it more"
        ) from None
    return module.train()


def not_passed(model: str, arguments: Mapping[str, Any], num_classes: int) -> str:
    """What to do where a network gives another number of scores because nobody told it the number; empty: it was told."""
    signature = inspect.signature(imports.load(model))
    if {"num_classes", "num_outputs"} & {*signature.parameters, *arguments}:
        return ""
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    how = "takes `num_classes` only through `**` keywords, if at all" if takes_any else "takes no `num_classes`"
    return f"; {model} {how}: say the number under `arguments`, for example `num_classes: {num_classes}`"
