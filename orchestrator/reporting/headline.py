"""A report in short: the figures that stand on MLflow's parent run."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any


def learners(report: Mapping[str, Any]) -> dict[str, Any]:
    """Every student, and every member of a cohort as `cohort.member`: their documents have one form."""
    members = {
        f"{name}.{member}": found
        for name, cohort in report.get("cohorts", {}).items()
        for member, found in cohort["members"].items()
    }
    return {**report.get("students", {}), **members}


def curves_of(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The curves of a student and its control; of a member its own, under a student's names."""
    cohort, _, member = name.partition(".")
    runs: dict[str, Any] = report["curves"].get(cohort, {})
    if not member:
        return runs
    own = {f"{member}/": "student/", f"control/{member}/": "control/"}
    return {
        short + run.removeprefix(long): found
        for run, found in runs.items()
        for long, short in own.items()
        if run.startswith(long)
    }


def headline_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Flat names to figures, as a table shows them: `students.small.gain.mean`, `teachers.wide.test_accuracy`; what is none is left out."""
    return {name: round(float(value), 4) for name, value in _figures(report) if value is not None}


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    if report["ensemble"]:
        yield "ensemble.test_accuracy", report["ensemble"]["test_accuracy"]
    for name, teacher in report["teachers"].items():
        yield f"teachers.{name}.test_accuracy", teacher["test_accuracy"]
    for name, cohort in report.get("cohorts", {}).items():
        yield f"cohorts.{name}.ensemble.test_accuracy", cohort["ensemble"]["test_accuracy"]["mean"]
    for name, student in learners(report).items():
        yield f"students.{name}.test_accuracy", student["test_accuracy"]["mean"]
        for key in ("balanced_accuracy", "agreement", "ece", "parameters"):
            yield f"students.{name}.{key}", student[key]
        if student["control_accuracy"]:
            yield f"students.{name}.control_accuracy", student["control_accuracy"]["mean"]
        if student["gain"]:
            for end in ("low", "mean", "high"):
                yield f"students.{name}.gain.{end}", student["gain"][end]
    yield "seconds", report.get("seconds")


OVER_SEEDS = ("balanced_accuracy", "macro_f1", "nll", "ece", "agreement", "kl")
"""Figures of which a report tells the mean over seeds."""
NOTHING = "\N{EN DASH}"
"""Stands for a figure that nobody has."""
IMBALANCE = 0.1
"""How far the share of the commonest class is above an even one before accuracies are told beside it."""


def remarks(report: Mapping[str, Any]) -> list[str]:
    """What belongs beside the verdicts: what the commonest answer would reach, and how many verdicts stand there."""
    told = []
    if (found := report["transfer_set"]["commonest"])["share"] >= 1 / found["classes"] + IMBALANCE:
        share = percent(found["share"])
        told.append(f"The classes are uneven: who always answers {found['class']!r} has an accuracy of {share}.")
    given = sum(bool(learner["gain"]) and learner["gain"]["low"] is not None for learner in learners(report).values())
    if given > 1:
        chance = f"{100 * (1 - 0.95**given):.0f} %"
        told.append(
            f"{given} verdicts stand here, each at 95% and none corrected for the others: were there no difference "
            f"anywhere, one of them would still show one in up to {chance} of such reports."
        )
    return told


def teachers_alone(report: Mapping[str, Any]) -> list[str]:
    """What a run without a student came to."""
    if learners(report) or not report["ensemble"]:
        return []
    each = ", ".join(f"{name} {percent(teacher['test_accuracy'])}" for name, teacher in report["teachers"].items())
    together = report["ensemble"]
    balanced = f"balanced {percent(together['balanced_accuracy'])}"
    return [
        f"teachers together: {percent(together['test_accuracy'])} of test rows, {balanced}; {each}; no student is in the recipe"
    ]


def mean_of(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over seeds; None where one has no such figure."""
    values = [run[key] for run in runs]
    return None if None in values else fmean(values)


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def decimals(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def spread(accuracy: Mapping[str, Any]) -> str:
    """Mean and standard deviation over seeds: `92.1 ± 0.4 %`."""
    if accuracy["std"] is None:
        return f"{percent(accuracy['mean'])} (one seed)"
    return f"{100 * accuracy['mean']:.1f} \N{PLUS-MINUS SIGN} {100 * accuracy['std']:.1f} %"


log = logging.getLogger(__name__)


SHARED_VIEW = "collegium"
"""Key of the view of an experiment's table that a run leaves there: with headline and gain as columns."""


def deep_link(base: str, experiment_id: str, run_id: str | None = None) -> str:
    """The experiment's table of runs in our view of it, or one run; the bare page opens somewhere else."""
    run, view = (f"/{run_id}", "") if run_id else ("", f"&viewStateShareKey={SHARED_VIEW}")
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs{run}?workflowType=machine_learning{view}"
