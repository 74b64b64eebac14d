"""Steps of a student with hints: its guided layers, the projections beside it, and what contrastive hints remember.

The projections are in the optimiser and in checkpoints, not in what is delivered.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from teachers.errors import RecipeError
from teachers.models.captured import Layer, layers_of
from teachers.users_code.calls import calling, within

from ..config.hints import ContrastiveHint, first_stage
from ..data.draws import step_seed
from ..data.rows import TrainingRows
from ..objective.correspondence import Shape, guided_layers, shape_of
from ..objective.hints import PROJECTIONS, ROW_NUMBER, Guided, HintAtWork
from ..objective.layers import Pairs
from ..objective.memory_bank import MemoryBank
from ..objective.nearness import Nearness
from ..objective.objective import Heard
from ..objective.units import usable_labels
from .steps import Stepper, Work


class HintedStepper(Stepper):
    """A student that compares its layers with outputs of its teachers."""

    taught: dict[str, list[Tensor]]
    """By hint, what teachers give of the rows of this step."""
    numbers: Tensor | None
    """Of these rows, where a memory has to know them."""
    labels: Tensor
    """Of these, -1 or NaN without one that may be used."""
    embedded: dict[str, list[tuple[Tensor, Tensor]]]
    """By hint with a memory, of each part of this step."""

    def start(self, whole: nn.Module | None = None) -> Self:
        assert whole is None
        self.first_steps = round(first_stage(self.run.hints) * self.steps)
        torch.manual_seed(self.run.draw_seed)
        layers, projections, memories = {}, {}, {}
        with calling("model", self.run.model):
            found = layers_of(self.module, self.preprocessor.of_zeros(2, self.session.device))
        dtype = next((each.dtype for each in self.module.parameters() if each.is_floating_point()), torch.float32)
        for hint in self.rows.hints:
            with within(hint.key):
                layers[hint.name] = self._guided(hint, found)
                projections[hint.name] = self._projection(hint, layers[hint.name]).to(dtype)
                if isinstance(hint.config, ContrastiveHint):
                    memories[hint.name] = memory_for(hint.config, self.rows)
        self.nearness = Nearness.of(self.run, self.rows.hints, self.space, self.session.device)
        first = [hint.name for hint in self.rows.hints if hint.is_first]
        self.guided = Guided(self.module, layers, projections, memories, first)
        return super().start(self.guided)

    def _guided(self, hint: HintAtWork, found: list[Layer]) -> dict[str, Shape]:
        with within("layer"):
            paths = guided_layers(hint.config, self.module, found, self.space.width, hint.shapes)
        if len(set(paths)) < len(paths):
            raise RecipeError(f"layer: {', '.join(paths)} name one twice; each output needs a layer of its own")
        return {path: shape_of(found, path) or () for path in paths}

    def _projection(self, hint: HintAtWork, layers: Mapping[str, Shape]) -> nn.Module:
        try:
            return PROJECTIONS[hint.config.loss](hint.config, [*layers.values()], hint.shapes)
        except ValueError as error:
            named = ", ".join(map(repr, layers))
            raise RecipeError(f"projector: {named} and {', '.join(map(repr, hint.config.outputs))}: {error}") from None

    def uses_all(self, whole: nn.Module | None) -> bool:
        return self.first_steps == 0 and super().uses_all(None)

    def begin(self, batch: dict[str, Tensor], step: int, batch_number: int | None = None) -> Work:
        self.taught = {hint.name: hint.of(batch) for hint in self.rows.hints}
        self.numbers, self.labels = batch.get(ROW_NUMBER), usable_labels(batch)
        self.embedded = {name: [] for name in self.guided.memories}
        return super().begin(batch, step, batch_number)

    def given(self, work: Work, part: slice) -> tuple[Any, ...]:
        taught = {name: [each[part] for each in outputs] for name, outputs in self.taught.items()}
        return (*super().given(work, part), taught, work.step < self.first_steps)

    def answer(self, work: Work, number: int) -> tuple[Any, Heard]:
        said, pairs = self.forward(work, number)
        compared = {name: self._compared(name, each, work, number) for name, each in pairs.items()}
        return said, Heard(hints=compared, hint_weights=self.nearness.weights(pairs, self.labels[self.parts[number]]))

    def _compared(self, name: str, pairs: Pairs, work: Work, number: int) -> Pairs:
        """What the loss is of: of a memory, scores of the embeddings."""
        if name not in self.guided.memories:
            return pairs
        memory, (embedded,) = self.guided.memories[name], pairs
        assert isinstance(memory, MemoryBank) and self.numbers is not None
        self.embedded[name].append((embedded[0].detach(), embedded[1].detach()))
        seed = step_seed(self.run.draw_seed, work.step, self.session.rank * len(self.parts) + number)
        student, teacher = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in embedded)
        return [memory.log_odds(student, teacher, self.numbers[self.parts[number]], seed, self.session)]

    def end(self, work: Work) -> Tensor:
        for name, parts in self.embedded.items():
            memory = self.guided.memories[name]
            assert isinstance(memory, MemoryBank) and self.numbers is not None
            student, teacher = (torch.cat(each) for each in zip(*parts, strict=True))
            memory.remember(student, teacher, self.numbers, self.session)
        return super().end(work)


def memory_for(hint: ContrastiveHint, rows: TrainingRows) -> MemoryBank:
    """Of the rows of one training."""
    label = rows.columns["label"]
    assert isinstance(label, Tensor)
    is_class = label.ndim == 1 and not label.is_floating_point()
    none = torch.full((len(label),), -1)
    classes = torch.where(torch.from_numpy(rows.labelled), label.long(), none) if is_class else none
    kept = {name: getattr(hint, name) for name in ("negatives", "temperature", "momentum", "positive")}
    return MemoryBank(classes, hint.dim, **kept)
