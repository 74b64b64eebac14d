"""A network of Hugging Face's transformers that is trained here: from a folder, or some of its layers, or from a configuration.

What becomes of it is an ordinary model folder: its configuration stands among the arguments, so that it opens without the
folder that it came from. Nothing is fetched from a hub, and no code of a folder is run.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config.published import HuggingFaceTeacher
from ..errors import RecipeError
from ..users_code.calls import told_as
from .detectors import huggingface as detectors
from .detectors.families import FAMILIES, corners_of
from .huggingface import AUTO, load_network
from .huggingface_folder import check_weights, labels_of, read
from .torchvision_build import make_importable

LAYERS = "layers"
SEGMENTS = "segments"


def make_network(
    path: str | None,
    config: Mapping[str, Any] | str | None,
    init: Mapping[str, Any] | None,
    classes: Sequence[str],
    input_shape: Any,
    vocabulary_size: int | None,
) -> "TransformersNetwork":
    """As `students.models.huggingface` says. Raises RecipeError for what does not fit."""
    if (path is None) == (config is None):
        raise RecipeError("arguments: give `path` (a folder, whose weights it begins with) or `config`, one of them")
    if strange := sorted(set(init or {}) - {LAYERS}):
        raise RecipeError(f"arguments.init: has no {strange[0]!r}; it says which `layers` of the folder are taken")
    sees = isinstance(input_shape, tuple | list) and len(input_shape) == 3
    if path is None:
        if init is not None:
            raise RecipeError("arguments.init: chooses layers of a folder, and there is none; say its `path`")
        assert config is not None
        about = _read_config(config) if isinstance(config, str) else dict(config)
        return TransformersNetwork(_fitting(_made(_auto(about, sees), about, classes), vocabulary_size))
    folder = HuggingFaceTeacher(kind="huggingface", path=path, dtype="float32")
    about = read(folder)
    auto = _auto(about, sees)
    check_weights(folder)
    teacher = load_network(folder, auto, "cpu", with_head=False)
    chosen = (init or {}).get(LAYERS)
    student = _fitting(_made(auto, _shortened(teacher, about, chosen), classes), vocabulary_size)
    student.load_state_dict(_begun_with(teacher, student, chosen, _same_classes(about, classes)))
    return TransformersNetwork(student)


def _auto(about: Mapping[str, Any], sees: bool) -> str:
    """The class of transformers that makes the network. Raises RecipeError for a detector whose scores are no student's."""
    family = FAMILIES.get(str(about.get("model_type")))
    if family is None:
        return AUTO["image" if sees else "text"]
    if family.has_none:
        able = ", ".join(name for name, each in FAMILIES.items() if not each.has_none)
        raise RecipeError(
            f"arguments: a {about['model_type']} says of each query which one class it is, or none; a student says how sure it "
            f"is of each class, as {able} do"
        )
    return detectors.AUTO[False]


def _read_config(file: str) -> dict[str, Any]:
    path = Path(file) / "config.json" if Path(file).is_dir() else Path(file)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"arguments.config: {path} is not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise RecipeError(f"arguments.config: {path} holds no configuration of transformers")
    return found


def _made(auto: str, about: Mapping[str, Any], classes: Sequence[str]) -> Any:
    """The network of a configuration, with weights of chance and a head that knows `classes`."""
    make_importable()
    import transformers

    if "model_type" not in about:
        raise RecipeError("arguments.config: names no `model_type`, for example `distilbert`")
    if "auto_map" in about:
        about = {name: value for name, value in about.items() if name != "auto_map"}  # code of a folder is not run
    names = dict(enumerate(classes))
    about = {
        **{name: value for name, value in about.items() if name not in NOT_OF_THE_NETWORK},
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
    }
    with told_as(lambda what: RecipeError(f"arguments: transformers makes no network of this configuration: {what}")):
        made = transformers.AutoConfig.for_model(**about)
        return getattr(transformers, auto).from_config(made, dtype=torch.float32)


def _fitting(network: Any, vocabulary_size: int | None) -> Any:
    """Raises RecipeError where it has fewer embeddings than ids are made of text."""
    known = getattr(network.config, "vocab_size", None)
    if vocabulary_size is not None and known is not None and vocabulary_size > known:
        raise RecipeError(
            f"arguments: `preprocess` makes {vocabulary_size} ids of text, and a {type(network).__name__} of this "
            f"configuration has an embedding of {known} (vocab_size): it is the tokenizer of another network"
        )
    return network


NOT_OF_THE_NETWORK = ("_name_or_path", "architectures", "dtype", "problem_type", "torch_dtype", "transformers_version")
"""What a configuration says of where it came from, what it was trained for and with."""


