"""Ways to distil one student, by the name that `collegium compare` knows each by: what each changes in its objective.

A method says terms that listen to teachers and how much labels count beside them; who is heard, by which rule several become
one, and how labels are smoothed stay the student's own. Knows nothing of torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from teachers.config.task import AnswerName

from .hints import HintLossName
from .student import StudentCommon
from .terms import HardTerm, TaughtLossName, TeacherTermCommon, TermCommon

RuleMethod = Literal[
    "mean_probability",
    "mean",
    "mean_logits",
    "median",
    "fitted",
    "inverse_variance",
    "best",
    "experts",
    "learned",
    "confusion",
    "correctness",
    "entropy",
    "confidence",
    "vote",
    "gradient",
    "wbf",
    "nms",
    "soft_nms",
    "nmw",
]
"""A rule by which several teachers become one target."""
FIRST_RULES = ("mean_probability", "mean", "wbf")
"""That of each answer which stands where a recipe says none: the same as none."""
MethodName = Literal[TaughtLossName, RuleMethod, HintLossName, "hydra", "best_detector", "teacher_boxes", "recipe"]
"""A loss; a rule, a loss of the student's `hints`, or a head for each teacher, beside `soft`, or of boxes beside `pseudo`; or the
objective as the recipe has it."""

Setting = Mapping[str, Any]
"""Of a method's first term, by key; `hard`: the weight of the terms that compare with labels, `hint`: of hints."""


@dataclass(frozen=True)
class Method:
    """`says`: one line for people; `terms`: as a recipe has them, those that listen to teachers; `hard`: the weight of labels.

    `rule`: by which teachers become one, in place of the student's own. `hint`: the loss of the student's `hints`, which other methods leave out.
    `hydra`: whether it has a head for each teacher, as other methods have not. `is_one_by`: keys of the first term without which it
    would be another method, whatever the student's own term says there.
    `settings`: those that are tried on validation rows beside the first, as many of every method.
    """

    says: str
    terms: Sequence[Mapping[str, Any]] = ()
    hard: float = 0.1
    rule: RuleMethod | None = None
    hint: HintLossName | None = None
    hydra: bool = False
    is_one_by: Setting = field(default_factory=dict)
    settings: Sequence[Setting] = ()

    @property
    def losses(self) -> tuple[str, ...]:
        return tuple(term["loss"] for term in self.terms)


SOFT = {"loss": "soft", "weight": 0.9}
SOFTENED = ({"temperature": 1.0}, {"temperature": 4.0}, {"weight": 0.5, "hard": 0.5})
PSEUDO = {"loss": "pseudo", "weight": 1.0}
KEPT = ({"keep_above": 0.1, "ignore_above": 0.1}, {"keep_above": 0.5}, {"weight": 0.9, "hard": 0.1})


def _by_rule(rule: RuleMethod, says: str) -> Method:
    return Method(says, (SOFT,), rule=rule, settings=SOFTENED)


def _of_boxes(says: str, rule: RuleMethod | None = None, *, soft: bool = True) -> Method:
    return Method(says, (PSEUDO,), hard=1.0, rule=rule, is_one_by={"soft": soft}, settings=KEPT)


def _by_hint(hint: HintLossName, says: str, *weights: float) -> Method:
    """`weights`: of the hint, that are tried beside its own."""
    settings = [{"hint": weight} for weight in weights]
    return Method(f"soft, and {says}", (SOFT,), hint=hint, settings=(*settings, {"weight": 0.5, "hard": 0.5}))


