"""An estimator as one ONNX graph: from canonical inputs to logits, with nothing of Collegium, torch or its library needed.

Three graphs are joined: the preprocessing and the logits as torch exports them, the estimator as its library's converter
does. The packages come by the extra `onnx` and are imported where they are used.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from teachers.config.task import AnswerName
from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.models.estimator_module import EstimatorModule
from teachers.models.folder import LoadedModel
from teachers.models.foreign import library_of
from teachers.tasks.space import Space
from teachers.users_code.calls import told_as

OPSET = 18
"""Of torch's graphs; the others are raised to it."""
OPSETS = {"": OPSET, "ai.onnx.ml": 3}
OPSET_OF_TREES = 15
"""That the converters of boosted trees know at most."""
FEATURES = "features"
Step = tuple[str, ...]
"""An operator, and the numbers that it takes beside what the step before has made."""
Numbers = dict[str, Any]


class _Features(nn.Module):
    """Canonical inputs to what the estimator takes."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.preprocessor = model.preprocessor

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tensors = self.preprocessor(inputs)
        parts = list(tensors.values()) if isinstance(tensors, dict) else [tensors]
        return torch.cat([part.flatten(1).float() for part in parts], dim=1)


def output_of(space: Space) -> str:
    """What the graph's output is called."""
    return "logits" if space.has_classes else "values"


def _to_logits(floor: float, width: int) -> tuple[list[Step], Numbers]:
    numbers = {"zero": 0.0, "one": 1.0, "share": 1 - floor, "floor": floor / width}
    return [("Clip", "zero", "one"), ("Mul", "share"), ("Add", "floor"), ("Log",)], numbers


def _to_odds(floor: float, width: int) -> tuple[list[Step], Numbers]:
    """log(p / (1 - p)) = -log(1 / p - 1)."""
    steps, numbers = _to_logits(floor, 2)
    return [*steps[:-1], ("Reciprocal",), ("Sub", "one"), ("Log",), ("Neg",)], numbers


OF_PROBABILITIES: dict[AnswerName, Callable[[float, int], tuple[list[Step], Numbers]]] = {
    "class_axis": _to_logits,
    "class_set": _to_odds,
}
"""As `teachers.models.scores.to_logits` has them."""


