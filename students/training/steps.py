"""One optimiser step of one network, on this rank's share of a global batch.

Every draw of a step is a function of (seed, step, place in the global batch), so the position is all that a resumed
run needs to know of the random state. Knows nothing of validation, checkpoints or how many steps there are to come.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.models.modules import network_for, not_passed
from teachers.models.preprocess import Preprocessor
from teachers.tasks.said import expected_of, is_given
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import calling

from ..data.draws import PLACE, Views, equal_parts, step_seed
from ..data.inputs import OTHER, Network
from ..data.rows import TrainingRows
from ..objective.late import Moment
from ..objective.mixed import beside_others, mixed
from ..objective.objective import NOTHING, Heard
from ..objective.parts import slices, some
from ..objective.targets import Asked
from ..objective.units import OWN_SHARE
from ..runs.run import Run
from ..runs.session import Session
from .begin import begin_with
from .first_look import warn_of_batch_statistics, without_a_part
from .optimize import SCHEDULES, make_optimizer, move
from .selves import memories

TABLES = "derived/tables"
"""Beside prepared rows: what networks that read text begin with."""
NEEDED: dict[AnswerName, str] = {
    "class_axis": "a score for each row and class",
    "class_set": "a logit for each row and class",
    "values": "a number for each row and column of the label",
    "boxes": "of each place a box (x1, y1, x2, y2 in 0 to 1), the point it stands at (x, y) and a logit for each class",
}
"""Of a network."""


class Work(NamedTuple):
    """What one step of one network works on."""

    step: int
    inputs: Network
    asked: list[Asked]
    counts: Tensor
    weights: Tensor
    terms: list[Tensor]
    """This rank's share of each unweighted term, `[terms]`, of each part done."""


