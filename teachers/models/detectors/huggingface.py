"""A folder of transformers that detects, as a teacher: images by the folder's own image processor, boxes as its own
post-processing has them. Needs no torchvision. Nothing is fetched from a hub.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config.published import HuggingFaceTeacher
from ...errors import RecipeError, TeacherError
from ...tasks.boxes import BOX
from ...tasks.space import Space
from ...transfer_set.columns import Column
from ...users_code.calls import told_as
from ..folded import Batch, Said
from ..huggingface_folder import folder_classes, read
from ..outputs import Outputs, checked
from ..teacher import LoadedTeacher
from .asked import Answering, Given, Grounded, Owl
from .families import FAMILIES
from .folder import GROUNDED, OWL, PADS_TO_A_SQUARE
from .images import images_of, of_one_size
from .said import MOST_CANDIDATES, Keeping, Places

AT_ONCE = 8
"""Images of one forward where the recipe does not say `batch_size`: these are large, and so is what becomes of them."""
MOST_AT_ONCE = 1 << 20
"""Where whoever asks finds out how many fit."""
OF_OWN = "AutoModelForObjectDetection"
AUTO = {True: "AutoModelForZeroShotObjectDetection", False: OF_OWN}
"""By whether it is told what to look for."""


def load(config: HuggingFaceTeacher, network: Any, column: Column, space: Space) -> LoadedTeacher:
    """`network`: of the folder. Raises RecipeError for what does not fit, TeacherError for what cannot be loaded."""
    kind, names = str(read(config)["model_type"]), folder_classes(config, space)
    images = Processed(config, network, kind)
    keeping = Keeping.of(config, space.max_boxes)
    answer = _answering(config, network, kind, names, images, keeping)
    at_once = config.batch_size if "batch_size" in config.model_fields_set else AT_ONCE
    at_once = MOST_AT_ONCE if at_once == "auto" else at_once
    outputs = Outputs(network, config.outputs) if config.outputs else None
    detector = Detecting(images, answer, keeping, column.name, at_once, outputs)
    more: dict[str, Any] = {"network": network, "as_stored": True, "gives_outputs": True}
    return LoadedTeacher(names, "boxes", detector, may_not_know=False, **more)


def _answering(
    config: HuggingFaceTeacher, network: Any, kind: str, names: Sequence[str], images: "Processed", keeping: Keeping
) -> Answering:
    if kind in OWL:
        tokenizer = _tokenizer(config) if config.prompts else None
        return Owl(config, network, tokenizer, lambda crop: images(crop[None])["pixel_values"])
    if kind in GROUNDED:
        return Grounded(config, network, _tokenizer(config))
    family = FAMILIES[kind]
    wanted = keeping.max_boxes if keeping.nms_above is None else MOST_CANDIDATES

    def answer(given: Given) -> Places:
        said = network(**given)
        width = len(names) + family.has_none
        if said.logits.shape[-1] != width:
            raise RecipeError(
                f"path: the head in {config.path} gives {said.logits.shape[-1]} scores a place, expected {width}: its config.json "
                f"names {len(names)} classes{' beside none' * family.has_none}"
            )
        return family.decode(said.logits, said.pred_boxes, wanted)

    return answer


def _tokenizer(config: HuggingFaceTeacher) -> Any:
    from transformers import AutoTokenizer

    with told_as(lambda what: TeacherError(f"{config.path}: transformers cannot load its tokenizer: {what}")):
        return AutoTokenizer.from_pretrained(
            config.path, local_files_only=True, trust_remote_code=config.trust_remote_code
        )


class Processed:
    """Images of one size as the folder's image processor makes them ready, with Pillow: whoever computes, the same."""

    def __init__(self, config: HuggingFaceTeacher, network: Any, kind: str) -> None:
        from transformers import AutoImageProcessor

        with told_as(lambda what: TeacherError(f"{config.path}: transformers cannot load its image processor: {what}")):
            self.processor = AutoImageProcessor.from_pretrained(
                config.path, backend="pil", local_files_only=True, trust_remote_code=config.trust_remote_code
            )
        if self.processor.backend != "pil":
            raise RecipeError(
                f"path: the image processor of {config.path} ({type(self.processor).__name__}) computes by torchvision alone; "
                f"export it, `kind: onnx`, or bring its boxes, `kind: predictions`"
            )
        self.network, self.is_square = network, kind in PADS_TO_A_SQUARE and bool(self.processor.do_pad)
        self.takes_mask = "pixel_mask" in inspect.signature(network.forward).parameters

    def __call__(self, images: NDArray[Any]) -> dict[str, Tensor]:
        """What the network takes of images uint8 `[rows, H, W, 3]`, on its device."""
        given = self._made(images)
        names = ["pixel_values", *(["pixel_mask"] if self.takes_mask and "pixel_mask" in given else [])]
        found = {name: given[name].to(self.network.device) for name in names}
        return found | {"pixel_values": found["pixel_values"].to(self.network.dtype)}

    def _made(self, images: NDArray[Any]) -> Mapping[str, Tensor]:
        given: Mapping[str, Tensor] = self.processor(
            images=list(images), return_tensors="pt", input_data_format="channels_last"
        )
        return given

    def frame(self, given: Given, height: int, width: int) -> tuple[float, float]:
        """How much wider and higher than an image of that size the frame is in which the network says where its boxes are: 1 but
        for what was padded, at the right and below."""
        if self.is_square:
            return max(height, width) / width, max(height, width) / height
        if "pixel_mask" not in given:
            return 1.0, 1.0
        there = given["pixel_mask"][0].bool()
        return there.shape[1] / int(there.any(0).sum()), there.shape[0] / int(there.any(1).sum())


