"""Keys of a recipe that are left out where nobody says them: what had none before keeps its document, and its key."""

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from teachers.config.strict import Config


class Unsaid(Config):
    """A part of a recipe, some of whose keys came later."""

    unsaid: ClassVar[frozenset[str]] = frozenset()
    """Names of a class's own, which are not said where they have their default."""

    @model_serializer(mode="wrap")
    def only_what_is_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = frozenset[str]().union(*(vars(each).get("unsaid", ()) for each in type(self).__mro__))
        fields = type(self).model_fields
        document: dict[str, Any] = write(self)
        return {name: value for name, value in document.items() if name not in later or value != fields[name].default}
