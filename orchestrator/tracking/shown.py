"""What MLflow's list of runs shows of a run without a click: its name, its transfer set, its source, and the columns.

Knows nothing of when it is told, and of no server.
"""

import json
from collections.abc import Mapping
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from students.tasks.figure import MINUS, Figure, headline
from teachers.config.transfer_set import TransferSetConfig

from ..recipe.model import Recipe
from ..reporting.headline import SHARED_VIEW, learners, on_validation, task_of
from .names import fit_name

if TYPE_CHECKING:
    from teachers.transfer_set.transfer_set import TransferSet

VIEW_TAG = f"mlflow.sharedViewState.{SHARED_VIEW}"
"""Tag of an experiment, in which MLflow's page keeps a view that somebody shares: the link names its key."""
ATTRIBUTES = ("Dataset", "Source", "Models")
WIDTH = 200
"""Of a column, in pixels: two figures are in sight beside MLflow's assistant."""
MOST = 3
"""Students that a name or the columns have room for."""
DIGEST = 12
"""Characters of a digest that stand beside the data set's name."""


def source_tags(source: str | None) -> dict[str, str]:
    """`source`: the file of the recipe, as its user named it; None for a recipe that was made in Python."""
    return {"mlflow.source.name": source or "a recipe made in Python", "mlflow.source.type": "LOCAL"}


def results_in_short(report: Mapping[str, Any]) -> str:
    """`small +6.4`: gains over the control (of shares in points), headlines where there is no control. Empty without any."""
    if "unjudged" in report:
        return ""
    figure = headline(task_of(report))
    everyone = learners(report)
    if "compared" in report:  # of many variants those that validation rows would choose
        everyone = {name: everyone[name] for name in report["compared"]["of"]}
        looks = {name: on_validation(each, figure.key) for name, each in everyone.items()}
        worth = {name: -inf if look is None else figure.sign * (look["mean"] or 0.0) for name, look in looks.items()}
        everyone = {name: everyone[name] for name in sorted(everyone, key=lambda each: -worth[each])}
    told = [f"{name} {short}" for name, learner in everyone.items() if (short := _short(figure, learner))]
    return ", ".join(told[:MOST]) + (f" and {len(told) - MOST} more" if len(told) > MOST else "")


def _short(figure: Figure, learner: Mapping[str, Any]) -> str:
    gain, value = learner["gain"], (learner[f"test_{figure.key}"] or {}).get("mean")
    if gain and gain["mean"] is not None:
        return figure.gained(gain["mean"]).replace(MINUS, "-")
    return "" if value is None else figure.shown(value)


def run_name(recipe: str, command: str) -> str:
    """Until there are results, which stand behind it then: `digits run: small +6.4`."""
    return f"{recipe} {command}"


def view(recipe: Recipe) -> str:
    """The columns of the experiment's table, as MLflow's page keeps them in `VIEW_TAG`: headline and gain by student."""
    metrics = ["search.best"] if recipe.search is not None else []
    for name in [*recipe.students, *recipe.members()][:MOST]:
        metrics += [f"students.{name}.test_{headline(recipe.task).key}", f"students.{name}.gain.mean"]
    figures = [f"metrics.`{fit_name(name)}`" for name in metrics]
    columns = [*figures, *(f"attributes.`{name}`" for name in ATTRIBUTES)]
    widths = dict.fromkeys(columns, WIDTH)
    return json.dumps({"selectedColumns": columns, "columnOrder": columns, "columnWidths": widths})


def data_set(config: TransferSetConfig, transfer_set: "TransferSet", digest: str) -> dict[str, str]:
    """The fields of MLflow's `Dataset`: name, digest, where it is from, columns, and rows by split."""
    name, kind, source = _source(config)
    columns = [(column.name, f"{column.kind} {list(column.shape)}") for column in transfer_set.columns]
    what = "classes" if transfer_set.space.has_classes else "columns"
    for label in config.labels:
        columns.append((label, f"label, {len(transfer_set.classes)} {what}"))
    rows = {
        split: sum(segment.num_rows for segment in transfer_set.of(split)) for split in ("train", "validation", "test")
    }
    schema = {"mlflow_colspec": [{"name": name, "type": what, "required": True} for name, what in columns]}
    return {
        "name": name[:250],
        "digest": digest[:DIGEST],
        "source_type": kind,
        "source": json.dumps(source),
        "schema": json.dumps(schema),
        "profile": json.dumps({"num_rows": sum(rows.values()), **rows}),
    }


def _source(config: TransferSetConfig) -> tuple[str, str, dict[str, Any]]:
    """(name, type of the source as MLflow calls it, what it keeps of one)."""
    source = config.source
    if source.kind == "sklearn":
        return source.name, "code", _code(f"sklearn.datasets:load_{source.name}")
    if source.kind == "import":
        return source.function, "code", _code(source.function)
    return PurePath(source.path).name or source.path, "local", {"uri": source.path}


def _code(name: str) -> dict[str, Any]:
    return {"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": name}}
