"""The graph of a recipe: which stage decides on what. Each function names one stage, from digests of what is before it.

Knows nothing of how a stage is built, and imports no torch: `plan` uses it too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.cohort import CohortCommon
from students.config.combining import NO_OPTIONS, options_of
from students.config.task_terms import rule_in_keys
from students.config.terms import TeacherTermCommon
from students.tasks.figure import TOLD
from teachers.config.published import HuggingFaceTeacher, OnnxTeacher, TimmTeacher
from teachers.config.task import AnswerName
from teachers.config.teacher import DECIDES_NOTHING, CheckpointTeacher, TeacherConfig
from teachers.errors import RecipeError
from teachers.models.foreign import weights_in
from teachers.models.published_files import content_of
from teachers.models.text import files_beside
from teachers.soft_targets.class_map import resolved
from teachers.storage.seal import digest_of, sha256_file
from teachers.transfer_set.viewing import Viewing
from teachers.users_code.calls import within
from teachers.users_code.digest import file_digest

from ..recipe.deciding import energy_by_place, without_names
from ..recipe.model import Learner, Recipe, learner_of, name_in_recipe
from .code import code_inputs, code_of_folder, code_of_views, text_by_content
from .stages import Stage

if TYPE_CHECKING:
    from teachers.models.text import TextTransform

OF_VIEWS = ("views", "transform", "files", "view_seed", "mixup_alpha")
PREPROCESSED = ("module", "sklearn", "onnx")
"""Kinds of teachers whose inputs are made as the recipe says; those of others as their files say, or by themselves."""


def prepare_stage(recipe: Recipe, source_digest: str, beside: Mapping[str, str] | None = None) -> Stage:
    """`beside`: digests of `extra` and `corrections`, as far as they are there."""
    config = recipe.transfer_set.model_dump(mode="json", exclude={"licence"})
    config["task"] = recipe.task
    config["labelled"] = recipe.transfer_set.labelled_by_split  # `100` and `{train: 100}` are one thing
    config = {key: value for key, value in config.items() if key not in OF_VIEWS} | {"views": 0}
    inputs = {"source": source_digest, **(beside or {})}
    for key in ("source", "extra", "corrections"):
        if key in config and config[key]["kind"] == "import":
            inputs |= code_inputs(f"transfer_set.{key}", config[key])
        elif key in config:
            config[key].pop("path", None)  # where it lies decides nothing, its content does
    return Stage("prepare", "transfer_set", config, inputs)


def viewing_of(recipe: Recipe) -> Viewing | None:
    """In which views training rows are seen; they are no part of what is prepared. None: as they are."""
    config = recipe.transfer_set
    if not config.views:
        return None
    code = code_inputs("transfer_set", code_of_views(recipe))
    made_by = config.views, config.transforms, config.view_seed, digest_of(code) if code else ""
    return Viewing(*made_by, config.mixup_alpha)


def derive_stage(name: str, text: "TextTransform", segment: tuple[str, str]) -> Stage:
    """What is made of the text of one segment, `segment`: (name, digest)."""
    files = {f"file {name}": digest for name, digest in text.content.items()}
    config = {**text.document(), "version": text.version}
    return Stage("derive", name, config, {"rows": segment[1], **files}, part=segment[0])


def train_teacher_stage(recipe: Recipe, name: str, prepared: str) -> Stage:
    teacher = recipe.teachers[name]
    fields = {"kind", "model", "arguments", "files", "seed", "train", "preprocess", "classes"}
    config = {key: value for key, value in teacher.model_dump(mode="json").items() if key in fields}
    inputs = {"transfer set": prepared, **code_inputs(f"teachers.{name}", config)}
    text_by_content(f"teachers.{name}", config)
    return Stage("train_teacher", name, config, inputs)


def teacher_digest(recipe: Recipe, name: str, trained: str | None, source: str) -> str:
    """What a teacher is: its weights, wherever they come from. `trained`: the digest of what was trained here; `source`: of the
    transfer set's, whose order decides where rows are told by their number."""
    teacher = recipe.teachers[name]
    if trained is not None:
        return trained
    if teacher.kind == "callable":
        return digest_of([teacher.version, code_inputs(f"teachers.{name}", teacher.model_dump(mode="json"))])
    if isinstance(teacher, HuggingFaceTeacher | TimmTeacher | OnnxTeacher):
        with within(f"teachers.{name}"):
            return digest_of(content_of(teacher))
    if teacher.kind == "endpoint":
        return digest_of(teacher.model_dump(mode="json", exclude={*DECIDES_NOTHING, "class_map", "calibrate"}))
    if teacher.kind == "predictions":
        said = [_predictions_digest(Path(teacher.path)), source if teacher.by_row_number else None]
        return digest_of([*said, *([file_digest(Path(teacher.images))] if teacher.images is not None else [])])
    path = Path(teacher.path if teacher.kind == "checkpoint" else teacher.weights or "")
    files = [path / "config.json", weights_in(path)] if teacher.kind == "checkpoint" else [path]
    if teacher.kind == "checkpoint":
        files += files_beside(code_of_folder(teacher).get("preprocess") or {}, path).values()
    for file in files:
        if not file.is_file():
            key = "path" if teacher.kind == "checkpoint" else "weights"
            raise RecipeError(f"teachers.{name}.{key}: there is no file {file}")
    return digest_of([sha256_file(file) for file in files])


