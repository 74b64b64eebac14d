"""A network that teaches, without its weights: which layers it has and what they give of a row, before anybody is trained or
loaded. Of a folder of ours and of a graph, whose files say both, it is the thing itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config.outputs import NamedOutput, NetworkTeacher
from ..config.preprocess import Preprocess
from ..config.published import HuggingFaceTeacher, OnnxTeacher, TimmTeacher
from ..config.teacher import CheckpointTeacher, ModuleTeacher
from ..errors import CollegiumError, RecipeError
from ..tasks.space import Space
from ..transfer_set.columns import Column
from ..users_code.calls import calling
from . import huggingface, onnx_teacher, timm_teacher
from .captured import Layer, layers_of
from .folded import said_of
from .folder import load_model
from .modules import network_for
from .outputs import Outputs, checked
from .preprocess import Preprocessor
from .published_files import problem_of, timm_classes

ROWS = 2


@dataclass(frozen=True)
class Skeleton:
    """A network and what it is called with: two rows of zeros. `positions`: as of `LoadedTeacher`."""

    network: nn.Module
    inputs: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    positions: int | None = None
    called: str = ""
    """What the recipe calls it."""

    def layers(self) -> list[Layer]:
        """As `layers_of`. Raises RecipeError or UsersCodeError where it cannot be called so."""
        with calling("model", self.called):
            return layers_of(self.network, *self.inputs, **self.keywords)

    def shapes(self, config: NetworkTeacher) -> dict[str, tuple[int, ...]]:
        """Of each named output, of one row. Raises RecipeError, which begins with `outputs.NAME`, for what it cannot give."""
        outputs = Outputs(self.network, config.outputs, self.positions)
        with torch.no_grad(), outputs.heard() as found, calling("model", self.called):
            self.network.eval()(*self.inputs, **self.keywords)
        return {name: tuple(values.shape[1:]) for name, values in checked(found, ROWS, config.outputs).items()}


def skeleton_of(
    config: NetworkTeacher,
    columns: Sequence[Column],
    space: Space,
    trust: Sequence[str] = (),
    trained: Path | None = None,
) -> Skeleton:
    """`columns` and `space`: the transfer set's; of columns no statistics are needed."""
    if isinstance(config, CheckpointTeacher):
        model = load_model(trained or Path(config.path), trust=trust)
        if model.config.estimator is not None:
            raise RecipeError(f"path: {config.path} holds an estimator, which has no layers")
        return Skeleton(model.module, (model.preprocessor.of_zeros(ROWS),), called=model.config.model)
    if isinstance(config, ModuleTeacher):
        return of_module(config.model, config.arguments, config.preprocess, columns, config.classes or space.names)
    if isinstance(config, TimmTeacher):
        return _timm(config, space)
    assert isinstance(config, HuggingFaceTeacher), "an ONNX graph has outputs, no layers"
    return _huggingface(config, columns, space)


def of_module(
    model: str, arguments: Mapping[str, Any], preprocess: Preprocess, columns: Sequence[Column], classes: Sequence[str]
) -> Skeleton:
    """Of a network by its import string: a teacher's or a student's."""
    preprocessor = Preprocessor(preprocess, [_without_statistics(column) for column in columns])
    network = network_for(preprocessor, model, arguments, num_classes=len(classes), classes=tuple(classes))
    return Skeleton(network, (preprocessor.of_zeros(ROWS),), called=model)


def _timm(config: TimmTeacher, space: Space) -> Skeleton:
    if problem := problem_of(config, space.answer):
        raise RecipeError(problem)
    with torch.device("meta"):
        network = timm_teacher.make(config, len(timm_classes(config, space)))
        images = torch.zeros(ROWS, *timm_teacher.fed(network)["input_size"])
    return Skeleton(network, (images,), called=config.architecture or config.weights)


def _huggingface(config: HuggingFaceTeacher, columns: Sequence[Column], space: Space) -> Skeleton:
    """Its layers are those of its configuration: on no device, where its forward needs no values, which most do not."""
    if problem := problem_of(config, space.answer):
        raise RecipeError(problem)
    if config.asked_for:
        raise RecipeError(
            f"outputs: {config.path} is told what to look for, and of such a detector no layers are named; leave it out"
        )
    found = _of_device(config, columns, space, "meta")
    try:
        found.layers()
    except CollegiumError:
        return _of_device(config, columns, space, "cpu")
    return found


def _of_device(config: HuggingFaceTeacher, columns: Sequence[Column], space: Space, device: str) -> Skeleton:
    network, keywords, positions = huggingface.unloaded(config, columns, space, device)
    return Skeleton(network, (), keywords, positions, config.path)


def layers_of_graph(config: OnnxTeacher, columns: Sequence[Column], space: Space) -> list[Layer]:
    """The outputs of an ONNX graph, but for its scores: all of it that can be named."""
    if space.answer == "boxes":
        raise RecipeError(f"outputs: what {config.path} gives are boxes (`decode`), all of it; no layers are named")
    graph = onnx_teacher.load(config, [_without_statistics(column) for column in columns], space).forward
    assert isinstance(graph, onnx_teacher.Graph)
    names = [each.name for each in graph.session.get_outputs() if each.name != graph.output]
    wanted = {f"output_{number}": NamedOutput(layer=name) for number, name in enumerate(names)}
    shapes = graph_outputs(config.model_copy(update={"outputs": wanted}), columns, space)
    return [Layer(name, "output", shape, 0, 1) for name, shape in zip(names, shapes.values(), strict=True)]


def _without_statistics(column: Column) -> Column:
    if column.kind == "text":
        return column
    return replace(column, mean=(0.0,) * column.shape[-1], std=(1.0,) * column.shape[-1])


def output_shapes(
    config: NetworkTeacher,
    columns: Sequence[Column],
    space: Space,
    trust: Sequence[str] = (),
    trained: Path | None = None,
) -> dict[str, tuple[int, ...]]:
    """Of each named output, of one row. Raises RecipeError, which begins with `outputs.NAME`, for what it cannot give."""
    if isinstance(config, OnnxTeacher):
        return graph_outputs(config, columns, space)
    return skeleton_of(config, columns, space, trust, trained).shapes(config)


def graph_outputs(config: OnnxTeacher, columns: Sequence[Column], space: Space) -> dict[str, tuple[int, ...]]:
    """What an ONNX graph gives of a row for each of the named outputs."""
    graph = onnx_teacher.load(config, [_without_statistics(column) for column in columns], space).forward
    assert isinstance(graph, onnx_teacher.Graph)
    said = said_of(graph(graph.preprocessor.zeros(ROWS)))
    return {name: tuple(values.shape[1:]) for name, values in said.more.items()}
