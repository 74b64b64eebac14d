"""A delivered model in forms that need no Collegium: an ONNX graph, a program of torch. One way for networks and estimators.

Inputs have the names of its columns, any number of rows; the output is `logits`, `values` where the model gives numbers, or
`places`, of which who asks a detector takes the best boxes.
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
from torch import nn

from teachers.errors import CollegiumError, EnvironmentUnfit, UsersCodeError
from teachers.models.folder import LoadedModel
from teachers.users_code.calls import told_as

from .estimator_graph import joined_graph
from .program import ANY_NUMBER, Places, Sizes, exported, graph_of, output_of, quiet, saved

FormName = Literal["onnx", "pt2"]
Inputs = Mapping[str, NDArray[Any]]
WORD = 240
"""Letters of what an exporter says."""


@dataclass(frozen=True)
class Form:
    file: str
    made_of: Callable[[LoadedModel, Sizes], bytes]
    """Raises CollegiumError for what has no such form, with the exporter's word; EnvironmentUnfit without the packages."""
    said: Callable[[bytes, Inputs], NDArray[np.float32]]
    """(the file, canonical inputs) to what it says f32[rows, W]."""


def to_onnx(model: LoadedModel, sizes: Sizes = ANY_NUMBER) -> bytes:
    """The graph, its weights inside."""
    try:
        with _exporting(model, "ONNX"):
            if model.config.estimator is not None and sizes.one_row:
                raise CollegiumError("an estimator's graph takes any number of rows; leave --one-row out")
            if model.config.estimator is not None:
                return joined_graph(model)
            rows = model.example()
            graph = graph_of(exported(_whole(model), rows, sizes), [*rows], output_of(model.config.space), sizes)
            payload: bytes = graph.SerializeToString(deterministic=True)
            return payload
    except CollegiumError as error:
        if isinstance(lacking := error.__cause__, ModuleNotFoundError):
            raise EnvironmentUnfit(
                f"ONNX needs {lacking.name}, which is not installed: pip install collegium[onnx]"
            ) from None
        raise


def _whole(model: LoadedModel) -> nn.Module:
    """With its preprocessing, up to what a graph gives."""
    return Places(model) if model.config.space.max_boxes else model


def to_pt2(model: LoadedModel, sizes: Sizes = ANY_NUMBER) -> bytes:
    """What `torch.export.load` reads."""
    if model.config.estimator is not None:
        raise CollegiumError(
            f"{model.config.model} is an estimator, and no program of torch: it has a form in ONNX alone"
        )
    with _exporting(model, ".pt2"):
        return saved(exported(_whole(model), model.example(), sizes))


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
    one_row = session.get_inputs()[0].shape[0] == 1
    said: NDArray[np.float32] = np.concatenate([session.run(None, part)[0] for part in calls_of(fed, one_row)])
    return said


def said_by_pt2(payload: bytes, inputs: Inputs) -> NDArray[np.float32]:
    """What the program says in torch."""
    loaded = torch.export.load(io.BytesIO(payload))
    program, ((given,), _) = loaded.module(), loaded.example_inputs
    one_row = len(next(iter(given.values()))) == 1
    with torch.inference_mode():
        parts = [
            program({name: torch.tensor(values) for name, values in part.items()}) for part in calls_of(inputs, one_row)
        ]
    said: NDArray[np.float32] = torch.cat(parts).numpy()
    return said


def calls_of(inputs: Inputs, one_row: bool) -> Iterator[Inputs]:
    """All rows at once, or one after the other."""
    rows = len(next(iter(inputs.values())))
    step = 1 if one_row else max(rows, 1)
    return (
        {name: values[first : first + step] for name, values in inputs.items()}
        for first in range(0, max(rows, 1), step)
    )


FORMS: dict[FormName, Form] = {
    "onnx": Form("model.onnx", to_onnx, said_by_onnx),
    "pt2": Form("model.pt2", to_pt2, said_by_pt2),
}
