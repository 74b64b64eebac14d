"""Networks that torch computes as teachers: given weights, or a model folder of ours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..config.any_teacher import OutputKind
from ..config.teacher import ModuleTeacher
from ..errors import TeacherError
from ..tasks.space import Space
from ..transfer_set.columns import Column
from .folder import LoadedModel, ModelConfig, load_model
from .modules import network_for
from .preprocess import Preprocessor
from .recode import Recoding
from .state import load_state
from .teacher import LoadedTeacher
from .weights import weights_of


def of_weights(
    config: ModuleTeacher,
    columns: Sequence[Column],
    space: Space,
    trained: Path | None,
    trust: Sequence[str],
    device: str | torch.device,
) -> LoadedTeacher:
    if trained is not None:
        named = [name for name in (config.model, config.preprocess.function) if name is not None]
        return _network(load_model(trained, trust=[*trust, *named], device=device), config.output)
    names = tuple(config.classes or space.names)
    preprocessor = Preprocessor(config.preprocess, columns)
    module = network_for(preprocessor, config.model, config.arguments, num_classes=len(names), classes=names)
    load_state(module, weights_of(config), str(config.weights), TeacherError)
    own = Space(space.task, names, max_boxes=space.max_boxes)
    about = ModelConfig(config.model, config.arguments, own, preprocessor.resolved())
    return _network(LoadedModel(module.to(device), about, preprocessor), config.output)


def _network(model: LoadedModel, output: OutputKind) -> LoadedTeacher:
    network = model.module if model.config.estimator is None else None
    text, sees, names = model.preprocessor.text, model.preprocessor.sees, model.config.classes
    device = model.device if network is not None else None
    return LoadedTeacher(names, output, model, may_not_know=False, text=text, network=network, sees=sees, device=device)


def of_folder(model: LoadedModel, columns: Sequence[Column]) -> LoadedTeacher:
    """A model folder, whose categories have a dictionary of their own."""
    recoded, found = Recoding(model.preprocessor.columns, columns), _network(model, "logits")
    if not recoded.tables:
        return found
    return replace(found, forward=lambda batch: found(recoded(batch)), device=None)  # codes are looked up in arrays
