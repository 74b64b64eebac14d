"""Hints: layers of teachers that a student's layers are compared with while it trains. Knows nothing of torch or ray."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from teachers.config.strict import Config
from teachers.config.training import TrainConfig

from .terms import Ramp, TermCommon, check_ramps

HintLossName = Literal[
    "hint",
    "attention",
    "similarity",
    "relation",
    "channel_wise",
    "correlation",
    "contrastive",
    "review",
    "linear_embedding",
]
ProjectorName = Literal["linear", "conv1x1", "conv_regressor", "none"]
BY_STAGE = "by_stage"

PROJECTORS: dict[HintLossName, tuple[ProjectorName, ...]] = {
    "hint": ("linear", "conv1x1", "conv_regressor", "none"),
    "attention": ("none",),
    "similarity": ("none",),
    "relation": ("none",),
    "channel_wise": ("conv1x1", "none"),
    "correlation": ("none",),
    "contrastive": ("linear",),
    "review": ("conv1x1",),
    "linear_embedding": ("linear", "conv1x1"),
}
"""What each loss can be given; where it is one thing, the loss has it by itself."""


OF_MAPS: tuple[HintLossName, ...] = ("attention", "channel_wise", "review")
"""Losses that compare maps `[C, H, W]` and nothing else."""
OF_SQUARES: tuple[HintLossName, ...] = ("hint", "linear_embedding", "review")
"""Losses that are squared distances: whose value grows with the scale of the output."""


class Evenly(Config):
    """Blocks of the student at equal distances, the last output to the last block (g(m) = m N / M: TinyBERT, Jiao et al., 2020)."""

    evenly: str
    """The module whose children are its blocks, by path: `transformer.layers`."""


class HintCommon(TermCommon):
    """What every hint has."""

    loss: str
    teacher: str
    """Whose layer it is."""
    output: str | Annotated[list[str], Field(min_length=1)]
    """One of the teacher's `outputs`, by name; or several, each with a layer of the student's."""
    layer: str | Annotated[list[str], Field(min_length=1)] | Evenly = BY_STAGE
    """The guided layers of the student, by module path, as many as outputs. `by_stage`: of equal down-sampling, the last layer whose map is as high and wide as the output's; to an output that is one vector, the last before the answer that gives a vector. `{evenly: PATH}`: blocks at equal distances."""
    projector: ProjectorName | None = None
    """From the width of the student's layer to that of the teacher's, trained with the student and not delivered. Null: by the shapes, and none where they agree."""
    standardise: Literal["phi_s"] | None = Field(None, exclude_if=lambda value: value is None)
    """`phi_s`: the output less its mean over training rows, over one scale for all its channels, so that several teachers weigh alike (PHI-S: Ranzinger et al., 2024)."""

    @property
    def outputs(self) -> list[str]:
        """Of the teacher, in order."""
        return [self.output] if isinstance(self.output, str) else [*self.output]

    @model_validator(mode="after")
    def fits(self) -> Self:
        if isinstance(self.layer, list) and len(self.layer) != len(self.outputs):
            raise ValueError(f"{len(self.layer)} layers and {len(self.outputs)} outputs: each output needs one layer")
        if isinstance(self.layer, str) and self.layer != BY_STAGE and len(self.outputs) > 1:
            raise ValueError(f"one layer and {len(self.outputs)} outputs: each output needs one layer")
        if self.standardise is not None and self.loss not in OF_SQUARES:
            raise ValueError(
                f"the loss {self.loss!r} has a scale of its own, so `standardise` would change nothing of worth; it goes with "
                f"{', '.join(OF_SQUARES)}"
            )
        possible = PROJECTORS[self.loss]  # type: ignore[index]
        if self.projector not in (None, *possible):
            raise ValueError(
                f"the loss {self.loss!r} takes no projector {self.projector!r}; say {' or '.join(possible)}"
            )
        return self


