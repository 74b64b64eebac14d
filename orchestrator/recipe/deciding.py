"""What of a recipe decides one of its students: what stands beside the student's model, and in its key.

On what and beside whom it was trained, what is tracked and what was required decide nothing; neither does where data and
weights lie, which is told and is in no key.
"""

from typing import Any

from students.config.task_terms import rule_in_keys
from teachers.config.task import TaskName
from teachers.config.teacher import DECIDES_NOTHING
from teachers.soft_targets.class_map import resolved

from .model import Learner, Recipe, learner_of

NOT_OF_TRAINING = {"resources", "require", "deliver", "placement"}
"""Fields of a student or cohort that change neither what is trained nor what it is compared with."""
OF_A_PLACE = ("path", "weights", "allow_pickle", "trust_remote_code", "trusted")
"""Of a source or a teacher: where it comes from; what it holds or says is known by content."""


def deciding(recipe: Recipe, name: str) -> dict[str, Any]:
    """The part of the recipe that decides a student, cohort or `cohort.member`: itself and all that teach it."""
    mine = learner_of(name)
    learners = {each for names in recipe.before(mine) for each in names} | {mine}
    heard = {teacher for each in learners for teacher in recipe.learners[each].teachers}
    document = recipe.model_dump(mode="json", include={"format", "name", "task"})
    document["transfer_set"] = recipe.transfer_set.model_dump(mode="json")
    document["teachers"] = {
        each: config.model_dump(mode="json", exclude=DECIDES_NOTHING | {"require"})
        for each, config in recipe.teachers.items()
        if each in heard
    }
    for kind, configs in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        document[kind] = {each: _learner(config) for each, config in configs.items() if each in learners}
    return document


def _learner(config: Learner) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=NOT_OF_TRAINING)


def without_names(recipe: Recipe, name: str) -> dict[str, Any]:
    """The same with nobody's name: a teacher is known by its place in the list of who hears it, and told there."""
    document = deciding(recipe, name)
    source = document["transfer_set"]["source"]
    for placed in (source, *document["teachers"].values()):
        for key in OF_A_PLACE:
            placed.pop(key, None)
    for teacher in document["teachers"].values():
        teacher["class_map"] = resolved(teacher["class_map"])
    return {
        **{key: document[key] for key in ("name", "task", "transfer_set")},
        "learner": _nameless(document, learner_of(name)),
    }


def _nameless(document: dict[str, Any], name: str) -> dict[str, Any]:
    if name in document["teachers"]:
        teacher: dict[str, Any] = document["teachers"][name]
        return teacher
    learner = document["students"].get(learner_of(name)) or document["cohorts"][learner_of(name)]
    terms = [{**term, **_in_keys(term, learner["teachers"], document["task"])} for term in learner["objective"]]
    hints = [{**hint, "teacher": learner["teachers"].index(hint["teacher"])} for hint in learner.get("hints", [])]
    if "init" in learner:
        learner = {**learner, "init": {**learner["init"], "from": learner["teachers"].index(learner["init"]["from"])}}
    member = [*learner.get("members", [])].index(name.partition(".")[2]) if "." in name else None
    return {
        **learner,
        "member": member,
        "objective": terms,
        **({"hints": hints} if hints else {}),
        "teachers": [_nameless(document, teacher) for teacher in learner["teachers"]],
    }


def _in_keys(term: dict[str, Any], teachers: list[str], task: TaskName) -> dict[str, Any]:
    """What a term of an objective says of teachers, by their places, and of their combination."""
    found: dict[str, Any] = {"combine": rule_in_keys(term["combine"], task)} if "combine" in term else {}
    if term.get("teachers") is not None:
        found["teachers"] = [teachers.index(teacher) for teacher in term["teachers"]]
    if term.get("teacher_weights") is not None:
        found["teacher_weights"] = [term["teacher_weights"].get(teacher) for teacher in teachers]
    if term.get("experts") is not None:
        found["experts"] = [term["experts"].get(teacher) for teacher in teachers]
    return found
