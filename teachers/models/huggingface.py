"""A folder of Hugging Face's transformers as a teacher of texts, pairs of texts or images; of boxes see `detectors`. Nothing is
fetched. transformers is imported where it is used: every replica imports this module, and few hold such a folder."""

import importlib.util
import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config.preprocess import Tokenizer
from ..config.published import HuggingFaceTeacher
from ..errors import RecipeError, TeacherError
from ..tasks.space import Space
from ..transfer_set.columns import Column
from ..users_code.calls import told_as
from .detectors import huggingface as detectors
from .folded import Batch, Prepared, Scores
from .huggingface_folder import column_kind, folder_classes, folder_problem, no_head, read
from .teacher import LoadedTeacher
from .text import PADDING, TOKENIZER, Tokenized
from .torchvision_build import make_importable
from .truncation import cut_off

log = logging.getLogger(__name__)

AUTO = {"text": "AutoModelForSequenceClassification", "image": "AutoModelForImageClassification"}
AT_ONCE = 4096
"""Texts that are tokenised at once: what is padded to `max_length` for a moment is no larger."""
NO_LIMIT = 1_000_000
"""From here on a tokenizer's `model_max_length` means that it knows none."""


def load(
    config: HuggingFaceTeacher, columns: Sequence[Column], space: Space, device: str | torch.device
) -> LoadedTeacher:
    """Raises RecipeError for a folder that is not what it must be, TeacherError when it cannot be loaded."""
    if problem := folder_problem(config, space.answer):
        raise RecipeError(problem)
    kind = column_kind(read(config))
    names, read_here = folder_classes(config, space), _columns(config, columns, str(kind))
    if space.answer == "boxes":
        auto = detectors.AUTO[bool(config.asked_for)]
        return detectors.load(config, load_network(config, auto, device), read_here[0], space)
    module = load_network(config, AUTO[str(kind)], device)
    if kind == "image":
        images = Images(config, module, read_here[0])
        return LoadedTeacher(names, config.output, images, may_not_know=False, network=module)
    texts = Texts.of(config, module, tuple(column.name for column in read_here))
    more: dict[str, Any] = {"preparing": texts.prepare, "network": module, "positions": texts.tokens.max_length}
    return LoadedTeacher(names, config.output, texts, may_not_know=False, **more)


def load_network(config: HuggingFaceTeacher, auto: str, device: str | torch.device, *, with_head: bool = True) -> Any:
    """The network in the folder, in evaluation mode, by the class `auto` of transformers. `with_head`: the folder must hold
    its head; else that may be of chance. Raises RecipeError or TeacherError."""
    make_importable()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if config.device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise RecipeError(
            "device_map: layers are spread over GPUs by the package accelerate, which is not installed here: "
            "pip install accelerate; or leave `device_map` out"
        )
    more = {"attn_implementation": config.attention, "device_map": config.device_map}
    with _told(config):
        module, found = getattr(transformers, auto).from_pretrained(
            config.path,
            dtype=config.dtype,
            use_safetensors=None if config.allow_pickle else True,
            weights_only=True,
            output_loading_info=True,
            **_offline(config),
            **{name: value for name, value in more.items() if value is not None},
        )
    body = f"{module.base_model_prefix}."
    if missing := sorted(name for name in found["missing_keys"] if with_head or name.startswith(body)):
        raise RecipeError(no_head(config.path, f"no {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}"))
    if config.device_map is None:
        module.to(device)
    return module.eval().requires_grad_(False)


def unloaded(
    config: HuggingFaceTeacher, columns: Sequence[Column], space: Space, device: str
) -> tuple[Any, dict[str, Tensor], int | None]:
    """Its network without weights, what that is given of two rows of zeros, and of text the most tokens of one. Raises as `load`."""
    make_importable()
    import transformers

    kind = str(column_kind(read(config)))
    read_here = _columns(config, columns, kind)
    how: dict[str, Any] = {} if config.attention is None else {"attn_implementation": config.attention}
    how |= {"dtype": torch.float32, "trust_remote_code": config.trust_remote_code}
    with _told(config), torch.device(device):
        about = transformers.AutoConfig.from_pretrained(config.path, **_offline(config))
        network = (
            getattr(transformers, detectors.OF_OWN if space.max_boxes else AUTO[kind]).from_config(about, **how).eval()
        )
    if space.max_boxes:
        return network, detectors.of_zeros(config, network, read_here[0]), None
    if kind == "image":
        images = Images(config, network, read_here[0], "cpu").inputs(np.zeros((2, *read_here[0].shape), np.uint8))
        return network, {"pixel_values": images.to(device)}, None
    longest = Texts.of(config, network, tuple(column.name for column in read_here)).tokens.max_length
    return network, {"input_ids": torch.zeros(2, longest, dtype=torch.int64, device=device)}, longest


