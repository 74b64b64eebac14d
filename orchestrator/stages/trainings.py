"""The stages that train students and cohorts: one for each training, so that another seed or loss weight repeats no other.

A stage's part says which training it is: `student/seed-0`, `control/seed-0`; of a cohort `seed-0`, `control/seed-0`,
`offline/seed-0`. Teachers are known by their place in the student's list, never by their names.
"""

from collections.abc import Mapping
from typing import Any, Literal

from students.config.cohort import CodistillationCohort, CohortCommon, OnlineTeacherCohort
from students.config.cohort_terms import ChannelTerm, FeatureTerm, PeerTerm
from students.config.estimator import EstimatorStudent
from students.config.hints import weighed_by_label
from students.config.student import control_train
from students.config.terms import labels_alone
from teachers.transfer_set.viewing import Viewing

from ..recipe.deciding import energy_by_place, hints_by_place, term_by_place
from ..recipe.model import Learner, Recipe, name_in_recipe
from .code import code_inputs, text_by_content
from .keys import hearing, labels_by_place, viewing_of
from .stages import Stage

Kind = Literal["student", "control", "offline"]
"""Who learns: the student or cohort itself, the same by labels alone, a cohort's members without their peers."""

NOT_OF_TRAINING = {"resources", "require", "deliver", "placement", "control", "offline", "onnx"}
"""Fields of a student or cohort that cannot change what it trains itself."""


def kinds_of(learner: Learner) -> list[Kind]:
    """What is trained for each seed."""
    kinds: list[Kind] = ["student"]
    if learner.control:
        kinds.append("control")
    if isinstance(learner, CohortCommon) and learner.offline and learner.teachers:
        kinds.append("offline")
    return kinds


def part_of(learner: Learner, kind: Kind, seed: int) -> str:
    of_cohort = isinstance(learner, CohortCommon) and kind == "student"
    return f"seed-{seed}" if of_cohort else f"{kind}/seed-{seed}"


def training_stages(
    recipe: Recipe,
    name: str,
    prepared: str,
    labels: Mapping[str, str] | None,
    networks: Mapping[str, str] | None = None,
) -> dict[tuple[Kind, int], Stage]:
    """Of a student or a cohort, by kind and seed.

    `labels`: by teacher, the digest of what it says of the training rows, of one who is followed of what decides that; None: not
    known yet, and only controls are.
    `networks`: by teacher the digest of its network, of those whose weights a student begins with or whose last layer it reads.
    """
    learner = recipe.learners[name]
    return {
        (kind, seed): _training_stage(
            recipe, name, kind, seed, {"transfer set": prepared}, labels or {}, networks or {}
        )
        for kind in kinds_of(learner)
        if labels is not None or kind == "control"
        for seed in learner.train.seeds
    }


def _training_stage(
    recipe: Recipe,
    name: str,
    kind: Kind,
    seed: int,
    inputs: dict[str, str],
    labels: Mapping[str, str],
    networks: Mapping[str, str],
) -> Stage:
    learner, called = recipe.learners[name], dict[str, str]()
    document = {"kind": kind, "seed": seed, **_network_and_budget(learner, kind)}
    if kind == "control":
        document.pop("hydra", None)
        document.pop("follow", None)
        document["objective"] = [term.model_dump(mode="json") for term in labels_alone(learner.objective)]
    else:
        terms = [term for term in learner.objective if kind == "student" or not isinstance(term, PEERS)]
        documents = [term.model_dump(mode="json") for term in terms]
        document["objective"] = [term_by_place(each, learner.teachers, recipe.task) for each in documents]
        hints = [hint.model_dump(mode="json") for hint in getattr(learner, "hints", [])]
        document |= hints_by_place(hints, learner.teachers)
        document["teachers"] = [hearing(recipe, teacher) for teacher in learner.teachers]
        heard, called = labels_by_place(learner.teachers, labels)
        inputs |= heard
        for teacher in dict.fromkeys(hint.teacher for hint in weighed_by_label(getattr(learner, "hints", []))):
            place = f"last layer of teacher {learner.teachers.index(teacher)}"
            inputs[place], called[place] = networks[teacher], f"last layer of {teacher}"
    if (energy := document.pop("energy", None)) is not None and kind == "student":
        document["energy"] = energy_by_place(energy, learner.teachers)
    if (init := document.pop("init", None)) is not None and kind == "student":
        document["init"] = {**init, "from": learner.teachers.index(init["from"])}
        inputs["initial weights"], called["initial weights"] = networks[init["from"]], f"weights of {init['from']}"
    if (views := views_of_learner(recipe, learner)) is not None:
        document["views"] = {"number": views.number, **views.document(0)}
    inputs |= code_inputs(name_in_recipe(recipe, name), document)
    text_by_content(name_in_recipe(recipe, name), document)
    return Stage("distill", name, document, inputs, part_of(learner, kind, seed), called)


def views_of_learner(recipe: Recipe, learner: Learner) -> Viewing | None:
    """In which views it sees training rows. An estimator, which learns all rows at once, sees them as they are."""
    return None if isinstance(learner, EstimatorStudent) else viewing_of(recipe)


PEERS = PeerTerm | FeatureTerm | ChannelTerm
"""Terms that nobody hears who trains alone."""


def _network_and_budget(learner: Learner, kind: Kind) -> dict[str, Any]:
    """Everything but who is heard, and how."""
    document = learner.model_dump(mode="json", exclude={*NOT_OF_TRAINING, "teachers", "objective", "hints"})
    if isinstance(learner, CohortCommon) and kind != "student":
        document = {key: value for key, value in document.items() if key in CohortCommon.model_fields}
        document |= _members_alone(learner, kind)
    elif kind == "control":
        train = learner.train
        if not isinstance(learner, EstimatorStudent):
            train = control_train(learner.control, learner.train)
        document["train"] = train.model_dump(mode="json")
    document["train"].pop("seeds", None)
    return document


def _members_alone(cohort: CohortCommon, kind: Kind) -> dict[str, Any]:
    """Of its method a cohort's members have only the groups of workers and the steps between two of their own."""
    members = {}
    for name, member in cohort.members.items():
        train = cohort.member_train(name)
        train = control_train(cohort.control, train) if kind == "control" else train
        document = member.model_dump(mode="json", exclude={"layers", "role", "train"})
        seldom = isinstance(cohort, OnlineTeacherCohort) and member.role != "student"
        every = cohort.teachers_every if isinstance(cohort, OnlineTeacherCohort) and seldom else 1
        members[name] = {**document, "train": train.model_dump(mode="json", exclude={"seeds"}), "every": every}
    apart = isinstance(cohort, CodistillationCohort) and cohort.workers_per_member is not None
    return {"members": members, "train": {}, "workers": cohort.workers, "apart": apart}
