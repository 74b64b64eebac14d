"""A network with fewer filters than the one that it is made of: those of least L1 norm are gone (Li et al., 2017).

Which layers hang together, torch-pruning finds. A model folder says the shapes that were left, so it opens without that
library; weights are a safetensors file as of every network. Knows nothing of training.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import EnvironmentUnfit, RecipeError
from .modules import make_module

Shapes = Mapping[str, Sequence[int]]
"""Of tensors, by name."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
JUST_ABOVE = 1e-9
"""0.9 of ten filters are nine, whatever floating point makes of 10 * (1 - 0.9)."""


@dataclass(frozen=True)
class Pruning:
    """How a pruned network is made of a whole one."""

    of: Mapping[str, Any]
    """`{model, arguments}` of the whole one."""
    told: Mapping[str, Any]
    """What it takes and gives: the keywords of `make_module`."""
    ratio: float
    keep: tuple[str, ...] = ()

    def whole(self) -> nn.Module:
        """The network before, with weights of chance."""
        if not isinstance(self.of, Mapping) or set(self.of) != {"model", "arguments"}:
            raise RecipeError(
                f"arguments.of: {self.of!r:.60} names nobody whose architecture the recipe knows; name a teacher of `kind: "
                f"module` or `checkpoint`, or a student that is a network"
            )
        return make_module(str(self.of["model"]), self.of["arguments"], **self.told)

    def pruned(self, network: nn.Module) -> nn.Module:
        """`network` itself without the `ratio` of the filters of each layer that have the least L1 norm.

        Of a network without convolutions: without so many hidden units. The last layer gives the scores and stays whole.
        Raises RecipeError for a ratio that leaves nothing of a layer, and for a network that cannot be taken apart.
        """
        prunable = [*_prunable(network)]
        kind = nn.Linear if all(isinstance(part, nn.Linear) for _, part in prunable) else CONVOLUTIONS
        self._check_keep(prunable)
        roots = [(name, part) for name, part in prunable[:-1] if isinstance(part, kind)]
        for name, part in roots:
            if name not in self.keep:
                self._check_left(name, _width(part))
        kept = [part for name, part in prunable if name in self.keep or part is prunable[-1][1]]
        _prune(network, self._example(), self.ratio, kept, kind)
        with torch.no_grad():
            said = network.eval()(self._example())
        network.train()
        if list(said.shape[1:]) != [self.told["num_classes"]]:
            raise RecipeError(
                f"arguments.of: pruned it gives {list(said.shape[1:])} for a row, expected [{self.told['num_classes']}]; list "
                f"the layer that gives the scores under `keep`"
            )
        return network

    def _check_keep(self, prunable: Sequence[tuple[str, nn.Module]]) -> None:
        known = [name for name, _ in prunable]
        if len(prunable) < 2:
            raise RecipeError("arguments.of: it has no hidden layer, so there is nothing that could be pruned")
        for name in self.keep:
            if name not in known:
                raise RecipeError(f"arguments.keep: {name!r} is none of its layers, which are {', '.join(known)}")

    def _check_left(self, name: str, width: int) -> None:
        if int(width * (1 - self.ratio) + JUST_ABOVE) == 0:
            raise RecipeError(
                f"arguments.ratio: {self.ratio:g} leaves nothing of layer {name!r}, which has {width}; a ratio of at most "
                f"{(width - 1) / width:.3g} leaves one of them, or list it under `keep: [{name}]`"
            )

    def _example(self) -> Tensor:
        """Two rows of zeros. Raises RecipeError for a network that takes something else than one array of numbers."""
        shape = self.told["input_shape"]
        if isinstance(shape, Mapping) or self.told.get("vocabulary_size") is not None:
            raise RecipeError("arguments.of: only networks are pruned that take one array of numbers, such as images")
        return torch.zeros(2, *shape)


