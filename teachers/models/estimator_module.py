"""A fitted estimator as a network: what it says as logits, or standardised numbers, from whatever a `Preprocessor` makes.

Knows nothing of folders beyond the one file, nor of how an estimator is fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..config.any_teacher import OutputKind
from ..config.task import AnswerName
from ..errors import StoreError, TeacherError
from ..storage import seal
from ..tasks.space import Space
from .estimator_answers import ESTIMATOR_ANSWERS
from .estimators import side_by_side
from .formats import load_file, num_numbers
from .preprocess import Inputs
from .scores import to_logits

Learns = Literal["probabilities", "logits", "values"]


@dataclass(frozen=True)
class About:
    """What a model folder says of its estimator, beside the file."""

    file: str
    columns: tuple[int, ...]
    """Which of the folder's classes, or numbers, each column of its answer is."""
    learns: Learns
    """What its answer is; `values`: numbers, standardised."""
    floor: float
    """E: probabilities become log((1 - E) p + E / C), or the log-odds of (1 - E) p + E / 2."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "columns": list(self.columns)}


def asked_as(learns: Learns, answer: AnswerName) -> AnswerName:
    """How an estimator is asked that has learnt this of labels whose answers are of kind `answer`."""
    return answer if learns == "probabilities" else "values"


class EstimatorModule(nn.Module):
    """Preprocessed inputs, a tensor or a dict of them, to what a network gives, f32 `[rows, W]`, on the CPU."""

    def __init__(self, estimator: Any, about: About, space: Space) -> None:
        super().__init__()
        self.estimator, self.about, self.space = estimator, about, space

    @property
    def num_numbers(self) -> int:
        """That it has learnt: what stands for a network's parameters."""
        return num_numbers(self.estimator)

    def forward(self, inputs: Inputs) -> Tensor:
        ask = ESTIMATOR_ANSWERS[asked_as(self.about.learns, self.space.answer)].ask
        said = torch.from_numpy(np.asarray(ask(self.estimator, side_by_side(inputs)), np.float32))
        scores = torch.zeros(len(said), self.space.width)
        scores[:, list(self.about.columns)] = said
        output: OutputKind = "probabilities" if self.about.learns == "probabilities" else "logits"
        return to_logits(scores, output, self.about.floor, self.space.answer)


def load_estimator_module(
    folder: Path, document: Mapping[str, Any], space: Space, trust: Sequence[str]
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
    return EstimatorModule(estimator, about, space)
