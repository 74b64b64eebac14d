"""How the stages that measure are built: teachers, students, cohorts, on the test split."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from students.config.cohort import CohortConfig
from teachers.config.resources import Resources
from teachers.resources.bundles import num_threads
from teachers.storage.seal import Seal, publish, write_seal
from teachers.users_code.calls import within
from teachers.users_code.imports import load

from ..stages import keys
from ..stages.stages import Built
from .context import Context, Facts, Taught, delivered, delivered_member, segments_of, sources


def evaluate_teachers(context: Context, prepared: Built, taught: Mapping[str, Taught]) -> Built:
    recipe = context.recipe
    segments = segments_of(prepared, "validation", "test")
    labels = {name: taught[name].digests(segments) for name in recipe.teachers}
    stage = keys.evaluate_teachers_stage(recipe, prepared.digest, labels)
    networks = {name: taught[name].network for name in recipe.teachers}
    keywords = {
        "transfer_set": prepared.folder,
        "sources": sources(recipe, None, taught, segments),
        "folders": {name: folder for name, folder in networks.items() if folder is not None},
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
    context: Context, name: str, prepared: Built, student: Built, taught: Mapping[str, Taught]
) -> Built:
    config = context.recipe.students[name]
    segments = segments_of(prepared, "validation", "test")
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = keys.evaluate_stage(context.recipe, name, prepared.digest, student.digest, labels)
    kinds = ("student", "control")
    runs = {kind: {seed: student.folder / kind / f"seed-{seed}" for seed in config.train.seeds} for kind in kinds}
    keywords = {
        "transfer_set": prepared.folder,
        "sources": sources(context.recipe, config, taught, segments),
        "student_runs": runs["student"],
        "control_runs": runs["control"] if config.control else None,
        "chosen": delivered(student.folder)[1],
        "trust": context.recipe.trusted(),
        "threads": num_threads(config.resources),
        **keys.own_combination(config),
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
    bound = partial(load(function), **keywords)
    document = context.cluster.call(bound, resources=resources, user_path=context.user_path)
    document["source_digest"] = prepared.stage.inputs["source"]
    publish(folder / "evaluation.json", json.dumps(document, indent=1, allow_nan=False).encode())
    return write_seal(folder, ["evaluation.json"]), {}


def kinds_alone(config: CohortConfig) -> dict[str, bool]:
    return {"control": bool(config.control), "offline": config.offline and bool(config.teachers)}


def evaluate_cohort(
    context: Context, name: str, prepared: Built, trained: Built, taught: Mapping[str, Taught]
) -> Built:
    config = context.recipe.cohorts[name]
    segments = segments_of(prepared, "validation", "test")
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = keys.evaluate_stage(context.recipe, name, prepared.digest, trained.digest, labels)
    kinds = ["", *(kind for kind, wanted in kinds_alone(config).items() if wanted)]
    keywords = {
        "transfer_set": prepared.folder,
        "sources": sources(context.recipe, config, taught, segments),
        "members": {
            member: {
                kind or "student": {
                    seed: trained.folder / kind / member / f"seed-{seed}" for seed in config.train.seeds
                }
                for kind in kinds
            }
            for member in config.members
        },
        "chosen": {member: delivered_member(trained.folder, member)[1] for member in config.members},
        "trust": context.recipe.trusted(),
        "threads": num_threads(config.resources),
        "as_one": config.deliver == "ensemble",
        **keys.own_combination(config),
    }
    with within(f"cohorts.{name}"):
        function = "students.measuring.cohort:evaluate_cohort"
        build = partial(evaluate_on_cluster, context, prepared, config.resources, function, keywords)
        return context.stages.build(stage, build)
