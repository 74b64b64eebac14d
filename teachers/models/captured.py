"""What layers of a network give on the way to its answer, by module path. Knows nothing of what becomes of it.

Hooks cannot see what is no module: a pooling that a `forward` computes by itself has no path.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError

BEST = "last_hidden_state"
"""Of what transformers' models give besides."""
NAMED = 3
"""Layers that a message about a wrong one names."""


@dataclass(eq=False)
class Shelf:
    """Where hooks put what layers give, while somebody waits for it; else nothing is kept, and nothing copied."""

    is_open: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Keeper:
    """The hook of one layer: a copy, for an activation that works in place may follow. Gradients flow through it."""

    shelf: Shelf
    layer: str

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self.shelf.is_open:
            return
        tensor = tensor_of(output)
        if tensor is None:
            raise RecipeError(f"layer {self.layer!r} gives a {type(output).__name__} without a tensor in it")
        self.shelf.kept[self.layer] = tensor.clone()


class Captured(nn.Module):
    """A network that gives `(its output, {layer: tensor})`: of each of `layers`, a module path, what it gave in this call.

    That is what the layer gave, not what an in-place activation has made of it since: it is copied at once. This costs one pass
    over memory of the size of the layer's output, in a training also that of its gradient. Of a layer that is called several
    times it is the last output; of one that gives several things `last_hidden_state`, else the first tensor among them.

    Copies (`deepcopy`, pickle) capture for themselves. The network called alone gives what it always gave, and keeps nothing.
    Raises RecipeError for a layer that is not there, in `forward` for one that was never called or gives no tensor.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.network, self.layers, self.shelf = network, tuple(dict.fromkeys(layers)), Shelf()
        found = {layer: layer_of(network, layer) for layer in self.layers}
        self._hooks = [module.register_forward_hook(Keeper(self.shelf, layer)) for layer, module in found.items()]

    def forward(self, *inputs: Any, **keywords: Any) -> tuple[Any, dict[str, Tensor]]:
        self.shelf.kept = {}
        self.shelf.is_open = True
        try:
            output = self.network(*inputs, **keywords)
        finally:
            self.shelf.is_open = False
        kept, self.shelf.kept = self.shelf.kept, {}
        for layer in self.layers:
            if layer not in kept:
                raise RecipeError(never_called(self.network, layer))
        return output, kept

    @contextmanager
    def overheard(self) -> Iterator[dict[str, Tensor]]:
        """For who calls the network through somebody else: the outputs of `layers`, as far as it has called them."""
        self.shelf.kept, self.shelf.is_open = {}, True
        try:
            yield self.shelf.kept
        finally:
            self.shelf.kept, self.shelf.is_open = {}, False

    def release(self) -> nn.Module:
        """The network, without hooks of ours."""
        for hook in self._hooks:
            hook.remove()
        return self.network


def tensor_of(output: Any) -> Tensor | None:
    """The tensor that counts of what a module gives: `last_hidden_state` where it has one, else the first; None: there is none."""
    if output is None or isinstance(output, Tensor):
        return output
    parts: Iterator[Any]
    if isinstance(output, Mapping):
        parts = iter([output[BEST]] if BEST in output else output.values())
    elif isinstance(getattr(output, BEST, None), Tensor):
        parts = iter([getattr(output, BEST)])
    elif isinstance(output, list | tuple):
        parts = iter(output)
    elif is_dataclass(output):
        parts = (getattr(output, each.name) for each in fields(output))
    else:
        return None
    for part in parts:
        if (found := tensor_of(part)) is not None:
            return found
    return None


def layer_of(network: nn.Module, layer: str) -> nn.Module:
    """The module at a path inside. Raises RecipeError, which names the nearest, where there is none."""
    named = network.named_modules(remove_duplicate=False)
    paths: dict[str, nn.Module] = {path: module for path, module in named if path}
    if layer not in paths:
        near = difflib.get_close_matches(layer, paths, NAMED, 0.0)
        raise RecipeError(
            f"a {type(network).__name__} has no layer {layer!r}; the nearest of {len(paths)} are "
            f"{', '.join(map(repr, near)) or 'none'}: `collegium teachers ls RECIPE --layers` lists them"
        )
    return paths[layer]


def never_called(network: nn.Module, layer: str) -> str:
    """What to tell of a layer that is there, and that the network's forward does not call."""
    module = layer_of(network, layer)
    inside = [f"{layer}.{name}" for name, _ in module.named_children()]
    named = f"; inside it are {', '.join(map(repr, inside[:NAMED]))}{' ...' * (len(inside) > NAMED)}" if inside else ""
    return (
        f"layer {layer!r} of a {type(network).__name__} is a {type(module).__name__} that is never called, so it gives "
        f"nothing: name a layer that is{named}"
    )


@dataclass(frozen=True)
class Layer:
    """One module of a network, as one call found it."""

    path: str
    kind: str
    """Name of its class."""
    shape: tuple[int, ...] | None
    """Of what it gives of one row, the last time that it is called; None: nothing, or nothing that goes by rows."""
    num_parameters: int
    """With those of the modules inside."""
    num_calls: int


def layers_of(network: nn.Module, *inputs: Any, **keywords: Any) -> list[Layer]:
    """Every module inside, in the order of their definition, after one call with inputs of two rows or more.

    The call is in evaluation mode and without gradients; the network is afterwards as it was. What does not begin with as many
    rows as the network's own output does not go by rows (windows of attention, positions first).
    """
    called: dict[str, list[tuple[int, ...]]] = {}

    def noting(path: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = tensor_of(output)
            called.setdefault(path, []).append(() if tensor is None else tuple(tensor.shape))

        return note

    modules = {path: module for path, module in network.named_modules() if path}
    hooks = [module.register_forward_hook(noting(path)) for path, module in modules.items()]
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            said = tensor_of(network(*inputs, **keywords))
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was
    rows = None if said is None or not said.ndim else len(said)
    return [_layer(path, module, called.get(path, []), rows) for path, module in modules.items()]


def _layer(path: str, module: nn.Module, shapes: Sequence[tuple[int, ...]], rows: int | None) -> Layer:
    last = shapes[-1] if shapes else ()
    by_row = last[1:] if last and last[0] == rows else None
    num_parameters = sum(each.numel() for each in module.parameters())
    return Layer(path, type(module).__name__, by_row, num_parameters, len(shapes))
