"""The part of a report that tells of a study: counts, the best, what mattered, and in sentences what it showed.

Made from the trials alone, so it can be made again at any time. Knows nothing of how trials were run.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from students.tasks.figure import Figure, headline

from ..recipe.search import SearchConfig
from ..recipe.space import of_the_control, shared_with_control
from ..search.study import Study, Trial, best_of, front_of, read_trials
from .headline import task_of

TOP_SHARE = 0.2
"""Of the finished trials, those that are called the best ones."""
MATTERS = 0.25
"""Share of the importance from which on a setting is said to have mattered."""


def section(search: SearchConfig, study: Study, *, asked: int) -> dict[str, Any]:
    """`report.json`: `search`. `asked`: rows that teachers were asked about since the study began."""
    from ..search.proposals import importances  # Optuna takes its time, and a report without a study needs none of it

    students, controls = study.of("student"), study.of("control")
    best = best_of(students, search.metrics)
    assert best is not None
    metric = dict([next(iter(search.metrics.items()))])
    same = shared_with_control(best.params)
    rivals = [t for t in controls if all(t.params.get(path) == value for path, value in same.items())]
    own = [trial for trial in students if trial.as_recipe and trial.is_complete]
    front = front_of(students, search.metrics) if len(search.metrics) > 1 else []
    return {
        "student": search.student,
        "metrics": dict(search.metrics),
        "search": search.model_dump(mode="json"),
        "study": str(study.folder.relative_to(study.folder.parent.parent)),
        "trials": len(students),
        **{state: sum(t.state == state for t in students) for state in ("finished", "failed", "pruned")},
        "teacher_forwards": asked,
        "best": _told(best),
        "as_recipe": _told(own[0]) if own else None,
        "control": {
            "trials": len(controls),
            "searched": [*of_the_control(search)],
            "best": _told(best_of(rivals, metric)),
        },
        "front": [_told(trial) for trial in front],
        "importance": importances(search, search.space, students),
        "seconds": round(sum(t.seconds for t in study.trials), 3),
        "errors": [{"number": t.number, "error": t.error} for t in study.trials if t.error][:10],
        "history": _history(study),
    }


def _history(study: Study) -> list[dict[str, Any]]:
    return [
        {"number": t.number, "who": t.who, "state": t.state, "params": dict(t.params), "values": dict(t.values)}
        for t in study.trials
    ]


def _told(trial: Trial | None) -> dict[str, Any] | None:
    """A trial as the report tells it."""
    if trial is None:
        return None
    validation = {
        key.removeprefix("validation."): v for key, v in trial.values.items() if key.startswith("validation.")
    }
    measured = {key: value for key, value in trial.values.items() if not key.startswith("validation.")}
    return {"number": trial.number, "params": dict(trial.params), "validation": validation, **measured}


def with_test_figures(found: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """The section with what the final training showed on the test split, and what all of it means in sentences."""
    name = found["student"]
    final = report["students"].get(name) or report["cohorts"][name]["delivered"]
    key = headline(task_of(report)).key
    figures = {name: final[name] for name in (f"test_{key}", f"control_{key}", "gain")}
    return {**found, **figures, "advice": [*advice(headline(task_of(report)), found, final)]}


def told_again(report: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The section of an earlier report, from the study's file as it is now; as it was, where that is gone or another study."""
    before: Mapping[str, Any] = report["search"]
    study = Study(out / before["study"], [*read_trials(out / before["study"])])
    if _history(study)[: len(before["history"])] != before["history"]:
        return dict(before)
    config = SearchConfig.model_validate({**before["search"], "task": task_of(report)})
    found = section(config, study, asked=before["teacher_forwards"])
    return with_test_figures(found, report)


def advice(figure: Figure, found: Mapping[str, Any], final: Mapping[str, Any]) -> Iterator[str]:
    """What the study showed, and no more than that."""
    yield from _about_the_gain(figure, found, final)
    yield from _about_the_recipe(found)
    yield from _about_teachers(found)
    yield from _about_settings(found)
    if found["failed"]:
        yield f"{found['failed']} of {found['trials']} trials failed, the first with: {found['errors'][0]['error']}"