METHODS: dict[MethodName, Method] = {
    "soft": Method("what the teachers say together, softened (Hinton et al., 2015)", (SOFT,), settings=SOFTENED),
    "teacher_label": Method(
        "the class that the teachers say together, as if it were the label",
        ({"loss": "teacher_label", "weight": 0.5},),
        hard=0.5,
        settings=({"weight": 0.9, "hard": 0.1}, {"weight": 0.7, "hard": 0.3}, {"weight": 0.3, "hard": 0.7}),
    ),
    "reverse_kl": Method(
        "the divergence the other way round: the student may leave out what it cannot say (Gu et al., 2024)",
        ({"loss": "reverse_kl", "weight": 0.9},),
        settings=SOFTENED,
    ),
    "jensen_shannon": Method(
        "half of each of the two divergences, to their mixture (Agarwal et al., 2024)",
        ({"loss": "jensen_shannon", "weight": 0.9},),
        settings=SOFTENED,
    ),
    "logit_mse": Method(
        "squared distance of logits (Ba and Caruana, 2014)",
        ({"loss": "logit_mse", "weight": 0.1, "combine": "mean_logits"},),
        settings=({"weight": 0.9}, {"weight": 0.02}, {"weight": 0.1, "hard": 0.9}),
    ),
    "dkd": Method(
        "the label against all others, and the others among themselves, apart (Zhao et al., 2022)",
        ({"loss": "dkd", "weight": 1.0, "ramp": {"share": 0.1}, "unlabelled": "teacher_label"},),
        hard=1.0,
        settings=({"beta": 2.0}, {"beta": 0.5, "temperature": 1.0}, {"weight": 0.2}),
    ),
    "dist": Method(
        "correlations of what is said of classes and of rows (Huang et al., 2022)",
        ({"loss": "dist", "weight": 2.0},),
        hard=1.0,
        settings=({"temperature": 1.0}, {"temperature": 2.0}, {"hard": 0.1}),
    ),
    "logit_standardized": Method(
        "soft, of logits by their shape alone (Sun et al., 2024)",
        ({"loss": "logit_standardized", "weight": 9.0},),
        settings=({"temperature": 4.0}, {"weight": 0.9}, {"weight": 0.9, "hard": 0.9}),
    ),
    "label_smoothing_teacher": Method(
        "soft, from a teacher that is made up: sure of the label, alike for the rest (Yuan et al., 2020)",
        ({"loss": "label_smoothing_teacher", "weight": 0.9},),
        settings=({"correct": 0.9}, {"temperature": 4.0}, {"weight": 0.5, "hard": 0.5}),
    ),
    "lfme": Method(
        "experts of some classes each, who count less the nearer the student comes to them (Xiang et al., 2020)",
        ({"loss": "lfme", "weight": 1.0},),
        hard=1.0,
        settings=({"temperature": 4.0}, {"curriculum": None}, {"weight": 3.0}),
    ),
    "ps_kd": Method(
        "soft, and labels mixed with what the student itself last said of the row (Kim et al., 2021)",
        (SOFT, {"loss": "ps_kd", "weight": 0.1}),
        hard=0.0,
        settings=SOFTENED,
    ),
    "mean_teacher": Method(
        "soft, also from the average of the student's own weights (Tarvainen and Valpola, 2017)",
        (SOFT, {"loss": "mean_teacher", "weight": 0.5}),
        settings=SOFTENED,
    ),
    "mean_probability": _by_rule("mean_probability", "soft, of the mean of the teachers' probabilities"),
    "mean": _by_rule("mean", "soft, of the mean of the teachers' numbers"),
    "mean_logits": _by_rule("mean_logits", "soft, of the mean of the teachers' log-probabilities"),
    "median": _by_rule("median", "soft, of the median of what the teachers say"),
    "fitted": _by_rule("fitted", "soft, of log-probabilities weighed by labelled validation rows"),
    "inverse_variance": _by_rule("inverse_variance", "soft, each teacher by 1 / its squared error on validation rows"),
    "best": _by_rule("best", "soft, from the teacher that is best on labelled validation rows"),
    "experts": _by_rule("experts", "soft, in each class from whoever is right most often in it on validation rows"),
    "learned": _by_rule("learned", "soft, from whom a small gate says, trained on labelled validation rows"),
    "confusion": _by_rule("confusion", "soft, of what the true class was when a teacher said this"),
    "correctness": _by_rule("correctness", "soft, from who is nearer to the row's label (Zhang et al., 2022)"),
    "entropy": _by_rule("entropy", "soft, from who is less in doubt"),
    "confidence": _by_rule("confidence", "soft, from the most confident teacher of each row"),
    "vote": _by_rule("vote", "soft, of one vote each"),
    "gradient": _by_rule("gradient", "soft, of the mixture whose gradient is shortest (Du et al., 2020)"),
    "hint": _by_hint("hint", "mean square beside layers of a teacher (Romero et al., 2015)", 10.0, 1000.0),
    "attention": _by_hint("attention", "where its layers are active (Zagoruyko and Komodakis, 2017)", 100.0, 5000.0),
    "similarity": _by_hint(
        "similarity", "how alike it finds the rows of a batch (Tung and Mori, 2019)", 300.0, 10000.0
    ),
    "relation": _by_hint("relation", "distances and angles between rows (Park et al., 2019)", 0.1, 5.0),
    "channel_wise": _by_hint("channel_wise", "where each channel is active (Shu et al., 2021)", 0.1, 10.0),
    "correlation": _by_hint("correlation", "kernels of all pairs of rows (Peng et al., 2019)", 1.0, 50.0),
    "contrastive": _by_hint("contrastive", "a row told apart from others (Tian et al., 2020)", 0.2, 2.0),
    "review": _by_hint("review", "several stages at once (Chen et al., 2021)", 0.3, 5.0),
    "linear_embedding": _by_hint("linear_embedding", "a linear map of its layers (Wang et al., 2020)", 0.1, 10.0),
    "hydra": Method(
        "soft, with a head for each teacher on one body, and the mean of what they say (Tran et al., 2020)",
        (SOFT,),
        hydra=True,
        settings=SOFTENED,
    ),
    "pseudo": _of_boxes("boxes that the teachers say together, by their scores, beside the labelled ones"),
    "teacher_boxes": _of_boxes("the same boxes, each as if it were a labelled one", soft=False),
    "wbf": _of_boxes("pseudo, of boxes of one thing their mean (Solovyev et al., 2021)", "wbf"),
    "nms": _of_boxes("pseudo, of boxes of one thing the best", "nms"),
    "soft_nms": _of_boxes("pseudo, of all boxes, whose scores better ones lower (Bodla et al., 2017)", "soft_nms"),
    "nmw": _of_boxes("pseudo, of boxes of one thing their mean by overlap with the best (Zhou et al., 2017)", "nmw"),
    "best_detector": _of_boxes("pseudo, from the teacher that is best on labelled validation images", "best"),
    "recipe": Method("the objective as the recipe has it"),
}
"""The order in which they are shown; of two that come to the same objective the first stands."""
BESIDE_HINTS: Mapping[AnswerName, MethodName] = {"boxes": "pseudo"}
"""Beside which method hints stand, where that is not `soft`."""


