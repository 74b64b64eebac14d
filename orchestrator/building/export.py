"""How the deliverable of a student or a cohort is built: a model folder."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from teachers.storage.seal import Seal, write_seal

from ..recipe.model import Recipe, public
from ..stages import keys
from ..stages.stages import Built
from .context import Context, Facts, delivered, delivered_digest


def export_model(context: Context, name: str, student: Built, evaluated: Built) -> Built:
    stage = keys.export_stage(context.recipe, name, delivered_digest(student), evaluated.digest)

    def build(folder: Path) -> tuple[Seal, Facts]:
        from students.delivering.export import export_student

        run, _ = delivered(student.folder)
        evaluation = json.loads((evaluated.folder / "evaluation.json").read_bytes())
        recipe_yaml = yaml.safe_dump(public(context.recipe), sort_keys=False)
        outputs = export_student(
            student.folder / run, folder, name=name, evaluation=evaluation, recipe_yaml=recipe_yaml
        )
        return write_seal(folder, outputs), {}

    return context.stages.build(stage, build)


def to_export(recipe: Recipe, name: str, trained: Built) -> dict[str, list[str]]:
    """By the deliverable's name (the cohort's, or `cohort.member` where every member is delivered), its runs."""
    config = recipe.cohorts[name]
    document = json.loads((trained.folder / "delivered.json").read_bytes())
    runs: dict[str, str] = {member: found["run"] for member, found in document["members"].items()}
    if config.deliver == "ensemble":
        return {name: [f"{member}/seed-{document['seed']}" for member in config.members]}
    if config.deliver == "all":
        return {f"{name}.{member}": [run] for member, run in runs.items()}
    return {name: [runs[document["member"] if config.deliver == "best" else config.deliver]]}


def export_cohort(context: Context, name: str, trained: Built, evaluated: Built) -> dict[str, Built]:
    built = {}
    for title, runs in to_export(context.recipe, name, trained).items():
        digest = "+".join(delivered_digest(trained, run) for run in runs)
        stage = keys.export_stage(context.recipe, title, digest, evaluated.digest)
        folders = [trained.folder / run for run in runs]
        built[title] = context.stages.build(stage, partial(_export, context, title, folders, evaluated))
    return built


def _export(context: Context, title: str, runs: Sequence[Path], evaluated: Built, folder: Path) -> tuple[Seal, Facts]:
    """One run as it is; several as their ensemble."""
    from students.delivering.export import export_student
    from students.measuring.ensemble import save_ensemble

    evaluation = json.loads((evaluated.folder / "evaluation.json").read_bytes())
    recipe_yaml = yaml.safe_dump(public(context.recipe), sort_keys=False)
    with TemporaryDirectory(prefix="ensemble-") as scratch:
        source, figures = runs[0], evaluation["members"].get(runs[0].parent.name)
        if len(runs) > 1:
            source, figures = Path(scratch), evaluation["as_one"]
            save_ensemble(source, runs)
        figures = {**figures, "source_digest": evaluation["source_digest"]}
        outputs = export_student(source, folder, name=title, evaluation=figures, recipe_yaml=recipe_yaml)
    return write_seal(folder, outputs), {}
