"""A detector that takes images of another size than it was trained on. Knows nothing of graphs, or of how good it is there."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from teachers.errors import RecipeError, UsersCodeError
from teachers.models.folder import LoadedModel
from teachers.models.preprocess import Preprocessor
from teachers.transfer_set.images import Resize, resized
from teachers.users_code.calls import calling

from .golden import Golden
from .program import Places
from .source import plans_of


def check_takes_other_sizes(model: LoadedModel) -> None:
    """Raise RecipeError for a model to which all images have one size."""
    columns = model.config.preprocess["columns"]
    if not model.config.space.max_boxes or len(columns) != 1:
        raise RecipeError("--size is of models that say boxes; leave it out")
    if (edge := columns[0]["resize"]) is not None:
        raise RecipeError(f"--size: this network gets {edge} x {edge} pixels (`preprocess.resize`); leave it out")


def at_edge(model: LoadedModel, edge: int) -> LoadedModel:
    """The same network for squares of `edge` pixels, to which images are resized as they were in training."""
    (plan,), (column,) = plans_of(model.config), model.config.preprocess["columns"]
    shape = (edge, edge, plan.shape[2])
    column = column | {"shape": list(shape), "sees": asdict(Resize(edge, plan.fit, plan.resample))}
    preprocess = {**model.config.preprocess, "columns": [column]}
    config = replace(model.config, preprocess=preprocess, inputs=(replace(plan, edge=edge, shape=shape).document(),))
    return LoadedModel(model.module, config, Preprocessor.from_resolved(preprocess, Path()))


def sized(model: LoadedModel, golden: Golden, size: int | Literal["any"]) -> tuple[LoadedModel, list[Golden]]:
    """(the model for squares of so many pixels, or as it is; golden rows that what is made of it is asked, the first of the size
    that it was trained on, where it may be that). Raises RecipeError for a network that takes no other size."""
    check_takes_other_sizes(model)
    if size == "any":  # lower and narrower parts of what there is
        images = {name: each[:, : 3 * each.shape[1] // 4, : each.shape[2] // 2] for name, each in golden.inputs.items()}
    else:
        images = {name: resized(each, Resize(size)) for name, each in golden.inputs.items()}
        model = at_edge(model, size)
    images = {name: np.ascontiguousarray(each) for name, each in images.items()}
    try:
        with calling("model", model.config.model), torch.inference_mode():
            said = Places(model)({name: torch.from_numpy(each) for name, each in images.items()}).numpy()
    except UsersCodeError as error:
        high, wide = next(iter(images.values())).shape[1:3]
        raise RecipeError(
            f"--size {size}: the network takes no images of {high} x {wide} pixels: {error.what}"
        ) from error
    return model, [*[golden] * (size == "any"), Golden(images, said)]