def _predictions_digest(path: Path) -> str:
    from teachers.models.predictions import is_store

    if not is_store(path):
        return file_digest(path)
    from teachers.models.predicted_stores import digest_of_store

    return digest_of_store(path)


def label_stage(
    config: TeacherConfig,
    name: str,
    segment: tuple[str, str],
    weights: str,
    classes: list[str],
    statistics: str,
    answer: AnswerName = "class_axis",
    lacks: str | None = None,
    max_boxes: int = 0,
) -> Stage:
    """`segment`: (name, digest); `statistics`: digest of the columns' mean and std, which `normalise: auto` uses.

    `lacks`: of these and of what training rows lack, which decide what becomes of categories and of missing numbers; None
    where there are neither.
    """
    left_out = DECIDES_NOTHING | {
        "calibrate",
        "train",
        "weights",
        "path",
        "class_map",
        "examples",
        "images",
        "seed",
        "allow_pickle",
        "trust_remote_code",
        "trusted",
    }
    if config.kind in ("callable", "predictions", "endpoint"):  # they get canonical inputs, or none
        left_out |= {"preprocess"}
    decided_by = {key: value for key, value in config.model_dump(mode="json").items() if key not in left_out}
    decided_by |= {"classes": config.classes or classes, "answer": answer}
    decided_by |= {"max_boxes": max_boxes} if max_boxes else {}
    text_by_content(f"teachers.{name}", decided_by)
    code = code_inputs(f"teachers.{name}", code_of_folder(config) if config.kind == "checkpoint" else decided_by)
    inputs = {"rows": segment[1], **code}  # code first: where it changed, it is why weights did
    if config.kind not in ("callable", "endpoint"):
        inputs["teacher weights"] = weights
    if config.kind in PREPROCESSED and config.preprocess.normalise == "auto" and not config.preprocess.function:
        inputs["statistics of the training rows"] = statistics
    if config.kind in PREPROCESSED and not config.preprocess.function and lacks is not None:
        inputs["what training rows lack"] = lacks
    return Stage("label", name, decided_by, inputs, part=segment[0])


def judge_stage(recipe: Recipe, name: str, prepared: str, split: str, labels: Mapping[str, str]) -> Stage:
    """How `teachers`, or one assistant, stand. `labels`: by teacher, the digest of what it says of the rows of `split`."""
    heard, called = labels_by_place(list(labels), labels)
    config = {"split": split, "teachers": [hearing(recipe, teacher) for teacher in labels]}
    return Stage("judge", name, config, {"transfer set": prepared, **heard}, called=called)


