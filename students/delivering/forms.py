"""A delivered model in forms that need no Collegium: an ONNX graph, a program of torch. One way for networks and estimators.

Inputs have the names of its columns, any number of rows; the output is `logits`, or `values` where the model gives numbers.
The packages of ONNX come by the extra `onnx` and are imported where they are used.
"""

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from teachers.errors import CollegiumError, EnvironmentUnfit, UsersCodeError
from teachers.models.folder import LoadedModel
from teachers.users_code.calls import told_as

from .estimator_graph import joined_graph
from .program import exported, graph_of, output_of, quiet, saved

FormName = Literal["onnx", "pt2"]
Inputs = Mapping[str, NDArray[Any]]
WORD = 240
"""Letters of what an exporter says."""


@dataclass(frozen=True)
class Form:
    file: str
    made_of: Callable[[LoadedModel], bytes]
    """Raises CollegiumError for what has no such form, with the exporter's word; EnvironmentUnfit without the packages."""
    said: Callable[[bytes, Inputs], NDArray[np.float32]]
    """(the file, canonical inputs) to what it says f32[rows, W]."""


def to_onnx(model: LoadedModel) -> bytes:
    """The graph, its weights inside."""
    try:
        with _exporting(model, "ONNX"):
            if model.config.estimator is not None:
                return joined_graph(model)
            rows = model.example()
            graph = graph_of(exported(model, rows), [*rows], output_of(model.config.space))
            payload: bytes = graph.SerializeToString(deterministic=True)
            return payload
    except CollegiumError as error:
        if isinstance(lacking := error.__cause__, ModuleNotFoundError):
            raise EnvironmentUnfit(
                f"ONNX needs {lacking.name}, which is not installed: pip install collegium[onnx]"
            ) from None
        raise


def to_pt2(model: LoadedModel) -> bytes:
    """What `torch.export.load` reads."""
    if model.config.estimator is not None:
        raise CollegiumError(
            f"{model.config.model} is an estimator, and no program of torch: it has a form in ONNX alone"
        )
    with _exporting(model, ".pt2"):
        return saved(exported(model, model.example()))


@contextmanager
def _exporting(model: LoadedModel, form: str) -> Iterator[None]:
    """What an exporter raises is told in one line, shortened; and so is what a network raises when it is asked to trace."""

    def error(what: str) -> CollegiumError:
        told = textwrap.shorten(what, WORD, placeholder=" ...")
        return CollegiumError(f"{model.config.model} cannot be converted to {form}: {told}")

    try:
        with quiet(), told_as(error):
            yield
    except UsersCodeError as raised:
        raise error(raised.what) from raised.__cause__


def said_by_onnx(payload: bytes, inputs: Inputs) -> NDArray[np.float32]:
    """What the graph says in onnxruntime."""
    import onnxruntime

    with told_as(
        lambda what: CollegiumError(f"the graph cannot be run by onnxruntime: {textwrap.shorten(what, WORD)}")
    ):
        session = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"])
    fed = {each.name: np.asarray(inputs[each.name]) for each in session.get_inputs()}
    said: NDArray[np.float32] = session.run(None, fed)[0]
    return said


def said_by_pt2(payload: bytes, inputs: Inputs) -> NDArray[np.float32]:
    """What the program says in torch."""
    program = torch.export.load(io.BytesIO(payload)).module()
    with torch.inference_mode():
        said: NDArray[np.float32] = program({name: torch.tensor(values) for name, values in inputs.items()}).numpy()
    return said


FORMS: dict[FormName, Form] = {
    "onnx": Form("model.onnx", to_onnx, said_by_onnx),
    "pt2": Form("model.pt2", to_pt2, said_by_pt2),
}
