"""Terms of an objective: what a student is compared with, and how each loss is set. Knows nothing of torch or ray."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, Tag

from teachers.config.strict import ImportString, tag_or
from teachers.config.training import TrainConfig

from .distance import Distance
from .own_terms import MeanTeacherTerm, OwnLossName, PsKdTerm
from .term_common import Ramp as Ramp
from .term_common import TeacherTermCommon as TeacherTermCommon
from .term_common import TermCommon as TermCommon

StudentLossName = Literal["hard", "soft", "teacher_label", OwnLossName]
PeerLossName = Literal["peer", "feature", "channel"]
LossName = Literal[StudentLossName, PeerLossName]


class HardTerm(Distance, TermCommon):
    """Cross-entropy with the labels (of several classes a row: the binary ones' sum; of numbers: a distance), over the labelled rows of the batch."""

    loss: Literal["hard"]
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes, or over both outcomes of each."""


class SoftTerm(Distance, TeacherTermCommon):
    """T^2 KL(teachers || student) of softened distributions (Hinton 2015), of each class or of one of many; of numbers: a distance."""

    loss: Literal["soft"]


class TeacherLabelTerm(TeacherTermCommon):
    """Hard distillation: cross-entropy with the class, or the classes, that the combined teachers say."""

    loss: Literal["teacher_label"]
    temperature: float = Field(1.0, gt=0)
    """At which the teachers are combined; the class said can depend on it, the student is not softened."""


class ImportedTerm(TeacherTermCommon):
    """A loss of yours: `fn(student [rows, width], target [rows, width], *, temperature, **arguments) -> [rows]`.

    Logits, or standardised numbers; what nobody knows of a target is NaN.
    """

    loss: ImportString
    arguments: dict[str, Any] = {}
    """Keyword arguments of the loss; `${NAME}` in them is a variable of the environment."""


Term = Annotated[
    Annotated[HardTerm, Tag("hard")]
    | Annotated[SoftTerm, Tag("soft")]
    | Annotated[TeacherLabelTerm, Tag("teacher_label")]
    | Annotated[PsKdTerm, Tag("ps_kd")]
    | Annotated[MeanTeacherTerm, Tag("mean_teacher")]
    | Annotated[ImportedTerm, Tag("import")],
    tag_or(get_args(StudentLossName), "loss", "import"),
]
"""One term of an objective, chosen by `loss`."""


def check_ramps(objective: Sequence[TermCommon], train: TrainConfig) -> None:
    """Raise ValueError for a term that would never reach its weight."""
    for number, term in enumerate(objective):
        if term.ramp and term.ramp.steps and train.steps and term.ramp.steps > train.steps:
            raise ValueError(
                f"objective.{number}.ramp.steps is {term.ramp.steps}, longer than the {train.steps} steps of train: "
                f"the term would never reach its weight"
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
    they `may_be_silent`: they give their weights."""
    if len(set(teachers)) != len(teachers):
        raise ValueError(f"teachers {teachers} name one twice")
    if teachers and not may_be_silent and not any(isinstance(term, TeacherTermCommon) for term in objective):
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
