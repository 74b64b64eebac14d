"""The graph of a recipe: which stage decides on what. Each function names one stage, from digests of what is before it.

Knows nothing of how a stage is built, and imports no torch: `plan` uses it too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from students.config.cohort import CohortCommon
from students.config.student import TeacherTermCommon
from teachers.config.teacher import DECIDES_NOTHING, CheckpointTeacher, TeacherConfig
from teachers.errors import RecipeError
from teachers.storage.seal import digest_of, sha256_file

from ..recipe.model import Learner, Recipe, learner_of, name_in_recipe, public
from .code import code_inputs, code_of_folder
from .stages import Stage


def prepare_stage(recipe: Recipe, source_digest: str) -> Stage:
    config = recipe.transfer_set.model_dump(mode="json")
    if recipe.transfer_set.source.kind == "import":
        return Stage("prepare", "transfer_set", config, code_inputs("transfer_set.source", config["source"]))
    config["source"] = {"kind": recipe.transfer_set.source.kind}  # where it lies decides nothing, its content does
    config["labelled"] = recipe.transfer_set.labelled_by_split  # `100` and `{train: 100}` are one thing
    return Stage("prepare", "transfer_set", config, {"source": source_digest})


def train_teacher_stage(recipe: Recipe, name: str, prepared: str) -> Stage:
    teacher = recipe.teachers[name]
    fields = {"kind", "model", "arguments", "files", "seed", "train", "preprocess", "classes"}
    config = {key: value for key, value in teacher.model_dump(mode="json").items() if key in fields}
    inputs = {"transfer set": prepared, **code_inputs(f"teachers.{name}", config)}
    return Stage("train_teacher", name, config, inputs)


def teacher_digest(recipe: Recipe, name: str, trained: str | None) -> str:
    """What a teacher is: its weights, wherever they come from. `trained`: the digest of what was trained here."""
    teacher = recipe.teachers[name]
    if trained is not None:
        return trained
    if teacher.kind == "callable":
        return digest_of([teacher.version, code_inputs(f"teachers.{name}", teacher.model_dump(mode="json"))])
    path = Path(teacher.path if teacher.kind == "checkpoint" else teacher.weights or "")
    files = [path / "config.json", path / "model.safetensors"] if teacher.kind == "checkpoint" else [path]
    for file in files:
        if not file.is_file():
            key = "path" if teacher.kind == "checkpoint" else "weights"
            raise RecipeError(f"teachers.{name}.{key}: there is no file {file}")
    return digest_of([sha256_file(file) for file in files])


def label_stage(
    config: TeacherConfig, name: str, segment: tuple[str, str], weights: str, classes: list[str], statistics: str
) -> Stage:
    """`segment`: (name, digest); `statistics`: digest of the columns' mean and std, which `normalise: auto` uses."""
    left_out = DECIDES_NOTHING | {"train", "weights", "path", "class_map", "seed", "allow_pickle", "trusted"}
    if config.kind == "callable":  # it gets canonical inputs, and is its code
        left_out |= {"preprocess"}
    decided_by = {key: value for key, value in config.model_dump(mode="json").items() if key not in left_out}
    decided_by["classes"] = config.classes or classes
    inputs = {"rows": segment[1], **({} if config.kind == "callable" else {"teacher weights": weights})}
    if (
        config.kind in ("module", "sklearn")
        and config.preprocess.normalise == "auto"
        and not config.preprocess.function
    ):
        inputs["statistics of the training rows"] = statistics
    inputs |= code_inputs(f"teachers.{name}", code_of_folder(config) if config.kind == "checkpoint" else decided_by)
    return Stage("label", name, decided_by, inputs, part=segment[0])


def judge_stage(recipe: Recipe, name: str, prepared: str, split: str, labels: Mapping[str, str]) -> Stage:
    """How `teachers`, or one assistant, stand. `labels`: by teacher, the digest of what it says of the rows of `split`."""
    config = {"split": split, "teachers": {teacher: hearing(recipe, teacher) for teacher in labels}}
    inputs = {"transfer set": prepared, **{f"labels of {teacher}": digest for teacher, digest in labels.items()}}
    return Stage("judge", name, config, inputs)


