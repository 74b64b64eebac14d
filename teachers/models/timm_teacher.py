"""An image network of timm as a teacher: by the name of its architecture, fed as its own configuration says. Nothing is fetched.

timm is imported where it is used: every replica imports this module, and few hold such a network.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.published import TimmTeacher
from ..errors import RecipeError, TeacherError
from ..process.variables import resolved
from ..tasks.space import Space
from ..transfer_set.columns import Column
from ..users_code.calls import told_as
from .folded import Batch, Scores
from .published_files import timm_classes, timm_problem, timm_weights
from .state import load_state
from .teacher import LoadedTeacher
from .torchvision_build import make_importable
from .weights import weights_of


def make(config: TimmTeacher, num_classes: int) -> Any:
    """The network with weights of chance. Raises TeacherError for what timm does not make so."""
    make_importable()
    import timm

    name = config.architecture or f"local-dir:{config.weights}"
    with told_as(lambda what: TeacherError(f"timm cannot make {name}: {what}")):
        return timm.create_model(name, pretrained=False, **{"num_classes": num_classes} | resolved(config.arguments))


def fed(network: Any) -> dict[str, Any]:
    """`input_size`, `interpolation`, `crop_pct`, `crop_mode`, `mean` and `std`, as the network's configuration says."""
    from timm.data import resolve_model_data_config

    found: dict[str, Any] = resolve_model_data_config(network)
    return found


def fed_in_words(config: TimmTeacher) -> str:
    """How its images are made, for who plans."""
    with torch.device("meta"):
        how = fed(make(config, 2))
    mean, std = (", ".join(f"{number:.3g}" for number in how[key]) for key in ("mean", "std"))
    return (
        f"images become {how['input_size'][1]} x {how['input_size'][2]} ({how['interpolation']}, {how['crop_mode']} crop of "
        f"{how['crop_pct']:.3g}), less the mean {mean} over {std}, as its configuration in timm says"
    )


def load(config: TimmTeacher, columns: Sequence[Column], space: Space, device: str | torch.device) -> LoadedTeacher:
    """Raises RecipeError for a recipe that does not fit, TeacherError for weights that do not."""
    if problem := timm_problem(config):
        raise RecipeError(problem)
    images = [column for column in columns if column.kind == "image"]
    if len(images) != 1:
        named = ", ".join(column.name for column in images) or "none"
        raise RecipeError(f"kind: a network of timm reads one image column; here is {named}")
    names = timm_classes(config, space)
    network = make(config, len(names))
    file = timm_weights(config)
    load_state(network, weights_of(config.model_copy(update={"weights": str(file)})), str(file), TeacherError)
    asked = Images(network.to(device).eval().requires_grad_(False), images[0])
    return LoadedTeacher(names, config.output, asked, may_not_know=False, network=network, device=asked.device)


class Images:
    """Canonical images to scores, fed as timm's own evaluation does, a batch at a time: within one of 255 steps of it, which
    resizes with Pillow."""

    def __init__(self, network: Any, column: Column) -> None:
        """Raises RecipeError for images with other channels than the network's."""
        from timm.data import create_transform

        how, channels = fed(network), column.shape[-1]
        self.steps = [_of_batches(step) for step in create_transform(**how, is_training=False).transforms]
        own = how["input_size"][0]
        if channels not in (1, own):
            raise RecipeError(
                f"kind: the network takes images of {own} channels, column {column.name!r} has {channels}"
            )
        self.network, self.name, self.channels = network, column.name, own
        self.device = next(network.parameters()).device

    def inputs(self, images: Any) -> Tensor:
        """uint8 [rows, H, W, C] to f32 [rows, C, H, W] on the network's device; grey ones count as red, green and blue."""
        values = torch.as_tensor(images).to(self.device).permute(0, 3, 1, 2)
        values = values.expand(-1, self.channels, -1, -1)
        for step in self.steps:
            values = step(values)
        return values

    def __call__(self, batch: Batch) -> Scores:
        with torch.inference_mode():
            logits: Tensor = self.network(self.inputs(batch[self.name]))
        return logits.float()


def _of_batches(step: Any) -> Callable[[Tensor], Tensor]:
    """The same step for uint8 [rows, C, H, W] in place of an image of Pillow: most take both."""
    from timm.data.transforms import CenterCropOrPad, MaybeToTensor

    if isinstance(step, MaybeToTensor):
        return lambda values: values.to(torch.float32) / 255
    if isinstance(step, CenterCropOrPad):  # of tensors with one number for all channels only
        each = [CenterCropOrPad(step.size, fill=number) for number in step.fill]
        return lambda values: torch.cat([pad(values[:, c : c + 1]) for c, pad in enumerate(each)], 1)
    found: Callable[[Tensor], Tensor] = step
    return found
