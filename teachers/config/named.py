"""Architectures that stand among the arguments of another one. Imports nothing of what they name."""

from collections.abc import Iterator, Mapping
from typing import Any


def models_within(arguments: Any) -> Iterator[str]:
    """Architectures that arguments name in turn, as an ensemble's do."""
    if isinstance(arguments, Mapping):
        if "model" in arguments:
            yield str(arguments["model"])
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        for value in arguments:
            yield from models_within(value)