def assistant_as_teacher(recipe: Recipe, name: str, folder: str) -> CheckpointTeacher:
    """How a trained student labels for others."""
    return CheckpointTeacher(kind="checkpoint", path=folder, resources=recipe.learners[learner_of(name)].resources)


NOT_OF_TRAINING = {"resources", "require", "deliver", "placement"}
"""Fields of a student or cohort that cannot change what is trained."""


def distill_stage(recipe: Recipe, name: str, prepared: str, labels: Mapping[str, str]) -> Stage:
    """Of a student or a cohort. `labels`: by teacher, the digest of what it says of the training rows."""
    learner = recipe.learners[name]
    config = {key: value for key, value in learner.model_dump(mode="json").items() if key not in NOT_OF_TRAINING}
    config["teachers"] = {teacher: hearing(recipe, teacher) for teacher in learner.teachers}
    inputs = {"transfer set": prepared, **{f"labels of {teacher}": digest for teacher, digest in labels.items()}}
    inputs |= code_inputs(name_in_recipe(recipe, name), config)
    return Stage("distill", name, config, inputs)


def hearing(recipe: Recipe, teacher: str) -> dict[str, Any]:
    """How a teacher's labels are read: its class map, and the floor of labels that hold only the class."""
    config = recipe.teachers.get(teacher)
    if config is None:
        return {"class_map": None, "probability_floor": CheckpointTeacher.model_fields["probability_floor"].default}
    return {"class_map": config.class_map, "probability_floor": config.probability_floor}


def evaluate_teachers_stage(recipe: Recipe, prepared: str, labels: Mapping[str, str]) -> Stage:
    config = {"teachers": {teacher: hearing(recipe, teacher) for teacher in recipe.teachers}}
    inputs = {"transfer set": prepared, **{f"labels of {teacher}": digest for teacher, digest in labels.items()}}
    return Stage("evaluate", "teachers", config, inputs)


def evaluate_stage(recipe: Recipe, name: str, prepared: str, student: str, labels: Mapping[str, str]) -> Stage:
    learner = recipe.learners[name]
    config = {
        "teachers": {teacher: hearing(recipe, teacher) for teacher in learner.teachers},
        "ensemble": own_combination(learner),
        "cpus": learner.resources.cpus,  # latency is measured with as many threads
    }
    if isinstance(learner, CohortCommon):
        config["as_one"] = learner.deliver == "ensemble"
    inputs = {"transfer set": prepared, "student": student, **_code_of_answers(recipe, name)}
    inputs |= {f"labels of {teacher}": digest for teacher, digest in labels.items()}
    return Stage("evaluate", name, config, inputs)


def _code_of_answers(recipe: Recipe, name: str) -> dict[str, str]:
    """Of the networks of a student or cohort, and of its combination rules: what it is compared by."""
    answers = {"model", "arguments", "files", "preprocess", "members"}
    document = recipe.learners[name].model_dump(mode="json")
    rules = [{key: term[key] for key in ("combine", "files")} for term in document["objective"] if "combine" in term]
    networks = {key: value for key, value in document.items() if key in answers}
    return code_inputs(name_in_recipe(recipe, name), {**networks, "rules": rules})


def own_combination(config: Learner) -> dict[str, Any]:
    """How the student itself hears its teachers: the first term that listens to all of them, in that term's order."""
    for term in config.objective:
        if isinstance(term, TeacherTermCommon) and set(term.teachers or config.teachers) == set(config.teachers):
            heard = list(term.teachers or config.teachers)
            return {"combine": term.combine, "teacher_weights": term.teacher_weights, "order": heard}
    return {}


def export_stage(recipe: Recipe, name: str, student: str, evaluation: str) -> Stage:
    document = public(recipe)
    for gated in (
        "teachers",
        "students",
        "cohorts",
    ):  # what is required of somebody changes nothing of what is delivered
        document[gated] = {who: {**config, "require": None} for who, config in document[gated].items()}
    return Stage("export", name, {"recipe": document}, {"student": student, "evaluation": evaluation})
