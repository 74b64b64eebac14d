"""Several heads on one body (Hydra: Tran et al., 2020): a network's last layer as often as it has teachers, and what they say as one.

Knows nothing of who teaches which head, nor of training.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.task import AnswerName
from ..errors import RecipeError
from .captured import layer_of, layers_of, tensor_of

LOG_ZERO = -1e4
"""Stands for log 0: its exponential is 0, and it is finite."""

Known = Sequence[Sequence[int]]
"""By head, the numbers of the classes, or of the numbers, that it says something of."""


def mean_of_classes(said: Tensor, share: Tensor | None) -> Tensor:
    """The log of the mean probability. With `share` each head has a distribution over what it knows, and in each class those that
    know it are averaged; the result is normalised once more, as teachers of different classes are combined."""
    if share is None:
        return said.log_softmax(-1).logsumexp(0) - math.log(len(said))
    log_p = said.masked_fill(share == 0, LOG_ZERO).log_softmax(-1) + _log(share)
    return log_p.logsumexp(0).log_softmax(-1)


def mean_of_sets(said: Tensor, share: Tensor | None) -> Tensor:
    """Of each class the logit of the mean probability; with `share` of those heads that know it."""
    if share is None:
        return F.logsigmoid(said).logsumexp(0) - F.logsigmoid(-said).logsumexp(0)
    return (F.logsigmoid(said) + _log(share)).logsumexp(0) - (F.logsigmoid(-said) + _log(share)).logsumexp(0)


def mean_of_numbers(said: Tensor, share: Tensor | None) -> Tensor:
    """The mean of each number; with `share` of those heads that know it."""
    return said.mean(0) if share is None else (said * share).sum(0)


def _log(share: Tensor) -> Tensor:
    return torch.where(share > 0, share.clamp_min(torch.finfo(share.dtype).tiny).log(), LOG_ZERO)


MEANS: dict[AnswerName, Callable[[Tensor, Tensor | None], Tensor]] = {
    "class_axis": mean_of_classes,
    "class_set": mean_of_sets,
    "values": mean_of_numbers,
}
"""What heads say as one: functions of `[heads, rows, width]`, and of what each counts in each name `[heads, 1, width]` (None: all
alike), to `[rows, width]`."""


class Heads(nn.Module):
    """Copies of a layer side by side, in its place: what it was given, to what they say as one, `[rows, width]`.

    `known`: None, or of what each says something; of what nobody does all count alike.
    """

    share: Tensor | None

    def __init__(
        self, head: nn.Module, layer: str, number: int, answer: AnswerName, known: Known | None, width: int
    ) -> None:
        super().__init__()
        self.each = nn.ModuleList([head, *(copy.deepcopy(head) for _ in range(number - 1))])
        self.layer, self.answer, self.known = layer, answer, known
        self.alone = False
        """Whether the first answers for all, as long as there is one in truth."""
        self.kept: Tensor | None = None
        self._keeps = False
        share = None if known is None else _share(known, width)
        self.register_buffer("share", share, persistent=False)

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        if self.alone:
            said: Tensor = self.each[0](*inputs, **keywords)
            return said
        several = torch.stack([head(*inputs, **keywords) for head in self.each])
        several = several.to(torch.promote_types(several.dtype, torch.float32))
        if self._keeps:
            self.kept = several
        return MEANS[self.answer](several, self.share)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """While the network is called, what each head says is kept: `taken` gives it."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False

    def taken(self) -> Tensor:
        """What each head said in the last call, `[heads, rows, width]`, f32 or more; nothing is kept of it."""
        assert self.kept is not None
        kept, self.kept = self.kept, None
        return kept

    @torch.no_grad()
    def as_first(self) -> None:
        """Give all heads the weights and buffers of the first."""
        first, *others = self.each
        for other in others:
            for own, theirs in zip(_tensors(other), _tensors(first), strict=True):
                own.copy_(theirs)

    def arguments(self) -> dict[str, Any]:
        """Of `students.models:hydra`, beside the network."""
        known = {} if self.known is None else {"known": [[*map(int, names)] for names in self.known]}
        return {"layer": self.layer, "heads": len(self.each), "answer": self.answer, **known}


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _share(known: Known, width: int) -> Tensor:
    """What each head counts in each name, f32 `[heads, 1, width]`."""
    knows = torch.zeros(len(known), width)
    for head, names in enumerate(known):
        knows[head, [*names]] = 1
    knows[:, knows.sum(0) == 0] = 1
    return (knows / knows.sum(0))[:, None]


def heads_of(network: nn.Module) -> Heads | None:
    """The heads of a Hydra; None of another network."""
    return next((each for each in network.modules() if isinstance(each, Heads)), None)


def with_heads(
    network: nn.Module, layer: str, number: int, answer: AnswerName, width: int, known: Known | None = None
) -> nn.Module:
    """`network` with `number` copies of the layer at a path in that one's place. Raises RecipeError where there is no such layer."""
    head = layer_of(network, layer)
    above, _, name = layer.rpartition(".")
    setattr(network.get_submodule(above), name, Heads(head, layer, number, answer, known, width))
    return network


def head_in(network: nn.Module, inputs: Any, width: int, layer: str | None = None) -> str:
    """The path of the layer whose output, `[rows, width]`, is what `network` gives; of several the smallest, which is the innermost.

    `inputs`: of two rows. `layer`: the path that somebody has named, which is looked at instead. Raises RecipeError where there is
    none, or where that one is no such layer.
    """
    if layer is not None:
        layer_of(network, layer)
    found = [each for each in layers_of(network, inputs) if each.num_calls and each.shape == (width,)]
    last = [each for each in found if each.path == (layer or each.path) and gives_answer(network, inputs, each.path)]
    heads = sorted((each for each in last if each.num_parameters), key=lambda each: each.num_parameters)
    if heads:
        least = [each for each in heads if each.num_parameters == heads[0].num_parameters]
        return max(least, key=lambda each: each.path.count(".")).path
    if layer is not None:
        why = "has no weights" if last else "gives something else than the network itself"
        raise RecipeError(
            f"{layer!r} {why}, and a head is the last layer; leave it out, and the last one is looked for"
        )
    after = f": after the last weights comes {last[-1].path!r}, a {last[-1].kind}" if last else ""
    raise RecipeError(
        f"the last layer of this {type(network).__name__} is no head, for no layer with weights gives what the network gives, "
        f"[rows, {width}]{after}; let its `forward` return what its last layer gives"
    )


def gives_answer(network: nn.Module, inputs: Any, layer: str) -> bool:
    """Whether what the network gives is what this layer gives, as it is: asked by putting something else there."""
    with other_numbers_at(network, layer) as instead:
        said = tensor_of(network(inputs))
    return said is not None and len(instead) == 1 and torch.equal(said, instead[0].to(said.dtype))


@contextmanager
def other_numbers_at(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """At rest and without gradients, each time that a layer is called it gives other numbers of its shape: these."""
    training = {module: module.training for module in network.modules()}
    instead: list[Tensor] = []

    def put(module: nn.Module, given: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return None
        instead.append(torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape).to(output.dtype))
        return instead[-1]

    hook = layer_of(network, layer).register_forward_hook(put)
    network.eval()
    try:
        with torch.no_grad():
            yield instead
    finally:
        hook.remove()
        for module, was in training.items():
            module.training = was