def _offline(config: HuggingFaceTeacher) -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": config.trust_remote_code}


def _told(config: HuggingFaceTeacher) -> told_as:
    return told_as(lambda what: TeacherError(f"{config.path}: transformers cannot load it: {what}"))


def _columns(config: HuggingFaceTeacher, columns: Sequence[Column], kind: str) -> list[Column]:
    """The columns that it reads. Raises RecipeError where they are not there, or too many."""
    there = {column.name: column for column in columns if column.kind == kind}
    most = 2 if kind == "text" else 1
    if strange := [name for name in config.columns or () if name not in there]:
        raise RecipeError(
            f"columns: {strange[0]!r} is no {kind} column of the transfer set, which has {', '.join(there) or 'none'}"
        )
    found = [there[name] for name in config.columns or there]
    if not found:
        raise RecipeError(f"path: {config.path} reads {kind}, and no column of the transfer set is {kind}")
    if len(found) > most:
        raise RecipeError(
            f"columns: it reads {'one text, or two that are a pair' if most == 2 else 'one image'}; here are "
            f"{', '.join(there)}: name which"
        )
    return found


@dataclass(frozen=True)
class Texts:
    """Texts, or pairs of them, to scores: tokenised, asked about in the order of their lengths, padded to the longest of a
    batch."""

    network: Any
    tokens: Tokenized
    takes_segments: bool
    """Whether it takes `token_type_ids`: which text of a pair each token is of."""
    padding: int
    pads_left: bool

    @classmethod
    def of(cls, config: HuggingFaceTeacher, network: Any, names: tuple[str, ...]) -> "Texts":
        """Raises RecipeError for a folder without a tokenizer that fits its network."""
        from transformers import AutoTokenizer

        folder = Path(config.path)
        if not (folder / TOKENIZER).is_file():
            raise RecipeError(
                f"path: there is no {TOKENIZER} in {folder}; make it of what is there: `from transformers import "
                f'AutoTokenizer as T; T.from_pretrained("{folder}").save_pretrained("{folder}")`'
            )
        with _told(config):
            about = AutoTokenizer.from_pretrained(folder, **_offline(config))
        length = _max_length(config, network, about.model_max_length)
        tokens = Tokenized.of(Tokenizer(path=str(folder), max_length=length), names)
        check_vocabulary(tokens, network)
        takes = "token_type_ids" in about.model_input_names
        takes &= "token_type_ids" in inspect.signature(network.forward).parameters
        given = network.config.get_text_config().pad_token_id
        padding = given if given is not None else about.pad_token_id or 0
        return cls(network, tokens, takes, padding, about.padding_side == "left")

    def prepare(self, batch: Batch) -> Prepared:
        """Token ids of all rows, at the width of the longest."""
        ready = self._tokenised(batch)
        return ready, longest_first(ready["tokens"])

    def _tokenised(self, batch: Batch) -> dict[str, NDArray[Any]]:
        texts = [batch[name] for name in self.tokens.names]
        made, num_cut = list[dict[str, NDArray[Any]]](), 0
        for first in range(0, len(texts[0]), AT_ONCE):
            some, num_more = self.tokens.counted([text[first : first + AT_ONCE] for text in texts])
            num_cut += num_more
            width = max(int(lengths_of(some["tokens"]).max(initial=0)), 1)
            made.append({name: values[:, :width] for name, values in some.items()})
        if num_cut and not cut_off(num_cut):
            told = "%d of %d texts have more than %d tokens, and what is behind them was cut off (max_length)"
            log.warning(told, num_cut, len(texts[0]), self.tokens.max_length)
        widest = max((each["tokens"].shape[1] for each in made), default=1)
        behind = {"tokens": PADDING, "segments": 0}
        return {name: np.concatenate([_widened(each[name], widest, behind[name]) for each in made]) for name in made[0]}

    def __call__(self, batch: Batch) -> Scores:
        batch = batch if "tokens" in batch else self._tokenised(batch)
        lengths = lengths_of(tokens := batch["tokens"])
        width = max(int(lengths.max(initial=0)), 1)
        place = np.arange(width)
        there = place >= width - lengths[:, None] if self.pads_left else place < lengths[:, None]
        ids = np.full(there.shape, self.padding, np.int64)
        ids[there] = tokens[tokens != PADDING]
        given = {"input_ids": ids, "attention_mask": there.astype(np.int64)}
        if self.takes_segments:
            segments = np.zeros_like(ids)
            if "segments" in batch:
                segments[there] = batch["segments"][tokens != PADDING]
            given["token_type_ids"] = segments
        return said(self.network, {name: torch.from_numpy(values) for name, values in given.items()})


