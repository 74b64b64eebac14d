"""How the stages that measure are built: teachers, students, cohorts, on the test split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.energy import judge_of
from teachers.config.resources import Resources
from teachers.resources.bundles import num_threads
from teachers.storage.seal import Seal, publish, write_seal
from teachers.users_code.calls import within

from ..recipe.model import Learner
from ..stages import keys
from ..stages.stages import Built
from ..stages.trainings import kinds_of
from .context import Context, Facts, Taught, segments_judged, segments_of, sources
from .learned import Learned

if TYPE_CHECKING:
    from students.runs.run import Source


def evaluate_teachers(context: Context, prepared: Built, taught: Mapping[str, Taught]) -> Built:
    recipe = context.recipe
    segments = segments_of(prepared, "train", "validation", "test")
    labels = {name: taught[name].digests(segments) for name in recipe.teachers}
    stage = keys.evaluate_teachers_stage(recipe, prepared.digest, labels)
    networks = {place(number): taught[name].network for number, name in enumerate(recipe.teachers)}
    keywords = {
        "transfer_set": prepared.folder,
        "sources": by_place(sources(recipe, None, taught, segments)),
        "folders": {number: folder for number, folder in networks.items() if folder is not None},
        "trust": recipe.trusted(),
    }
    return context.stages.build(
        stage,
        partial(
            evaluate_on_cluster,
            context,
            prepared,
            Resources(),
            "students.measuring.evaluate:evaluate_teachers",
            keywords,
        ),
    )


def evaluate_student(
    context: Context, name: str, prepared: Built, student: Learned, taught: Mapping[str, Taught]
) -> Built:
    config = context.recipe.students[name]
    segments = segments_judged(context.recipe, prepared, config)
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = keys.evaluate_stage(context.recipe, name, prepared.digest, student.digest, labels)
    keywords = {
        "transfer_set": prepared.folder,
        "sources": by_place(sources(context.recipe, config, taught, segments)),
        "student_runs": student.folders("student"),
        "control_runs": student.folders("control") if config.control else None,
        "chosen": student.delivered().seed,
        "trust": context.recipe.trusted(),
        "threads": num_threads(config.resources),
        **combination_heard(config),
        **energy_heard(config),
    }
    with within(f"students.{name}"):
        return context.stages.build(
            stage,
            partial(
                evaluate_on_cluster,
                context,
                prepared,
                config.resources,
                "students.measuring.evaluate:evaluate_student",
                keywords,
            ),
        )


def evaluate_on_cluster(
    context: Context, prepared: Built, resources: Resources, function: str, keywords: Mapping[str, Any], folder: Path
) -> tuple[Seal, Facts]:
    """`function`: the import string of one of `students`, which needs torch."""
    document = context.cluster.call(function, resources=resources, user_path=context.user_path, **keywords)
    document["source_digest"] = prepared.stage.inputs["source"]
    publish(folder / "evaluation.json", json.dumps(document, indent=1, allow_nan=False).encode())
    return write_seal(folder, ["evaluation.json"]), {}


def place(number: int) -> str:
    """What an evaluation calls a teacher: names may change, and what was measured stays."""
    return f"teacher@{number}"


def by_place(sources: "Sequence[Source]") -> "tuple[Source, ...]":
    return tuple(replace(source, name=place(number)) for number, source in enumerate(sources))


def combination_heard(config: Learner) -> dict[str, Any]:
    """How the student hears its teachers, who are known by their places."""
    own = keys.own_combination(config)
    places = {name: place(number) for number, name in enumerate(config.teachers)}
    if weights := own.get("teacher_weights"):
        own["teacher_weights"] = {places[name]: weight for name, weight in weights.items()}
    if options := own.get("options"):
        own["options"] = options.by_place(places)
    if own:
        own["order"] = [places[name] for name in own["order"]]
    return own


def energy_heard(config: Learner) -> dict[str, Any]:
    """By whose logits rows are left out, where they are."""
    energy = getattr(config, "energy", None)
    if energy is None:
        return {}
    number = config.teachers.index(judge_of(energy, config.teachers))
    return {"energy": energy.model_copy(update={"teacher": place(number)})}


def read_evaluation(built: Built, teachers: Sequence[str]) -> dict[str, Any]:
    """What was measured; `teachers`: what those who were heard are called in this recipe."""
    measured = json.loads((built.folder / "evaluation.json").read_bytes())
    document: dict[str, Any] = _named(measured, {place(number): name for number, name in enumerate(teachers)})
    return document


def _named(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _named(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def evaluate_cohort(
    context: Context, name: str, prepared: Built, trained: Learned, taught: Mapping[str, Taught]
) -> Built:
    config = context.recipe.cohorts[name]
    segments = segments_judged(context.recipe, prepared, config)
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = keys.evaluate_stage(context.recipe, name, prepared.digest, trained.digest, labels)
    kinds = kinds_of(config)
    keywords = {
        "transfer_set": prepared.folder,
        "sources": by_place(sources(context.recipe, config, taught, segments)),
        "members": {member: {kind: trained.folders(kind, member) for kind in kinds} for member in config.members},
        "chosen": {member: trained.delivered(member).seed for member in config.members},
        "trust": context.recipe.trusted(),
        "threads": num_threads(config.resources),
        "as_one": config.deliver == "ensemble",
        **combination_heard(config),
    }
    with within(f"cohorts.{name}"):
        function = "students.measuring.cohort:evaluate_cohort"
        build = partial(evaluate_on_cluster, context, prepared, config.resources, function, keywords)
        return context.stages.build(stage, build)