class FitNetsHint(HintCommon):
    """Mean square between a projected layer and the teacher's (FitNets: Romero et al., 2015)."""

    loss: Literal["hint"]
    weight: float = Field(100.0, ge=0)
    """Factor of this term in the objective; 100 is RepDistiller's, of a mean over all elements."""
    alone: float | None = Field(None, gt=0, lt=1)
    """The paper's first stage: in this share of the steps nothing trains but the student up to the guided layer and the projector, by this loss alone. Null: one stage, all terms from the first step."""
    combine: Literal["correctness"] | None = Field(None, exclude_if=lambda value: value is None)
    """`correctness`: in each row those hints of a student that say it count by who is nearer to the label, where each teacher's own last layer reads what the student's projected layer is (CA-MKD's term of features: Zhang et al., 2022). `output` is then what that last layer is given, and `weight` 50, the authors', where the recipe says nothing."""
    after_passes: int | None = Field(None, ge=0, exclude_if=lambda value: value is None)
    """Of `combine`: so many passes over the training rows come before it is heard. Null: 1, the authors' first epoch."""

    @model_validator(mode="before")
    @classmethod
    def weighs_as_the_authors_where_it_is_combined(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("combine") is not None:
            return {"weight": 50.0, **value}
        return value

    @model_validator(mode="after")
    def is_combined_in_the_teachers_own_space(self) -> Self:
        if self.combine is None:
            if self.after_passes is not None:
                raise ValueError("`after_passes` is of `combine: correctness`; remove it")
            return self
        if len(self.outputs) > 1:
            raise ValueError(
                f"`combine: correctness` goes by the one output that the teacher's last layer is given, here are {len(self.outputs)}; "
                f"name that one"
            )
        if self.standardise is not None:
            raise ValueError(
                "`combine: correctness`: a teacher's last layer reads its output as it is; remove `standardise`"
            )
        if self.alone is not None:
            raise ValueError(
                "`combine: correctness` begins behind a pass over the rows, `alone` with the first step; remove one"
            )
        return self

    @property
    def passes_before(self) -> int:
        """Over the training rows, before it is heard."""
        return (1 if self.after_passes is None else self.after_passes) if self.combine else 0


class AttentionHint(HintCommon):
    """Distance between maps of attention, the mean square over channels, normalised (Zagoruyko and Komodakis, 2017)."""

    loss: Literal["attention"]
    weight: float = Field(1000.0, ge=0)
    """Factor of this term in the objective; 1000 is the authors' in their code. Of the form `paper`, whose values are some hundred times as large, 10 where the recipe says nothing."""
    form: Literal["code", "paper"] = "code"
    """`code`: the mean square of the difference, as the authors' code has it; `paper`: its length, as their equation 2 has it."""

    @model_validator(mode="before")
    @classmethod
    def weighs_less_in_the_papers_form(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("form") == "paper":
            return {"weight": 10.0, **value}
        return value


class SimilarityHint(HintCommon):
    """How alike the rows of a batch are to each other, for the student as for the teacher (Tung and Mori, 2019)."""

    loss: Literal["similarity"]
    weight: float = Field(3000.0, ge=0)
    """Factor of this term in the objective; 3000 is the paper's."""


class RelationHint(HintCommon):
    """Distances between rows of a batch, and the angles of any three of them (RKD: Park et al., 2019). Time grows with the cube of the rows."""

    loss: Literal["relation"]
    distance_weight: float = Field(25.0, ge=0)
    """Of the distances; 25 is the paper's for classification."""
    angle_weight: float = Field(50.0, ge=0)
    """Of the angles; 50 is the paper's. 0 saves their time, which is most."""


class ChannelWiseHint(HintCommon):
    """T^2 KL between where each channel is active, a softmax over its positions (CWD, Shu et al., 2021; a soft feature transfer)."""

    loss: Literal["channel_wise"]
    temperature: float = Field(4.0, gt=0)
    """Softens both sides."""


class CorrelationHint(HintCommon):
    """Mean square between kernels of all pairs of rows of a batch (CC: Peng et al., 2019)."""

    loss: Literal["correlation"]
    weight: float = Field(10.0, ge=0)
    """Factor of this term in the objective; 10 is ours, which brings it to the size of a cross-entropy."""
    gamma: float = Field(0.4, gt=0)
    """Of exp(-gamma |a - b|^2), the vectors of rows having length 1."""
    order: int = Field(2, ge=1, le=8)
    """Of the Taylor series that stands for the kernel, as in the paper."""


class ContrastiveHint(HintCommon):
    """What the student makes of a row is told apart from what the teacher makes of others, and the other way round (CRD: Tian et al., 2020)."""

    loss: Literal["contrastive"]
    weight: float = Field(0.8, ge=0)
    """Factor of this term in the objective; 0.8 is the authors'."""
    dim: int = Field(128, ge=2)
    """Of the space that both sides are brought to, by a linear layer each."""
    negatives: int = Field(16384, ge=1)
    """Other rows that each row is told apart from in a step."""
    temperature: float = Field(0.07, gt=0)
    """Divides the scores."""
    momentum: float = Field(0.5, ge=0, lt=1)
    """Of what is remembered of each row, 8 bytes for each row and dimension."""
    positive: Literal["exact", "relax"] = "exact"
    """`exact`: a row goes with itself; `relax`: with any labelled row of its class, by chance."""

    @model_validator(mode="after")
    def is_of_one_output(self) -> Self:
        if len(self.outputs) > 1:
            raise ValueError(
                f"the loss 'contrastive' compares one layer with one output, here are {len(self.outputs)}; give each a hint"
            )
        return self


class ReviewHint(HintCommon):
    """Several stages at once: deep ones help to review shallow ones, compared at several sizes (ReviewKD: Chen et al., 2021). Outputs from shallow to deep."""

    loss: Literal["review"]
    width: int = Field(512, ge=1)
    """Channels between the stages of the attention-based fusion, which trains with the student and is not delivered."""
    ramp: Ramp | None = Ramp(share=1 / 12)
    """The authors' 20 of 240 epochs, linear. Null: the full weight from the first step."""


class LinearEmbeddingHint(HintCommon):
    """Squared distance between the teacher's layer and a linear map of the student's (Wang et al., 2020: collaborative distillation)."""

    loss: Literal["linear_embedding"]
    weight: float = Field(1.0, ge=0)
    """Factor of this term in the objective; of a sum over channels, so the more channels, the more it weighs."""


Hint = Annotated[
    FitNetsHint
    | AttentionHint
    | SimilarityHint
    | RelationHint
    | ChannelWiseHint
    | CorrelationHint
    | ContrastiveHint
    | ReviewHint
    | LinearEmbeddingHint,
    Field(discriminator="loss"),
]
"""One hint, chosen by `loss`."""


def weighed_by_label(hints: Sequence[Hint]) -> list[FitNetsHint]:
    """Those that count in each row by who is nearer to its label."""
    return [hint for hint in hints if isinstance(hint, FitNetsHint) and hint.combine is not None]


def first_heard(hint: Hint, batch_size: int, num_rows: int) -> int:
    """The step, counted from 0, in which a hint is heard for the first time; `num_rows`: that its student draws from."""
    return hint.passes_before * (num_rows // batch_size) if isinstance(hint, FitNetsHint) else 0


def check_heard(hints: Sequence[Hint], train: TrainConfig, num_rows: int) -> None:
    """Raise ValueError for a hint that would be heard in no step of `train`, which is in steps."""
    for number, hint in enumerate(hints):
        if train.steps is not None and (first := first_heard(hint, train.batch_size, num_rows)) >= train.steps:
            raise ValueError(
                f"hints.{number}.combine: is heard behind {first:,} steps, which pass over the {num_rows:,} training rows, and there are "
                f"{train.steps:,}; give `train.steps` more, or say `after_passes: 0`"
            )


def first_stage(hints: Sequence[Hint]) -> float:
    """Share of the steps in which some hints train alone, as the first stage of FitNets; 0: there is none."""
    return max((hint.alone or 0.0 for hint in hints if isinstance(hint, FitNetsHint)), default=0.0)


def check_hints(hints: Sequence[Hint], teachers: Sequence[str], train: TrainConfig) -> None:
    """Raise ValueError for a hint of somebody else than `teachers`, and for stages and ramps that do not fit `train`."""
    for number, hint in enumerate(hints):
        if hint.teacher not in teachers:
            raise ValueError(f"hints.{number} names {hint.teacher!r}, which is not among the teachers {[*teachers]}")
    check_ramps(hints, train, "hints", first_stage(hints))
    shares = {hint.alone for hint in hints if isinstance(hint, FitNetsHint) and hint.alone is not None}
    if len(shares) > 1:
        raise ValueError(f"hints have a first stage of {sorted(shares)} of the steps; give `alone` one value")
    if shares and train.early_stopping is not None:
        raise ValueError(
            "hints with `alone` begin with a stage in which the answer is not trained, and early_stopping could end the "
            "training there; remove one of them"
        )


def in_one_stage(hints: Sequence[Hint]) -> tuple[Hint, ...]:
    """The same without a first stage or pass: all terms from the first step."""
    at_once = {"alone": None, "after_passes": 0}
    return tuple(hint.model_copy(update=at_once if isinstance(hint, FitNetsHint) else {}) for hint in hints)
