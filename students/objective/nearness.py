"""Hints of several teachers, each row of which counts by who is nearer to its label: CA-MKD's term of features (Zhang et al., 2022).

Each teacher's own last layer reads what the student's projected layer is, where that stands in place of the teacher's. Weights
are a part of the loss: their gradient reaches the student and the projectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.models.linear_head import LinearHead, linear_head
from teachers.soft_targets.alignment import Alignment
from teachers.soft_targets.combine.by_row import ERRORS, by_label
from teachers.tasks.space import Space
from teachers.users_code.calls import within

from ..config.hints import FitNetsHint
from ..runs.run import Run, Source
from .hints import HintAtWork
from .layers import Pairs


@dataclass(frozen=True)
class Reader:
    """A teacher's last layer, in the classes of the transfer set."""

    head: LinearHead
    alignment: Alignment

    def __call__(self, layer: Tensor) -> Tensor:
        """f `[rows, ...]` in place of the teacher's layer to scores f `[rows, width]`, NaN or anything where it knows nothing."""
        return self.alignment(self.head(layer.to(torch.promote_types(layer.dtype, torch.float32))))


@dataclass(frozen=True)
class Nearness:
    """Of the hints that are weighed against each other, by name, who reads for each."""

    answer: AnswerName
    readers: Mapping[str, Reader]
    known: Tensor | None
    """bool `[K, 1, width]`: of which names each says something; None where nobody reads."""

    @classmethod
    def of(cls, run: Run, hints: Sequence[HintAtWork], space: Space, device: torch.device) -> "Nearness":
        """Raises RecipeError for a teacher of whom no model folder is there, or no last layer that is linear."""
        readers = {}
        for hint in hints:
            if isinstance(hint.config, FitNetsHint) and hint.config.combine is not None:
                with within(f"{hint.key}.combine"):
                    reader = reader_of(run.by_name[hint.config.teacher], hint.config.outputs[0], run, space)
                    readers[hint.name] = Reader(reader.head.to(device), reader.alignment.to(device))
        known = [reader.alignment.known.to(device) for reader in readers.values()]
        return cls(space.answer, readers, torch.stack(known)[:, None] if known else None)

    def weights(self, pairs: Mapping[str, Pairs], labels: Tensor) -> dict[str, Tensor]:
        """What each row counts in each of the hints, f `[rows]`, they sum to 1 over hints, or are 0 where nobody knows the label.

        `pairs`: by hint, what projectors made of the student's layer comes first; `labels`: as `usable_labels`.
        """
        if self.known is None:
            return {}
        scores = torch.stack([reader(pairs[name][0][0]) for name, reader in self.readers.items()])
        known = ~scores.isnan() & self.known
        found = by_label(ERRORS[self.answer], scores.masked_fill(~known, 0.0), known, labels)
        return dict(zip(self.readers, found, strict=True))


def reader_of(source: Source, output: str, run: Run, space: Space) -> Reader:
    if source.network is None:
        raise RecipeError(
            f"{source.name!r} is no network in a model folder, so it has no last layer that could be read; remove it"
        )
    model = load_model(source.network, trust=run.trust)
    inputs, width = model.preprocessor.of_zeros(2), model.config.space.width
    head = linear_head(model.module, inputs, width, source.layers[output])
    names = model.config.space.names
    return Reader(head, Alignment.of(names, space, source.class_map, source.probability_floor))
