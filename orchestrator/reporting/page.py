"""`report.html`: a report as a page that needs nothing else, and prints. Knows nothing but `report.json`."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from students.tasks.figure import (
    AGREES,
    ALIKE,
    BESIDE,
    EXPLAINED,
    FIGURES,
    LOOKS,
    MINUS,
    SAID_AS,
    TOGETHER_BY,
    Figure,
    headline,
    significant,
)
from teachers.config.task import TaskName

from . import plots
from .by_box import box_pictures, legend, sheet
from .by_class import class_table, confusions, mistakes
from .by_value import pictures, value_table
from .columns import column_table
from .compared import tables as tables_of_variants
from .comparison import page_table
from .headline import about_units, curves_of, deep_link, learners, means_of, percent, remarks, spread, task_of
from .shots import page_table as table_of_shots
from .shown import count, marked, seconds
from .study_page import Plot, study_page
from .study_plots import label_of
from .timeline import began, timeline
from .together import of_several
from .uncertainty import tables as tables_of_heads
from .unjudged import SAID
from .unjudged import columns as unjudged_columns
from .unjudged import rows as unjudged_rows


def page(report: Mapping[str, Any]) -> str:
    """The HTML text; everything that comes from recipes and data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    if "unjudged" in report:
        return environment.get_template("unjudged.html.j2").render(
            report=report,
            said=SAID,
            columns=unjudged_columns(task_of(report)),
            said_as=SAID_AS[task_of(report)],
            rows=list(unjudged_rows(report)),
            recipe=_recipe(report),
        )
    first, *others = FIGURES[task_of(report)]
    environment.filters |= _filters(task_of(report), first)
    return environment.get_template("report.html.j2").render(
        report=report,
        first=first,
        test=f"test_{first.key}",
        together_by=TOGETHER_BY[task_of(report)],
        explained=" ".join([EXPLAINED[task_of(report)], *about_units(task_of(report), _names(report))]),
        unsure=_are_unsure(report),
        before=[first, *others[: BEFORE_THE_GAIN - 1]],
        after=[*others[BEFORE_THE_GAIN - 1 :], *BESIDE[task_of(report)]],
        rows=list(_rows(report)),
        shared=list(_shared_plots(report)),
        own={name: list(_student_plots(report, name)) for name in learners(report)},
        sheets={
            name: [(told, Markup(svg)) for told, svg in sheet(each.get("sheet") or (), _names(report), name)]
            for name, each in learners(report).items()
        },
        legend=legend(_names(report)),
        learners=learners(report),
        remarks=remarks(report),
        judged=dict(_judged(report)),
        columns=column_table(report["transfer_set"]),
        compared=page_table(report["comparison"]),
        shots=table_of_shots(first, report.get("by_shots")),
        variants=tables_of_variants(report) if "compared" in report else [],
        together=dict(_cohort_plots(report)),
        **of_several(report),
        heads=tables_of_heads(report),
        study=study_page(report["search"]) if "search" in report else None,
        tones={
            name: (student["gain"] or {"conclusion": "open"})["conclusion"]
            for name, student in learners(report).items()
        },
        timeline=_timeline(report),
        began=began(report["stages"]),
        recipe=_recipe(report),
        link=_link(report["mlflow"]),
    )


def _timeline(report: Mapping[str, Any]) -> Plot | None:
    found = timeline(report["stages"])
    return (found[0], Markup(found[1])) if found else None


def _filters(task: TaskName, first: Figure) -> dict[str, Callable[..., Any]]:
    """Of the template; `first`: the headline."""
    return {
        "percent": percent,
        "points": first.gained,
        "headline": first.shown,
        "recall_points": lambda share: f"{100 * share:+.1f}".replace("-", MINUS),
        "significant": significant,
        "column": column_title,
        "agrees": lambda found: AGREES[task].format(BESIDE[task][0].shown(found["agreement"])),
        "spread": partial(spread, first),
        "short": plots.short,
        "count": count,
        "marked": marked,
        "seconds": seconds,
    }


