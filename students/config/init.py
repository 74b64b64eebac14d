"""With which weights a student begins: with some of a teacher's. Knows nothing of torch."""

from typing import Annotated

from pydantic import ConfigDict, Field

from teachers.config.strict import Config

Layers = list[Annotated[int, Field(ge=0)]] | dict[str, str]


class Init(Config):
    """The teacher whose weights a network begins with, as far as they fit. The control begins with weights of chance."""

    model_config = ConfigDict(serialize_by_alias=True)

    from_: str = Field(alias="from")
    """One of the student's `teachers` that is a network in a model folder: trained here, a `checkpoint`, or another student."""
    layers: Layers | None = None
    """Null: each tensor of the same name and shape. A list, `[0, 3]`: which of the teacher's layers the student's are, of the one list of layers that both have. A mapping of modules, `{the student's: the teacher's}`: these alone."""
