"""Several networks as one model: the mean of their probabilities, or of their numbers. What `deliver: ensemble` exports."""

from collections.abc import Sequence
from pathlib import Path

from teachers.errors import RecipeError
from teachers.models.folder import WEIGHTS, ModelConfig, read_config, read_safetensors, save_model
from teachers.storage.seal import local


def save_ensemble(folder: Path, members: Sequence[Path]) -> None:
    """Make a model folder of `students.models:ensemble` from the model folders of its members.

    Raises RecipeError when they do not take the same inputs.
    """
    configs = [read_config(member) for member in members]
    first = configs[0]
    for member, config in zip(members, configs, strict=True):
        if config.preprocess != first.preprocess:
            raise RecipeError(
                f"{member} preprocesses otherwise than {members[0]}; `deliver: ensemble` needs one preprocess"
            )
    made = [{"model": config.model, "arguments": dict(config.arguments)} for config in configs]
    arguments = {"members": made, "answer": first.space.answer}
    state = {
        f"members.{number}.{name}": tensor
        for number, member in enumerate(members)
        for name, tensor in read_safetensors(local(member, WEIGHTS), RecipeError).items()
    }
    config = ModelConfig(
        "students.models:ensemble", arguments, first.space, first.preprocess, first.inputs, files=first.files
    )
    save_model(folder, state, config)
