"""A network as a program of torch, of any number of rows: for a `.pt2` file, or to make an ONNX graph of.

Knows nothing of estimators, of folders, or of what becomes of it.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

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


def output_of(space: Space) -> str:
    """What an output is called."""
    return {"values": "values", "boxes": "boxes"}.get(space.answer, "logits")


def exported(module: nn.Module, rows: Mapping[str, Tensor]) -> ExportedProgram:
    """`module` as it treats `rows`, two of them, and any other number."""
    any_number = torch.export.Dim("rows")
    return torch.export.export(module, (dict(rows),), dynamic_shapes=({name: {0: any_number} for name in rows},))


def saved(program: ExportedProgram) -> bytes:
    """What `torch.export.load` reads."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def graph_of(program: ExportedProgram, inputs: Sequence[str], output: str) -> Any:
    """The program as an `onnx.ModelProto`."""
    found = torch.onnx.export(
        program, input_names=list(inputs), output_names=[output], dynamo=True, opset_version=OPSET, verbose=False
    )
    assert found is not None
    return found.model_proto


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
