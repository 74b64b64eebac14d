"""How the deliverable of a student or a cohort is built: a model folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from teachers.storage.seal import Seal, write_seal

from ..recipe.deciding import deciding
from ..stages import keys
from ..stages.stages import Built
from .context import Context, Facts
from .evaluate import read_evaluation
from .learned import Learned, Network, to_export


def export(context: Context, name: str, learned: Learned, evaluated: Built, prepared: Built) -> dict[str, Built]:
    """Everything that a student or cohort delivers, by name."""
    evaluation = read_evaluation(evaluated, context.recipe.learners[name].teachers)
    built = {}
    for title, networks in to_export(context.recipe, name, learned).items():
        stage = keys.export_stage(context.recipe, title, [network.digest for network in networks], evaluated.digest)
        build = partial(_export, context, title, networks, _figures(title, networks, evaluation), prepared)
        built[title] = context.stages.build(stage, build)
    return built


def _figures(title: str, networks: Sequence[Network], evaluation: dict[str, Any]) -> dict[str, Any]:
    """Of what is delivered: the student, one member of a cohort, or all of them as one."""
    if "members" not in evaluation:
        return evaluation
    alone = evaluation["members"][Path(networks[0].run).parent.name]
    return {**(evaluation["as_one"] if len(networks) > 1 else alone), "source_digest": evaluation["source_digest"]}


def _export(
    context: Context, title: str, networks: Sequence[Network], figures: dict[str, Any], prepared: Built, folder: Path
) -> tuple[Seal, Facts]:
    """One network as it is; several as their ensemble."""
    from students.delivering.export import export_student
    from students.measuring.ensemble import save_ensemble

    recipe_yaml = yaml.safe_dump(deciding(context.recipe, title), sort_keys=False)
    with TemporaryDirectory(prefix="ensemble-") as scratch:
        source = networks[0].folder
        if len(networks) > 1:
            source = Path(scratch)
            save_ensemble(source, [network.folder for network in networks])
        onnx = getattr(context.recipe.students.get(title), "onnx", False)
        about: dict[str, Any] = {"evaluation": figures, "recipe_yaml": recipe_yaml, "trust": context.recipe.trusted()}
        outputs = export_student(source, folder, name=title, transfer_set=prepared.folder, onnx=onnx, **about)
    return write_seal(folder, outputs), {}
