"""A fitted estimator as a network: what it says as logits, from whatever a `Preprocessor` makes.

Knows nothing of folders beyond the one file, nor of how an estimator is fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import StoreError, TeacherError
from ..storage import seal
from .estimator_answers import answer
from .estimators import side_by_side
from .formats import load_file, num_numbers
from .preprocess import Inputs

Learns = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class About:
    """What a model folder says of its estimator, beside the file."""

    file: str
    columns: tuple[int, ...]
    """Which of the folder's classes each column of its answer is."""
    learns: Learns
    """What its answer is."""
    floor: float
    """E: probabilities become log((1 - E) p + E / C)."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "columns": list(self.columns)}


class EstimatorModule(nn.Module):
    """Preprocessed inputs, a tensor or a dict of them, to logits f32 `[rows, C]`, on the CPU."""

    def __init__(self, estimator: Any, about: About, num_classes: int) -> None:
        super().__init__()
        self.estimator, self.about, self.num_classes = estimator, about, num_classes

    @property
    def num_numbers(self) -> int:
        """That it has learnt: what stands for a network's parameters."""
        return num_numbers(self.estimator)

    def forward(self, inputs: Inputs) -> Tensor:
        said = torch.from_numpy(np.asarray(answer(self.estimator, side_by_side(inputs), self.about.learns), np.float32))
        scores = torch.zeros(len(said), self.num_classes)
        scores[:, list(self.about.columns)] = said
        if self.about.learns == "logits":
            return scores
        return ((1 - self.about.floor) * scores.clamp(0, 1) + self.about.floor / self.num_classes).log()


def load_estimator_module(
    folder: Path, document: Mapping[str, Any], classes: Sequence[str], trust: Sequence[str]
) -> EstimatorModule:
    """The estimator of a model folder. Raises StoreError when it cannot be opened, or holds types that nobody vouched for.

    `trust`: import strings or types, `package.module:Name` or `package.module.Name`.
    """
    try:
        about = About(**{**document, "columns": tuple(document["columns"])})
        estimator = load_file(seal.local(folder, about.file), [name.replace(":", ".") for name in trust])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder / 'config.json'}: estimator is not as Collegium writes it ({error!r})") from error
    except TeacherError as error:
        raise StoreError(str(error)) from error
    return EstimatorModule(estimator, about, len(classes))