def _shortened(teacher: Any, about: Mapping[str, Any], chosen: Sequence[int] | None) -> dict[str, Any]:
    """The configuration of the same network with `chosen` of its layers."""
    if chosen is None:
        return dict(about)
    found: dict[str, Any] = json.loads(teacher.config.to_json_string(use_diff=False))
    _stack(teacher)
    count = _num_layers(teacher)
    if not chosen or [*chosen] != sorted({*chosen}) or not 0 <= min(chosen) <= max(chosen) < count:
        raise RecipeError(
            f"arguments.init.layers: {[*chosen]} are not ascending numbers from 0 to {count - 1}: the folder has {count} layers"
        )
    found[_key_of_layers(teacher.config)] = len(chosen)
    if isinstance(kinds := found.get("layer_types"), list) and len(kinds) == count:
        found["layer_types"] = [kinds[number] for number in chosen]
    return found


def _key_of_layers(config: Any) -> str:
    return str(config.attribute_map.get("num_hidden_layers", "num_hidden_layers"))


def _num_layers(network: Any) -> int:
    return int(getattr(network.config, "num_hidden_layers", 0))


def _stack(network: Any) -> str:
    """The name of the one list that holds all layers, with a dot behind it. Raises RecipeError where there is none."""
    count = _num_layers(network)
    found = [n for n, each in network.named_modules() if isinstance(each, nn.ModuleList) and len(each) == count]
    if len(found) != 1 or not count:
        raise RecipeError(
            f"arguments.init.layers: a {type(network).__name__} has no one list of all its layers, of which some could be "
            f"taken; leave `init` out"
        )
    return f"{found[0]}."


def _begun_with(teacher: Any, student: Any, chosen: Sequence[int] | None, with_head: bool) -> dict[str, Tensor]:
    """The student's state: the teacher's embeddings, chosen layers and, of the same classes, its head; chance elsewhere."""
    given, own = teacher.state_dict(), student.state_dict()
    stack = _stack(teacher) if chosen is not None else ""
    body = f"{teacher.base_model_prefix}."
    found = {}
    for name, tensor in own.items():
        source = name
        if chosen is not None and name.startswith(stack):
            number, dot, rest = name[len(stack) :].partition(".")
            source = f"{stack}{chosen[int(number)]}{dot}{rest}"
        taken = (with_head or name.startswith(body)) and source in given and given[source].shape == tensor.shape
        found[name] = given[source] if taken else tensor
    return found


def _same_classes(about: Mapping[str, Any], classes: Sequence[str]) -> bool:
    """Whether the folder's head knows these classes, in this order."""
    return labels_of(about) == tuple(classes)


class TransformersNetwork(nn.Module):
    """Token ids i32 `[rows, L]`, -1 behind the last (of a pair `{tokens, segments}`), or images f32 `[rows, C, H, W]`, to
    scores f32 `[rows, num_classes]`; of a detector to its queries, f32 `[rows, Q, 6 + num_classes]` (see `teachers.tasks.places`)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.takes_segments = getattr(network.config, "type_vocab_size", 0) > 1
        self.padding = getattr(network.config, "pad_token_id", None) or 0

    @property
    def rebuilt_by(self) -> dict[str, Any]:
        """Arguments that make it again without the folder that it came from."""
        return {"config": {
            name: value
            for name, value in json.loads(self.network.config.to_json_string()).items()
            if name not in NOT_OF_THE_NETWORK
        }}  # fmt: skip

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            said = self.network(pixel_values=inputs)
            return said.logits if "pred_boxes" not in said else queries(said.pred_boxes, said.logits)
        tokens = inputs if isinstance(inputs, Tensor) else inputs["tokens"]
        there = tokens >= 0
        width = tokens.shape[1]
        if not (torch.compiler.is_compiling() or torch.compiler.is_exporting()):  # a graph has one width
            width = max(int(there.sum(1).max()), 1)
        there = there[:, :width]
        ids = tokens[:, :width].to(torch.int64).masked_fill(~there, self.padding)
        given = {"input_ids": ids, "attention_mask": there.to(torch.int64)}
        if self.takes_segments and not isinstance(inputs, Tensor):
            given["token_type_ids"] = inputs[SEGMENTS][:, :width].to(torch.int64)
        logits: Tensor = self.network(**given).logits
        return logits


def queries(boxes: Tensor, logits: Tensor) -> Tensor:
    """Each with its own middle as its point, of `boxes` as centre and size in 0 to 1."""
    corners = corners_of(boxes)
    return torch.cat([corners, (corners[..., :2] + corners[..., 2:]) / 2, logits], -1)


def lasting_arguments(module: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a model folder: what makes the module again from that folder alone, where it says so itself."""
    found: dict[str, Any] = dict(getattr(module, "rebuilt_by", given))
    return found
