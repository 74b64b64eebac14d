"""What a recipe can say of the share of a cluster that one process gets."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from .strict import Config


class Resources(Config):
    """What one replica or worker reserves on the Ray cluster."""

    cpus: float = Field(1, gt=0)
    """CPU cores; torch gets as many threads."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs, fractions too; `auto`: 1 if the cluster has any, else 0."""
    accelerator_type: str | None = None
    """For example `A100`."""
    custom: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom Ray resources."""


OF_A_TYPE = "accelerator_type:"
"""Begins the name of what Ray gives to nodes with GPUs of one type; who asks for a type asks for a crumb of it."""


def in_words(request: Mapping[str, float]) -> str:
    """By Ray's names, what is asked for on one node: `1 CPU, 0.5 GPU, accelerator_type:A100`."""
    return ", ".join(name if name.startswith(OF_A_TYPE) else f"{amount:g} {name}" for name, amount in request.items())
