"""`report.html`: a report as a page that needs nothing else, and prints. Knows nothing but `report.json`."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from students.measuring.gain import points

from . import plots
from .by_class import class_table, confusions, mistakes
from .columns import column_table
from .comparison import page_table
from .headline import OVER_SEEDS, curves_of, decimals, deep_link, learners, mean_of, percent, remarks, spread
from .study_page import Plot, study_page
from .unjudged import SAID
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
            report=report, said=SAID, rows=list(unjudged_rows(report)), recipe=_recipe(report)
        )
    environment.filters |= {
        "percent": percent,
        "decimals": decimals,
        "points": points,
        "spread": spread,
        "short": plots.short,
        "count": count,
        "marked": marked,
        "seconds": seconds,
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        rows=list(_rows(report)),
        shared=list(_shared_plots(report)),
        own={name: list(_student_plots(report, name)) for name in learners(report)},
        learners=learners(report),
        remarks=remarks(report),
        judged=dict(_judged(report)),
        columns=column_table(report["transfer_set"]),
        compared=page_table(report["comparison"]),
        together=dict(_cohort_plots(report)),
        study=study_page(report["search"]) if "search" in report else None,
        tones={
            name: (student["gain"] or {"conclusion": "open"})["conclusion"]
            for name, student in learners(report).items()
        },
        recipe=_recipe(report),
        link=_link(report["mlflow"]),
    )


def _recipe(report: Mapping[str, Any]) -> str:
    written: str = yaml.safe_dump(report["recipe"], sort_keys=False, allow_unicode=True)
    return written


def _judged(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is told row by row and class by class of every student; without one, of the ensemble of all teachers."""
    of: Mapping[str, Mapping[str, Any]] = learners(report)
    who = {name: "student" for name in of}
    if not of and report["by_class"]:
        of, who = {"the teachers together": report}, {"the teachers together": "ensemble"}
    for name, found in of.items():
        yield (
            name,
            {
                "classes": class_table(found["by_class"], who[name]),
                "confusions": confusions(found["by_class"], found["confusion"]),
                "mistakes": mistakes(report, found["mistakes"], len(of)),
                "delivered": found.get("delivered"),
            },
        )