class Stepper:
    """A network, its optimiser and its objective."""

    def __init__(
        self,
        run: Run,
        session: Session,
        rows: TrainingRows,
        transfer_set: TransferSet,
        preprocessor: Preprocessor,
        steps: int,
    ) -> None:
        self.run, self.session, self.rows, self.objective, self.steps = run, session, rows, rows.objective, steps
        self.space, self.preprocessor = transfer_set.space, preprocessor
        self.moment = Moment(run.seed, session.all_reduce_sum)
        self.first_kept = 0
        """Up to this step a look at validation keeps no weights."""
        self.rate_scale = 1.0
        """Of the learning rate; below 1 for a member of a cohort that diverged."""
        torch.manual_seed(run.draw_seed)
        told: dict[str, Any] = {"num_classes": len(self.space.names), "classes": self.space.names}
        self.module = network_for(preprocessor, run.model, run.arguments, **told)
        begin = getattr(self.module, "initialise_for_text", None)
        if preprocessor.text is not None and begin is not None:
            begin(preprocessor.text, transfer_set.beside(TABLES))
        begin_with(self.module, run, self.space.names, preprocessor.resolved())
        self.module = self.grown(self.module)
        self.module.to(session.device).train()
        self.selves = memories(run, session, rows, self.module, self.space, steps)
        self.generator = torch.Generator(session.device)
        self.generators = default_generators(session.device)
        self.parts = equal_parts(run.train.batch_size // session.world, run.train.accumulate)

    def grown(self, module: nn.Module) -> nn.Module:
        """The network that trains, of the one that the recipe names."""
        return module

    @property
    def delivered(self) -> nn.Module:
        """What is looked at on validation, and kept."""
        return next((each.delivered for each in self.selves if each.delivered is not None), self.module)

    def start(self, whole: nn.Module | None = None) -> Self:
        """Make the optimiser. `whole`: the module with what else is trained, its projectors or its siblings."""
        self.whole = self.module if whole is None else whole.to(self.session.device).train()
        warn_of_batch_statistics(self.whole, self.run, self.session)
        compiled: Any = torch.compile(self.whole) if self.run.train.compile else self.whole
        self.network = self.session.wrap(compiled, uses_all=self.uses_all(whole))
        self.trained = [*self.whole.parameters()]
        self.optimizer = make_optimizer(self.trained, self.run.train, self.session.device)
        return self

    def uses_all(self, whole: nn.Module | None) -> bool:
        """Whether every parameter gets a gradient in every step; nobody waits for it where there is one rank."""
        if self.session.world == 1 or whole is not None:
            return True
        zeros = self.preprocessor.of_zeros(1, self.session.device)
        return not without_a_part(self.module, zeros, self.run.model)

    def advance(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Take step `step`, counted from 0. Returns this rank's share of each unweighted term, f32 `[terms]`."""
        work = self.begin(batch, step)
        said = []
        for number in range(len(self.parts)):
            student, heard = self.answer(work, number)
            self.check(student, self.parts[number])
            self.backward(work, number, student, heard)
            if self.selves:
                said.append(student.detach())
        terms = self.end(work)
        for memory in self.selves:
            memory.moved(batch, said, step)
        return terms

    def begin(self, batch: dict[str, Tensor], step: int, batch_number: int | None = None) -> Work:
        """Of step `step` of this network, on batch `batch_number` of its cohort, by default of the same number.

        All members augment a batch alike, whoever of them moves in every step of the cohort or in some only.
        """
        run = self.run
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        views = self.views(batch, step if batch_number is None else batch_number)
        inputs = self.inputs(batch, views)
        if self.rows.moves is not None:
            batch = batch | self.rows.moves.drawn(views)
        self.moment.step = step
        asked = self.objective.ask(self.with_own(batch, inputs, step), self.moment)
        if self.rows.mixing is not None:
            asked = mixed(asked, self.objective.pairs, self.rows.mixing.own(batch, views))
        if OWN_SHARE in batch:
            asked = beside_others(asked, self.objective.pairs, batch[OWN_SHARE], batch[OTHER + "label"])
        if self.rows.moves is not None:
            named = zip(asked, self.objective.names, strict=True)
            asked = [self.rows.moves(each, batch, seen=name in self.objective.seen) for each, name in named]
        counts = self.objective.counts(asked, run.train.batch_size, self.session)
        weights = self.objective.weights_on(self.session.device, step, self.steps)
        return Work(step, inputs, asked, counts, weights, [])

    def with_own(self, batch: dict[str, Tensor], inputs: Network, step: int) -> dict[str, Tensor]:
        """The batch with what the student itself says of its rows, where a term listens to that."""
        for memory in self.selves:
            with calling("model", self.run.model), self._autocast():
                batch = batch | memory.columns(batch, inputs, step)
        return batch

    def inputs(self, batch: dict[str, Tensor], views: Views) -> Network:
        """A batch as the network takes it, augmented."""
        return self.rows.inputs(batch, views)

    def views(self, batch: dict[str, Tensor], number: int) -> Views:
        """From what batch `number` is augmented."""
        return views_of(self.run, self.session, batch, number, self.generator, self.parts)

    def forward(self, work: Work, number: int) -> Any:
        """What the network gives for part `number` of the rows; draws dropout from the step, not from what ran before."""
        seed = step_seed(self.run.draw_seed, work.step, self.session.rank * len(self.parts) + number)
        for generator in self.generators:
            generator.manual_seed(seed)
        last = number + 1 == len(self.parts)
        with self._without_sync(not last), calling("model", self.run.model), self._autocast():
            return self.network(*self.given(work, self.parts[number]))

    def given(self, work: Work, part: slice) -> tuple[Any, ...]:
        """What the network is called with."""
        return (rows_of(work.inputs, part),)

    def answer(self, work: Work, number: int) -> tuple[Any, Heard]:
        """Of part `number` of the rows: what the network says, and what terms compare besides."""
        return self.forward(work, number), NOTHING

    def say(self, work: Work, number: int) -> list[Tensor]:
        """What peers are told of part `number` of the rows: logits first."""
        return [self.forward(work, number)]

    def say_aside(self, work: Work, number: int) -> list[Tensor]:
        """The same in a step in which this network does not move: nothing in it changes."""
        return [self.aside(work, number)]

    def aside(self, work: Work, number: int) -> Any:
        self.whole.eval()
        with torch.no_grad(), calling("model", self.run.model), self._autocast():
            out = self.whole(rows_of(work.inputs, self.parts[number]))
        self.whole.train()
        return out

    def backward(self, work: Work, number: int, student: Tensor, heard: Heard = NOTHING) -> None:
        """Add the gradient of part `number` of the rows: that of `loss`, for which the sums are all that need a graph."""
        sums, world = self.sums(work, number, student, heard), self.session.world
        weights = work.weights.to(sums)
        sums.backward((weights * world if world > 1 else weights) / work.counts)

    def loss(self, work: Work, number: int, student: Tensor, heard: Heard = NOTHING) -> Tensor:
        """This rank's share of the objective for part `number` of the rows; its terms are kept for the curves."""
        return (self.sums(work, number, student, heard) / work.counts * work.weights).sum()

    def sums(self, work: Work, number: int, student: Tensor, heard: Heard) -> Tensor:
        """Of each term over part `number` of the rows, `[terms]`; kept for the curves."""
        asked = slices(work.asked, self.parts[number])
        sums = self.objective.sums(at_least_float32(student), asked, heard, self.moment)
        work.terms.append(sums.detach() / work.counts)
        return sums

    def loss_of_labels(self, work: Work, number: int, logits: Tensor) -> Tensor:
        """What `loss` has for the labels alone, of other logits."""
        asked = slices(work.asked, self.parts[number])
        values = self.objective.sums(logits, asked, NOTHING) / work.counts
        of_labels = torch.tensor([term.loss_name == "hard" for term in self.objective.terms], device=logits.device)
        return (values * work.weights)[of_labels].sum()

    def end(self, work: Work) -> Tensor:
        """Move the weights. Returns this rank's share of each unweighted term, `[terms]`."""
        if self.run.train.clip is not None:
            nn.utils.clip_grad_norm_(self.trained, self.run.train.clip)
        move(self.optimizer)
        for each in self.trained:  # what `zero_grad` does, for a tenth of its time
            each.grad = None
        return work.terms[0] if len(work.terms) == 1 else torch.stack(work.terms).sum(0)

    def check(self, student: Any, part: slice) -> None:
        """Raise RecipeError for a network that does not give what the task needs of each row."""
        num_rows = part.stop - part.start
        if not isinstance(student, Tensor) or not is_given(student.shape, num_rows, self.space):
            found = list(student.shape) if isinstance(student, Tensor) else type(student).__name__
            width = len(self.space.names)
            raise RecipeError(
                f"model: {self.run.model} gives {found} for {num_rows} rows, expected {expected_of(num_rows, self.space)}: "
                f"{NEEDED[self.space.answer]}{not_passed(self.run.model, self.run.arguments, width)}"
            )

    def learning_rate(self, step: int) -> float:
        return self.rate_scale * self.run.train.learning_rate * SCHEDULES[self.run.train.schedule](step, self.steps)

    def _without_sync(self, more_to_come: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over ranks with the last part of a step only."""
        if more_to_come and self.session.world > 1:
            return self.network.no_sync()  # type: ignore[operator,no-any-return]
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.run.train.precision == "float32":
            return nullcontext()
        return torch.autocast(self.session.device.type, dtype=torch.bfloat16)

    def share_batch_statistics(self) -> None:
        """Give every rank rank 0's buffers: batch statistics are each rank's own while it trains."""
        if self.session.world > 1:
            for buffer in chain(self.whole.buffers(), *(each.buffers() for each in self.selves)):
                mine = buffer.clone() if self.session.rank == 0 else torch.zeros_like(buffer)
                buffer.copy_(self.session.all_reduce_sum(mine))


def default_generators(device: torch.device) -> list[torch.Generator]:
    """Where dropout draws from. `torch.manual_seed` seeds these too, but takes half a millisecond without a GPU."""
    on_gpu = [torch.cuda.default_generators[device.index or 0]] if device.type == "cuda" else []
    return [torch.default_generator, *on_gpu]


def views_of(
    run: Run,
    session: Session,
    batch: dict[str, Tensor],
    number: int,
    generator: torch.Generator,
    parts: Sequence[slice],
) -> Views:
    """From what this rank's rows of batch `number`, which are learnt from in these `parts`, are augmented."""
    return Views(run.view_seed, number, batch[PLACE], parts, session.rank * len(parts), generator)


def at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float32 else values.to(torch.promote_types(values.dtype, torch.float32))


def rows_of(inputs: Network, part: slice) -> Network:
    if isinstance(inputs, Tensor):
        return some(inputs, part)
    return {name: some(column, part) for name, column in inputs.items()}
