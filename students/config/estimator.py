"""What a recipe can say of students that are estimators: trees, forests, linear models, boosted trees on soft targets."""

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from teachers.config.preprocess import Preprocess
from teachers.config.strict import Config, tag_or
from teachers.config.training import ClassWeights

from .own_terms import OwnTerm
from .student import StudentCommon, StudentConfig, TakesNoHints
from .terms import HardTerm, ImportedTerm, SoftTerm, TeacherLabelTerm, Term, check_teachers

LEARNT = (HardTerm, SoftTerm, TeacherLabelTerm)
"""Terms whose loss is linear in the target, so that weighted copies of rows stand for it."""
AT_ONCE = 1.0
"""The temperature that softens nothing."""
TAUGHT_AT_ONE = (SoftTerm(loss="soft", weight=0.9, temperature=AT_ONCE), HardTerm(loss="hard", weight=0.1))
"""An estimator cannot be softened: at T it would learn, and say, the softened distribution."""


class EstimatorStudentTrain(Config):
    """How an estimator that learns is fitted; everything else is among its `arguments`."""

    seeds: list[Annotated[int, Field(ge=0)]] = Field([0, 1, 2], min_length=1)
    """One student and one control is fitted for each: their `random_state`, where they have one."""
    class_weights: ClassWeights | None = None
    """Weight of a row in `hard`, by its class, as of a network."""

    @model_validator(mode="after")
    def seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} name one twice")
        return self


class EstimatorStudent(StudentCommon, TakesNoHints):
    """An estimator with scikit-learn's interface, who teaches it, and how: a tree, a forest, a linear model, boosted trees."""

    kind: Literal["sklearn"]
    """A student without a `kind` is a network."""
    trusted: list[str] = []
    """Types beyond scikit-learn's own that its skops file may name."""
    preprocess: Preprocess = Preprocess()
    """From canonical inputs to what this student takes."""
    learns: Literal["probabilities", "logits"] = "probabilities"
    """`probabilities`: a classifier, of weighted copies of each row, one for each class (of several classes a row: for each set of them); `logits`: a regressor of several values, of the logits that the teachers' distribution has. Where labels are numbers, it is a regressor of these."""
    least_weight: float = Field(1e-3, ge=0, lt=0.5)
    """Of `probabilities`: a copy with a smaller share of its row is left out, and the others of the row weigh more; 0: none is."""
    probability_floor: float = Field(1e-3, gt=0, lt=1)
    """E: its probabilities become log((1 - E) p + E / C), of several classes a row the log-odds of (1 - E) p + E / 2; logits that are learnt are those of probabilities of E / C or more."""
    objective: list[Term] = Field([*TAUGHT_AT_ONE], min_length=1)
    """A weighted sum of terms: `soft`, `teacher_label`, `hard`. With copies of rows its minimum is the very one that a network looks for; of numbers it is that of squared distances."""
    train: EstimatorStudentTrain = EstimatorStudentTrain()
    """Seeds."""
    control: bool = True
    """Fit the same estimator without teachers as well: same arguments and seeds, labelled rows only."""
    onnx: bool = False
    """Deliver `model.onnx` as well, compared with the estimator on test rows; where it cannot be converted, the card says why. Needs collegium[onnx]."""

    @model_validator(mode="after")
    def terms_fit(self) -> Self:
        for number, term in enumerate(self.objective):
            if isinstance(term, OwnTerm):
                raise ValueError(
                    f"objective.{number}.loss: an estimator is fitted at once, so it has no earlier self to learn from by "
                    f"{term.loss!r}; it takes soft, teacher_label and hard"
                )
        check_teachers(self.objective, self.teachers)
        for number, term in enumerate(self.objective):
            if not isinstance(term, LEARNT):
                named = "a loss of yours" if isinstance(term, ImportedTerm) else f"the loss {term.loss!r}"
                raise ValueError(
                    f"objective.{number}.loss: an estimator learns copies of rows, not by {named}; it takes "
                    f"soft, teacher_label and hard"
                )
            if isinstance(term, SoftTerm) and term.standardise:
                raise ValueError(
                    f"objective.{number}.standardise: an estimator learns what its teachers say, and would say, of "
                    f"standardised logits; remove it"
                )
            if term.ramp is not None:
                raise ValueError(f"objective.{number}.ramp: an estimator is fitted at once, so no weight can rise")
        if not any(term.weight > 0 for term in self.objective):
            raise ValueError("all terms of the objective have the weight 0, so there is nothing to learn")
        return self


Student = Annotated[
    Annotated[StudentConfig, Tag("network")] | Annotated[EstimatorStudent, Tag("sklearn")],
    tag_or(("sklearn",), "kind", "network"),
]
"""A network, or an estimator, which says its `kind`."""
