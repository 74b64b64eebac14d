"""The text of training rows by their keys, for a live teacher: what a student trains on has it no more."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..models.text import TextTransform
from ..transfer_set.merged import MergedSplit
from ..transfer_set.transfer_set import TransferSet


class TextOfRows:
    """Text columns as the teacher reads them: what `text` makes of them, or the text itself, which is held in memory."""

    def __init__(self, transfer_set: TransferSet, text: TextTransform | None) -> None:
        names = [column.name for column in transfer_set.columns if column.kind == "text"]
        train = MergedSplit(transfer_set.deriving(text), "train")
        self.keys = train.keys() if names else np.empty(0, np.uint64)
        made = [output.name for output in text.outputs] if text is not None and names else []
        self.rows = {name: rows for name, rows in train.inputs().items() if name in made} if made else {}
        self.texts = {name: train.texts(name) for name in names} if not made else {}

    def of(self, sample_key: NDArray[np.uint64]) -> Mapping[str, NDArray[Any]]:
        """{column: [rows, ...]}; nothing of a transfer set without text."""
        if not len(self.keys):
            return {}
        at = np.searchsorted(self.keys, sample_key)
        found = {name: texts[at] for name, texts in self.texts.items()}
        places, inverse = np.unique(at, return_inverse=True)
        for name, rows in self.rows.items():
            out = torch.empty(len(places), *rows.shape, dtype=rows.dtype)
            rows.gather(places, out)
            found[name] = out.numpy()[inverse]
        return found
