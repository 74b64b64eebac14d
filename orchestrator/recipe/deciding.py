"""What of a recipe decides one of its students: what stands beside the student's model, and in its key.

On what and beside whom it was trained, what is tracked and what was required decide nothing; neither does where data and
weights lie, which is told and is in no key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from students.config.task_terms import rule_in_keys
from teachers.config.task import TaskName
from teachers.config.teacher import DECIDES_NOTHING
from teachers.soft_targets.class_map import resolved

from .model import Learner, Recipe, learner_of

NOT_OF_TRAINING = {"resources", "require", "deliver", "placement"}
"""Fields of a student or cohort that change neither what is trained nor what it is compared with."""
TOLD = {"licence"}
"""Of a teacher: what stands in the model card of who learns from it."""
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
        each: config.model_dump(mode="json", exclude=DECIDES_NOTHING - TOLD | {"require"})
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
    sources = [
        document["transfer_set"][key] for key in ("source", "extra", "corrections") if key in document["transfer_set"]
    ]
    for placed in (*sources, *document["teachers"].values()):
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
    terms = [term_by_place(term, learner["teachers"], document["task"]) for term in learner["objective"]]
    hints = hints_by_place(learner.get("hints", []), learner["teachers"])
    if "init" in learner:
        learner = {**learner, "init": {**learner["init"], "from": learner["teachers"].index(learner["init"]["from"])}}
    if "energy" in learner:
        learner = {**learner, "energy": energy_by_place(learner["energy"], learner["teachers"])}
    member = [*learner.get("members", [])].index(name.partition(".")[2]) if "." in name else None
    return {
        **learner,
        "member": member,
        "objective": terms,
        **hints,
        "teachers": [_nameless(document, teacher) for teacher in learner["teachers"]],
    }


def energy_by_place(energy: Mapping[str, Any], teachers: Sequence[str]) -> dict[str, Any]:
    """The document of `energy` that knows its teacher by its place."""
    return {**energy, "teacher": 0 if energy["teacher"] is None else teachers.index(energy["teacher"])}


def term_by_place(term: Mapping[str, Any], teachers: Sequence[str], task: TaskName) -> dict[str, Any]:
    """The document of a term of an objective that knows teachers by their places, and the names of all where rows hold them."""
    found = dict(term)
    if "combine" in term:
        found["combine"] = rule_in_keys(term["combine"], task)
    if term.get("teachers") is not None:
        found["teachers"] = [teachers.index(teacher) for teacher in term["teachers"]]
    for by_name in ("teacher_weights", "experts"):
        if term.get(by_name) is not None:
            found[by_name] = [term[by_name].get(teacher) for teacher in teachers]
    if term.get("column") is not None:
        found["called"] = list(teachers)
    return found


def hints_by_place(hints: Sequence[Mapping[str, Any]], teachers: Sequence[str]) -> dict[str, Any]:
    """Documents of hints that know teachers by their places; nothing where there are none."""
    documents = [{**hint, "teacher": teachers.index(hint["teacher"])} for hint in hints]
    return {"hints": documents} if documents else {}
