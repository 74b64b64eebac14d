"""Named outputs of a network: what its layers give of each row, as the recipe pools it. Knows nothing of stores."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config.outputs import NamedOutput, PoolName
from ..errors import RecipeError
from ..users_code.calls import within
from .captured import Captured, layer_of, never_called
from .folded import Batch, Said, said_of
from .teacher import LoadedTeacher
from .text import PADDING


def with_outputs(teacher: LoadedTeacher, wanted: Mapping[str, NamedOutput]) -> LoadedTeacher:
    """The teacher, who gives `wanted` with its scores. Raises RecipeError for a layer that it has not."""
    if not wanted:
        return teacher
    if teacher.network is None:
        raise RecipeError("outputs: it is no network, so it has no layers to name; leave `outputs` out")
    forward, outputs = teacher.forward, Outputs(teacher.network, wanted, teacher.positions)

    def answer(batch: Batch) -> Said:
        with outputs.heard() as found:
            scores = said_of(forward(batch)).scores
        return Said(scores, checked(found, len(scores), wanted))

    return replace(teacher, forward=answer)


class Outputs:
    """The layers of one network that are listened to while somebody calls it. `positions`: as of `LoadedTeacher`."""

    def __init__(self, network: nn.Module, wanted: Mapping[str, NamedOutput], positions: int | None = None) -> None:
        """Raises RecipeError, which begins with `outputs.NAME.layer`, for a layer that the network has not."""
        for name, each in wanted.items():
            with within(f"outputs.{name}.layer"):
                layer_of(network, each.layer)
        self.network, self.wanted, self.positions = network, wanted, positions
        self.captured = Captured(network, [each.layer for each in wanted.values()])
        self.there: Tensor | None = None
        network.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, network: nn.Module, given: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        self.there = tokens_there(given, keywords)

    @contextmanager
    def heard(self) -> Iterator[dict[str, Tensor]]:
        """What is given by the one call of the network inside, f32 `[rows, *shape]` by name; it is there afterwards.

        Raises RecipeError for a layer that is never called, or has no positions to be pooled.
        """
        found: dict[str, Tensor] = {}
        with self.captured.overheard() as seen:
            yield found
        for name, each in self.wanted.items():
            with within(f"outputs.{name}.layer"):
                if each.layer not in seen:
                    raise RecipeError(never_called(self.network, each.layer))
            with within(f"outputs.{name}"):
                found[name] = pooled(seen[each.layer], each.pool, self.there, self.positions)


def tokens_there(given: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor | None:
    """Which positions of what a network is given are tokens of text, bool `[rows, L]`; None: it is no text."""
    if isinstance(mask := keywords.get("attention_mask"), Tensor):
        return mask.bool()
    tokens = given[0] if given else None
    tokens = tokens.get("tokens") if isinstance(tokens, Mapping) else tokens
    if isinstance(tokens, Tensor) and tokens.ndim == 2 and tokens.dtype in (torch.int32, torch.int64):
        return tokens != PADDING
    return None


def pooled(layer: Tensor, pool: PoolName | None, there: Tensor | None = None, positions: int | None = None) -> Tensor:
    """f32 `[rows, *shape]` of what a layer gives, `[rows, D]`, `[rows, L, D]` or `[rows, C, H, W]`.

    `there`: bool `[rows, L']`, tokens of padded text, of which the layer may have seen the first L. With `mean` the others count
    nothing; without, the tokens come first and zeros behind them, so that a row does not depend on those beside it: up to
    `positions`, or L'. Raises RecipeError for the mean of what has no positions.
    """
    values = layer.float()
    if there is not None and (values.ndim != 3 or values.shape[1] > there.shape[1]):
        there = None  # no positions of text: maps, or tokens of its own before them
    if pool == "mean":
        if values.ndim not in (3, 4):
            raise RecipeError(
                f"pool: `mean` is over positions, and the layer gives {[*values.shape[1:]]} of a row, which has none; leave it out"
            )
        if values.ndim == 4:
            return values.mean((2, 3))
        if there is None:
            return values.mean(1)
        there = there[:, : values.shape[1], None]
        return values.masked_fill(~there, 0.0).sum(1) / there.sum(1).clamp_min(1)
    if there is None:
        return values
    longest, there = positions or there.shape[1], there[:, : values.shape[1]]
    first = (~there).to(torch.uint8).argsort(dim=1, stable=True)  # of text that is padded on the left too
    packed = values.masked_fill(~there[..., None], 0.0).gather(1, first[..., None].expand_as(values))
    return nn.functional.pad(packed, (0, 0, 0, longest - values.shape[1]))


def checked(found: Mapping[str, Tensor], rows: int, wanted: Mapping[str, NamedOutput]) -> dict[str, Tensor]:
    """The same, where it goes by rows; else RecipeError."""
    for name, values in found.items():
        if len(values) != rows:
            raise RecipeError(
                f"outputs.{name}.layer: {wanted[name].layer!r} gives {[*values.shape]} for {rows} rows, which does not go by "
                f"rows; name another layer"
            )
    return dict(found)