def of_zeros(config: HuggingFaceTeacher, network: Any, column: Column) -> dict[str, Tensor]:
    """What the network is given of two images of nothing."""
    images = np.zeros((2, *column.shape[:2], 3), np.uint8)
    return Processed(config, network, str(read(config)["model_type"]))(images)


class Detecting:
    """Canonical images to f32 `[rows, M * 6]`, with the named outputs."""

    def __init__(
        self,
        images: Processed,
        answer: Answering,
        keeping: Keeping,
        name: str,
        at_once: int,
        outputs: Outputs | None = None,
    ) -> None:
        self.images, self.answer, self.keeping, self.name, self.at_once = images, answer, keeping, name, at_once
        self.outputs = outputs

    def __call__(self, batch: Batch) -> Said:
        images = images_of(batch[self.name])
        out, more = torch.empty(len(images), self.keeping.max_boxes * len(BOX)), dict[str, Tensor]()
        for which, some in of_one_size(images, self.at_once):
            rows = torch.from_numpy(np.asarray(which))
            boxes, layers = self._of_one_size(some)
            out[rows] = boxes.cpu()
            for name, values in layers.items():
                place = more.setdefault(name, torch.empty(len(images), *values.shape[1:]))
                if place.shape[1:] != values.shape[1:]:
                    raise RecipeError(
                        f"outputs.{name}: it gives {[*place.shape[1:]]} of one image and {[*values.shape[1:]]} of another, for their "
                        f"sizes differ; say `pool: mean`, or give images one size (`transfer_set.image_size`)"
                    )
                place[rows] = values.cpu()
        return Said(out, more)

    def _of_one_size(self, images: NDArray[Any]) -> tuple[Tensor, Mapping[str, Tensor]]:
        heard = nullcontext(dict[str, Tensor]()) if self.outputs is None else self.outputs.heard()
        with torch.inference_mode(), heard as layers:
            given = self.images(images)
            said = self.answer(given)
            wider, higher = self.images.frame(given, *images.shape[1:3])
            scale = torch.tensor([wider, higher, wider, higher], device=said.corners.device)
            boxes = self.keeping.rows(Places(said.corners * scale, said.score, said.label))
        return boxes, {} if self.outputs is None else checked(layers, len(images), self.outputs.wanted)
