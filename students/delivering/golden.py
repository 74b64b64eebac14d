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

from teachers.errors import StoreError
from teachers.models.folder import LoadedModel
from teachers.storage.seal import local
from teachers.tasks.space import Space
from teachers.transfer_set.arrow_columns import fixed_size_list, ipc_file
from teachers.transfer_set.columns import INPUT
from teachers.transfer_set.transfer_set import TransferSet

GOLDEN = "golden.arrow"
SAID = "said"
SAME_BOXES = 1e-3
"""Of corners and scores: boxes of a row that differ by less are the same."""
MOST_ROWS, LEAST_ROWS, MOST_BYTES = 64, 4, 2**20
"""As many rows as there is room for."""


@dataclass(frozen=True)
class Golden:
    """`inputs`: as a model's example has them, `{column: [rows, ...]}`; `said`: logits, or numbers in the units of the label, f32 [rows, W]."""

    inputs: Mapping[str, NDArray[Any]]
    said: NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How what is made of a model answers beside it. `largest_difference`: of a probability, or of a number in standard
    deviations of the label; `same_class`: the share of rows of which it says the same, None of numbers."""

    rows: int
    largest_difference: float
    same_class: float | None

    def __str__(self) -> str:
        what = "numbers" if self.same_class is None else f"the same class in {self.same_class:.1%}, probabilities"
        unit = " standard deviations" * (self.same_class is None)
        return f"on {self.rows:,} golden rows: {what} differ by {self.largest_difference:.1e}{unit} at most"


def asked(model: LoadedModel, inputs: Mapping[str, NDArray[Any]]) -> Golden:
    """These rows, with what the model says of them."""
    with torch.inference_mode():
        return Golden(inputs, model(inputs).cpu().numpy())


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
    return bytes(ipc_file(pa.record_batch(columns | {SAID: fixed_size_list(golden.said)})))


def _values(array: pa.Array, shape: Sequence[int]) -> NDArray[Any]:
    values: NDArray[Any] = array.flatten().to_numpy().reshape(len(array), *shape)
    return values


def read_golden(folder: Path, model: LoadedModel) -> Golden | None:
    """Of a model folder; None where it was delivered without. Raises StoreError for a file that holds something else."""
    try:
        batch = pa.ipc.open_file(local(folder, GOLDEN).read_bytes()).get_batch(0)
        columns = model.preprocessor.columns
        inputs = {column.name: _values(batch.column(INPUT + column.name), column.shape) for column in columns}
        said = _values(batch.column(SAID), (model.config.space.width,))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise StoreError(f"{folder / GOLDEN}: holds no rows of this model ({error}); export it again") from error
    return Golden(inputs, said)


def compared(said: NDArray[np.float32], golden: Golden, space: Space) -> Agreement:
    """How `said` of the golden rows, f32 [rows, W], agrees with the model."""
    found, expected = torch.from_numpy(np.array(said)), torch.from_numpy(np.array(golden.said))
    same: torch.Tensor | None = None
    match space.answer:
        case "class_axis":
            same = found.argmax(-1) == expected.argmax(-1)
            difference = found.softmax(-1) - expected.softmax(-1)
        case "class_set":
            same = ((found > 0) == (expected > 0)).all(-1)
            difference = found.sigmoid() - expected.sigmoid()
        case "boxes":
            same = (found - expected).abs().amax(-1) < SAME_BOXES
            difference = found - expected
        case "values":
            difference = (found - expected) / torch.tensor(space.scale or 1.0)
    share = None if same is None else float(same.double().mean())
    return Agreement(len(found), float(difference.abs().nan_to_num(torch.inf).max()), share)