def assistant_as_teacher(recipe: Recipe, name: str, folder: str) -> CheckpointTeacher:
    """How a trained student labels for others."""
    return CheckpointTeacher(kind="checkpoint", path=folder, resources=recipe.learners[learner_of(name)].resources)


def hearing(recipe: Recipe, teacher: str) -> dict[str, Any]:
    """How a teacher's labels are read: its class map with what a file of it says, the floor of labels that hold only the class,
    how it is calibrated."""
    config = recipe.teachers.get(teacher)
    if config is None:
        return {"class_map": None, "probability_floor": CheckpointTeacher.model_fields["probability_floor"].default}
    calibrated = {} if config.calibrate is None else {"calibrate": config.calibrate}
    with within(f"teachers.{teacher}"):
        class_map = resolved(config.class_map)
    return {"class_map": class_map, "probability_floor": config.probability_floor, **calibrated}


def labels_by_place(teachers: Sequence[str], labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs of a stage that hears `teachers`, by their places; and what these are called in the recipe."""
    places = {teacher: f"labels of teacher {number}" for number, teacher in enumerate(teachers)}
    inputs = {place: labels[teacher] for teacher, place in places.items()}
    return inputs, {place: f"labels of {teacher}" for teacher, place in places.items()}


def evaluate_teachers_stage(recipe: Recipe, prepared: str, labels: Mapping[str, str]) -> Stage:
    heard, called = labels_by_place(list(recipe.teachers), labels)
    config = {"teachers": [hearing(recipe, teacher) for teacher in recipe.teachers], **_told(recipe)}
    return Stage("evaluate", "teachers", config, {"transfer set": prepared, **heard}, called=called)


def evaluate_stage(recipe: Recipe, name: str, prepared: str, student: str, labels: Mapping[str, str]) -> Stage:
    learner = recipe.learners[name]
    heard, called = labels_by_place(learner.teachers, labels)
    ensemble = own_combination(learner)
    if ensemble:
        ensemble["combine"] = rule_in_keys(ensemble["combine"], recipe.task)
    if ensemble.get("teacher_weights") is not None:
        ensemble["teacher_weights"] = [ensemble["teacher_weights"].get(teacher) for teacher in learner.teachers]
    if options := ensemble.pop("options", None):
        places = {teacher: str(number) for number, teacher in enumerate(learner.teachers)}
        ensemble["options"] = options.by_place(places).document()
    if ensemble:
        ensemble["order"] = [learner.teachers.index(teacher) for teacher in ensemble["order"]]
    config = {
        "teachers": [hearing(recipe, teacher) for teacher in learner.teachers],
        "ensemble": ensemble,
        "cpus": float(learner.resources.cpus),  # latency is measured with as many threads
        **_told(recipe),
    }
    if (energy := getattr(learner, "energy", None)) is not None:
        config["energy"] = energy_by_place(energy.model_dump(mode="json"), learner.teachers)
    if isinstance(learner, CohortCommon):
        config["as_one"] = learner.deliver == "ensemble"
    inputs = {"transfer set": prepared, "student": student, **heard, **_code_of_answers(recipe, name)}
    return Stage("evaluate", name, config, inputs, called=called)


def _told(recipe: Recipe) -> dict[str, Any]:
    """Figures that came to those of a task."""
    return {"told": list(TOLD[recipe.task])} if TOLD[recipe.task] else {}


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
            found = {"combine": term.combine, "teacher_weights": term.teacher_weights, "order": heard}
            options = options_of(term).together
            return found if options == NO_OPTIONS else {**found, "options": options}
    return {}


def export_stage(recipe: Recipe, name: str, networks: Sequence[str], evaluation: str) -> Stage:
    """Of what lies in the folder: networks, figures, and what decided them. Its card says its own name, and no other."""
    document = without_names(recipe, name)
    text_by_content(name_in_recipe(recipe, name), document["learner"])
    config = {"name": name, "recipe": document}
    return Stage("export", name, config, {"student": digest_of([*networks]), "evaluation": evaluation})