def method_of(name: MethodName, answer: AnswerName) -> Method:
    """As it is of such answers."""
    method = METHODS[name]
    if method.hint is None or answer not in BESIDE_HINTS:
        return method
    other = BESIDE_HINTS[answer]
    beside, says = METHODS[other], method.says.replace("soft", other, 1)
    return replace(beside, says=says, hint=method.hint, settings=(*method.settings[:-1], beside.settings[-1]))


def changes_by(method: Method, student: StudentCommon, setting: Setting | None = None) -> dict[str, Any]:
    """What `student` has otherwise by `method`: its `objective`, and its `hints` and heads where it can have any, as a recipe has them.

    A term that the student's own objective has already stays as it stands there, and where that has all terms of the method,
    so does the weight of labels: it may have been tuned. `setting` comes before both.
    """
    own: Sequence[TermCommon] = student.objective  # type: ignore[attr-defined]  # of every kind of student
    if not method.terms:
        return {"objective": [term.model_dump(mode="json") for term in own]}
    mine, setting = {term.loss: term for term in reversed(own)}, setting or {}
    terms = [_term(term, mine.get(term["loss"]), own, method.rule) for term in method.terms]
    terms[0] |= {**method.is_one_by, **{key: value for key, value in setting.items() if key not in ("hard", "hint")}}
    weight = setting.get("hard", None if all(loss in mine for loss in method.losses) else method.hard)
    objective = {"objective": [*terms, *_hard_terms(own, weight)]}
    return {**objective, **_hints(method, student, setting), **_heads(method, student)}


