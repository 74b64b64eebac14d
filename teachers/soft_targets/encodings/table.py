"""How scores become the fixed-width columns of a store, and back. Knows nothing of files, teachers or losses.

An encoding is one entry of `ENCODINGS`, named by the recipe's own word; the store and its reader take the columns
from it and never look inside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...config.teacher import EncodingName

Array = np.ndarray
FLOOR = -6e4
"""Lowest stored logit - max: float16 ends at -65504."""


@dataclass(frozen=True)
class Field:
    """One column `<output>.<name>`: `shape` and `dtype` of a row."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Encoding:
    output: str
    """What the columns are named after."""
    fields: Callable[[int], tuple[Field, ...]]
    """The columns, for a number of classes."""
    encode: Callable[[Tensor], dict[str, Tensor]]
    """Finite logits float32 [rows, classes] to {field: [rows, *shape]}."""
    decode: Callable[[Mapping[str, Tensor], int, float], Tensor]
    """({field: [rows, *shape]}, classes, probability_floor) to logits float32 [rows, classes], on the fields' device."""


def _dense_fields(num_classes: int) -> tuple[Field, ...]:
    return Field("value", np.dtype("<f2"), (num_classes,)), Field("offset", np.dtype("<f4"))


def _encode_dense(logits: Tensor) -> dict[str, Tensor]:
    offset = logits.amax(dim=1)
    return {"value": (logits - offset[:, None]).clamp_(FLOOR, 0).half(), "offset": offset}


def _decode_dense(fields: Mapping[str, Tensor], num_classes: int, probability_floor: float) -> Tensor:
    return fields["value"].float().add_(fields["offset"][:, None])


def _label_fields(num_classes: int) -> tuple[Field, ...]:
    return (Field("value", np.dtype("<i4")),)


def _encode_label(logits: Tensor) -> dict[str, Tensor]:
    return {"value": logits.argmax(dim=1).int()}


def _decode_label(fields: Mapping[str, Tensor], num_classes: int, probability_floor: float) -> Tensor:
    label = fields["value"].long()
    probability = torch.full((len(label), num_classes), probability_floor / num_classes, device=label.device)
    probability.scatter_(1, label[:, None], 1 - probability_floor + probability_floor / num_classes)
    return probability.log_()


ENCODINGS: dict[EncodingName, Encoding] = {
    "dense": Encoding("logits", _dense_fields, _encode_dense, _decode_dense),
    "label": Encoding("label", _label_fields, _encode_label, _decode_label),
}


def bytes_per_row(encoding: EncodingName, num_classes: int) -> int:
    """Bytes of one row on disk, its `sample_key` included."""
    return 8 + sum(field.nbytes for field in ENCODINGS[encoding].fields(num_classes))


def decode(
    encoding: EncodingName, fields: Mapping[str, Tensor], *, num_classes: int, probability_floor: float = 1e-3
) -> Tensor:
    """The logits float32 [rows, classes] that a batch of stored fields stands for, on the fields' device.

    `dense` gives back the raw logits within float16 of logit - max; `label` the log of (1 - E) onehot + E / classes.
    """
    return ENCODINGS[encoding].decode(fields, num_classes, probability_floor)
