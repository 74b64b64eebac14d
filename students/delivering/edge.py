"""An exported graph in 8 bits, judged: calibrated on training rows, asked the test rows, refused where it lost too much.

Knows nothing of folders: who exports says which transfer set the model is of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.errors import CollegiumError, DataError
from teachers.models.folder import LoadedModel
from teachers.tasks.said import said_by
from teachers.transfer_set.transfer_set import TransferSet

from ..measuring.judged import Voice, figures_of
from ..measuring.labelled import ROWS_AT_ONCE, Labelled, rows_at_once
from ..tasks.figure import FIGURES, headline
from .forms import Inputs, said_by_onnx
from .int8 import quantised

CALIBRATION_ROWS = 512
AT_ONCE = 64


@dataclass(frozen=True)
class Judged:
    """How a graph in 8 bits stands beside the one it was made of: figures of the test rows by key, of both; `drop` of the
    headline, in its units where it is a share, else as a share of the graph's own; `calibrated_on`: training rows."""

    payload: bytes
    figures: dict[str, dict[str, float | None]]
    drop: float
    calibrated_on: int
    rows: int

    def document(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "payload"}


def in_8_bits(
    model: LoadedModel, graph: bytes, transfer_set: Path, thresholds: Sequence[float] | None, max_drop: float
) -> Judged:
    """`graph` of `model` in 8 bits. Raises CollegiumError where its headline drops by more than `max_drop`, DataError
    without rows to calibrate or to judge by."""
    data = TransferSet.open(transfer_set).seen(model.preprocessor.sees)
    if data.space.names != model.config.space.names:
        raise DataError(f"{transfer_set}: holds rows of {data.space.names}, the model says {model.config.space.names}")
    _check_images(model, data)
    calibration = list(_training_rows(model, data))
    made = quantised(graph, calibration)
    rows = Labelled.of(data, "test").require("test")
    figures, head = {}, headline(data.space.task)
    for name, payload in (("float32", graph), ("int8", made)):
        said = _asked(payload, rows, data.deriving(model.preprocessor.text))
        found = figures_of(rows, Voice(said, thresholds=thresholds))
        figures[name] = {figure.key: found[figure.key] for figure in FIGURES[data.space.task]}
    drop = _drop(head.sign, head.unit == "share", figures["float32"][head.key], figures["int8"][head.key])
    if drop > max_drop:
        before, after = (head.shown(figures[name][head.key]) for name in ("float32", "int8"))
        raise CollegiumError(
            f"in 8 bits the test {head.label} is {after}, of the graph itself {before}: {drop:.4f} less, {max_drop:g} may be "
            f"(--max-drop), so it is not written"
        )
    return Judged(made, figures, drop, sum(len(next(iter(each.values()))) for each in calibration), len(rows.labels))


def _check_images(model: LoadedModel, data: TransferSet) -> None:
    stored = {column.name: column.shape for column in data.columns if column.kind == "image"}
    for column in model.preprocessor.columns:
        if column.kind == "image" and (there := stored.get(column.name, column.shape)) != column.shape:
            raise DataError(
                f"{data.folder}: holds images of {there[0]} x {there[1]} pixels, the graph takes {column.shape[0]} x "
                f"{column.shape[1]}, and nobody can judge it in 8 bits; leave --size out, or prepare with `decode: on_read`"
            )


def _drop(sign: int, is_share: bool, before: float | None, after: float | None) -> float:
    if before is None or after is None:
        raise DataError("the test rows do not decide the headline figure, so nobody can say what 8 bits cost")
    lost = sign * (before - after)
    return lost if is_share else lost / max(abs(before), 1e-12)


def _training_rows(model: LoadedModel, data: TransferSet) -> Iterator[Inputs]:
    """The first of the split, in the order of their keys: well mixed."""
    left, deriving = CALIBRATION_ROWS, data.deriving(model.preprocessor.text)
    for segment in data.of("train"):
        for first in range(0, min(left, segment.num_rows), AT_ONCE):
            inputs = deriving.inputs(segment, first, min(AT_ONCE, min(left, segment.num_rows) - first))
            yield {column.name: np.asarray(inputs[column.name]) for column in model.preprocessor.columns}
        left -= min(left, segment.num_rows)


def _asked(graph: bytes, rows: Labelled, deriving: TransferSet) -> Tensor:
    """What a graph says of `rows`, f32 `[N, width]`."""
    parts, at_once = [], rows_at_once(deriving, ROWS_AT_ONCE)
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        for first in range(0, segment.num_rows, at_once):
            num_rows = min(at_once, segment.num_rows - first)
            given = torch.from_numpy(np.array(said_by_onnx(graph, deriving.inputs(segment, first, num_rows))))
            parts.append(said_by(given, rows.space)[torch.from_numpy(mask[first : first + num_rows])])
    return torch.cat(parts)
