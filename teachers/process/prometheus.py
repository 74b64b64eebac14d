"""Figures for Prometheus, through Ray's agent on each node; nothing where Ray does not run.

Counted by the shard, the evaluation and the portion of points, never by the row or the step. Ray puts `ray_` before the
names, and `_total` behind those of counters.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

from .log_lines import ids


class Figure(NamedTuple):
    kind: Literal["Counter", "Gauge"]
    labels: tuple[str, ...]
    """Besides `run`, the id of the command's run."""
    meaning: str


FIGURES: dict[str, Figure] = {
    "collegium_labelled_rows": Figure("Counter", ("teacher", "segment"), "Rows that are committed."),
    "collegium_committed_shards": Figure("Counter", ("teacher", "segment"), "Shards that are committed."),
    "collegium_shard_retries": Figure("Counter", ("teacher",), "Shards that were sent again after a loss."),
    "collegium_ready_replicas": Figure("Gauge", ("teacher",), "Replicas that label."),
    "collegium_answered_rows": Figure("Counter", ("teacher",), "Rows about which replicas, live ones too, were asked."),
    "collegium_teacher_seconds": Figure(
        "Counter", ("teacher", "phase"), "What replicas spend their time with: read, compute, write."
    ),
    "collegium_training_steps": Figure("Gauge", ("stage", "training"), "Optimiser steps taken."),
    "collegium_training_loss": Figure("Gauge", ("stage", "training"), "Mean over the newest steps."),
    "collegium_validation_accuracy": Figure("Gauge", ("stage", "training"), "Of the newest look at validation."),
    "collegium_validation_macro_average_precision": Figure(
        "Gauge", ("stage", "training"), "The same, where several classes can hold of a row."
    ),
    "collegium_validation_nll": Figure("Gauge", ("stage", "training"), "Of the newest look at validation, in nats."),
    "collegium_validation_rmse": Figure(
        "Gauge", ("stage", "training"), "The same of numbers: in the label's units, of several in standard deviations."
    ),
    "collegium_validation_mae": Figure("Gauge", ("stage", "training"), "The same, the mean absolute error."),
    "collegium_validation_ap": Figure("Gauge", ("stage", "training"), "The same of boxes: COCO's average precision."),
    "collegium_validation_ap50": Figure("Gauge", ("stage", "training"), "The same, at an overlap of 0.5."),
    "collegium_stages_done": Figure("Gauge", (), "Stages of the run that are sealed."),
    "collegium_mlflow_points": Figure("Counter", (), "Points of curves that MLflow took."),
    "collegium_mlflow_away_seconds": Figure("Gauge", (), "Since when MLflow has not answered; 0 when it does."),
}


def add(name: str, value: float, **labels: str) -> None:
    """Count `value` more."""
    if value > 0 and _ray_runs():
        _made(name).inc(value, tags=_tags(labels))


def show(name: str, value: float, **labels: str) -> None:
    """The figure is `value` from now on."""
    if _ray_runs():
        _made(name).set(value, tags=_tags(labels))


@contextmanager
def timed(name: str, **labels: str) -> Iterator[None]:
    """Count the seconds that this context lasts."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        add(name, time.perf_counter() - begun, **labels)


def _ray_runs() -> bool:
    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)  # None while another thread imports it
    return is_initialized is not None and bool(is_initialized())


@cache
def _made(name: str) -> Any:
    from ray.util import metrics

    figure = FIGURES[name]
    return getattr(metrics, figure.kind)(name, figure.meaning, (*figure.labels, "run"))


def _tags(labels: dict[str, str]) -> dict[str, str]:
    return {**labels, "run": str(ids().get("run", ""))}
