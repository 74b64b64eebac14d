"""How two stores about the same rows differ: how often they agree, how far apart they are, and in which rows most.

Both are read a block at a time: memory holds a block, and the rows that are told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import StoreError
from ..rows.buffers import empty
from .reader import SoftTargets
from .schema import Spec
from .store import SoftTargetStore

BLOCK_BYTES = 16 << 20
"""Of what one store says of the rows that are compared at once, as float64."""
FLOOR = 1e-3
"""Of a store that keeps classes alone: no divergence is told of it, only whether it agrees."""


@dataclass(frozen=True)
class Row:
    """One of the rows that differ most: its place in the segment, its key, how far the two are apart and what each says."""

    place: int
    sample_key: int
    distance: float
    said: tuple[str, str]


@dataclass(frozen=True)
class Difference:
    """`rows` are compared; of `unknown` one of the two knows nothing, or both.

    `agreement`: the share of rows with the same class, or of classes that both say hold or not; None of numbers. `kl` and `kl_back`:
    mean nats of the second behind the first, and back; None where one keeps classes alone, and of numbers. `rmse`: of numbers,
    by name. `most`: largest first, by KL, or by the largest difference of a number; where neither can be told rows that disagree.
    """

    rows: int
    unknown: int
    agreement: float | None
    kl: float | None
    kl_back: float | None
    rmse: dict[str, float] | None
    most: tuple[Row, ...]


@dataclass(frozen=True)
class Block:
    """Of some rows: `same` f64 [rows], shares in which they agree; `distance`, `back` f64 [rows]; `squared` f64 [rows, numbers]."""

    same: Tensor | None
    distance: Tensor
    back: Tensor | None
    squared: Tensor | None


def difference(first: Path, second: Path, most: int = 10, *, block_bytes: int = BLOCK_BYTES) -> Difference:
    """Compare two whole stores. Raises StoreError for stores of other rows, other classes, or boxes."""
    specs = [SoftTargetStore.open(folder).spec for folder in (first, second)]
    order = _comparable((first, second), (specs[0], specs[1]))
    one, other = SoftTargets.open(first), SoftTargets.open(second)
    is_told = all(spec.encoding != "label" for spec in specs)
    sums, kept, known = np.zeros(3), Most(most), 0
    squared = np.zeros(len(specs[0].names))
    for start, keys, said, theirs in _blocks(one, other, order, block_bytes):
        if not np.array_equal(keys, other.keys(start, len(keys))):
            raise StoreError(
                f"{second}: its keys are not those of {first}, though both name the same rows; verify both"
            )
        both = ~(said.isnan().any(1) | theirs.isnan().any(1))
        block = compared(said[both], theirs[both], specs[0].answer)
        here = np.flatnonzero(both.numpy())
        distance = block.distance if is_told or block.same is None else 1 - block.same
        kept.add(distance.numpy(), start + here, keys[here], said[both], theirs[both])
        known += len(here)
        for number, part in enumerate((block.same, block.distance, block.back)):
            sums[number] += 0 if part is None else float(part.sum())
        squared += 0 if block.squared is None else block.squared.sum(0).numpy()
    mean = sums / max(known, 1)
    has_classes, answer = specs[0].answer != "values", specs[0].answer
    return Difference(
        rows=known,
        unknown=specs[0].num_rows - known,
        agreement=float(mean[0]) if has_classes else None,
        kl=float(mean[1]) if has_classes and is_told else None,
        kl_back=float(mean[2]) if has_classes and is_told else None,
        rmse=None if has_classes else dict(zip(specs[0].names, np.sqrt(squared / max(known, 1)).tolist(), strict=True)),
        most=tuple(kept.rows(specs[0].names, answer)),
    )


def _comparable(folders: tuple[Path, Path], specs: tuple[Spec, Spec]) -> list[int]:
    """Where the first one's names stand in the second."""
    one, other = specs
    if one.segment_digest != other.segment_digest:
        raise StoreError(
            f"{folders[1]} is about the rows {other.segment} {other.segment_digest[:12]}, {folders[0]} about {one.segment} "
            f"{one.segment_digest[:12]}; only stores of the same rows can be compared"
        )
    if one.answer == "boxes" or one.answer != other.answer:
        told = (
            "boxes, which no row has as many of" if one.answer == other.answer else f"{one.answer} and {other.answer}"
        )
        raise StoreError(f"{folders[0]} and {folders[1]} say {told}; classes or numbers of both can be compared")
    if set(one.names) != set(other.names):
        strange = sorted({*one.names} ^ {*other.names})
        raise StoreError(
            f"{folders[0]} and {folders[1]} do not know the same names: {', '.join(strange[:5])} are of one alone; give the teachers "
            f"one `class_map`, or compare their figures in `collegium report`"
        )
    return [other.names.index(name) for name in one.names]