def _about_the_gain(figure: Figure, found: Mapping[str, Any], final: Mapping[str, Any]) -> Iterator[str]:
    gain = final["gain"]
    if gain is None:
        yield "No control was trained, so nothing is shown of whether distillation pays."
        return
    tuned = f"tuned in {found['control']['trials']} trials" if found["control"]["searched"] else "as in the recipe"
    seeds = len(final[f"test_{figure.key}"]["runs"])
    mean = f"{figure.gained(gain['mean'])} {figure.units_gained}"
    if gain["low"] is None:
        yield f"Nothing is shown of whether distillation pays: {mean} with {seeds} fresh seeds give no interval; raise `search.seeds_for_best`."
        return
    told = f"{mean}, 95% interval {figure.gained(gain['low'])} to {figure.gained(gain['high'])}"
    if gain["conclusion"] == "helps":
        yield f"Distil: with the best setting the student beats its control, {tuned}, beyond the interval ({told}, {seeds} fresh seeds)."
    elif gain["conclusion"] == "hurts":
        yield f"Do not distil: the best setting found is worse than the control, {tuned} ({told}, {seeds} fresh seeds)."
    else:
        covers = gain["low"] <= 0 <= gain["high"]
        why = "the interval of the best one covers 0" if covers else "an exact sign test over the rows does not agree"
        yield f"No setting was shown to beat the control, {tuned}: {why} ({told}, {seeds} fresh seeds)."


def _about_the_recipe(found: Mapping[str, Any]) -> Iterator[str]:
    before, metric = found["as_recipe"], next(iter(found["metrics"]))
    if before is None:
        return
    values = [value_of(trial, metric) for trial in (before, found["best"])]
    if found["best"]["number"] == before["number"]:
        yield f"No trial was better on validation than the recipe as it stands ({metric} {values[0]:.4f})."
    else:
        yield f"On validation the best trial has {metric} {values[1]:.4f}, the recipe as it stands {values[0]:.4f}; chosen among {found['finished']}, the best looks better than it is."


def value_of(trial: Mapping[str, Any], metric: str) -> float:
    """A figure of a trial as the report tells it (`best`, `as_recipe`, of the `front`)."""
    validation: Mapping[str, float] = trial["validation"]
    found: float = validation[metric.removeprefix("validation.")] if metric.startswith("validation.") else trial[metric]
    return found


def best_share(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The best fifth of the student's finished trials, three at least."""
    metric, direction = next(iter(found["metrics"].items()))
    finished = [t for t in found["history"] if t["who"] == "student" and t["state"] == "finished"]
    finished.sort(key=lambda t: t["values"][metric], reverse=direction == "max")
    return finished[: max(3, round(TOP_SHARE * len(finished)))]


def _about_teachers(found: Mapping[str, Any]) -> Iterator[str]:
    for path, entry in found["search"]["space"].items():
        if "subset" in entry:
            top = best_share(found)
            counts = {name: sum(name in heard(t["params"][path], entry) for t in top) for name in entry["subset"]["of"]}
            told = ", ".join(f"{count} to {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
            own = ", ".join(heard(found["best"]["params"][path], entry))
            yield f"Of the {len(top)} best trials, so many listened to each teacher ({path}): {told}. The very best listened to {own}."


def heard(value: Sequence[str] | None, entry: Mapping[str, Any]) -> Sequence[str]:
    """Who a trial listened to, of one subset; null in the recipe is everybody."""
    everybody: Sequence[str] = entry["subset"]["of"]
    return everybody if value is None else value


def _about_settings(found: Mapping[str, Any]) -> Iterator[str]:
    importance = found["importance"]
    if not importance:
        yield "There are too few finished trials, or they are too alike, to say which settings mattered."
        return
    mattered = [name for name, share in importance.items() if share >= MATTERS]
    if not mattered:
        yield "No setting stands out: what mattered is spread over all of them."
    for name in mattered:
        yield f"{name} mattered: {100 * importance[name]:.0f} % of what sets the best quarter of trials apart{_where(found, name)}."


def _where(found: Mapping[str, Any], path: str) -> str:
    """Where the best trials lie."""
    values = [t["params"][path] for t in best_share(found) if path in t["params"]]
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"; the best ones lie between {low:.3g} and {high:.3g}, half of them below {middle:.3g}"
    return ""


def front_table(found: Mapping[str, Any]) -> list[Sequence[str]]:
    """The Pareto front as rows of text: metrics, then settings."""
    metrics, paths = [*found["metrics"]], [*found["search"]["space"]]
    rows: list[Sequence[str]] = [["trial", *metrics, *paths]]
    for trial in found["front"]:
        figures = [f"{value_of(trial, metric):.4g}" for metric in metrics]
        rows.append([str(trial["number"]), *figures, *(short(trial["params"][path]) for path in paths)])
    return rows


def short(value: Any) -> str:
    """A value of a setting in a few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
