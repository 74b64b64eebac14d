"""The deliverable: a model folder with its card, figures, recipe and checksums, that needs nothing but Collegium.

Knows nothing of how the figures came about.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import yaml

from teachers.config.task import TaskName
from teachers.errors import CollegiumError, EnvironmentUnfit, StoreError
from teachers.models.folder import CONFIG, LoadedModel, ModelConfig, foreign_code, load_model, read_config
from teachers.storage.seal import local, publish, sha256_file
from teachers.transfer_set.transfer_set import TransferSet

from ..measuring.labelled import rows_at_once
from ..tasks.figure import BESIDE, FIGURES, UNJUDGED, headline
from .forms import FORMS
from .golden import GOLDEN, asked, compared, golden_rows
from .program import Sizes, output_of
from .thresholds import THRESHOLDS

SUMS, RECIPE = "SHA256SUMS", "recipe.yaml"
ONNX = FORMS["onnx"].file
ONNX_ROWS = 4096
"""Test rows that a graph is compared on, at most."""
ONNX_TOLERANCE = 1e-2
"""Of a probability, or a standard deviation of a number; a converter that is further off has not converted it."""

log = logging.getLogger(__name__)


def export_student(
    run: Path,
    folder: Path,
    *,
    name: str,
    evaluation: Mapping[str, Any],
    recipe_yaml: str,
    transfer_set: Path,
    onnx: bool = False,
    trust: Sequence[str] = (),
) -> list[str]:
    """Write `models/<name>-<key>/` from a finished run, its `evaluation.json` and the resolved recipe without secrets.

    `transfer_set`: on whose test rows the model is asked for its golden rows, and `model.onnx` is compared, if there is to
    be one. File by file, each in one step, SHA256SUMS last; what a killed export left is kept. Returns the files, relative.
    Raises StoreError when a file that is already there is not the run's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = read_config(run)
    recipe = yaml.safe_load(recipe_yaml)
    figures = deliverable_metrics(recipe["task"], evaluation)
    payloads = {
        config.weights: local(run, config.weights).read_bytes(),
        CONFIG: local(run, CONFIG).read_bytes(),
        **{name: local(run, name).read_bytes() for name in config.files},
    }
    model = load_model(run, trust=trust)
    golden = golden_rows(model, transfer_set)
    payloads |= {} if golden is None else {GOLDEN: golden}
    if onnx:
        graph, figures["onnx"] = _onnx(name, model, transfer_set)
        payloads |= {} if graph is None else {ONNX: graph}
    payloads |= {
        "README.md": model_card(name, config, figures, recipe).encode(),
        "metrics.json": json.dumps(figures, indent=1, allow_nan=False).encode(),
        RECIPE: recipe_yaml.encode(),
    }
    for file, payload in payloads.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        is_there = not publish(folder / file, payload)
        if is_there and file != GOLDEN and (folder / file).read_bytes() != payload:  # other CPUs round otherwise
            raise StoreError(f"{folder / file} is there and says something else; move it away and export again")
    publish(folder / SUMS, "".join(f"{sha256_file(folder / file)}  {file}\n" for file in payloads).encode())
    return [*payloads, SUMS]


def _onnx(name: str, model: LoadedModel, transfer_set: Path) -> tuple[bytes | None, dict[str, Any]]:
    """(the graph, how it answers test rows beside the model); where it cannot be converted, (None, why)."""
    form, data = FORMS["onnx"], TransferSet.open(transfer_set).seen(model.preprocessor.sees)
    segment = next(segment for segment in data.of("test") if segment.num_rows)
    rows = data.inputs(segment, 0, min(rows_at_once(data, ONNX_ROWS), segment.num_rows))
    golden = asked(model, model.preprocessor.derive(rows))
    try:
        graph = form.made_of(model, Sizes())
        found = compared(form.said(graph, golden.inputs), golden, model.config.space)
    except EnvironmentUnfit:
        raise
    except CollegiumError as error:
        why = str(error)
    else:
        if found.largest_difference <= ONNX_TOLERANCE:
            return graph, asdict(found)
        why = (
            f"the converter's graph says something else than the model, by {found.largest_difference:.2g} on test rows"
        )
    log.warning("%s is delivered without %s: %s", name, ONNX, why)
    return None, {"why": why}