def make_pruned(
    of: Mapping[str, Any], ratio: float | None, keep: Sequence[str], shapes: Shapes | None, **told: Any
) -> nn.Module:
    """As `students.models.pruned` says; with weights of chance."""
    if (ratio is None) == (shapes is None):
        raise RecipeError("arguments: give `ratio`, which share of each layer's filters goes, for example 0.5")
    if shapes is not None:
        module = Pruning(of, told, 0.0).whole()
        cut_to(module, shapes)
    else:
        if not 0 < cast(float, ratio) < 1:
            raise RecipeError(f"arguments.ratio: {ratio} is no share between 0 and 1, such as 0.5")
        pruning = Pruning(of, told, cast(float, ratio), tuple(keep))
        shapes = changed(pruning.whole(), pruning.pruned(pruning.whole()))
        module = pruning.whole()
        cut_to(module, shapes)
        _begin_anew(module, shapes)
        module.pruning = pruning  # type: ignore[assignment]  # for who begins with the weights of the whole one
    module.rebuilt_by = {"of": dict(of), "shapes": {name: list(shape) for name, shape in shapes.items()}}  # type: ignore[assignment]
    return module


def changed(before: nn.Module, after: nn.Module) -> dict[str, list[int]]:
    """The shapes of `after`, of those tensors that have another one in `before`."""
    whole = before.state_dict()
    return {
        name: list(tensor.shape) for name, tensor in after.state_dict().items() if tensor.shape != whole[name].shape
    }


def cut_to(module: nn.Module, shapes: Shapes) -> None:
    """Leave of each tensor its first numbers along each axis, and tell layers their new widths.

    Raises RecipeError for what is none of its tensors, or larger than it was.
    """
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        try:
            part = module.get_submodule(path)
            tensor = getattr(part, leaf)
            fits = len(shape) == tensor.ndim and all(0 < n <= of for n, of in zip(shape, tensor.shape, strict=True))
        except AttributeError:
            fits = False
        if not fits:
            raise RecipeError(f"arguments.shapes: {name} {[*shape]} is no part of a tensor of this network")
        cut = tensor.detach()[tuple(slice(n) for n in shape)].clone()
        setattr(part, leaf, nn.Parameter(cut, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else cut)
    for path in {name.rpartition(".")[0] for name in shapes}:
        _tell_widths(module.get_submodule(path))


def _tell_widths(part: nn.Module) -> None:
    """Of layers that say how wide they are, what their tensors are now."""
    if isinstance(part, CONVOLUTIONS):
        depthwise = part.groups == part.in_channels
        part.out_channels = part.weight.shape[0]
        part.groups = part.out_channels if depthwise and part.groups > 1 else part.groups
        part.in_channels = part.weight.shape[1] * part.groups
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, NORMS):
        tensor = part.weight if part.weight is not None else part.running_mean
        part.num_features = len(cast(Tensor, tensor))
    elif isinstance(part, nn.LayerNorm):
        part.normalized_shape = tuple(part.weight.shape)
    elif isinstance(part, nn.PReLU):
        part.num_parameters = part.weight.numel()


def _begin_anew(module: nn.Module, shapes: Shapes) -> None:
    """Weights of chance for the widths that were left: a layer's range depends on how many it hears."""
    for path in dict.fromkeys(name.rpartition(".")[0] for name in shapes):
        reset = getattr(module.get_submodule(path), "reset_parameters", None)
        if reset is not None:
            reset()


def _prunable(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in network.named_modules():
        if isinstance(part, (*CONVOLUTIONS, nn.Linear)):
            yield name, part


def _width(part: nn.Module) -> int:
    return int(cast(Tensor, part.weight).shape[0])


def _prune(network: nn.Module, example: Tensor, ratio: float, kept: Sequence[nn.Module], kind: Any) -> None:
    """In place, the least L1 norms of each layer first; layers that are added to each other lose the same filters."""
    try:
        import torch_pruning as pruning
    except ImportError as error:
        raise EnvironmentUnfit(
            f"students.models:pruned needs torch-pruning, which is not installed here ({error}): pip install collegium[pruning]"
        ) from None
    kinds = [*kind] if isinstance(kind, tuple) else [kind]
    importance = pruning.importance.GroupMagnitudeImportance(
        p=1, normalizer=None, group_reduction="first", target_types=kinds
    )
    network.eval()
    pruning.pruner.BasePruner(
        network,
        example,
        importance=importance,
        pruning_ratio=ratio - JUST_ABOVE,
        ignored_layers=[*kept],
        root_module_types=kinds,
    ).step()
    network.train()
