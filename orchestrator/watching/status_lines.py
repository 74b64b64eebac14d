"""A status document for people: some lines, none wider than 80 columns as long as names are short; or one line."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from students.tasks.figure import FIGURES

HEADLINES = dict.fromkeys(f"validation.{figures[0].key}" for figures in FIGURES.values())
SHOWN_METRICS = ("train.loss", *HEADLINES, "train.wait_s", "train.labelled", "train.waited_s")
MOST_TRAININGS = 8
MOST_RUNS = 5
Stage = Mapping[str, Any]


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The whole page."""
    run = found["run"]
    yield f"{run['recipe']}: {_how_it_stands(found)}"
    yield f"run {run['id']} in {found['out']}"
    yield f"collegium {run['command']}, pid {run['pid']} on {run['host']}{_cluster(run['cluster'])}"
    if run["error"]:
        yield f"error: {run['error']}"
    yield ""
    width = max(len(_title(stage)) for stage in found["stages"])
    for stage in found["stages"]:
        yield f"{_title(stage):<{width}}  {stage['state']:<10} {_summary(stage)}".rstrip()
        yield from (f"  {line}" for line in _details(stage))
    yield from _other_runs(found)
    if run["report"]:
        yield f"\nreport: {run['report']}"


def one_line(found: Mapping[str, Any]) -> str:
    """What goes on at this moment."""
    under_way = [
        f"{_title(stage)} {_short(stage)}".rstrip() for stage in found["stages"] if stage["state"] == "running"
    ]
    done = sum(stage["state"] in ("done", "reused") for stage in found["stages"])
    doing = "; ".join(under_way) if found["run"]["state"] == "running" else _how_it_stands(found)
    return f"{time.strftime('%H:%M:%S')} {done}/{len(found['stages'])} stages; {doing}".removesuffix("; ")


def clock(seconds: float) -> str:
    """`0:42`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _how_it_stands(found: Mapping[str, Any]) -> str:
    run = found["run"]
    if run["state"] == "running":
        left = ""
        if found["eta_s"] is not None:
            left = f", about {clock(found['eta_s'])} left"
        elif found["at_least_s"] is not None:
            left = f", at least {clock(found['at_least_s'])} left"
        return f"running for {clock(run['seconds'])}{left}"
    cure = "" if run["state"] == "finished" else "; the same command goes on from here"
    return f"{run['state']} after {clock(run['seconds'])}{cure}"


def _cluster(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"; {_num(found['nodes'], 'node')}, {_num(found['cpus'], 'CPU')}, {_num(found['gpus'], 'GPU')}"


def _title(stage: Stage) -> str:
    return f"{stage['stage']}/{stage['name']}"


def _num(number: float, noun: str) -> str:
    return f"{number:,g} {noun}{'s' * (number != 1)}"


def _summary(stage: Stage) -> str:
    """Beside the name: of a stage that goes on what is left, of another all that there is to say."""
    if stage["state"] == "running":
        return f"{clock(stage['eta_s'])} left" if stage["eta_s"] is not None else ""
    return ", ".join([*([f"{stage['seconds']:.1f} s"] if stage["seconds"] is not None else []), *_told(stage)])


def _told(stage: Stage) -> Iterator[str]:
    for key, told in SUMMARIES.items():
        if key in stage:
            yield from told(stage)


def _of_labels(stage: Stage) -> Iterator[str]:
    if stage["state"] == "running":
        yield f"{stage['shards']}/{stage['num_shards']} shards"
        if stage["shards_per_s"]:
            yield f"{stage['shards_per_s']:.3g} shards/s"
        if "replicas" in stage:
            yield f"{stage.get('ready', 0)}/{stage['replicas']} replicas ready"
        if stage.get("gpus"):
            yield _num(stage["gpus"] * stage["replicas"], "GPU")
    else:
        yield f"{stage['rows']:,}/{stage['num_rows']:,} rows"
        if stage["rows_per_s"]:
            yield f"{stage['rows_per_s']:,.0f} rows/s"


def _of_trainings(stage: Stage) -> Iterator[str]:
    done = sum(each["done"] for each in stage["trainings"])
    yield f"{done}/{_num(len(stage['trainings']), 'training')}"
    if stage["state"] == "running":
        if stage["steps_per_s"]:
            yield f"{stage['steps_per_s']:.3g} steps/s"
        if "workers" in stage:
            yield _num(stage["workers"], "worker")
        if "follows" in stage:
            yield f"follows {', '.join(stage['follows'])}"
        if stage.get("gpus"):
            yield _num(stage["gpus"] * stage["workers"], "GPU")


def _of_trials(stage: Stage) -> Iterator[str]:
    yield f"{stage['trials']}/{stage['num_trials']} trials"
    yield f"{stage['control_trials']}/{stage['num_control_trials']} of its control"
    yield from (f"{stage[state]} {state}" for state in ("pruned", "failed") if stage[state])


SUMMARIES: Mapping[str, Callable[[Stage], Iterator[str]]] = {
    "stores": _of_labels,
    "trainings": _of_trainings,
    "num_trials": _of_trials,
}
"""By the key that only such a stage has."""


def _details(stage: Stage) -> Iterator[str]:
    if stage.get("best"):
        settings = ", ".join(f"{name} {_figure(value)}" for name, value in stage["best"]["params"].items())
        yield f"best {stage['metric']} {_figure(stage['best']['value'])} of trial {stage['best']['trial']}: {settings}"
    if stage["state"] not in ("running", "unfinished"):
        return
    if stage["state"] == "running" and (told := ", ".join(_told(stage))):
        yield told
    for store in stage.get("stores", ()):
        yield f"{store['segment']:<22} {store['shards']}/{store['num_shards']} shards, {store['rows']:,} rows"
    begun = [each for each in stage.get("trainings", ()) if each["step"] and not each["done"]]
    for each in begun[:MOST_TRAININGS]:
        epoch = f"epoch {each['epoch']:.1f}/{each['epochs']:.1f}"
        yield f"{each['training']:<22} step {each['step']}/{each['steps']}, {epoch}"
        if told := ", ".join(
            f"{key} {_figure(each['metrics'][key])}" for key in SHOWN_METRICS if key in each["metrics"]
        ):
            yield f"  {told}"
    if len(begun) > MOST_TRAININGS:
        yield f"and {len(begun) - MOST_TRAININGS} more"


def _short(stage: Stage) -> str:
    """What matters most of a stage that goes on."""
    left = f", {clock(stage['eta_s'])} left" if stage["eta_s"] is not None else ""
    if "stores" in stage:
        speed = f", {stage['shards_per_s']:.3g}/s" if stage["shards_per_s"] else ""
        return f"{stage['shards']}/{stage['num_shards']} shards{speed}{left}"
    if "trainings" in stage:
        step, steps = (sum(each[key] for each in stage["trainings"]) for key in ("step", "steps"))
        return f"step {step}/{steps}{left}"
    if "num_trials" in stage:
        return f"{stage['trials']}/{stage['num_trials']} trials{left}"
    return ""


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _other_runs(found: Mapping[str, Any]) -> Iterator[str]:
    others: Sequence[Mapping[str, Any]] = [each for each in found["runs"] if each["id"] != found["run"]["id"]]
    if others:
        told = ", ".join(f"{each['id']} {each['state']}" for each in others[:MOST_RUNS])
        more = f" and {len(others) - MOST_RUNS} more" if len(others) > MOST_RUNS else ""
        yield f"\nother runs here (--run ID): {told}{more}"