def deliverable_metrics(task: TaskName, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """`metrics.json`: the figures of the delivered seed, and what the student's evaluation says of all seeds.

    `thresholds`: probabilities from which on `predict` says a class, where the task has any.
    `judged` is false where no row had a label: then there are figures only that need none.
    """
    runs = {run["seed"]: run for run in evaluation["student"]["runs"]}
    if not evaluation.get("judged", True):
        return {
            "format": 1,
            "delivered_seed": evaluation["delivered"],
            "judged": False,
            "test": runs[evaluation["delivered"]],
            "source_digest": evaluation["source_digest"],
        }
    key, test = headline(task).key, runs[evaluation["delivered"]]
    return {
        "format": 1,
        "delivered_seed": evaluation["delivered"],
        "test": test,
        **({THRESHOLDS: test[THRESHOLDS]} if THRESHOLDS in test else {}),
        f"test_{key}_by_seed": {str(seed): run[key] for seed, run in runs.items()},
        f"ensemble_test_{key}": evaluation["ensemble"][key],
        "gain": evaluation["gain"],
        "verdict": evaluation["verdict"],
        "source_digest": evaluation["source_digest"],
    }


def model_card(name: str, config: ModelConfig, figures: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """README.md with YAML front matter, in the form that model hubs read."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("students.delivering"),
        autoescape=False,  # Markdown; cells that come from users go through `code`
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"code": code}
    template = environment.get_template("model_card.md.j2")
    front = yaml.safe_dump(front_matter(name, figures, recipe), sort_keys=False, allow_unicode=True)
    learner, _, _ = name.partition(".")
    student = recipe["students"].get(learner) or recipe["cohorts"][learner]
    read = config.preprocess.get("text", {}).get("names", [])
    inputs = [dict(column) for column in config.preprocess.get("columns", [])]
    inputs += [{"name": name, "kind": "text", "shape": []} for name in read]
    return template.render(
        name=name,
        judged=[*FIGURES[recipe["task"]], *BESIDE[recipe["task"]]] if figures.get("judged", True) else (),
        unjudged=[BESIDE[recipe["task"]][0], *UNJUDGED[recipe["task"]]],
        first=headline(recipe["task"]),
        front=front,
        config=config,
        figures=figures,
        recipe=recipe,
        student=student,
        inputs=inputs,
        foreign=foreign_code(config),
        output=output_of(config.space),
        licences=licences_in(recipe),
    )


def licences_in(recipe: Mapping[str, Any]) -> dict[str, str]:
    """As the recipe declares them: of `data`, and of each teacher by `teacher NAME`."""
    declared = {"data": recipe.get("transfer_set", {}).get("licence")}
    declared |= {f"teacher {name}": teacher.get("licence") for name, teacher in recipe.get("teachers", {}).items()}
    return {whose: licence for whose, licence in declared.items() if licence}


def code(text: object) -> str:
    """Text as Markdown code that breaks no table: what it holds is shown, never interpreted."""
    plain = " ".join(str(text).replace("`", "'").replace("|", "\N{BROKEN BAR}").split())
    return f"`{plain}`"


def front_matter(name: str, figures: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    test, known = figures["test"], [figure.key for figure in FIGURES[recipe["task"]]]
    results = [
        {"type": metric, "name": f"test {metric}", "value": test[metric]}
        for metric in known
        if test.get(metric) is not None
    ]
    return {
        "library_name": "collegium",
        "tags": ["collegium", "knowledge-distillation", recipe["task"]],
        "metrics": [*dict.fromkeys("f1" if key.endswith("_f1") else key for key in known)],
        "model-index": [
            {
                "name": f"{recipe['name']}-{name}",
                "results": [
                    {
                        "task": {"type": recipe["task"]},
                        "dataset": {"name": recipe["name"], "type": recipe["name"], "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ],
    }
