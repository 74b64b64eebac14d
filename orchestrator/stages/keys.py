"""The graph of a recipe: which stage decides on what. Each function names one stage, from digests of what is before it.

Knows nothing of how a stage is built, and imports no torch: `plan` uses it too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from students.config.cohort import CohortCommon
from students.config.student import ImportedTerm, TeacherTermCommon, control_train
from teachers.config.teacher import DECIDES_NOTHING, CheckpointTeacher, TeacherConfig
from teachers.errors import RecipeError
from teachers.storage.seal import digest_of, sha256_file
from teachers.users_code.calls import within
from teachers.users_code.digest import code_digest

from ..recipe.model import Learner, Recipe, learner_of, name_in_recipe, public
from .stages import Stage


def prepare_stage(recipe: Recipe, source_digest: str) -> Stage:
    config = recipe.transfer_set.model_dump(mode="json")
    config["source"] = {"kind": recipe.transfer_set.source.kind}  # where it lies decides nothing, its content does
    config["labelled"] = recipe.transfer_set.labelled_by_split  # `100` and `{train: 100}` are one thing
    return Stage("prepare", "transfer_set", config, {"source": source_digest})


def train_teacher_stage(recipe: Recipe, name: str, prepared: str) -> Stage:
    teacher = recipe.teachers[name]
    fields = {"kind", "model", "arguments", "seed", "train", "preprocess", "classes"}
    config = {key: value for key, value in teacher.model_dump(mode="json").items() if key in fields}
    inputs = {"transfer set": prepared}
    if teacher.kind == "module" and teacher.train is not None:
        inputs |= _code(f"teachers.{name}", teacher.model, *teacher.train.augments, teacher.preprocess.function)
    if teacher.kind == "sklearn":
        inputs |= _code(f"teachers.{name}", teacher.model, teacher.preprocess.function)
    return Stage("train_teacher", name, config, inputs)


def teacher_digest(recipe: Recipe, name: str, trained: str | None) -> str:
    """What a teacher is: its weights, wherever they come from. `trained`: the digest of what was trained here."""
    teacher = recipe.teachers[name]
    if trained is not None:
        return trained
    if teacher.kind == "callable":
        with within(f"teachers.{name}.function"):
            return code_digest(teacher.function)
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
    decided_by = {key: value for key, value in config.model_dump(mode="json").items() if key not in left_out}
    decided_by["classes"] = config.classes or classes
    inputs = {"teacher weights": weights, "rows": segment[1]}
    if config.kind != "checkpoint" and config.preprocess.normalise == "auto":
        inputs["statistics of the training rows"] = statistics
    inputs |= _code(f"teachers.{name}", config.preprocess.function, config.model if config.kind == "module" else None)
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
    augments = [*learner.train.augments, *control_train(learner.control, learner.train).augments]
    names = [*networks_code(learner), *augments, *_term_code(learner)]
    inputs |= _code(name_in_recipe(recipe, name), *names)
    return Stage("distill", name, config, inputs)


def networks_code(learner: Learner) -> list[str | None]:
    networks = learner.members.values() if isinstance(learner, CohortCommon) else [learner]
    return [name for network in networks for name in (network.model, network.preprocess.function)]


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
    inputs = {"transfer set": prepared, "student": student}
    inputs |= {f"labels of {teacher}": digest for teacher, digest in labels.items()}
    return Stage("evaluate", name, config, inputs)


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


def _term_code(learner: Learner) -> list[str | None]:
    terms = [term for term in learner.objective if isinstance(term, TeacherTermCommon)]
    return [*(term.combine for term in terms), *(term.loss for term in terms if isinstance(term, ImportedTerm))]


def _code(where: str, *names: str | None) -> dict[str, str]:
    """Digests of the import strings among `names`, which stand under `where` in the recipe."""
    with within(where):
        return {f"code of {name}": code_digest(name) for name in names if name is not None and ":" in name}