def column_title(figure: Figure) -> Markup:
    """In two lines where it has several words."""
    words = (figure.label + (", nats" if figure.unit == "nats" else "")).split()
    middle = -(-len(words) // 2)
    return Markup("<br>").join(escape(" ".join(part)) for part in (words[:middle], words[middle:]) if part)


def _are_unsure(report: Mapping[str, Any]) -> bool:
    """Whether somebody who teaches gave no probabilities where figures are of them."""
    keys = [figure.key for figure in FIGURES[task_of(report)] if figure.of_probabilities]
    return any(teacher[key] is None for teacher in report["teachers"].values() for key in keys)


def _names(report: Mapping[str, Any]) -> list[str]:
    return [*report["transfer_set"]["labelled_of_classes"]["test"]]


def _recipe(report: Mapping[str, Any]) -> str:
    written: str = yaml.safe_dump(report["recipe"], sort_keys=False, allow_unicode=True)
    return written


def _judged(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is told row by row and class by class of every student; without one, of the ensemble of all teachers."""
    of: Mapping[str, Mapping[str, Any]] = learners(report)
    who = {name: "student" for name in of}
    if not of and report["ensemble"]:
        of, who = {"the teachers together": report}, {"the teachers together": "ensemble"}
    for name, found in of.items():
        by_class, confusion, by_value = (found.get(key) for key in ("by_class", "confusion", "by_value"))
        yield (
            name,
            {
                "classes": class_table(by_class, who[name]) if by_class else None,
                "confusions": confusions(by_class, confusion) if by_class and confusion else None,
                "values": value_table(task_of(report), by_value, who[name]) if by_value else None,
                "mistakes": mistakes(report, found["mistakes"], len(of)),
                "of": who[name],
                "delivered": found.get("delivered"),
            },
        )


def _rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of the table of figures: teachers, together, then every student and its control."""
    task = task_of(report)
    first = headline(task)
    test, shown = f"test_{first.key}", partial(spread, first)
    for name, teacher in report["teachers"].items():
        yield {**teacher, "kind": "teacher", "name": name, **_cells(task, teacher, first.shown(teacher[test]))}
    if ensemble := report["ensemble"]:
        told = _cells(task, ensemble, first.shown(ensemble[test]), is_beside_others=False)
        yield {**ensemble, "kind": "ensemble", "name": "teachers together", **told}
    same_control = [*report["compared"]["of"]][1:] if "compared" in report else []
    for name, student in learners(report).items():
        yield {**student, "kind": "student", "name": name, **_cells(task, student, shown(student[test]))}
        for kind, title in (("offline", f"{name} from its teachers alone"), ("control", f"control of {name}")):
            told_before = kind == "control" and name in same_control
            if (runs := student.get(f"{kind}_runs")) and not told_before:
                same = "uncertainty" not in student  # else it has one head
                cost = {key: student[key] for key in ("parameters", "bytes", "latency")} if same else {}
                told = _cells(task, means_of(task, runs), shown(student[f"{kind}_{first.key}"]))
                yield {"kind": "control", "name": title, "gain": None, **cost, **told}


def _cells(
    task: TaskName, found: Mapping[str, Any], first: str, *, is_beside_others: bool = True
) -> dict[str, list[str]]:
    """Figures as text: those `before` the gain, and those `after` it; what compares with teachers is empty of themselves."""
    before = [first, *(figure.shown(found[figure.key]) for figure in FIGURES[task][1:BEFORE_THE_GAIN])]
    after = [figure.shown(found[figure.key]) for figure in FIGURES[task][BEFORE_THE_GAIN:]]
    after += [figure.shown(found[figure.key]) if is_beside_others else "" for figure in BESIDE[task]]
    return {"before": before, "after": after}


BEFORE_THE_GAIN = 3
"""Columns of the table of figures."""


def _shared_plots(report: Mapping[str, Any]) -> Iterator[Plot]:
    everyone, first = learners(report), headline(task_of(report))
    known = [(name, student["gain"]) for name, student in everyone.items() if student["gain"]]
    gains = {name: gain for name, gain in known if gain["low"] is not None}
    if len(gains) > 1:
        yield "Gain of every student over its control, with its 95 % interval.", Markup(plots.gains(first, gains))
    costs: list[tuple[str, str, Callable[[Mapping[str, Any]], float]]] = [
        ("parameters", "parameters", lambda who: who["parameters"]),
        ("latency", "p50 latency of one row, ms", lambda who: who["latency"]["batch_1"]["p50_ms"]),
    ]
    for key, label, cost in costs:
        found = [{**point, key: cost(point["of"])} for point in _costed(report) if key in point["of"]]
        if not found:
            continue
        best = report["ensemble"][first.key] if report["ensemble"] else None
        svg = plots.headline_against(first, found, key, label, best)
        yield f"Test {first.label} against {label}, mean and standard deviation over seeds.", Markup(svg)
    matrix = report["agreement"]
    shown = [student["agreement_matrix"]["names"] for student in everyone.values()]
    if matrix and not any(set(matrix["names"]) <= set(names) for names in shown):
        yield _alike(report, "teachers", matrix)


def _alike(report: Mapping[str, Any], who: str, matrix: Mapping[str, Any], of: str = "teachers") -> Plot:
    task = task_of(report)
    svg = plots.agreement(BESIDE[task][0], matrix["names"], matrix["matrix"], of)
    return ALIKE[task].format(who), Markup(svg)


def _costed(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    key = headline(task_of(report)).key
    for name, teacher in report["teachers"].items():
        yield {"name": name, "kind": "teacher", "mean": teacher[key], "std": None, "of": teacher}
    for name, student in learners(report).items():
        for kind, found in (("control", student[f"control_{key}"]), ("student", student[f"test_{key}"])):
            if found:
                title = name if kind == "student" else f"control of {name}"
                yield {"name": title, "kind": kind, "mean": found["mean"], "std": found["std"], "of": student}


def _student_plots(report: Mapping[str, Any], name: str) -> Iterator[Plot]:
    student = learners(report)[name]
    runs = curves_of(report, name)
    for key in (f"validation.{key}" for key in LOOKS[task_of(report)]):
        label = label_of(key)
        if any(key in run for run in runs.values()):
            svg = plots.learning_curves(runs, key, label, name)
            yield f"{label[0].upper()}{label[1:]} while training; thin: every seed, thick: their mean.", Markup(svg)
    if alone := _delivered(student).get("reliability"):
        together = student["ensemble"]["reliability"]
        bins = ({"ensemble": together} if together else {}) | {"student": alone}
        if student["control_runs"]:
            bins = {"control": _delivered(student, "control_runs")["reliability"], **bins}
        svg = plots.reliability(bins, name)
        yield "What a confidence is worth: on the diagonal, as often right as sure.", Markup(svg)
    yield from ((caption, Markup(svg)) for caption, svg in pictures(student.get("scatter") or (), name))
    yield from ((caption, Markup(svg)) for caption, svg in box_pictures(student, name))
    yield _alike(report, "any two", student["agreement_matrix"], of=name)


def _cohort_plots(report: Mapping[str, Any]) -> Iterator[tuple[str, list[Plot]]]:
    """Of every cohort: agreement between its members over time, and on the test rows at the end."""
    first = headline(task_of(report))
    labels = {
        "cohort.agreement": "agreement of peers",
        f"cohort.ensemble_{first.key}": f"validation {first.label} together",
    }
    for name, cohort in report.get("cohorts", {}).items():
        curves = report["curves"].get(name, {})
        runs = {f"student/{run}": found for run, found in curves.items() if "cohort.agreement" in found}
        found = [
            (f"{label[0].upper()}{label[1:]} while they train.", Markup(plots.learning_curves(runs, key, label, name)))
            for key, label in labels.items()
            if any(key in run for run in runs.values())
        ]
        yield name, [*found, _alike(report, "members", cohort["agreement_matrix"], of=name)]


def _delivered(student: Mapping[str, Any], kind: str = "runs") -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(run for run in student[kind] if run["seed"] == student["delivered"])
    return found


def _link(mlflow: Mapping[str, str]) -> str | None:
    """The run's page, where MLflow has a server."""
    uri = mlflow.get("uri", "")
    return (
        deep_link(uri, mlflow["experiment_id"], mlflow["run_id"]) if uri.startswith(("http://", "https://")) else None
    )