def _last(module: EstimatorModule) -> Any:
    """What the estimator says to logits of all classes, as `EstimatorModule.forward` has it, or to numbers in the label's units."""
    from onnx import TensorProto, helper, numpy_helper

    about, space, output = module.about, module.space, output_of(module.space)
    places = np.zeros((len(about.columns), space.width), np.float32)
    places[range(len(about.columns)), list(about.columns)] = 1
    steps: list[Step] = [("MatMul", "places")]
    numbers: Numbers = {"places": places}
    if about.learns == "probabilities":
        more, of_them = OF_PROBABILITIES[space.answer](about.floor, space.width)
        steps, numbers = [*steps, *more], numbers | of_them
    elif space.mean:
        steps, numbers = (
            [*steps, ("Mul", "scale"), ("Add", "mean")],
            numbers | {"scale": space.scale, "mean": space.mean},
        )
    made = ["said", *(f"step-{number}" for number in range(1, len(steps))), output]
    nodes = [
        helper.make_node(operator, [made[number], *given], [made[number + 1]])
        for number, (operator, *given) in enumerate(steps)
    ]
    graph = helper.make_graph(
        nodes,
        output,
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, ["rows", len(about.columns)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", space.width])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in sorted(numbers.items())],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def to_onnx(model: LoadedModel) -> bytes:
    """The graph of a delivered estimator: inputs by the names of its columns, output `logits` f32 `[rows, C]`, or `values`.

    Raises EnvironmentUnfit without the packages, CollegiumError for what cannot be converted, with the converter's word.
    """
    module = model.module
    assert isinstance(module, EstimatorModule)
    convert = CONVERTERS[library_of(Path(module.about.file))]
    rows, ready = model.example(), _Features(model)
    try:
        with (
            _quiet(),
            told_as(lambda what: CollegiumError(f"{model.config.model} cannot be converted to ONNX: {what}")),
        ):
            between = max([FEATURES, *rows], key=len) + "_"  # like no column
            first = _exported(ready, (rows, {}), [*rows], between, ({name: {0: "rows"} for name in rows},))
            estimator = _raised(convert(module, ready(rows).shape[1]))
            return _joined(first, between, estimator, _last(module), output_of(module.space))
    except CollegiumError as error:
        if isinstance(lacking := error.__cause__, ModuleNotFoundError):
            raise EnvironmentUnfit(
                f"ONNX needs {lacking.name}, which is not installed: pip install collegium[onnx]"
            ) from None
        raise


def _exported(module: nn.Module, given: tuple[Any, ...], names: list[str], output: str, shapes: Any) -> Any:
    program = torch.onnx.export(
        module.eval(), given, input_names=names, output_names=[output], dynamic_shapes=shapes, dynamo=True,
        opset_version=OPSET, verbose=False,
    )  # fmt: skip
    assert program is not None
    return program.model_proto


def _of_sklearn(module: EstimatorModule, width: int) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    options = {id(module.estimator): {"zipmap": False}} if module.about.learns == "probabilities" else None
    given = [(FEATURES, FloatTensorType([None, width]))]
    graph = convert_sklearn(module.estimator, initial_types=given, options=options, target_opset=OPSETS)
    if isinstance(getattr(module.estimator, "classes_", None), list):  # of each class a table of (holds not, holds)
        _add_that_it_holds(graph.graph, module.estimator.classes_)
    return graph


def _add_that_it_holds(graph: Any, classes: Sequence[Sequence[Any]]) -> None:
    """Of probabilities `[classes, rows, 2]` those that a class holds, `[rows, classes]`, as the last output."""
    from onnx import helper, numpy_helper

    if any(list(each) != [0, 1] for each in classes):
        raise CollegiumError("a class that holds in all rows that were learnt, or in none, has no place in the graph")
    graph.initializer.append(numpy_helper.from_array(np.array(1), "holds"))
    graph.node.append(helper.make_node("Gather", [graph.output[-1].name, "holds"], ["that-it-holds"], axis=2))
    graph.node.append(helper.make_node("Transpose", ["that-it-holds"], ["of-classes"], perm=[1, 0]))
    graph.output.append(helper.make_tensor_value_info("of-classes", 1, ["rows", "classes"]))


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


def _joined(first: Any, between: str, estimator: Any, last: Any, output: str) -> bytes:
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
        node.output[:] = [output if name == f"last.{output}" else name for name in node.output]
    whole.graph.output[0].name = output
    onnx.checker.check_model(whole)
    payload: bytes = whole.SerializeToString(deterministic=True)
    return payload


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell of their own inner life."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "skl2onnx", "onnxmltools")]
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


def _of_classes(said: Tensor, expected: Tensor, space: Space) -> dict[str, float]:
    difference, same = (said.softmax(-1) - expected.softmax(-1)).abs().max(), said.argmax(-1) == expected.argmax(-1)
    return {"largest_difference": float(difference), "same_class": float(same.double().mean())}


def _of_sets(said: Tensor, expected: Tensor, space: Space) -> dict[str, float]:
    difference, same = (said.sigmoid() - expected.sigmoid()).abs().max(), (said > 0) == (expected > 0)
    return {"largest_difference": float(difference), "same_class": float(same.double().mean())}


def _of_numbers(said: Tensor, expected: Tensor, space: Space) -> dict[str, float]:
    return {"largest_difference": float(((said - expected) / torch.tensor(space.scale or (1.0,))).abs().max())}


COMPARED: dict[AnswerName, Callable[[Tensor, Tensor, Space], dict[str, float]]] = {
    "class_axis": _of_classes,
    "class_set": _of_sets,
    "values": _of_numbers,
}


def compared(payload: bytes, model: LoadedModel, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How the graph answers `inputs` beside the model: `rows`, and `largest_difference` of a probability with the `same_class`
    share; of numbers in standard deviations of the label."""
    import onnxruntime

    with told_as(lambda what: CollegiumError(f"{model.config.model} cannot be run by onnxruntime: {what}")):
        session = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"])
    fed = {each.name: np.asarray(inputs[each.name]) for each in session.get_inputs()}
    said, space = torch.from_numpy(session.run(None, fed)[0]), model.config.space
    return {"rows": len(said), **COMPARED[space.answer](said, model(inputs), space)}
