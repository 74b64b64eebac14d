"""Weights from elsewhere: tensors by name out of safetensors or a `.pt` file. Knows nothing of modules."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from ..config.published import TimmTeacher
from ..config.teacher import ModuleTeacher
from ..errors import TeacherError
from .folder import read_safetensors


def weights_of(config: ModuleTeacher | TimmTeacher) -> dict[str, Tensor]:
    path = Path(config.weights or "")
    state = read_safetensors(path, TeacherError) if path.suffix == ".safetensors" else _read_pt(path, config)
    prefix = config.strip_prefix or ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _read_pt(path: Path, config: ModuleTeacher | TimmTeacher) -> dict[str, Tensor]:
    """The tensors of a `.pt` file: a state dict, or one under `state_dict` or `model`, or a pickled module's."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=not config.allow_pickle)
    except FileNotFoundError:
        raise TeacherError(f"{path}: there is no such file") from None
    except UnpicklingError as error:
        raise TeacherError(
            f"{path} holds more than tensors, and unpickling it runs whatever code is in it; "
            f"if you trust who made it, say `allow_pickle: true`, better convert it to safetensors"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise TeacherError(f"{path}: not readable as weights ({error})") from error
    if isinstance(found, nn.Module):
        found = found.state_dict()
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise TeacherError(f"{path} holds a {type(found).__name__}, expected a state dict: tensors by name")
    return dict(found)
