"""An ONNX graph as a teacher, computed by onnxruntime: inputs and outputs by name, batches of any size or of the graph's.

onnxruntime is imported where it is used: every replica imports this module, and few hold a graph.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config.outputs import NamedOutput
from ..config.published import OnnxTeacher
from ..errors import RecipeError, TeacherError
from ..tasks.space import Space
from ..transfer_set.columns import Column
from ..users_code.calls import told_as, within
from .captured import NAMED
from .detectors.graph import DetectingGraph
from .detectors.session import open_session
from .folded import Answer, Batch, Prepared, answered
from .huggingface import longest_first
from .outputs import checked, pooled
from .preprocess import Preprocessor
from .published_files import graph_classes, onnx_problem
from .teacher import LoadedTeacher
from .text import PADDING

DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}
"""By onnxruntime's name of a type."""
OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of a graph that `preprocess.tokenizer` makes."""


def load(config: OnnxTeacher, columns: Sequence[Column], space: Space) -> LoadedTeacher:
    """Raises RecipeError for inputs and outputs that the graph does not have, TeacherError when it cannot be loaded."""
    if problem := onnx_problem(config):
        raise RecipeError(problem)
    names = graph_classes(config, space)
    if space.answer == "boxes":
        detector = DetectingGraph(config, columns, names, space)
        return LoadedTeacher(names, "boxes", detector, may_not_know=False, as_stored=True)
    preprocessor = Preprocessor(config.preprocess, columns)
    graph, text = Graph(config, preprocessor, len(names)), preprocessor.text
    preparing = graph.prepare if text is not None else None
    more: dict[str, Any] = {"text": text, "preparing": preparing, "sees": preprocessor.sees, "gives_outputs": True}
    return LoadedTeacher(names, config.output, graph, may_not_know=False, **more)


class Graph:
    """Canonical inputs to scores `[rows, width]`."""

    def __init__(self, config: OnnxTeacher, preprocessor: Preprocessor, width: int) -> None:
        self.session = open_session(config.path)
        self.path, self.preprocessor = config.path, preprocessor
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.sources = self._sources(config.inputs)
        self.output = self._output(config.graph_output, width)
        self.outputs = self._named(config.outputs)
        sizes = {each.shape[0] for each in self.inputs.values() if each.shape and isinstance(each.shape[0], int)}
        self.batch_size: int | None = min(sizes, default=None)
        """Rows of every call, where the graph fixes them."""
        self._check(self._made(preprocessor.zeros(2)))

    def prepare(self, batch: Batch) -> Prepared:
        """Rows with what is made of text, the longest first."""
        ready = self.preprocessor.derive(batch)
        return ready, longest_first(ready["tokens"]) if "tokens" in ready else None

    def _sources(self, given: Mapping[str, str] | None) -> dict[str, str | None]:
        """By input of the graph: what is fed there; None: whatever is made, all of it. Raises RecipeError."""
        if strange := [name for name in given or {} if name not in self.inputs]:
            raise RecipeError(f"inputs: {self.path} has no input {strange[0]!r}; it has {', '.join(self.inputs)}")
        of_tokens = self.preprocessor.text is not None
        found: dict[str, str | None] = {name: name for name in OF_TOKENS if of_tokens and name in self.inputs}
        found |= dict(given or {})
        open_ = [name for name in self.inputs if name not in found]
        if open_ and (len(self.inputs) > 1 or found):
            made = [name for name in self._made(self.preprocessor.zeros(1)) if name is not None]
            if lacking := [name for name in open_ if name not in made]:
                raise RecipeError(
                    f"inputs: nobody says what input {lacking[0]!r} of {self.path} gets; there is {', '.join(made)}: "
                    f"`inputs: {{{lacking[0]}: {made[0]}}}`"
                )
        return found | {name: name if len(self.inputs) > 1 or found else None for name in open_}

    def _output(self, given: str | None, width: int) -> str:
        """The output that holds the scores. Raises RecipeError for one that is not there, or of another width."""
        there = {each.name: each for each in self.session.get_outputs()}
        if given is None and len(there) > 1:
            raise RecipeError(f"graph_output: {self.path} has several outputs, {', '.join(there)}: say which")
        name = given if given is not None else next(iter(there))
        if name not in there:
            raise RecipeError(f"graph_output: {self.path} has no output {name!r}; it has {', '.join(there)}")
        shape = there[name].shape
        if there[name].type not in DTYPES or len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != width):
            raise RecipeError(
                f"graph_output: output {name!r} of {self.path} is {there[name].type} {shape}, expected numbers "
                f"[rows, {width}]"
            )
        return name

    def _named(self, wanted: Mapping[str, NamedOutput]) -> Mapping[str, NamedOutput]:
        """`wanted`, where the graph has these outputs, of numbers by rows. Raises RecipeError."""
        there = {each.name: each for each in self.session.get_outputs()}
        for name, each in wanted.items():
            if each.layer not in there:
                near = difflib.get_close_matches(each.layer, there, NAMED, 0.0)
                raise RecipeError(
                    f"outputs.{name}.layer: {self.path} has no output {each.layer!r}; it has {', '.join(near)}. Of a graph only "
                    f"what it gives out can be named: export it with the layer among its outputs"
                )
            if DTYPES.get(there[each.layer].type) not in (np.float32, np.float16, np.float64):
                raise RecipeError(
                    f"outputs.{name}.layer: output {each.layer!r} of {self.path} is {there[each.layer].type}, expected numbers"
                )
        return wanted

    def _made(self, batch: Mapping[str, Any]) -> dict[str | None, NDArray[Any]]:
        """By name what is made of canonical inputs; where that is one array, under None too."""
        ready = self.preprocessor(batch)
        found = ready if isinstance(ready, dict) else {self.preprocessor.columns[0].name: ready, None: ready}
        arrays: dict[str | None, NDArray[Any]] = {name: np.asarray(values) for name, values in found.items()}
        if self.preprocessor.text is None or "tokens" not in arrays:
            return arrays
        tokens = arrays["tokens"]
        there = tokens != PADDING
        width = max(int(there.sum(1).max(initial=0)), 1) if self._takes_any_width() else tokens.shape[1]
        segments = arrays.get("segments", np.zeros_like(tokens))
        made = (np.where(there, tokens, 0), there, segments)
        for name, values in zip(OF_TOKENS, made, strict=True):
            arrays[name] = values[:, :width]
        return arrays

    def _takes_any_width(self) -> bool:
        return not isinstance(self.inputs["input_ids"].shape[1], int) if "input_ids" in self.inputs else False

    def _feed(self, made: Mapping[str | None, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """By input of the graph, in its dtype. Raises RecipeError for what nobody makes."""
        if lacking := [name for name in self.sources.values() if name not in made]:
            told = ", ".join(name for name in made if name is not None)
            raise RecipeError(f"inputs: there is no {lacking[0]!r}; there is {told}")
        types = {name: DTYPES.get(self.inputs[name].type, np.float32) for name in self.sources}
        return {name: made[source].astype(types[name], copy=False) for name, source in self.sources.items()}

    def _check(self, made: Mapping[str | None, NDArray[Any]]) -> None:
        """Raise RecipeError for arrays of another shape than the graph takes."""
        for name, values in self._feed(made).items():
            wanted = self.inputs[name].shape
            fits = len(wanted) == values.ndim and all(
                size == own for size, own in zip(values.shape[1:], wanted[1:], strict=True) if isinstance(own, int)
            )
            if not fits:
                raise RecipeError(
                    f"inputs: input {name!r} of {self.path} takes {['rows', *wanted[1:]]}, and is given "
                    f"{['rows', *values.shape[1:]]}; `preprocess` makes that, `resize` or a `function` another"
                )

    def __call__(self, batch: Batch) -> Answer:
        made = self._made(batch)
        feed = self._feed(made)
        rows = len(next(iter(feed.values())))
        size = self.batch_size or max(rows, 1)
        with told_as(lambda what: TeacherError(f"{self.path}: onnxruntime cannot compute it: {what}")):
            said = [self._run(feed, first, size) for first in range(0, rows, size)]
        scores, *more = (np.concatenate(parts)[:rows] for parts in zip(*said, strict=True))
        there = torch.from_numpy(np.asarray(made["attention_mask"], bool)) if "attention_mask" in made else None
        width = self.preprocessor.text.max_length if self.preprocessor.text is not None else None
        found = {}
        for (name, each), values in zip(self.outputs.items(), more, strict=True):
            with within(f"outputs.{name}"):
                found[name] = pooled(torch.from_numpy(values), each.pool, there, width)
        return answered(scores, checked(found, rows, self.outputs))

    def _run(self, feed: Mapping[str, NDArray[Any]], first: int, size: int) -> list[NDArray[Any]]:
        """The scores of so many rows, and the named outputs; behind the last row rows of nothing, which are cut off."""
        some = {name: values[first : first + size] for name, values in feed.items()}
        lacking = size - len(next(iter(some.values())))
        padded = {
            name: np.pad(values, [(0, lacking), *[(0, 0)] * (values.ndim - 1)], "edge") if lacking else values
            for name, values in some.items()
        }
        found: list[NDArray[Any]] = self.session.run([self.output, *(e.layer for e in self.outputs.values())], padded)
        return found
