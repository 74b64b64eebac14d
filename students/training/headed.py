"""Steps of a student with a head for each teacher (Hydra: Tran et al., 2020), in two phases that the number of a step decides.

In the first the first head answers alone, and after every step the others have its weights; so whenever the second begins, they
begin from it exactly, and a run that was killed in either phase goes on as it would have.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from teachers.models.heads import Heads, Known, head_in, heads_of, with_heads
from teachers.models.transformers_network import lasting_arguments
from teachers.users_code.calls import calling, within

from ..config.hydra import HYDRA, single_steps
from ..objective.heads import OfHeads
from ..objective.objective import Heard
from ..runs.run import Run
from .hinted import HintedStepper
from .steps import Stepper, Work


class Headed(Stepper):
    """A student whose last layer is several."""

    heads: Heads

    def grown(self, module: nn.Module) -> nn.Module:
        """`module` with a head for each teacher in the place of its last layer."""
        assert self.run.hydra is not None
        self.single_steps = self.first_kept = single_steps(self.run.hydra, self.steps)
        zeros = self.preprocessor.of_zeros(2)
        with within("hydra.layer"), calling("model", self.run.model):
            layer = head_in(module, zeros, self.space.width, self.run.hydra.layer)
        number, answer, width = len(self.run.sources), self.space.answer, self.space.width
        module = with_heads(module, layer, number, answer, width, self._known())
        heads = heads_of(module)
        assert heads is not None
        self.heads = heads
        return module

    def _known(self) -> Known | None:
        """What each teacher says something of; None where all know everything."""
        known = next(term.late.known for term in self.objective.terms if isinstance(term.late, OfHeads))
        return None if known.all() else [each.nonzero().flatten().tolist() for each in known]

    def uses_all(self, whole: nn.Module | None) -> bool:
        return self.single_steps == 0 and super().uses_all(whole)

    def begin(self, batch: dict[str, Tensor], step: int, batch_number: int | None = None) -> Work:
        if step == self.single_steps:
            self._share_momentum()
        self.heads.alone = step < self.single_steps
        self.moment.has_heads = not self.heads.alone
        return super().begin(batch, step, batch_number)

    @contextmanager
    def in_phase(self, number: Literal[1, 2]) -> Iterator[None]:
        """Step 0 is of this phase meanwhile, however few steps there are."""
        before, self.single_steps = self.single_steps, 2 - number
        try:
            yield
        finally:
            self.single_steps = before

    def _share_momentum(self) -> None:
        """What the optimiser remembers of the one head, all have of it."""
        first, *others = (list(head.parameters()) for head in self.heads.each)
        for other in others:
            for own, theirs in zip(other, first, strict=True):
                if theirs in self.optimizer.state:
                    self.optimizer.state[own] = _copied(self.optimizer.state[theirs])

    def answer(self, work: Work, number: int) -> tuple[Any, Heard]:
        if self.heads.alone:
            return super().answer(work, number)
        with self.heads.keeping():
            said, heard = super().answer(work, number)
        return said, replace(heard, heads=self.heads.taken())

    def end(self, work: Work) -> Tensor:
        terms = super().end(work)
        if self.heads.alone:
            self.heads.as_first()
        return terms


class HeadedAndHinted(Headed, HintedStepper):
    """The same with hints, which are of its body."""


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each.clone() if isinstance(each, Tensor) else each for name, each in state.items()}


def kind_of(run: Run) -> type[Stepper]:
    """What takes the steps of a student."""
    if run.hydra is not None:
        return HeadedAndHinted if run.hints else Headed
    return HintedStepper if run.hints else Stepper


def architecture(run: Run, module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Of a model folder: the import string and the arguments that make `module`, which `run` trains, again."""
    arguments, heads = lasting_arguments(module, run.arguments), heads_of(module)
    if heads is None:
        return run.model, arguments
    return HYDRA, {"of": {"model": run.model, "arguments": arguments}, **heads.arguments()}