def said(network: Any, given: dict[str, Tensor]) -> Tensor:
    """f32 [rows, C] of what the network says."""
    with torch.inference_mode():
        moved = {name: values.to(network.device) for name, values in given.items()}
        logits: Tensor = network(**moved).logits
    return logits.float()


def lengths_of(tokens: NDArray[Any]) -> NDArray[np.int64]:
    """Of rows `[rows, L]` with padding behind them."""
    found: NDArray[np.int64] = (tokens != PADDING).sum(1)
    return found


def longest_first(tokens: NDArray[Any]) -> NDArray[np.intp]:
    """An order of rows `[rows, L]` in which batches need little padding, and one that does not fit the memory is soon told."""
    return np.argsort(-lengths_of(tokens), kind="stable")


def _widened(values: NDArray[Any], width: int, behind: int) -> NDArray[Any]:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=behind)


def check_vocabulary(tokens: Tokenized, network: Any) -> None:
    """Raise RecipeError for a tokenizer with ids that the network has no embedding of."""
    known = network.get_input_embeddings().num_embeddings
    vocabulary = tokens.tokenizer.get_vocab(with_added_tokens=True)
    if beyond := sorted((number, token) for token, number in vocabulary.items() if number >= known):
        raise RecipeError(
            f"path: {tokens.path} has {len(vocabulary)} tokens, of {known} of which the network has an embedding; it lacks "
            f"{', '.join(f'{token!r} ({number})' for number, token in beyond[:3])}{' ...' * (len(beyond) > 3)}: it is the "
            f"tokenizer of another network"
        )


def _max_length(config: HuggingFaceTeacher, network: nn.Module, of_tokenizer: float) -> int:
    """Tokens of a row: those that the recipe says, or as many as the tokenizer and the network's positions have."""
    limits = [int(of_tokenizer)] if of_tokenizer < NO_LIMIT else []
    positions = getattr(network.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - _positions_before_the_first(network))
    if config.max_length is None and not limits:
        raise RecipeError(f"max_length: nothing in {config.path} says how many tokens it takes; say it")
    if config.max_length is not None and limits and config.max_length > min(limits):
        raise RecipeError(f"max_length: is {config.max_length}, the model in {config.path} takes {min(limits)}")
    return config.max_length or min(limits)


def _positions_before_the_first(network: nn.Module) -> int:
    """RoBERTa and its like count positions from behind that of padding."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


class Images:
    """Canonical images to scores, by the folder's own image processor."""

    def __init__(self, config: HuggingFaceTeacher, network: Any, column: Column, device: str | None = None) -> None:
        """`device`: that prepares images, where the processor can; None: the network's."""
        from transformers import AutoImageProcessor

        with _told(config):
            self.processor = AutoImageProcessor.from_pretrained(config.path, **_offline(config))
        self.network, self.name = network, column.name
        own, channels = getattr(network.config, "num_channels", column.shape[-1]), column.shape[-1]
        self.repeats = own if channels == 1 else 1
        """A grey image is three times the same, as its PNG opened as RGB is."""
        if channels != own and self.repeats == 1:
            raise RecipeError(
                f"path: {config.path} takes images of {own} channels, column {column.name!r} has {channels}"
            )
        on_device = getattr(self.processor, "backend", "") == "torchvision"
        self.more = {"device": device or network.device} if on_device else {}

    def inputs(self, images: NDArray[Any]) -> Tensor:
        """uint8 `[rows, H, W, C]` to what the network takes."""
        images = images if self.repeats == 1 else np.repeat(images, self.repeats, axis=-1)
        told: dict[str, Any] = {"input_data_format": "channels_last", "return_tensors": "pt", **self.more}
        given = self.processor(images=list(images), **told)
        ready: Tensor = given["pixel_values"].to(self.network.dtype)
        return ready

    def __call__(self, batch: Batch) -> Scores:
        return said(self.network, {"pixel_values": self.inputs(batch[self.name])})
