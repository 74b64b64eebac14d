"""How the stages around training are built: prepare, evaluate, export. Reuse is decided elsewhere."""

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from teachers.config import Resources
from teachers.imports import load
from teachers.seal import Seal, publish, write_seal
from teachers.users_code import within

from . import graph
from .context import Context, Facts, Taught, delivered, delivered_digest, segments_of, sources
from .recipe import public
from .stages import Built

if TYPE_CHECKING:
    pass


def prepare(context: Context) -> Built:
    from teachers.look import source_digest
    from teachers.prepare import prepare as prepare_transfer_set

    config = context.recipe.transfer_set
    stage = graph.prepare_stage(context.recipe, source_digest(config))

    def build(folder: Path) -> tuple[Seal, Facts]:
        earlier = context.stages.earlier(stage)
        start = time.monotonic()
        transfer_set = prepare_transfer_set(
            config,
            folder,
            earlier=Path(earlier["folder"]) if earlier else None,
            run=partial(context.cluster.map, user_path=context.user_path),
        )
        rows = sum(segment.num_rows for segment in transfer_set.segments)
        return write_seal(folder, transfer_set.files()), _speed(rows, time.monotonic() - start)

    return context.stages.build(stage, build)


def evaluate_teachers(context: Context, prepared: Built, taught: Mapping[str, Taught]) -> Built:
    recipe = context.recipe
    segments = segments_of(prepared, "validation", "test")
    labels = {name: taught[name].digests(segments) for name in recipe.teachers}
    stage = graph.evaluate_teachers_stage(recipe, prepared.digest, labels)
    networks = {name: taught[name].network for name in recipe.teachers}
    keywords = {
        "transfer_set": prepared.folder,
        "sources": sources(recipe, None, taught, segments),
        "folders": {name: folder for name, folder in networks.items() if folder is not None},
        "trust": recipe.trusted(),
    }
    return context.stages.build(
        stage, partial(evaluate_on_cluster, context, Resources(), "students.evaluate:evaluate_teachers", keywords)
    )


def evaluate_student(
    context: Context, name: str, prepared: Built, student: Built, taught: Mapping[str, Taught]
) -> Built:
    config = context.recipe.students[name]
    segments = segments_of(prepared, "validation", "test")
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = graph.evaluate_stage(context.recipe, name, prepared.digest, student.digest, labels)
    kinds = ("student", "control")
    runs = {kind: {seed: student.folder / kind / f"seed-{seed}" for seed in config.train.seeds} for kind in kinds}
    keywords = {
        "transfer_set": prepared.folder,
        "sources": sources(context.recipe, config, taught, segments),
        "student_runs": runs["student"],
        "control_runs": runs["control"] if config.control else None,
        "chosen": delivered(student.folder)[1],
        "trust": context.recipe.trusted(),
        "threads": max(1, int(config.resources.cpus)),
        **graph.own_combination(config),
    }
    with within(f"students.{name}"):
        return context.stages.build(
            stage,
            partial(evaluate_on_cluster, context, config.resources, "students.evaluate:evaluate_student", keywords),
        )


def evaluate_on_cluster(
    context: Context, resources: Resources, function: str, keywords: Mapping[str, Any], folder: Path
) -> tuple[Seal, Facts]:
    """`function`: the import string of one of `students`, which needs torch."""
    bound = partial(load(function), **keywords)
    document = context.cluster.call(bound, resources=resources, user_path=context.user_path)
    publish(folder / "evaluation.json", json.dumps(document, indent=1, allow_nan=False).encode())
    return write_seal(folder, ["evaluation.json"]), {}


def export(context: Context, name: str, student: Built, evaluated: Built) -> Built:
    stage = graph.export_stage(context.recipe, name, delivered_digest(student), evaluated.digest)

    def build(folder: Path) -> tuple[Seal, Facts]:
        from students.export import export_student

        run, _ = delivered(student.folder)
        evaluation = json.loads((evaluated.folder / "evaluation.json").read_bytes())
        recipe_yaml = yaml.safe_dump(public(context.recipe), sort_keys=False)
        outputs = export_student(
            student.folder / run, folder, name=name, evaluation=evaluation, recipe_yaml=recipe_yaml
        )
        return write_seal(folder, outputs), {}

    return context.stages.build(stage, build)


def _speed(rows: int, seconds: float) -> Facts:
    return {"rows": rows, "rows_per_s": round(rows / max(seconds, 1e-9), 1)}
