"""Golden rows: some rows of the test split with what the model said of them when it was delivered, kept beside it.

Whatever is made of the model later is asked them before it is given out. Knows nothing of what that is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from teachers.errors import CollegiumError, StoreError
from teachers.models.folder import LoadedModel
from teachers.storage.seal import local
from teachers.tasks.places import LEAST_SCORE, LOGITS, are_queries
from teachers.tasks.space import Space
from teachers.transfer_set.arrow_columns import fixed_size_list, ipc_file
from teachers.transfer_set.columns import INPUT
from teachers.transfer_set.transfer_set import TransferSet

GOLDEN = "golden.arrow"
SAID = "said"
MOST_ROWS, LEAST_ROWS, MOST_BYTES = 64, 4, 2**20
"""As many rows as there is room for."""


@dataclass(frozen=True)
class Golden:
    """`inputs`: as a model's example has them, `{column: [rows, ...]}`; `said`: logits, or numbers in the units of the label, f32
    [rows, W]; of boxes the places that they are taken of, f32 [rows, A, 6 + C]."""

    inputs: Mapping[str, NDArray[Any]]
    said: NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How what is made of a model answers beside it. `largest_difference`: of a probability, of a corner in parts of the image, or
    of a number in standard deviations of the label; `same_class`: the share of rows (of boxes, of places) of which it says the
    same, None of numbers."""

    rows: int
    largest_difference: float
    same_class: float | None

    def __str__(self) -> str:
        what = "numbers" if self.same_class is None else f"the same class in {self.same_class:.1%}, probabilities"
        unit = " standard deviations" * (self.same_class is None)
        return f"on {self.rows:,} golden rows: {what} differ by {self.largest_difference:.1e}{unit} at most"


class AgreementOfBoxes(Agreement):
    def __str__(self) -> str:
        places = f"the same class in {self.same_class:.1%} of all places where something is"
        return f"on {self.rows:,} golden rows: {places}, corners and scores differ by {self.largest_difference:.1e} at most"


def asked(model: LoadedModel, inputs: Mapping[str, NDArray[Any]]) -> Golden:
    """These rows, with what the model says of them."""
    with torch.inference_mode():
        return Golden(inputs, model.given(inputs).cpu().numpy())


def golden_rows(model: LoadedModel, transfer_set: Path) -> bytes | None:
    """The first rows of the test split, in the order of their keys, as an Arrow file; None for who reads text as it is, of
    which nothing else can be made."""
    if any(column.kind == "text" for column in model.preprocessor.columns):
        return None
    data = TransferSet.open(transfer_set).seen(model.preprocessor.sees)
    segment = next(segment for segment in data.of("test") if segment.num_rows)
    room = MOST_BYTES // max(1, sum(values.nbytes for values in model.example(1).values()))
    rows = min(segment.num_rows, max(LEAST_ROWS, min(MOST_ROWS, room)))
    golden = asked(model, model.preprocessor.derive(data.inputs(segment, 0, rows)))
    columns = {INPUT + name: fixed_size_list(values) for name, values in golden.inputs.items()}
    return bytes(ipc_file(pa.record_batch(columns | {SAID: fixed_size_list(golden.said.reshape(rows, -1))})))


def _values(array: pa.Array, shape: Sequence[int]) -> NDArray[Any]:
    values: NDArray[Any] = array.flatten().to_numpy().reshape(len(array), *shape)
    return values


def _shape_of(space: Space) -> tuple[int, ...]:
    """Of a row of what is said; -1: whatever fits."""
    return (-1, LOGITS + len(space.names)) if space.max_boxes else (space.width,)


def read_golden(folder: Path, model: LoadedModel) -> Golden | None:
    """Of a model folder; None where it was delivered without. Raises StoreError for a file that holds something else."""
    try:
        batch = pa.ipc.open_file(local(folder, GOLDEN).read_bytes()).get_batch(0)
        columns = model.preprocessor.columns
        inputs = {column.name: _values(batch.column(INPUT + column.name), column.shape) for column in columns}
        said = _values(batch.column(SAID), _shape_of(model.config.space))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise StoreError(f"{folder / GOLDEN}: holds no rows of this model ({error}); export it again") from error
    return Golden(inputs, said)


def compared(said: NDArray[np.float32], golden: Golden, space: Space) -> Agreement:
    """How `said` of the golden rows, f32 [rows, W], agrees with the model. Raises CollegiumError for another shape."""
    found, expected = torch.from_numpy(np.array(said)), torch.from_numpy(np.array(golden.said))
    if found.shape != expected.shape:
        raise CollegiumError(f"it gives {[*found.shape]} of the golden rows, expected {[*expected.shape]}")
    if space.max_boxes:
        return _places_compared(found, expected)
    same: torch.Tensor | None = None
    match space.answer:
        case "class_axis":
            same = found.argmax(-1) == expected.argmax(-1)
            difference = found.softmax(-1) - expected.softmax(-1)
        case "class_set":
            same = ((found > 0) == (expected > 0)).all(-1)
            difference = found.sigmoid() - expected.sigmoid()
        case "values":
            difference = (found - expected) / torch.tensor(space.scale or 1.0)
    share = None if same is None else float(same.double().mean())
    return Agreement(len(found), float(difference.abs().nan_to_num(torch.inf).max()), share)


def _places_compared(found: torch.Tensor, expected: torch.Tensor) -> Agreement:
    """Corners count where either says something, scores everywhere. Queries have no order: each is compared with its nearest."""
    for row in are_queries(expected).nonzero()[:, 0].tolist():
        found[row] = found[row, _nearest(found[row], expected[row])]
    scores = [each[..., LOGITS:].sigmoid() for each in (found, expected)]
    there = torch.stack([each.amax(-1) >= LEAST_SCORE for each in scores]).any(0)
    same = (scores[0].argmax(-1) == scores[1].argmax(-1))[there]
    corners = (found - expected)[..., :LOGITS].abs() * there[..., None]
    difference = torch.cat([corners, (scores[0] - scores[1]).abs()], -1)
    share = float(same.double().mean()) if len(same) else 1.0
    return AgreementOfBoxes(len(found), float(difference.nan_to_num(torch.inf).max()), share)


def _nearest(found: torch.Tensor, expected: torch.Tensor) -> NDArray[Any]:
    """Which query of `found` each of `expected` is, i64 `[Q]`, every one once."""
    one, other = (torch.cat([each[:, :LOGITS], each[:, LOGITS:].sigmoid()], 1) for each in (found, expected))
    order: NDArray[Any] = linear_sum_assignment(torch.cdist(other, one, p=1).nan_to_num(torch.inf).numpy())[1]
    return order