def marked(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def count(rows: float) -> str:
    """Rows, which may be a mean over seeds: `1,204`, `3.3`."""
    return f"{rows:,.0f}" if rows == int(rows) or rows >= 100 else f"{rows:.1f}"


def seconds(value: float) -> str:
    if value < 90:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"


def _rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of the table of figures: teachers, together, then every student and its control."""
    for name, teacher in report["teachers"].items():
        yield {**teacher, "kind": "teacher", "name": name, "shown": percent(teacher["test_accuracy"])}
    if ensemble := report["ensemble"]:
        yield {**ensemble, "kind": "ensemble", "name": "teachers together", "shown": percent(ensemble["test_accuracy"])}
    for name, student in learners(report).items():
        yield {**student, "kind": "student", "name": name, "shown": spread(student["test_accuracy"])}
        if student.get("offline_runs"):
            shown = spread(student["offline_accuracy"])
            yield {**_means(student["offline_runs"]), **_alone(student, f"{name} from its teachers alone", shown)}
        if student["control_runs"]:
            shown = spread(student["control_accuracy"])
            yield {**_means(student["control_runs"]), **_alone(student, f"control of {name}", shown)}


def _alone(student: Mapping[str, Any], name: str, shown: str) -> dict[str, Any]:
    cost = {key: student[key] for key in ("parameters", "bytes", "latency")}  # it is the same network
    return {"kind": "control", "name": name, "shown": shown, "gain": None, **cost}


def _means(runs: list[Mapping[str, Any]]) -> dict[str, float | None]:
    return {key: mean_of(runs, key) for key in OVER_SEEDS}


def _shared_plots(report: Mapping[str, Any]) -> Iterator[Plot]:
    everyone = learners(report)
    known = [(name, student["gain"]) for name, student in everyone.items() if student["gain"]]
    gains = {name: gain for name, gain in known if gain["low"] is not None}
    if len(gains) > 1:
        yield "Gain of every student over its control, with its 95 % interval.", Markup(plots.gains(gains))
    costs: list[tuple[str, str, Callable[[Mapping[str, Any]], float]]] = [
        ("parameters", "parameters", lambda who: who["parameters"]),
        ("latency", "p50 latency of one row, ms", lambda who: who["latency"]["batch_1"]["p50_ms"]),
    ]
    for key, label, cost in costs:
        found = [{**point, key: cost(point["of"])} for point in _costed(report) if key in point["of"]]
        if not found:
            continue
        best = report["ensemble"]["test_accuracy"] if report["ensemble"] else None
        svg = plots.accuracy_against(found, key, label, best)
        yield f"Test accuracy against {label}, mean and standard deviation over seeds.", Markup(svg)
    matrix = report["agreement"]
    shown = [student["agreement_matrix"]["names"] for student in everyone.values()]
    if matrix and not any(set(matrix["names"]) <= set(names) for names in shown):
        yield "How often teachers say the same class, % of test rows.", Markup(plots.agreement(**matrix))


def _costed(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, teacher in report["teachers"].items():
        yield {"name": name, "kind": "teacher", "accuracy": teacher["test_accuracy"], "std": None, "of": teacher}
    for name, student in learners(report).items():
        for kind, accuracy in (("control", student["control_accuracy"]), ("student", student["test_accuracy"])):
            if accuracy:
                title = name if kind == "student" else f"control of {name}"
                yield {"name": title, "kind": kind, "accuracy": accuracy["mean"], "std": accuracy["std"], "of": student}


def _student_plots(report: Mapping[str, Any], name: str) -> Iterator[Plot]:
    student = learners(report)[name]
    runs = curves_of(report, name)
    for key, label in (("validation.accuracy", "validation accuracy"), ("validation.nll", "validation NLL, nats")):
        if any(key in run for run in runs.values()):
            svg = plots.learning_curves(runs, key, label, name)
            yield f"{label[0].upper()}{label[1:]} while training; thin: every seed, thick: their mean.", Markup(svg)
    together, alone = student["ensemble"]["reliability"], _delivered(student)["reliability"]
    bins = ({"ensemble": together} if together else {}) | {"student": alone}
    if student["control_runs"]:
        bins = {"control": _delivered(student, "control_runs")["reliability"], **bins}
    yield "What a confidence is worth: on the diagonal, as often right as sure.", Markup(plots.reliability(bins, name))
    svg = plots.agreement(**student["agreement_matrix"], of=name)
    yield "How often each says the same class as another, % of test rows.", Markup(svg)


def _cohort_plots(report: Mapping[str, Any]) -> Iterator[tuple[str, list[Plot]]]:
    """Of every cohort: agreement between its members over time, and on the test rows at the end."""
    labels = {"cohort.agreement": "agreement of peers", "cohort.ensemble_accuracy": "validation accuracy together"}
    for name, cohort in report.get("cohorts", {}).items():
        curves = report["curves"].get(name, {})
        runs = {f"student/{run}": found for run, found in curves.items() if "cohort.agreement" in found}
        found = [
            (f"{label[0].upper()}{label[1:]} while they train.", Markup(plots.learning_curves(runs, key, label, name)))
            for key, label in labels.items()
            if any(key in run for run in runs.values())
        ]
        svg = Markup(plots.agreement(**cohort["agreement_matrix"]))
        yield name, [*found, ("How often members say the same class, % of test rows.", svg)]


def _delivered(student: Mapping[str, Any], kind: str = "runs") -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(run for run in student[kind] if run["seed"] == student["delivered"])
    return found


def _link(mlflow: Mapping[str, str]) -> str | None:
    """The run's page, where MLflow has a server."""
    uri = mlflow.get("uri", "")
    return (
        deep_link(uri, mlflow["experiment_id"], mlflow["run_id"]) if uri.startswith(("http://", "https://")) else None
    )
