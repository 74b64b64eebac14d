"""Hints at work: further terms of an objective, between layers of the student and outputs of teachers.

Knows nothing of optimisers; what teachers' outputs are and where they come from is `features`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from teachers.config.training import TrainConfig
from teachers.errors import RecipeError
from teachers.models.captured import Captured
from teachers.transfer_set.merged import MergedSplit
from teachers.users_code.calls import within

from ..config.hints import (
    ContrastiveHint,
    FitNetsHint,
    Hint,
    HintLossName,
    ProjectorName,
    first_heard,
    first_stage,
)
from ..runs.run import Run
from .asks import every_row
from .correspondence import Shape
from .curve_names import curve_names
from .features import FeatureVoice, Standard, feature_voice
from .layers import Pairs
from .losses.hints import HINT_KEYWORDS, HINT_LOSSES
from .objective import TermAtWork
from .projectors import Embedding, ReviewFusion, no_joint, projector_of

ROW_NUMBER = "row.number"
"""Of a batch: i64 `[rows]`, where memories know a row."""


@dataclass(frozen=True)
class HintAtWork:
    """One hint and who gives its outputs; `name` is that of its curve."""

    key: str
    """Below the student: `hints.0`."""
    name: str
    config: Hint
    voices: tuple[FeatureVoice, ...]
    standards: tuple[Standard, ...] = ()
    """Of each output, where it is standardised."""

    @property
    def is_first(self) -> bool:
        """Whether it trains alone, in a first stage."""
        return isinstance(self.config, FitNetsHint) and self.config.alone is not None

    @property
    def shapes(self) -> list[Shape]:
        """Of its outputs of one row."""
        return [tuple(voice.shape) for voice in self.voices]

    def of(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Its outputs f32 `[rows, ...]` for the rows of a batch."""
        found = [voice.of(batch) for voice in self.voices]
        return (
            [standard(each) for standard, each in zip(self.standards, found, strict=True)] if self.standards else found
        )


def hints_at_work(run: Run, train: MergedSplit) -> tuple[HintAtWork, ...]:
    """The hints of `run`. Raises RecipeError for an output that a teacher does not give."""
    names = curve_names([term.loss for term in (*run.objective, *run.hints)])[len(run.objective) :]
    voices: dict[tuple[str, str], FeatureVoice] = {}
    found = []
    for number, (name, hint) in enumerate(zip(names, run.hints, strict=True)):
        for output in hint.outputs:
            if (hint.teacher, output) not in voices:
                source = next(source for source in run.sources if source.name == hint.teacher)
                with within(f"hints.{number}.output"):
                    voices[hint.teacher, output] = feature_voice(source, output, train)
        heard = tuple(voices[hint.teacher, output] for output in hint.outputs)
        with within(f"hints.{number}.standardise"):
            standards = tuple(map(Standard.of, heard)) if hint.standardise else ()
        found.append(HintAtWork(f"hints.{number}", name, hint, heard, standards))
    return tuple(found)


def columns_of(hints: Sequence[HintAtWork]) -> dict[str, Any]:
    """What a reader has to bring for them, but the numbers of rows."""
    return {name: column for hint in hints for voice in hint.voices for name, column in voice.columns.items()}


def remembers(run: Run) -> bool:
    """Whether a batch has to say which rows it is of."""
    return any(isinstance(hint, ContrastiveHint) for hint in run.hints)


def terms_of(hints: Sequence[HintAtWork], train: TrainConfig, num_rows: int) -> list[TermAtWork]:
    """Of the objective. In a first stage only those that it is for weigh anything, behind it all others do; those that are weighed
    by the label do behind so many passes over the `num_rows` that are drawn from."""
    share = first_stage([hint.config for hint in hints])
    terms = []
    for hint in hints:
        config = hint.config
        keywords = {name: getattr(config, name) for name in HINT_KEYWORDS[config.loss]}
        loss = partial(HINT_LOSSES[config.loss], **keywords)
        heard = 0.0 if not train.steps else first_heard(config, train.batch_size, num_rows) / train.steps
        during = (0.0, share) if hint.is_first else (max(share, heard), 1.0)
        about = hint.name, f"{hint.key}.loss", config.loss, loss, config.weight, config.ramp
        terms.append(TermAtWork(*about, every_row, "hint", during=during))
    return terms


