"""A report in short: the figures that stand on MLflow's parent run."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from students.tasks.figure import BESIDE, FIGURES, NOTHING, ON_THE_RUN, TOLD, Figure, figure, headline
from teachers.config.task import TaskName


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


def task_of(report: Mapping[str, Any]) -> TaskName:
    task: TaskName = report["recipe"]["task"]
    return task


def headline_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Flat names to figures, as a table shows them: `students.small.gain.mean`, `teachers.wide.test_accuracy`; what is none is left out."""
    return {name: round(float(value), 4) for name, value in _figures(report) if value is not None}


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    task = task_of(report)
    of_test = f"test_{headline(task).key}"
    if report["ensemble"]:
        yield f"ensemble.{of_test}", report["ensemble"][of_test]
    for name, teacher in report["teachers"].items():
        yield f"teachers.{name}.{of_test}", teacher[of_test]
    for name, cohort in report.get("cohorts", {}).items():
        yield f"cohorts.{name}.ensemble.{of_test}", cohort["ensemble"][of_test]["mean"]
    for name, student in learners(report).items():
        yield f"students.{name}.{of_test}", student[of_test]["mean"]
        for key in (*ON_THE_RUN[task], "agreement", "parameters"):
            yield f"students.{name}.{key}", student[key]
        if control := student[f"control_{headline(task).key}"]:
            yield f"students.{name}.control_{headline(task).key}", control["mean"]
        if student["gain"]:
            for end in ("low", "mean", "high"):
                yield f"students.{name}.gain.{end}", student["gain"][end]
    for variant in report.get("compared", {}).get("variants", ()):
        yield f"students.{variant['name']}.step_ratio", (variant.get("step") or {}).get("ratio")
        yield f"students.{variant['name']}.gain.p_corrected", (variant["over_control"] or {}).get("p_corrected")
    yield "seconds", report.get("seconds")


def over_seeds_of(task: TaskName) -> tuple[Figure, ...]:
    """Figures of which a report tells the mean over seeds, beside the headline."""
    return (*FIGURES[task][1:], *BESIDE[task])


def means_of(task: TaskName, runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    return {figure.key: mean_of(runs, figure.key) for figure in over_seeds_of(task)}


def about_units(task: TaskName, names: Sequence[str]) -> Iterator[str]:
    """What figures are in the units of a label are in."""
    told = " and ".join(figure.label for figure in FIGURES[task] if figure.unit == "label")
    if told and len(names) == 1:
        yield f"{told} are in the units of {names[0]}."
    elif told:
        yield (
            f"{told} are of errors divided by the standard deviation of the labelled training rows, over {len(names)} columns "
            f"({', '.join(names)}); a table has each column in its own units."
        )


def remarks(report: Mapping[str, Any]) -> list[str]:
    """What belongs beside the verdicts: what the commonest answer would reach, and how many verdicts stand there."""
    told = [remark] if (remark := report["transfer_set"]["commonest"]["remark"]) else []
    given = sum(bool(learner["gain"]) and learner["gain"]["low"] is not None for learner in learners(report).values())
    if given > 1 and "compared" not in report:
        chance = f"{100 * (1 - 0.95**given):.0f} %"
        told.append(
            f"{given} verdicts stand here, each at 95% and none corrected for the others: were there no difference "
            f"anywhere, one of them would still show one in up to {chance} of such reports."
        )
    return told


def besides(report: Mapping[str, Any]) -> Iterator[str]:
    """Of each student the figures that belong beside its verdict: `small: 0.412 false positives an image, its control 0.601`."""
    task = task_of(report)
    for name, student in learners(report).items():
        for told in (figure(task, key) for key in TOLD[task]):
            control = mean_of(student["control_runs"], told.key) if student.get("control_runs") else None
            beside = f", its control {told.shown(control)}" if control is not None else ""
            yield f"{name}: {told.shown(student[told.key])} {told.label}{beside}"


def teachers_alone(report: Mapping[str, Any]) -> list[str]:
    """What a run without a student came to."""
    if learners(report) or not report["ensemble"]:
        return []
    first, second, *_ = FIGURES[task_of(report)]
    each = ", ".join(f"{name} {first.shown(teacher[first.key])}" for name, teacher in report["teachers"].items())
    together = report["ensemble"]
    also = f"{second.label} {second.shown(together[second.key])}"
    return [
        f"teachers together: test {first.label} {first.shown(together[first.key])}, {also}; {each}; no student is in the recipe"
    ]


def mean_of(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over seeds; None where one has no such figure."""
    values = [run[key] for run in runs]
    return None if None in values else fmean(values)


def on_validation(student: Mapping[str, Any], key: str) -> dict[str, float | None] | None:
    """`mean` and `std` over seeds of what the best look at validation found, which chooses; None where nothing was looked at.

    `std` is None for one seed.
    """
    looks = [run.get("validation") for run in student["runs"]]
    if None in looks or (mean := mean_of(looks, key)) is None:
        return None
    return {"mean": mean, "std": stdev(look[key] for look in looks) if len(looks) > 1 else None}


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def decimals(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def spread(figure: Figure, found: Mapping[str, Any]) -> str:
    """Mean and standard deviation over seeds: `92.1 ± 0.4 %`."""
    if found["std"] is None:
        return f"{figure.shown(found['mean'])} (one seed)"
    mean, std = figure.shown(found["mean"]), figure.shown(found["std"])
    unit = " %" if figure.unit == "share" else ""
    return f"{mean.removesuffix(unit)} \N{PLUS-MINUS SIGN} {std.removesuffix(unit)}{unit}"


log = logging.getLogger(__name__)


SHARED_VIEW = "collegium"
"""Key of the view of an experiment's table that a run leaves there: with headline and gain as columns."""


def deep_link(base: str, experiment_id: str, run_id: str | None = None) -> str:
    """The experiment's table of runs in our view of it, or one run; the bare page opens somewhere else."""
    run, view = (f"/{run_id}", "") if run_id else ("", f"&viewStateShareKey={SHARED_VIEW}")
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs{run}?workflowType=machine_learning{view}"
