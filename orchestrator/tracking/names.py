"""What MLflow takes of names and values, made fit in one place; and what it refuses all the same, told by name.

A name that it does not take (a comma, a bracket, `..`, too long) keeps what can be kept and gets a mark of the whole one,
so two names stay two.
"""

import hashlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from teachers.process.log_lines import once

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 5000
PARAMS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
REFUSED = "INVALID_PARAMETER_VALUE"
"""Answer of a server that is well, and will never take this."""

log = logging.getLogger(__name__)


def fit_name(name: str) -> str:
    """Of a parameter, a metric or a tag: letters, digits, `_-. /`, and a path that means itself."""
    parts = re.sub(r"[^\w\-./ ]", "_", name).split("/")
    fit = "/".join("_" if part in ("", ".") else re.sub(r"^\.\.", "__", part) for part in parts)
    if fit == name and len(name) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{fit[: LONGEST_NAME - len(mark) - 1]}-{mark}"


def fit_value(text: str, longest: int = LONGEST_PARAM) -> str:
    """What a database takes as text, cut where it is too long; the end says how long it was."""
    whole = text.encode("utf-8", "replace").decode().replace("\0", "")
    cut = f"... ({len(whole):,} characters)"
    return whole if len(whole) <= longest else whole[: longest - len(cut)] + cut


def fit_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {fit_name(key): fit_value(value, LONGEST_TAG) for key, value in tags.items()}


def params(values: Mapping[str, str]) -> "list[Param]":
    from mlflow.entities import Param

    return [Param(fit_name(name), fit_value(value)) for name, value in values.items()]


def run_tags(tags: Mapping[str, str]) -> "list[RunTag]":
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in fit_tags(tags).items()]


def metric(name: str, value: float, time_ms: int, step: int = 0) -> "Metric":
    from mlflow.entities import Metric

    return Metric(fit_name(name), value, time_ms, step)


def model_metrics(figures: Mapping[str, float], time_ms: int, model: str) -> "list[Metric]":
    """Of a logged model; without those that are no number, which MLflow would keep as 0."""
    from mlflow.entities import Metric

    known = {name: value for name, value in figures.items() if not math.isnan(value)}
    return [Metric(fit_name(name), value, time_ms, 0, model) for name, value in known.items()]


def log_batch(
    client: "MlflowClient",
    run: str,
    *,
    metrics: "Sequence[Metric]" = (),
    params: "Sequence[Param]" = (),
    tags: "Sequence[RunTag]" = (),
) -> None:
    """Send all of it in portions; what MLflow refuses is told by its name, and the rest is sent. Raises its other errors."""
    _send(client, run, "metrics", metrics, METRICS_AT_ONCE)
    _send(client, run, "params", params, PARAMS_AT_ONCE)
    _send(client, run, "tags", tags, PARAMS_AT_ONCE)


def _send(client: "MlflowClient", run: str, kind: str, entries: Sequence[Any], at_once: int) -> None:
    from mlflow.exceptions import MlflowException

    for first in range(0, len(entries), at_once):
        some = entries[first : first + at_once]
        try:
            client.log_batch(run, **{kind: some})
        except MlflowException as error:
            if error.error_code != REFUSED:
                raise
            if len(some) == 1:
                reason = " ".join(str(error.message).split())[:300]
                once(log, f"MLflow does not take {some[0].key!r} of {kind}, the run goes on without it: {reason}")
            elif client.get_run(run).info.lifecycle_stage == "active":
                _send(client, run, kind, some, -(-len(some) // 2))
            else:
                raise
