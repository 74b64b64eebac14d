"""A trained network as a folder: `config.json` and `model.safetensors`, beside whatever else lies there.

Both sides share it: teachers and students are trained into such folders, and a student's folder can teach. Knows
nothing of how a network is trained. A folder may come from anywhere, so it may only name architectures that are known
to be harmless, and that is checked before anything is imported.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..config.named import models_within
from ..config.task import DEFAULT_TASK
from ..errors import CollegiumError, StoreError
from ..storage import seal
from ..tasks.said import said_by
from ..tasks.space import Space
from ..transfer_set.transfer_set import TransferSet
from ..users_code import imports
from ..users_code.calls import calling
from .estimator_module import load_estimator_module
from .foreign import whose_folder
from .modules import network_for
from .preprocess import Preprocessor, is_text, sees_of
from .state import load_state
from .text import files_beside

FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
OWN_ARCHITECTURES = ("teachers.zoo", "students.models")

Vouching = Literal["recipe", "command", "python"]
"""Where somebody says that foreign code may be used."""
VOUCHED: dict[Vouching, Callable[[Sequence[str]], str]] = {
    "recipe": lambda names: f"list it under `trust:` in the recipe: [{', '.join(names)}]",
    "command": lambda names: f"add {' '.join(f'--trust {name}' for name in names)}",
    "python": lambda names: f"pass trust=[{', '.join(map(repr, names))}]",
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything but the weights. `preprocess` is `Preprocessor.resolved()`: no number is left to look up."""

    model: str
    arguments: dict[str, Any]
    space: Space
    preprocess: dict[str, Any]
    inputs: tuple[dict[str, Any], ...] = ()
    """How its columns are made of a source's (`InputPlan.document()`); empty where nobody has said."""
    estimator: dict[str, Any] | None = None
    """Of an estimator, which has a file of its own: `teachers.models.estimator_module.About` as JSON. None: a network."""
    files: Mapping[str, Path] = field(default_factory=dict, compare=False)
    """What `preprocess` needs beside it, by its name in the folder, and where that lies now."""

    @property
    def weights(self) -> str:
        """The file that holds what has been learnt."""
        return WEIGHTS if self.estimator is None else str(self.estimator["file"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or of the numbers."""
        return self.space.names

    def document(self) -> dict[str, Any]:
        """`config.json`; what is not of classes of which one holds says so."""
        space = self.space.document()
        about = {"model": self.model, "arguments": self.arguments, "classes": space.pop("names")}
        return (
            about
            | (space if space["task"] != DEFAULT_TASK else {})
            | {"preprocess": self.preprocess, "inputs": self.inputs}
            | ({} if self.estimator is None else {"estimator": self.estimator})
        )


class LoadedModel(nn.Module):
    """A network with its preprocessing, in evaluation mode, without gradients (`requires_grad_()` gives it some)."""

    def __init__(self, module: nn.Module, config: ModelConfig, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.module, self.config, self.preprocessor = module, config, preprocessor
        self.mean: Tensor | None
        self.scale: Tensor | None
        mean, scale = config.space.mean or None, config.space.scale or None
        self.register_buffer("mean", None if mean is None else torch.tensor(mean), persistent=False)
        self.register_buffer("scale", None if scale is None else torch.tensor(scale), persistent=False)
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))

    def forward(self, inputs: Mapping[str, np.ndarray | Tensor]) -> Tensor:
        """Canonical inputs `{column: [rows, ...]}` to f32 `[rows, W]` on the model's device: logits, boxes, or numbers in the
        units of the label."""
        given = self.given(inputs)
        with calling("model", self.config.model):
            return said_by(given, self.config.space)

    def given(self, inputs: Mapping[str, np.ndarray | Tensor]) -> Tensor:
        """The same but for boxes, which `said_by` takes out of this: of each place one, `[rows, A, 6 + C]`."""
        derived = self.preprocessor.derive(inputs)
        moved = {name: c if is_text(c) else _tensor(c).to(self.device) for name, c in derived.items()}
        ready = self.preprocessor(moved)
        with calling("model", self.config.model):
            found: Tensor = self.module(ready).float()
        return found if self.scale is None or self.mean is None else found * self.scale + self.mean

    def example(self, num_rows: int = 2) -> dict[str, Tensor]:
        """Canonical inputs of zeros: what names, shapes and dtypes it takes. For `torch.export` and the like."""
        wide = [plan["name"] for plan in self.config.inputs if plan["wide"]]
        return self.preprocessor.zeros(num_rows, self.device, wide)


def _tensor(column: np.ndarray | Tensor) -> Tensor:
    if isinstance(column, np.ndarray) and not column.flags.writeable:  # mapped; torch warns of tensors over such memory
        return torch.from_numpy(column.copy())
    return torch.as_tensor(column)


def save_model(folder: Path, state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Write a model folder; what is already there stays, the first writer wins. Tied weights are written twice."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    seal.publish(folder / WEIGHTS, safetensors.torch.save(tensors))
    save_config(folder, config)


def save_config(folder: Path, config: ModelConfig) -> None:
    """Write the `config.json` of a model folder, and first the files that its preprocessing needs."""
    for name, path in config.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        seal.publish(folder / name, path.read_bytes())
    seal.publish(
        folder / CONFIG, json.dumps({"format": FORMAT, **config.document()}, indent=1, allow_nan=False).encode()
    )


def seen_in(folder: Path, transfer_set: TransferSet) -> TransferSet:
    """The rows as the model in `folder` reads encoded images."""
    return transfer_set.seen(sees_of(read_config(folder).preprocess))


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a model folder. Raises StoreError when it is not one."""
    path = folder / CONFIG
    try:
        document = json.loads(seal.local(folder, CONFIG).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = f"is no Collegium model folder, there is no {CONFIG} in it" if folder.exists() else "does not exist"
        raise StoreError(_with_cure(f"{folder} {what}", whose_folder(folder))) from None
    except OSError as error:
        raise StoreError(f"{str(path)[:200]}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(document, dict) or "format" not in document:
        raise StoreError(_with_cure(f"{folder} is no Collegium model folder", whose_folder(folder, document)))
    seal.check_format(document, FORMAT, path)
    for key, kind in PARTS.items():
        if key not in document:
            raise StoreError(f"{path}: there is no key {key!r}; expected the config of a Collegium model")
        if not isinstance(document[key], kind):
            raise StoreError(
                f"{path}: {key} is {document[key]!r:.60}, expected a {kind.__name__}, as Collegium writes it"
            )
    fields = {name: document[name] for name in ("model", "arguments", "preprocess")}
    space = {"task": DEFAULT_TASK, "mean": (), "scale": ()} | {n: document[n] for n in SPACE if n in document}
    try:
        of = Space.from_document(space | {"names": map(str, document["classes"])})
        assert of.answer
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: task, mean or scale are not as Collegium writes them ({error!r})") from error
    inputs = tuple(document.get("inputs", ()))
    try:
        files = files_beside(document["preprocess"], folder)
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: preprocess is not as Collegium writes it ({error!r})") from error
    return ModelConfig(space=of, **fields, inputs=inputs, files=files, estimator=document.get("estimator"))


SPACE = ("task", "mean", "scale", "max_boxes")


PARTS: dict[str, type] = {"model": str, "arguments": dict, "preprocess": dict, "classes": list}


def _with_cure(what: str, whose: str) -> str:
    return f"{what}: {whose}; nothing needs to be removed" if whose else what


def load_model(
    folder: Path,
    *,
    trust: Sequence[str] = (),
    device: str | torch.device = "cpu",
    vouching: Vouching = "recipe",
) -> LoadedModel:
    """Open a model folder.

    `trust` holds import strings, or modules, that it may name besides `teachers.zoo` and `students.models`; `vouching`:
    where whoever asks says so. Raises StoreError when it names others, before these are imported, or when its weights do
    not fit its architecture.
    """
    config = read_config(folder)
    check_trusted(config, trust, folder, vouching)
    try:
        preprocessor = Preprocessor.from_resolved(config.preprocess, folder)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise StoreError(f"{folder / CONFIG}: preprocess is not as Collegium writes it ({error!r})") from error
    if config.estimator is not None:
        return LoadedModel(load_estimator_module(folder, config.estimator, config.space, trust), config, preprocessor)
    told: dict[str, Any] = {"num_classes": len(config.classes), "classes": config.classes}
    module = network_for(preprocessor, config.model, config.arguments, **told)
    load_state(module, read_safetensors(seal.local(folder, WEIGHTS), StoreError), f"{folder / WEIGHTS}", StoreError)
    return LoadedModel(module.to(device), config, preprocessor)


def check_trusted(config: ModelConfig, trust: Sequence[str], folder: Path, vouching: Vouching = "recipe") -> None:
    """Raise StoreError when the folder names code that nobody vouched for. Imports nothing but our own modules."""
    strange = [name for name in foreign_code(config) if name not in trust and name.partition(":")[0] not in trust]
    if strange:
        raise StoreError(
            f"{folder / CONFIG} names {', '.join(map(repr, strange))}, not of Collegium's own architectures "
            f"({', '.join(OWN_ARCHITECTURES)}); if you know what that is, {VOUCHED[vouching](strange)}"
        )


def foreign_code(config: ModelConfig) -> list[str]:
    """The import strings in a folder that are not Collegium's own."""
    # the file of an estimator is opened by its format, whose types are checked
    architecture = [config.model, *models_within(config.arguments)] if config.estimator is None else []
    named = [*architecture[:1], config.preprocess.get("function"), *architecture[1:]]
    return [name for name in dict.fromkeys(str(name) for name in named if name is not None) if not _is_own(name)]


def _is_own(name: str) -> bool:
    if name.partition(":")[0] not in OWN_ARCHITECTURES:
        return False
    return getattr(imports.load(name), "__module__", None) in OWN_ARCHITECTURES


def read_safetensors(path: Path, error: type[CollegiumError]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises `error` when there is none."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise error(f"{path}: there is no such file") from None
    except OSError as found:
        raise error(f"{path}: cannot be read ({found.strerror or found})") from found
    except safetensors.SafetensorError as found:
        raise error(f"{path}: not readable as safetensors ({found})") from found
    return tensors