class Joined(nn.Module):
    """A projector for each output."""

    def __init__(self, hint: Hint, own: Sequence[Shape], theirs: Sequence[Shape]) -> None:
        super().__init__()
        pairs = zip(own, theirs, strict=True)
        self.projectors = nn.ModuleList([projector_of(*pair, self.kind_of(hint, *pair)) for pair in pairs])

    def kind_of(self, hint: Hint, own: Shape, theirs: Shape) -> ProjectorName | None:
        """Of one output; None: by the shapes, nothing where the widths agree."""
        return hint.projector

    def forward(self, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Pairs:
        found = []
        for projector, mine, other in zip(self.projectors, own, theirs, strict=True):
            found.append((projector(mine), projector.pooled(other)))  # type: ignore[operator]
        return found


class Embedded(Joined):
    """The same with a linear map where the widths agree, too."""

    def kind_of(self, hint: Hint, own: Shape, theirs: Shape) -> ProjectorName | None:
        return hint.projector or ("conv1x1" if len(own) == len(theirs) == 3 else "linear")


class Related(nn.Module):
    """Nothing: rows are compared with rows, whatever their shapes; `of_maps`: positions with positions."""

    def __init__(self, hint: Hint, own: Sequence[Shape], theirs: Sequence[Shape], *, of_maps: bool = False) -> None:
        super().__init__()
        for mine, other in zip(own, theirs, strict=True):
            if of_maps and not len(mine) == len(other) == 3:
                raise ValueError(f"the loss {hint.loss!r} compares maps [C, H, W]: {no_joint(mine, other)}")

    def forward(self, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Pairs:
        return [*zip(own, theirs, strict=True)]


class OfMaps(Joined):
    def __init__(self, hint: Hint, own: Sequence[Shape], theirs: Sequence[Shape]) -> None:
        Related(hint, own, theirs, of_maps=True)
        super().__init__(hint, own, theirs)


class Reviewed(nn.Module):
    def __init__(self, hint: Hint, own: Sequence[Shape], theirs: Sequence[Shape]) -> None:
        super().__init__()
        self.fusion = ReviewFusion(own, theirs, hint.width)  # type: ignore[union-attr]

    def forward(self, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Pairs:
        return [*zip(self.fusion(own), theirs, strict=True)]


class Contrasted(nn.Module):
    """Both sides in one space, by a linear layer each; the teacher's trains, too."""

    def __init__(self, hint: Hint, own: Sequence[Shape], theirs: Sequence[Shape]) -> None:
        super().__init__()
        assert isinstance(hint, ContrastiveHint)
        (mine,), (other,) = own, theirs
        self.student, self.teacher = Embedding(mine, hint.dim), Embedding(other, hint.dim)

    def forward(self, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Pairs:
        return [(self.student(own[0]), self.teacher(theirs[0].to(own[0].dtype)))]


PROJECTIONS: dict[HintLossName, Callable[[Hint, Sequence[Shape], Sequence[Shape]], nn.Module]] = {
    "hint": Joined,
    "attention": partial(Related, of_maps=True),
    "similarity": Related,
    "relation": Related,
    "channel_wise": OfMaps,
    "correlation": Related,
    "contrastive": Contrasted,
    "review": Reviewed,
    "linear_embedding": Embedded,
}
"""What brings the layers of both sides to what a loss compares."""


class Guided(nn.Module):
    """A network with the projections of its hints: what a training trains. Delivered is the network alone.

    `layers`: of each hint, by name, with their shapes of one row; `first`: names of those that train in a first stage.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Mapping[str, Mapping[str, Shape]],
        projections: Mapping[str, nn.Module],
        memories: Mapping[str, nn.Module],
        first: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.layers, self.first = layers, frozenset(first)
        self.captured = Captured(network, [path for paths in layers.values() for path in paths])
        self.projections, self.memories = nn.ModuleDict(dict(projections)), nn.ModuleDict(dict(memories))

    def forward(
        self, inputs: Any, taught: Mapping[str, Sequence[Tensor]], alone: bool = False
    ) -> tuple[Any, dict[str, Pairs]]:
        """What the network gives, and by hint pairs of what is compared. `taught`: by hint what teachers give of the same rows.

        `alone`: in a first stage nothing but what it is for gets a gradient, so that nothing behind the guided layers moves.
        """
        said, seen = self.captured(inputs)
        pairs: dict[str, Pairs] = {}
        for name, paths in self.layers.items():
            for path, shape in paths.items():
                if tuple(seen[path].shape[1:]) != shape:
                    raise RecipeError(
                        f"layer {path!r} gives {[*seen[path].shape[1:]]} of a row here and {[*shape]} of another; a guided layer "
                        f"needs one shape"
                    )
            pairs[name] = self.projections[name]([seen[path] for path in paths], taught[name])
            if alone and name not in self.first:
                pairs[name] = [(own.detach(), theirs.detach()) for own, theirs in pairs[name]]
        return (said.detach() if alone and isinstance(said, Tensor) else said), pairs
