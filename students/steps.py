"""One optimiser step of one network, on this rank's share of a global batch.

Every draw of a step is a function of (seed, step, rank), so the position is all that a resumed run needs to know of
the random state. Knows nothing of validation, checkpoints or how many steps there are to come.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from teachers.errors import RecipeError
from teachers.model_folder import build_module
from teachers.preprocess import Preprocessor
from teachers.transfer_set import TransferSet
from teachers.users_code import calling

from .batches import Network, TrainingRows
from .objective import slices
from .optimize import SCHEDULES, make_optimizer
from .session import Run, Session

log = logging.getLogger(__name__)


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
        self.num_classes = len(transfer_set.classes)
        torch.manual_seed(run.seed)
        self.module = build_module(
            run.model,
            run.arguments,
            num_classes=self.num_classes,
            input_shape=preprocessor.input_shape,
        )
        self.module.to(session.device).train()
        warn_of_batch_statistics(self.module, run, session)
        compiled: Any = torch.compile(self.module) if run.train.compile else self.module
        self.forward = session.wrap(compiled)
        self.optimizer = make_optimizer(self.module.parameters(), run.train, session.device)
        self.generator = torch.Generator(session.device)
        self.generators = [self.generator, *default_generators(session.device)]
        self.parts = equal_parts(run.train.batch_size // session.world, run.train.accumulate)

    def advance(self, batch: dict[str, Tensor], step: int) -> Tensor:
        """Take step `step`, counted from 0. Returns this rank's share of each unweighted term, f32 `[terms]`."""
        self._prepare(step)
        inputs = self.rows.inputs(batch, self.generator)
        asked = self.objective.ask(batch)
        counts = self.objective.counts(asked, self.run.train.batch_size, self.session)
        weights = self.objective.weights_on(self.session.device, step)
        terms = []
        for number, part in enumerate(self.parts):
            with self._without_sync(number + 1 < len(self.parts)):
                with calling("model", self.run.model), self._autocast():
                    student = self.forward(rows_of(inputs, part))
                self._check(student, part.stop - part.start)
                values = self.objective.sums(student.float(), slices(asked, part)) / counts
                loss = values @ weights
                (loss * self.session.world if self.session.world > 1 else loss).backward()  # type: ignore[no-untyped-call]
            terms.append(values.detach())
        if self.run.train.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.run.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)

    def _check(self, student: Any, num_rows: int) -> None:
        """Raise RecipeError for a network that does not give a score for each row and class."""
        found = list(student.shape) if isinstance(student, Tensor) else type(student).__name__
        if found != [num_rows, self.num_classes]:
            raise RecipeError(
                f"model: {self.run.model} gives {found} for {num_rows} rows, expected [{num_rows}, {self.num_classes}]: "
                f"a score for each row and class"
            )

    def learning_rate(self, step: int) -> float:
        return self.run.train.learning_rate * SCHEDULES[self.run.train.schedule](step, self.steps)

    def _prepare(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        seed = step_seed(self.run.seed, step, self.session.rank)
        for generator in self.generators:
            generator.manual_seed(seed)

    def _without_sync(self, more_to_come: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over ranks with the last part of a step only."""
        if more_to_come and self.session.world > 1:
            return self.forward.no_sync()  # type: ignore[operator,no-any-return]
        return nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.run.train.precision == "float32":
            return nullcontext()
        return torch.autocast(self.session.device.type, dtype=torch.bfloat16)

    def share_batch_statistics(self) -> None:
        """Give every rank rank 0's buffers: batch statistics are each rank's own while it trains."""
        if self.session.world > 1:
            for buffer in self.module.buffers():
                mine = buffer.clone() if self.session.rank == 0 else torch.zeros_like(buffer)
                buffer.copy_(self.session.all_reduce_sum(mine))


def default_generators(device: torch.device) -> list[torch.Generator]:
    """Where dropout draws from. `torch.manual_seed` seeds these too, but takes half a millisecond without a GPU."""
    on_gpu = [torch.cuda.default_generators[device.index or 0]] if device.type == "cuda" else []
    return [torch.default_generator, *on_gpu]


def step_seed(seed: int, step: int, rank: int) -> int:
    """What seeds dropout and augmentation of a step on a rank."""
    return xxhash.xxh3_64_intdigest(b"%d %d %d" % (seed, step, rank)) >> 1


def equal_parts(rows: int, parts: int) -> list[slice]:
    return [slice(number * rows // parts, (number + 1) * rows // parts) for number in range(parts)]


def rows_of(inputs: Network, part: slice) -> Network:
    return inputs[part] if isinstance(inputs, Tensor) else {name: column[part] for name, column in inputs.items()}


def warn_of_batch_statistics(module: nn.Module, run: Run, session: Session) -> None:
    if session.world > 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        log.warning(
            "%s: %s has batch statistics, which each of the %d workers takes over its own rows of a batch: the result "
            "differs from that of one worker",
            run.stage_name,
            run.name,
            session.world,
        )