def _heads(method: Method, student: StudentCommon) -> dict[str, Any]:
    """A head for each teacher, as the student has them, or as they are where nobody says more; one of every other method."""
    own = getattr(student, "hydra", None)
    if not method.hydra:
        return {} if own is None else {"hydra": None}
    return {"hydra": {} if own is None else own.model_dump(mode="json")}


def _hints(method: Method, student: StudentCommon, setting: Setting) -> dict[str, Any]:
    """The student's hints with the loss of `method`: where its own stands already as it stands, else with that loss's defaults."""
    own: Sequence[TermCommon] | None = getattr(student, "hints", None)
    if own is None or method.hint is None:
        return {} if own is None else {"hints": []}
    weight = {"weight": setting["hint"]} if "hint" in setting else {}
    return {"hints": [_hint(method.hint, hint.model_dump(mode="json")) | weight for hint in own]}


def _hint(loss: str, own: Mapping[str, Any]) -> dict[str, Any]:
    kept = own if own["loss"] == loss else {key: own[key] for key in ("teacher", "output", "layer")}
    return {**kept, "loss": loss}


HEARING = {*TeacherTermCommon.model_fields} - {*TermCommon.model_fields, "temperature"}
"""Keys of a term that say who is heard in it, and how several become one."""


def _term(
    said: Mapping[str, Any], own: TermCommon | None, objective: Sequence[TermCommon], rule: RuleMethod | None
) -> dict[str, Any]:
    """A method's term: as the student has it, else as the method says; whatever listens to teachers hears them as the student does."""
    hears = {} if said["loss"] in HEARS_NOBODY else _how_it_hears(objective, rule or said.get("combine"))
    if said["loss"] == "lfme":
        hears = {key: value for key, value in hears.items() if key == "teachers"}  # each by itself
    if own is None:
        return {**hears, **said}
    return {key: value for key, value in own.model_dump(mode="json").items() if key not in HEARING} | hears


HEARS_NOBODY: tuple[str, ...] = ("label_smoothing_teacher", "ps_kd", "mean_teacher")
"""Losses whose teacher is no teacher of the recipe."""


def _how_it_hears(objective: Sequence[TermCommon], rule: RuleMethod | None) -> dict[str, Any]:
    """Whom the one term that listens to teachers hears, and how, or of several the first that hears everybody; by another rule
    nothing that belongs to its own stays."""
    terms = [term for term in objective if isinstance(term, TeacherTermCommon)]
    term = next((term for term in terms if len(terms) == 1 or term.teachers is None), None)
    document = {} if term is None else term.model_dump(mode="json", include=HEARING)
    asked = None if rule in FIRST_RULES else rule
    said = None if document.get("combine") in FIRST_RULES else document.get("combine")
    if rule is not None and said != asked:
        document = {key: document[key] for key in ("teachers", "level") if key in document} | {"combine": asked}
    return {key: value for key, value in document.items() if value not in (None, [])}


def _hard_terms(objective: Sequence[TermCommon], weight: float | None) -> list[dict[str, Any]]:
    """The student's own terms that compare with labels, with the sum `weight` (None: their own); so all have one control."""
    own = [term for term in objective if isinstance(term, HardTerm)]
    if not own:
        return [] if weight is None else [HardTerm(loss="hard", weight=weight).model_dump(mode="json")]
    total = sum(term.weight for term in own)
    shares = [term.weight / total if total else 1 / len(own) for term in own]
    return [
        term.model_dump(mode="json") | ({} if weight is None else {"weight": weight * share, "ramp": None})
        for term, share in zip(own, shares, strict=True)
    ]


HAVE_NO_METHOD = {"hard"}
"""The control's, which stands in every comparison."""
