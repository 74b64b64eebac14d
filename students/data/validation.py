"""Looks at validation while a network trains. Opens validation rows only; test rows are the evaluation's."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.models.preprocess import Preprocessor
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.session import Session
from .inputs import Network, preprocessed, stored_columns

ROWS = 512


class Validation:
    """The labelled validation rows; each rank looks at every `world`-th chunk of them. `is_held`: they stay in memory."""

    def __init__(
        self, transfer_set: TransferSet, preprocessor: Preprocessor, session: Session, *, is_held: bool
    ) -> None:
        self.split, self.preprocessor, self.session = MergedSplit(transfer_set, "validation"), preprocessor, session
        self.num_labelled = int((self.split.usable_labels() >= 0).sum())
        self.num_rows = self.split.num_rows if self.num_labelled else 0
        """That a look reads: without a label there is none."""
        self.held: list[tuple[Network, Tensor]] | None = None
        if is_held:
            self.held = list(self._read())

    def look(self, module: nn.Module) -> dict[str, float] | None:
        """`accuracy` and `nll` (nats) of `module`, the same on every rank; None without a labelled row."""
        if not self.num_labelled:
            return None
        sums = torch.zeros(2, dtype=torch.float64, device=self.session.device)
        module.eval()
        with torch.inference_mode():
            for inputs, labels in self.chunks():
                sums += right_and_nll(module(inputs).float(), labels)
        module.train()
        correct, nll = (self.session.all_reduce_sum(sums) / self.num_labelled).tolist()
        return {"accuracy": correct, "nll": nll}

    def chunks(self) -> Iterator[tuple[Network, Tensor]]:
        """This rank's rows, some at a time: inputs, and labels i64 (-1: none)."""
        yield from self.held or self._read()

    def _read(self) -> Iterator[tuple[Network, Tensor]]:
        labels = self.split.usable_labels().astype(np.int64)
        chunks = preprocessed(stored_columns(self.split), self.preprocessor, self.session.device, ROWS)
        for number, inputs in enumerate(chunks):
            if number % self.session.world == self.session.rank:
                yield inputs, torch.tensor(labels[number * ROWS : (number + 1) * ROWS], device=self.session.device)


def right_and_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Rows whose class is right and the sum of -log p(label), f64 `[2]`, over the rows with a label (-1: none)."""
    nll = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none").double().sum()
    return torch.stack([(logits.argmax(-1) == labels).sum().double(), nll])


def is_better(found: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Higher accuracy, and of equals the lower nll."""
    return best is None or (found["accuracy"], -found["nll"]) > (best["accuracy"], -best["nll"])
