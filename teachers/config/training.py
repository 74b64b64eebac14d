"""What a recipe can say of training a network; the same engine trains students, controls and teachers."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .strict import Config, ImportString

TransformName = Literal["flip", "pad_and_crop", "random_resized_crop", "colour_jitter", "cutout", "noise"]
AugmentName = Literal["affine", "zoom", "colour", "mosaic", TransformName]
AugmentStep = AugmentName | ImportString
Augment = Annotated[
    Annotated[AugmentStep, Tag("one")] | Annotated[list[AugmentStep], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
]

ViewStepName = Literal["mixup", TransformName]
TransformStep = ViewStepName | ImportString
Transform = Annotated[
    Annotated[TransformStep, Tag("one")] | Annotated[list[TransformStep], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
]

ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("balanced")]
    | Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1), Tag("by name")],
    Discriminator(lambda value: "by name" if isinstance(value, dict) else "balanced"),
]

MixName = Literal["mixup", "cutmix"]
OptimizerName = Literal["adamw", "sgd"]
ScheduleName = Literal["one_cycle", "cosine", "constant"]
PrecisionName = Literal["float32", "bfloat16"]


def transforms_of(augment: str | Sequence[str] | None) -> list[str]:
    """The steps of an augmentation, in order."""
    return [] if augment is None else [augment] if isinstance(augment, str) else [*augment]


def unknown_classes(weights: ClassWeights | None, classes: Sequence[str]) -> str:
    """What is wrong with the names of `class_weights`; empty where all are among `classes`."""
    strange = [name for name in weights if name not in classes] if isinstance(weights, dict) else []
    if not strange:
        return ""
    known = ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")
    return (
        f"train.class_weights names {', '.join(map(repr, strange))}, and the classes are {known}; write a class as it is "
        f"called there"
    )


class EarlyStopping(Config):
    """Stop when validation has not improved; the best weights are restored, the schedule is never shortened."""

    patience: int = Field(ge=1)
    """Looks at validation without a better one."""


class Mix(Config):
    """Each two rows of a batch mixed with each other, after `augment`. A live teacher is asked about the mixed rows themselves; labels and what stores keep are mixed as the rows are."""

    kind: MixName
    """`mixup`: the weighted mean of both images (Zhang et al., 2018); `cutmix`: a rectangle of the one in the other (Yun et al., 2019)."""
    alpha: float = Field(1.0, gt=0)
    """The share of the other row is drawn from Beta(alpha, alpha), for each two rows anew; 1: all shares are as likely, as in function matching (Beyer et al., 2022)."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the rows that are mixed; the others stay as they are."""


class TrainConfig(Config):
    """How a network is trained; the same engine trains students, controls and teachers."""

    steps: int | None = Field(None, ge=1)
    """Optimiser steps."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the rows that the student draws from; converted to steps once."""
    batch_size: int = Field(64, ge=1)
    """Rows of one optimiser step, over all workers; divisible by `workers * accumulate`."""
    learning_rate: float = Field(5e-3, gt=0)
    """The peak of the schedule."""
    optimizer: OptimizerName = "adamw"
    """`adamw` or `sgd` (Nesterov when `momentum` is above 0)."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of `sgd`."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled for `adamw`."""
    schedule: ScheduleName = "one_cycle"
    """Of the learning rate, over all steps."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; null: as it is."""
    accumulate: int = Field(1, ge=1)
    """Equal parts that a worker's share of a batch is computed in, to save memory; dropout is drawn for each part."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between two looks at validation; null: a twentieth of all steps, or more where 20 looks would read more than a tenth of the rows that are trained on. After the last step there is always one."""
    early_stopping: EarlyStopping | None = None
    """Null: train to the end and keep the best weights."""
    augment: Augment | None = None
    """Fresh random augmentation of every batch: a name, a function (inputs, seeds) -> inputs with a seed for each row, or (inputs, generator) -> inputs, or a list of these, applied in order."""
    files: list[str] = []
    """Files and folders that functions of `augment` read; they count by content."""
    mix: Mix | None = Field(None, exclude_if=lambda value: value is None)
    """Images are mixed two by two; null: they are not. A control has its student's, with mixed labels."""
    labelled_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of labelled rows in every batch; null: as they come."""
    balanced: Literal["class"] | None = Field(None, exclude_if=lambda value: value is None)
    """`class`: draw labelled rows so that every class comes as often as the most frequent one, rows of rare classes several times an epoch (class-aware sampling). An epoch, where `epochs` count, is as long as it is without. Null: as they come. A control has its student's."""
    ema: float | None = Field(None, gt=0, lt=1, exclude_if=lambda value: value is None)
    """Keep a moving average of the weights, of which each step leaves so much (0.998), and deliver it; null: the weights as they are."""
    class_weights: ClassWeights | None = None
    """Weight of a row in `hard`, by its class. `balanced`: labelled rows / (classes that have any * rows of the class); or by name, where a class that is not named has 1. The term is a weighted mean, as torch's. Null: every row counts alike. A control has its student's."""
    shuffle_window: int | None = Field(None, ge=1)
    """Rows that are shuffled together, for data that does not fit memory; null: all."""
    workers: int = Field(1, ge=1)
    """Data-parallel Ray Train workers."""
    memory_gib: float | None = Field(None, gt=0)
    """GiB in which each worker holds its rows, on its GPU where it has one: inputs, soft targets and validation together; what finds no room is read and made anew for every batch. Null: 4 on a GPU, else a quarter of what is free."""
    precision: PrecisionName = "float32"
    """`bfloat16`: autocast."""
    compile: bool = False
    """Through torch.compile."""

    @property
    def augments(self) -> list[str]:
        """The steps of `augment`, in order."""
        return transforms_of(self.augment)

    @model_validator(mode="after")
    def has_one_budget(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give `steps` or `epochs`, not both")
        if self.batch_size % (self.workers * self.accumulate):
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by workers * accumulate = {self.workers * self.accumulate}"
            )
        together = self.rows_together
        if self.batch_size % (together * self.workers * self.accumulate):
            what = "a `mosaic` is of four rows" if together == 4 else "`mix` mixes rows two by two"
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by {together} * workers * accumulate = "
                f"{together * self.workers * self.accumulate}, and {what}; take a multiple of it"
            )
        return self

    @property
    def rows_together(self) -> int:
        """How many rows that stand next to each other in a batch become one."""
        return 4 if "mosaic" in self.augments else 2 if self.mix is not None else 1
