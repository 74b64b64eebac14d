"""The columns of a bundle's files: `sample_key`, and what is kept of an answer. Where nothing is known of a row they are null."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.task import AnswerName
from ..soft_targets.encodings.table import FLOOR
from ..soft_targets.schema import KEY
from ..transfer_set.answer_columns import ANSWER_COLUMNS

Keeps = Literal["scores", "top_k", "labels"]
CLASSES = "classes"
"""Key of the names in a file's own metadata, where readers of predictions look for them."""
SCORES, LARGEST, PROBABILITIES, CLASS = "scores", "largest", "probabilities", "class"
COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
"""Arrow, for Parquet of pyarrow does not read lists of one length some of which are null."""
Make = Callable[[Tensor], list[pa.Array]]
"""Of what is said f32 [rows, width], NaN where it is unknown, the columns beside `sample_key`."""


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=COMPRESSED) as writer:
        yield writer


def columns_of(keeps: Keeps, answer: AnswerName, names: Sequence[str], count: int) -> tuple[pa.Schema, Make]:
    """The schema of a file, and what makes its columns; `count`: of `top_k`."""
    fields, make = FIELDS[keeps](answer, tuple(names), count)
    schema = pa.schema([pa.field(KEY, pa.uint64(), nullable=False), *fields])
    return schema.with_metadata({CLASSES: json.dumps(list(names))}), make


def _scores(answer: AnswerName, names: tuple[str, ...], count: int) -> tuple[list[pa.Field], Make]:
    """As stores have them: f16, of one class of many less the largest, which no softmax sees; numbers in f32."""
    dtype = np.float32 if answer == "values" else np.float16

    def make(said: Tensor) -> list[pa.Array]:
        shifted = said - said.amax(1, keepdim=True) if answer == "class_axis" else said
        kept = said if answer == "values" else shifted.clamp(FLOOR, -FLOOR)
        return [_lists(kept.numpy().astype(dtype), kept.isnan().all(1))]

    return [pa.field(SCORES, pa.list_(pa.from_numpy_dtype(dtype), len(names)))], make


def _top_k(answer: AnswerName, names: tuple[str, ...], count: int) -> tuple[list[pa.Field], Make]:
    """The most probable classes, by their places among the names, and their probabilities."""

    def make(said: Tensor) -> list[pa.Array]:
        found = torch.softmax(said, -1).topk(count, -1)
        unknown = said[:, 0].isnan()
        return [_lists(found.indices.numpy().astype(np.uint32), unknown), _lists(found.values.numpy(), unknown)]

    return [
        pa.field(LARGEST, pa.list_(pa.uint32(), count)),
        pa.field(PROBABILITIES, pa.list_(pa.float32(), count)),
    ], make


def _labels(answer: AnswerName, names: tuple[str, ...], count: int) -> tuple[list[pa.Field], Make]:
    """The name of the class, or those of the classes that hold."""
    columns = ANSWER_COLUMNS[answer]
    kind = columns.said(names, False)[CLASS]
    return [pa.field(CLASS, kind)], lambda said: [columns.answers(said, names, False)[CLASS]]


FIELDS: dict[Keeps, Callable[[AnswerName, tuple[str, ...], int], tuple[list[pa.Field], Make]]] = {
    "scores": _scores,
    "top_k": _top_k,
    "labels": _labels,
}


def _lists(values: NDArray[Any], unknown: Tensor) -> pa.Array:
    """Rows as lists of one length, null where `unknown`."""
    mask = pa.array(unknown.numpy()) if unknown.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1], mask=mask)


def dense_probabilities(
    largest: NDArray[np.uint32], probabilities: NDArray[np.float32], width: int
) -> NDArray[np.float32]:
    """f32 `[rows, width]` of the `k` largest: what they leave is spread evenly over all other classes."""
    rest = (1 - probabilities.sum(1, dtype=np.float64)).clip(0) / (width - probabilities.shape[1])
    dense = np.repeat(rest.astype(np.float32)[:, None], width, 1)
    np.put_along_axis(dense, largest.astype(np.int64), probabilities, 1)
    return dense
