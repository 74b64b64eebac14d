"""What a recipe can say of what a network gives besides its answer. Imports no torch."""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .any_teacher import TeacherCommon
from .strict import Config, Name
from .training import PrecisionName

PoolName = Literal["mean"]
TAKEN = ("answer", "class", "label", "logits", "offset", "probabilities", "said", "sample_key", "value", "values")
"""By which a teacher's answer is called in a store, in a batch or in an export."""


class NamedOutput(Config):
    """What one layer gives of a row, for students to be taught by (`hints`), under a name of yours."""

    layer: str = Field(min_length=1)
    """Path of the module inside the network, `layer3.1.conv2`; of `onnx` the name of an output of the graph. `collegium teachers ls RECIPE --layers` lists them with their shapes. It is taken as the layer gives it, before an activation in place; of a layer that is called several times the last output."""
    pool: PoolName | None = None
    """`mean`: over positions, of maps `[C, H, W]` to `[C]`, of sequences `[L, D]` to `[D]`, of padded text over its tokens alone. Null: as it is, of text with zeros behind its last token."""


class NetworkTeacher(TeacherCommon):
    """Who has layers."""

    outputs: dict[Name, NamedOutput] = {}
    """What it gives besides its answer, by name: kept in its store in float16, or, with `mode: live`, given with each answer."""

    @model_serializer(mode="wrap")
    def without_no_outputs(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where there are none, that is not said: keys of stages stay what they were."""
        return {name: value for name, value in write(self).items() if value or name != "outputs"}

    @model_validator(mode="after")
    def calls_no_output_as_its_answer(self) -> Self:
        if taken := [name for name in self.outputs if name in TAKEN]:
            raise ValueError(
                f"outputs: {taken[0]!r} is what its answer is called somewhere ({', '.join(TAKEN)} are); choose another name"
            )
        return self


class TorchTeacher(NetworkTeacher):
    """Who is computed by torch."""

    precision: PrecisionName = Field("float32", exclude_if=lambda value: value == "float32")
    """`bfloat16`: autocast while it answers. What it says differs in the last of three digits or so, and is labelled anew."""
    compile: bool = Field(False, exclude_if=lambda value: not value)
    """Through torch.compile: the first batches of each replica wait for the compiler, and others may have other last bits."""
