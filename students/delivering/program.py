"""A network as a program of torch, of any number of rows: for a `.pt2` file, or to make an ONNX graph of.

Knows nothing of estimators, of folders, or of what becomes of it.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram

from teachers.models.folder import LoadedModel
from teachers.tasks.space import Space

OPSET = 18
"""Of every graph."""
LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "onnxscript",
    "onnx_ir",
    "skl2onnx",
    "onnxmltools",
)


@dataclass(frozen=True)
class Sizes:
    """What of its input a graph or program fixes."""

    one_row: bool = False
    """It takes one row at a time; else any number."""
    any_image: bool = False
    """Its images may have any height and width; else those that the model takes."""

    @property
    def free(self) -> dict[int, str]:
        """Axes of every input that are as long as they like, and what they are called."""
        return ({} if self.one_row else {0: "rows"}) | ({1: "height", 2: "width"} if self.any_image else {})


ANY_NUMBER = Sizes()


def output_of(space: Space) -> str:
    """What an output is called."""
    return {"values": "values", "boxes": "places"}.get(space.answer, "logits")


class Places(nn.Module):
    """A detector as a graph has it: images, whatever their size, to what its network gives. The best boxes are taken by who asks it."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.module, (self.column,) = model.module, model.preprocessor.columns

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.module(self.column(inputs[self.column.name])).float()
        return found


def exported(module: nn.Module, rows: Mapping[str, Tensor], sizes: Sizes = ANY_NUMBER) -> ExportedProgram:
    """`module` as it treats `rows`, and any other number, or image, as `sizes` says."""
    given = {name: values[:1] if sizes.one_row else values for name, values in rows.items()}
    free = dict.fromkeys(sizes.free, torch.export.Dim.DYNAMIC)
    how: dict[str, Any] = {"dynamic_shapes": ({name: free for name in rows},)}
    try:
        return torch.export.export(module, (given,), **how)
    except (
        UserError
    ):  # a network that counts its rows by `len`, which Python makes a number of: the other tracer reads its code
        return torch.export.export(module, (given,), strict=True, **how)


def saved(program: ExportedProgram) -> bytes:
    """What `torch.export.load` reads."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def graph_of(program: ExportedProgram, inputs: Sequence[str], output: str, sizes: Sizes = ANY_NUMBER) -> Any:
    """What `exported` gave as an `onnx.ModelProto`."""
    axes = ({name: sizes.free for name in inputs},) if sizes.free else None
    found = torch.onnx.export(
        program,
        input_names=list(inputs),
        output_names=[output],
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        dynamic_shapes=axes,  # which names them
    )
    assert found is not None
    proto = found.model_proto
    for node in (*proto.graph.node, *(inner for function in proto.functions for inner in function.node)):
        del node.metadata_props[:]  # where in whose files a node comes from
    return proto


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell of their own inner life."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for each in loggers:
                each.setLevel(logging.ERROR)
            yield
        finally:
            for each, level in zip(loggers, before, strict=True):
                each.setLevel(level)