def _blocks(
    one: SoftTargets, other: SoftTargets, order: list[int], block_bytes: int
) -> Iterator[tuple[int, NDArray[np.uint64], Tensor, Tensor]]:
    """(first row, keys of the one, f64 [rows, width] of the one, of the other in the one's order of names)."""
    step = max(block_bytes // (8 * len(order)), 1)
    for start in range(0, one.spec.num_rows, step):
        stop = min(start + step, one.spec.num_rows)
        said, theirs = (_decoded(store, start, stop) for store in (one, other))
        yield start, one.keys(start, stop - start), said, theirs[:, order]


def _decoded(store: SoftTargets, start: int, stop: int) -> Tensor:
    fields = {}
    for name, rows in store.rows().items():
        rows.copy(start, out := empty(stop - start, rows.shape, rows.dtype))
        fields[name] = out
    answer = store.spec.answered
    return answer.encodes.decode(fields, answer.width, FLOOR).double()


def compared(said: Tensor, theirs: Tensor, answer: str) -> Block:
    """f64 [rows, width] each, of which all is known."""
    if answer == "values":
        apart = (said - theirs).abs()
        return Block(None, apart.amax(1) if len(apart) else apart.sum(1), None, apart.square())
    if answer == "class_axis":
        p, q = F.log_softmax(said, 1), F.log_softmax(theirs, 1)
        same = (said.argmax(1) == theirs.argmax(1)).double()
        return Block(same, _kl(p, q).sum(1), _kl(q, p).sum(1), None)
    p, q = (torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], 2) for logits in (said, theirs))
    return Block(((said > 0) == (theirs > 0)).double().mean(1), _kl(p, q).sum((1, 2)), _kl(q, p).sum((1, 2)), None)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return F.kl_div(log_q, log_p, reduction="none", log_target=True)


class Most:
    """The rows of the largest distances so far."""

    def __init__(self, num: int) -> None:
        self.num = num
        self._kept: list[tuple[float, int, int, NDArray[Any], NDArray[Any]]] = []

    def add(
        self,
        distance: NDArray[np.float64],
        places: NDArray[np.int64],
        keys: NDArray[np.uint64],
        said: Tensor,
        theirs: Tensor,
    ) -> None:
        largest = np.argsort(-distance, kind="stable")[: self.num]
        numbers = zip(distance[largest].tolist(), places[largest].tolist(), keys[largest].tolist(), strict=True)
        found = [(*each, said[at].numpy(), theirs[at].numpy()) for each, at in zip(numbers, largest, strict=True)]
        self._kept = sorted([*self._kept, *found], key=lambda each: (-each[0], each[1]))[: self.num]

    def rows(self, names: tuple[str, ...], answer: str) -> Iterator[Row]:
        for distance, place, key, said, theirs in self._kept:
            if distance > 0:
                yield Row(place, key, distance, (_told(said, names, answer), _told(theirs, names, answer)))


def _told(said: NDArray[Any], names: tuple[str, ...], answer: str) -> str:
    """What a row's answer comes to, in words."""
    if answer == "values":
        return ", ".join(f"{value:.6g}" for value in said)
    if answer == "class_axis":
        odds = said - said.max()
        return f"{names[int(said.argmax())]} {1 / np.exp(odds).sum():.3f}"
    return ", ".join(name for name, logit in zip(names, said, strict=True) if logit > 0) or "none"
