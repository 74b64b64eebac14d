"""Codistillation under Ray Train: one TorchTrainer for each member, so that each fails, restarts and ends by itself."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from teachers.config.resources import Resources
from teachers.errors import CollegiumError
from teachers.process.waiting import GivenUp, SideBySide, until_done
from teachers.resources.bundles import bundle_of, room_for
from teachers.resources.pools import in_reach

from ..cohorts.codistillation import drop_generations
from ..runs.run import CohortRun, RunResult
from ..training.checkpoint import read_result
from .on_ray import fit_on_ray

log = logging.getLogger(__name__)


def codistil_on_ray(
    runs: Sequence[CohortRun], *, resources: Resources, workers: int = 1, gpus: float = 0.0, **others: Any
) -> list[RunResult]:
    """Train the members of `runs` (one cohort: its seeds, and the members alone), each on a group of `workers` of its own.

    All start together where the cluster has room for them, else as many as it has room for. A member that finally
    fails stops no other: they end and are sealed, then its error is raised, naming it; called again, only the members
    without a result are trained. Returns one result a network, by run and then member. All keywords are `fit_on_ray`'s.
    """
    mine = {name: runs_of(runs, number) for number, name in enumerate(runs[0].config.members)}
    unfinished = {name: own for name, own in mine.items() if not all(read_result(run.networks[0]) for run in own)}
    at_once = min(groups_at_once(resources, workers, gpus), len(unfinished))
    if at_once < len(unfinished):
        log.warning(
            "%s: the cluster has room for %d of %d members at once; who starts late listens to those who are done",
            runs[0].stage_name,
            at_once,
            len(unfinished),
        )
    fit = partial(fit_on_ray, resources=resources, workers=workers, gpus=gpus, **others)
    if errors := errors_of({name: partial(fit, own) for name, own in unfinished.items()}, at_once):
        raise named(runs[0].stage_name, {name: mine[name][0].networks[0].key for name in errors}, errors)
    for run in runs:
        drop_generations(run)
    return [result for run in runs for member in run.networks if (result := read_result(member))]


def runs_of(runs: Sequence[CohortRun], number: int) -> list[CohortRun]:
    """The same runs with nobody but member `number`."""
    return [replace(run, members=(run.members[number],)) for run in runs]


def groups_at_once(resources: Resources, workers: int, gpus: float) -> int:
    """How many groups of `workers` the cluster has room for; at least one, which then waits for it."""
    import ray

    reach = in_reach([node["Resources"] for node in ray.nodes() if node["Alive"]])
    return max(1, room_for(bundle_of(resources, gpus), reach) // workers)


def errors_of(works: Mapping[str, partial[Any]], at_once: int) -> dict[str, CollegiumError]:
    """Do all `works`, `at_once` at a time, whatever becomes of the others; what failed, by name.

    An error that is no CollegiumError is raised, when all have ended.
    """
    if not works:
        return {}
    with SideBySide("member", at_once) as threads:
        futures = {name: threads.start(work) for name, work in works.items()}
        for name, future in futures.items():
            future.add_done_callback(partial(_tell, name))
        until_done(futures.values())
    errors = {}
    for name, future in futures.items():
        try:
            future.result()
        except CollegiumError as error:
            errors[name] = error
    return errors


def _tell(name: str, future: Future[Any]) -> None:
    """At once: the others may go on for hours."""
    error = None if future.cancelled() else future.exception()
    if error is not None and not isinstance(error, GivenUp):
        log.error("member %s has failed, the others go on: %s", name, error)


def named(stage_name: str, keys: Mapping[str, str], errors: Mapping[str, CollegiumError]) -> CollegiumError:
    """One error for all members that failed: the first one's, as itself where it names the member's key of the recipe."""
    name, first = next(iter(errors.items()))
    if str(first).startswith(keys[name]):
        return first
    told = CollegiumError(
        f"{stage_name}: member {name}: {str(first).removeprefix(f'{stage_name}: ')}; the other members are finished, "
        f"and the same command goes on with {', '.join(errors)} alone"
    )
    told.exit_code = first.exit_code
    told.__cause__ = first
    return told
