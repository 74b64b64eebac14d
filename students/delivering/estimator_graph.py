"""An estimator as one ONNX graph: the preprocessing as torch exports it, the estimator as its library's converter does, and
what makes logits of its answer, joined.

The packages come by the extra `onnx` and are imported where they are used.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from teachers.models.estimator_module import EstimatorModule
from teachers.models.folder import LoadedModel
from teachers.models.foreign import library_of

from .program import OPSET, exported, graph_of

OPSETS = {"": OPSET, "ai.onnx.ml": 3}
OPSET_OF_TREES = 15
"""That the converters of boosted trees know at most."""
FEATURES = "features"


class _Features(nn.Module):
    """Canonical inputs to what the estimator takes."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.preprocessor = model.preprocessor

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tensors = self.preprocessor(inputs)
        parts = list(tensors.values()) if isinstance(tensors, dict) else [tensors]
        return torch.cat([part.flatten(1).float() for part in parts], dim=1)


def _logits(module: EstimatorModule, versions: Sequence[tuple[str, int]]) -> Any:
    """What the estimator says to logits of all classes, as `EstimatorModule.forward` has it."""
    from onnx import TensorProto, helper, numpy_helper

    about, classes = module.about, module.num_classes
    places = np.zeros((len(about.columns), classes), np.float32)
    places[range(len(about.columns)), list(about.columns)] = 1
    numbers = {"places": places, "zero": 0.0, "one": 1.0, "share": 1 - about.floor, "floor": about.floor / classes}
    steps = [("MatMul", ["said", "places"])]
    if about.learns == "probabilities":
        steps += [("Clip", ["", "zero", "one"]), ("Mul", ["", "share"]), ("Add", ["", "floor"]), ("Log", [""])]
    nodes = []
    for number, (operator, given) in enumerate(steps):
        names = [f"step-{number - 1}" if name == "" else name for name in given]
        made = "logits" if number == len(steps) - 1 else f"step-{number}"
        nodes.append(helper.make_node(operator, names, [made]))
    used = {name for node in nodes for name in node.input} & set(numbers)
    graph = helper.make_graph(
        nodes,
        "logits",
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, ["rows", len(about.columns)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", classes])],
        [numpy_helper.from_array(np.asarray(numbers[name], np.float32), name) for name in sorted(used)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*version) for version in versions])


def joined_graph(model: LoadedModel) -> bytes:
    """The graph of a delivered estimator: inputs by the names of its columns, output `logits` f32 `[rows, C]`."""
    module = model.module
    assert isinstance(module, EstimatorModule)
    convert = CONVERTERS[library_of(Path(module.about.file))]
    rows, ready = model.example(), _Features(model).eval()
    between = max([FEATURES, *rows], key=len) + "_"  # like no column
    first = graph_of(exported(ready, rows), [*rows], between)
    estimator = _raised(convert(module, ready(rows).shape[1]))
    return _joined(first, between, estimator, _logits(module, [("", OPSET)]))


def _of_sklearn(module: EstimatorModule, width: int) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(module.estimator): {"zipmap": False}} if module.about.learns == "probabilities" else None
    given = [(FEATURES, FloatTensorType([None, width]))]
    return convert_sklearn(module.estimator, initial_types=given, options=options, target_opset=OPSETS)


def _of_xgboost(module: EstimatorModule, width: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    given = [(FEATURES, FloatTensorType([None, width]))]
    return convert_xgboost(module.estimator, initial_types=given, target_opset=OPSET_OF_TREES)


def _of_lightgbm(module: EstimatorModule, width: int) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    given = [(FEATURES, FloatTensorType([None, width]))]
    booster = module.estimator.booster
    return convert_lightgbm(booster, initial_types=given, zipmap=False, target_opset=OPSET_OF_TREES)


def _of_catboost(module: EstimatorModule, width: int) -> Any:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        module.estimator.model.save_model(f"{folder}/model.onnx", format="onnx")
        return onnx.load(f"{folder}/model.onnx")


CONVERTERS: dict[str, Callable[[EstimatorModule, int], Any]] = {
    "skops": _of_sklearn,
    "xgboost": _of_xgboost,
    "lightgbm": _of_lightgbm,
    "catboost": _of_catboost,
}
"""By the library that an estimator is of: (estimator, number of features) -> its graph."""


def _raised(estimator: Any) -> Any:
    """The estimator's graph in the operators of OPSET, with its scores for its only output."""
    import onnx
    from onnx import TensorProto, helper, version_converter

    versions: dict[str, int] = {}
    for used in estimator.opset_import:
        versions[used.domain] = max(versions.get(used.domain, 0), used.version)
    versions.setdefault("", OPSET)
    del estimator.opset_import[:]
    estimator.opset_import.extend(helper.make_opsetid(*version) for version in versions.items())
    graph = estimator.graph
    names = [output.name for output in graph.output]
    scores = names[-1]
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:  # of scores it makes a dictionary a row
        if node.output[0] == scores:
            scores = node.input[0]
        graph.node.remove(node)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["rows", "values"]))
    raised: onnx.ModelProto = version_converter.convert_version(estimator, OPSET)
    return raised


def _joined(first: Any, between: str, estimator: Any, last: Any) -> bytes:
    """One graph of three, checked. `between`: what the first gives the second."""
    import onnx
    from onnx import compose

    version = max(graph.ir_version for graph in (first, estimator, last))
    for graph in (first, estimator, last):
        graph.ir_version = version
        del graph.functions[:], graph.metadata_props[:]
    scores = estimator.graph.output[0].name
    some = compose.merge_models(first, estimator, io_map=[(between, FEATURES)], prefix2="estimator.")
    whole = compose.merge_models(some, last, io_map=[(f"estimator.{scores}", "said")], prefix2="last.")
    for node in whole.graph.node:
        node.output[:] = ["logits" if name == "last.logits" else name for name in node.output]
    whole.graph.output[0].name = "logits"
    onnx.checker.check_model(whole)
    payload: bytes = whole.SerializeToString(deterministic=True)
    return payload
