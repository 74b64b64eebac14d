"""Which layers of a student follow which outputs of a teacher: named, by stage, or at equal distances.

Shapes are of one row, without the rows.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from teachers.errors import RecipeError
from teachers.models.captured import Layer, layer_of, never_called

from ..config.hints import BY_STAGE, Evenly, HintCommon

Shape = tuple[int, ...]
NAMED = 8
"""Layers that a message lists."""


def guided_layers(
    hint: HintCommon, network: nn.Module, layers: Sequence[Layer], width: int, theirs: Sequence[Shape]
) -> list[str]:
    """The student's layer for each of the hint's outputs, whose shapes are `theirs`.

    `layers`: what one call of `network` found; `width`: of its answer. Raises RecipeError for a layer that is not there, is never
    called or gives nothing by rows, and where none corresponds.
    """
    if isinstance(hint.layer, Evenly):
        paths = evenly(hint.layer.evenly, network, len(theirs))
    elif hint.layer == BY_STAGE:
        paths = [by_stage(layers, width, each) for each in theirs]
    else:
        paths = [hint.layer] if isinstance(hint.layer, str) else [*hint.layer]
    found = {layer.path: layer for layer in layers}
    for path in paths:
        layer_of(network, path)
        if path in found and not found[path].num_calls:
            raise RecipeError(never_called(network, path))
        if shape_of(layers, path) is None:
            raise RecipeError(f"layer {path!r} gives nothing that goes by rows; name another")
    return paths


def shape_of(layers: Sequence[Layer], path: str) -> Shape | None:
    return next((layer.shape for layer in layers if layer.path == path), None)


def by_stage(layers: Sequence[Layer], width: int, theirs: Shape) -> str:
    """The last layer whose map has the height and width of `theirs`; for a vector the last before the answer that gives one.

    Of a block the block itself, not what happens to be defined last in it.
    """
    given = {layer.path: layer.shape for layer in layers if layer.shape and layer.num_calls}
    if len(theirs) == 3:
        equal = [path for path, shape in given.items() if len(shape) == 3 and shape[1:] == theirs[1:]]
    elif len(theirs) == 1:
        equal = [path for path, shape in given.items() if len(shape) == 1]
        while equal and given[equal[-1]] == (width,):  # the answer itself, and what holds it
            equal.pop()
    else:
        equal = []
    if not equal:
        raise RecipeError(
            f"no layer of the student is of the stage of an output of {[*theirs]}; it has {_listed(given)}: name one of them"
        )
    path = equal[-1]
    while given.get(above := path.rpartition(".")[0]) == given[path]:
        path = above
    return path


def evenly(path: str, network: nn.Module, number: int) -> list[str]:
    """`number` of the children of the module at `path`: the k-th is block k N / number of N, the last the last."""
    blocks = [f"{path}.{name}" for name, _ in layer_of(network, path).named_children()]
    if len(blocks) < number:
        raise RecipeError(
            f"{path!r} has {len(blocks)} blocks, fewer than the {number} outputs that are to be spread over them; name fewer outputs"
        )
    return [blocks[(place + 1) * len(blocks) // number - 1] for place in range(number)]


def _listed(given: Mapping[str, Shape]) -> str:
    shown = [f"{path} {[*shape]}" for path, shape in given.items()]
    return ", ".join(shown[:NAMED]) + (" ..." if len(shown) > NAMED else "") if shown else "none that goes by rows"
