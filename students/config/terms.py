"""Terms of an objective: what a student is compared with, and how each loss is set. Knows nothing of torch or ray."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, Tag, model_validator

from teachers.config.strict import ImportString, tag_or
from teachers.config.teacher import CombineName
from teachers.config.training import TrainConfig

from .combining import check_combining
from .distance import Distance
from .lfme_term import LfmeTerm
from .own_terms import MeanTeacherTerm, OwnLossName, PsKdTerm
from .standardise import Standardise
from .term_common import Ramp as Ramp
from .term_common import TeacherTermCommon as TeacherTermCommon
from .term_common import TermCommon as TermCommon

TaughtLossName = Literal[
    "soft",
    "teacher_label",
    "reverse_kl",
    "jensen_shannon",
    "logit_mse",
    "dkd",
    "dist",
    "logit_standardized",
    "label_smoothing_teacher",
    "lfme",
    "pseudo",
    OwnLossName,
]
"""Of terms that learn of more than the labels."""
StudentLossName = Literal["hard", TaughtLossName]
PeerLossName = Literal["peer", "feature", "channel"]
LossName = Literal[StudentLossName, PeerLossName]


class HardTerm(Distance, TermCommon):
    """Cross-entropy with the labels (of several classes a row: the binary ones' sum; of numbers: a distance), over the labelled rows of the batch."""

    loss: Literal["hard"]
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes, or over both outcomes of each."""


class SoftTerm(Distance, Standardise, TeacherTermCommon):
    """T^2 KL(teachers || student) of softened distributions (Hinton 2015), of each class or of one of many; of numbers: a distance."""

    loss: Literal["soft"]


class TeacherLabelTerm(TeacherTermCommon):
    """Hard distillation: cross-entropy with the class, or the classes, that the combined teachers say."""

    loss: Literal["teacher_label"]
    temperature: float = Field(1.0, gt=0)
    """At which the teachers are combined; the class said can depend on it, the student is not softened."""


class ReverseKlTerm(Standardise, TeacherTermCommon):
    """T^2 KL(student || teachers): the student says little where its teachers do, and need not cover all that they allow (MiniLLM, Gu et al., 2024)."""

    loss: Literal["reverse_kl"]


class JensenShannonTerm(Standardise, TeacherTermCommon):
    """T^2 (beta KL(teachers || m) + (1 - beta) KL(student || m)), m = beta teachers + (1 - beta) student (GKD, Agarwal et al., 2024)."""

    loss: Literal["jensen_shannon"]
    beta: float = Field(0.5, gt=0, lt=1)
    """Near 0 it is `beta` times `soft`, near 1 it is 1 - `beta` times `reverse_kl`."""


class LogitMseTerm(TeacherTermCommon):
    """Half the squared distance of logits, summed over the classes (Ba and Caruana, 2014)."""

    loss: Literal["logit_mse"]
    combine: CombineName | ImportString | None = "mean_logits"
    """How several teachers become one target: by the mean of their logits, as the paper has it."""
    temperature: float = Field(1.0, gt=0)
    """At which the teachers are combined; it cancels in the loss."""
    centre: bool = True
    """Compare logits of one class of many less their mean over the row's classes: a constant in all of them says nothing."""
    standardise: bool = False
    """Divide the difference in each class by the standard deviation, over the training rows, of what the teachers say of it."""


class DkdTerm(Standardise, TeacherTermCommon):
    """Decoupled distillation: T^2 (alpha KL of the label against all others + beta KL among the others) (Zhao et al., 2022)."""

    loss: Literal["dkd"]
    temperature: float = Field(4.0, gt=0)
    """Softens teacher and student alike; 4 on CIFAR-100, 1 on ImageNet."""
    alpha: float = Field(1.0, ge=0)
    """Of the label against all other classes."""
    beta: float = Field(8.0, ge=0)
    """Of the other classes among themselves: 2 to 8 on CIFAR-100, 0.5 on ImageNet. The authors let the term rise over 20 of 240 epochs (`ramp`)."""
    unlabelled: Literal["leave_out", "teacher_label"] = "leave_out"
    """What becomes of rows without a label: they are left out, as the paper has only rows with one, or the class that the combined teachers say stands for it."""

    @property
    def needs_labels(self) -> bool:
        return self.unlabelled == "leave_out"


class DistTerm(TeacherTermCommon):
    """T^2 (beta (1 - correlation over a row's classes) + gamma (1 - correlation over the rows, in each class)) of probabilities (DIST, Huang et al., 2022)."""

    loss: Literal["dist"]
    temperature: float = Field(4.0, gt=0)
    """Softens teacher and student alike; 4 on CIFAR-100, 1 on ImageNet."""
    beta: float = Field(1.0, ge=0)
    """Of the relation of classes in each row."""
    gamma: float = Field(1.0, ge=0)
    """Of the relation of rows in each class: of those that a worker has in one forward pass."""


class LogitStandardizedTerm(TeacherTermCommon):
    """`soft` of standardised logits (Sun et al., 2024), whose paper weighs it 9 beside 0.1 of `hard`."""

    loss: Literal["logit_standardized"]


class LabelSmoothingTeacherTerm(TermCommon):
    """`soft` from a virtual teacher that gives the label a probability and shares the rest alike (Tf-KD, Yuan et al., 2020); at temperature 1 it is label smoothing."""

    loss: Literal["label_smoothing_teacher"]
    temperature: float = Field(20.0, gt=0)
    """Softens teacher and student alike."""
    correct: float = Field(0.99, gt=0.5, lt=1)
    """The probability of the label, or of the outcome that each class has."""

    @property
    def needs_labels(self) -> bool:
        return True


AUTO = "auto"
"""Of `keep_above`: found on labelled validation images."""


class PseudoTerm(TeacherTermCommon):
    """Boxes that the combined teachers say, as if they were true ones, each as far as its score goes."""

    loss: Literal["pseudo"]
    temperature: float = Field(1.0, gt=0)
    """Boxes have none; it cancels."""
    keep_above: (
        Annotated[float, Field(gt=0, le=1)] | dict[str, Annotated[float, Field(gt=0, le=1)]] | Literal["auto"]
    ) = 0.3
    """Score from which on a box is learnt, for all classes or by class; `auto`: of each class the one with the best F1 of the combined teachers on labelled validation images."""
    ignore_above: float = Field(0.1, ge=0, le=1)
    """Boxes with at least this score and less than `keep_above` are neither learnt nor denied: nobody is punished there, but for what is said within a box that is learnt."""
    soft: bool = True
    """The score of a box is what is taught of it, and its weight; false: a box that is learnt is learnt as a true one."""

    @model_validator(mode="after")
    def ignores_below_what_it_keeps(self) -> Self:
        given = self.keep_above
        least = 1.0 if given == AUTO else min(given.values(), default=1.0) if isinstance(given, dict) else float(given)
        if self.ignore_above > least:
            raise ValueError(
                f"ignore_above is {self.ignore_above:g}, more than keep_above {least:g}: it is the lower end of what is ignored; "
                f"lower it, or raise keep_above"
            )
        return self


class ImportedTerm(TeacherTermCommon):
    """A loss of yours: `fn(student [rows, width], target [rows, width], *, temperature, **arguments) -> [rows]`.

    Logits, or standardised numbers (of boxes what the network gives, and what is said); what nobody knows of a target is NaN. One with a parameter `labels` is given those of the rows, and takes labelled rows alone.
    """

    loss: ImportString
    arguments: dict[str, Any] = {}
    """Keyword arguments of the loss; `${NAME}` in them is a variable of the environment."""


Term = Annotated[
    Annotated[HardTerm, Tag("hard")]
    | Annotated[SoftTerm, Tag("soft")]
    | Annotated[TeacherLabelTerm, Tag("teacher_label")]
    | Annotated[ReverseKlTerm, Tag("reverse_kl")]
    | Annotated[JensenShannonTerm, Tag("jensen_shannon")]
    | Annotated[LogitMseTerm, Tag("logit_mse")]
    | Annotated[DkdTerm, Tag("dkd")]
    | Annotated[DistTerm, Tag("dist")]
    | Annotated[LogitStandardizedTerm, Tag("logit_standardized")]
    | Annotated[LabelSmoothingTeacherTerm, Tag("label_smoothing_teacher")]
    | Annotated[LfmeTerm, Tag("lfme")]
    | Annotated[PseudoTerm, Tag("pseudo")]
    | Annotated[PsKdTerm, Tag("ps_kd")]
    | Annotated[MeanTeacherTerm, Tag("mean_teacher")]
    | Annotated[ImportedTerm, Tag("import")],
    tag_or(get_args(StudentLossName), "loss", "import"),
]
"""One term of an objective, chosen by `loss`."""


def check_ramps(
    objective: Sequence[TermCommon], train: TrainConfig, where: str = "objective", first_stage: float = 0.0
) -> None:
    """Raise ValueError for a term that would never reach its weight. `where` they stand; `first_stage`: the share of the steps in
    which hints train alone, after which ramps of other terms begin."""
    for number, term in enumerate(objective):
        if term.ramp is None or train.steps is None:
            continue
        first = round(first_stage * train.steps)
        there = first if getattr(term, "alone", None) else train.steps - first
        rises = term.ramp.steps or round((term.ramp.share or 0) * train.steps)
        if rises > there:
            key = "steps" if term.ramp.steps else "share"
            of = f"{there} steps of its stage" if first else f"{there} steps of train"
            raise ValueError(
                f"{where}.{number}.ramp.{key} is {getattr(term.ramp, key)}, longer than the {of}: the term would never reach its "
                f"weight"
            )


def labels_alone(objective: Sequence[TermCommon]) -> tuple[HardTerm, ...]:
    """The objective of who hears nobody: the terms of `objective` that compare with labels, with the same label smoothing.

    Their weights keep their proportions and sum to 1; ramps balance them with teachers, so there are none.
    """
    hard = [term for term in objective if isinstance(term, HardTerm)] or [HardTerm(loss="hard")]
    total = sum(term.weight for term in hard)
    shares = [term.weight / total if total else 1 / len(hard) for term in hard]
    return tuple(
        term.model_copy(update={"weight": share, "ramp": None}) for term, share in zip(hard, shares, strict=True)
    )


def check_teachers(objective: Sequence[TermCommon], teachers: list[str], *, may_be_silent: bool = False) -> None:
    """Raise ValueError for a term that listens to somebody else than `teachers`, and where no term listens to any, unless
    they `may_be_silent`: they give hints, or their weights."""
    if len(set(teachers)) != len(teachers):
        raise ValueError(f"teachers {teachers} name one twice")
    listens = any(isinstance(term, TeacherTermCommon | LabelSmoothingTeacherTerm) for term in objective)
    if teachers and not may_be_silent and not listens:
        raise ValueError(f"no term listens to the teachers {teachers}; add `{{loss: soft}}`, or remove them")
    for number, term in enumerate(objective):
        if isinstance(term, TeacherTermCommon):
            heard = set(term.teachers or teachers)
            for name in sorted((heard | set(term.teacher_weights or {})) - set(teachers)):
                raise ValueError(f"objective.{number} names {name!r}, which is not among the teachers {teachers}")
            if not heard:
                raise ValueError(f"objective.{number}: loss {term.loss!r} needs `teachers`, and there are none")
            if term.teacher_weights is not None:
                check_weights_of_heard(f"objective.{number}", heard, term.teacher_weights)
            check_combining(f"objective.{number}", term, term.teachers or teachers)


def check_weights_of_heard(where: str, heard: set[str], weights: Mapping[str, float]) -> None:
    """Raise ValueError, which begins with `where`, unless each of `heard` has a weight, and one of them above 0."""
    if silent := sorted(heard - set(weights)):
        raise ValueError(f"{where}: teacher_weights says nothing of {silent}")
    if not any(weights[name] > 0 for name in heard):
        raise ValueError(
            f"{where} hears {sorted(heard)} alone, whose teacher_weights are all 0, so nobody teaches in it; give one of "
            f"them a weight, or remove the term"
        )


TAUGHT = (SoftTerm(loss="soft", weight=0.9), HardTerm(loss="hard", weight=0.1))
"""The objective of who has teachers, where the recipe says nothing."""
