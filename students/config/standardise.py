"""Logits by their shape alone, in terms that compare distributions of one class of many. Knows nothing of torch."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from teachers.config.strict import Config


class Standardise(Config):
    """What terms have that can compare logits less their mean over their standard deviation."""

    standardise: bool = False
    """Logits of either side less their mean over a row's classes, over their standard deviation, before the temperature (Sun et al., 2024): the student need not be as sure as its teachers."""

    @model_serializer(mode="wrap")
    def if_asked_for(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where nobody asks for it, it is not said: keys of stages stay what they were."""
        return {name: value for name, value in write(self).items() if value or name != "standardise"}
