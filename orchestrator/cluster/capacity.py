"""What a recipe asks of a cluster at one time, and whether the cluster could ever give it.

Refuses only what is certain: each replica and worker must fit a node, and what must run at once the sum of all nodes.
Knows nothing of how a cluster is joined.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from students.config.cohort import CohortCommon
from teachers.config.resources import OF_A_TYPE, Resources, in_words
from teachers.config.teacher import TeacherConfig
from teachers.config.training import TrainConfig
from teachers.errors import EnvironmentUnfit
from teachers.resources import pools
from teachers.resources.bundles import bundle_of, gpus_of, room_for

from ..recipe.model import Learner, Recipe, name_in_recipe

GPU_DEVICES = ("nvidiactl", "dxg", "kfd")
"""Through one of these a process on Linux reaches its GPUs: NVIDIA's, any under WSL, AMD's."""
Node = Mapping[str, float]
"""Resources of one node by Ray's names."""
AUTOSCALING = "COLLEGIUM_AUTOSCALING"


def check_capacity(recipe: Recipe, nodes: Sequence[Node], cure: str = "") -> list[str]:
    """Raise EnvironmentUnfit for requests that `nodes` can never meet; `cure` is told last.

    Where nodes are added on demand, which ones is not known: then the requests that wait for such are returned.
    """
    problems = list(problems_of(recipe, nodes))
    if problems and not autoscaling():
        raise EnvironmentUnfit("\n".join([*problems, *([cure] if cure else [])]))
    return [f"{problem}: waits for the autoscaler" for problem in problems]


def autoscaling() -> bool:
    """Whether the environment says that the cluster adds nodes on demand: Ray tells no driver."""
    return os.environ.get(AUTOSCALING, "0") not in ("", "0")


def may_grow() -> bool:
    """Whether the environment says that nodes may come, and which or not."""
    return autoscaling() or bool(os.environ.get(pools.VARIABLE))


def wait_for_room_s() -> float:
    """So long replicas wait for room before a run gives up: nodes of a cloud can take many minutes."""
    return 3600.0 if may_grow() else 600.0


def problems_of(recipe: Recipe, nodes: Sequence[Node]) -> Iterator[str]:
    everyone: dict[str, TeacherConfig | Learner] = {
        f"teachers.{name}": found for name, found in recipe.teachers.items()
    }
    everyone |= {name_in_recipe(recipe, name): learner for name, learner in recipe.learners.items()}
    for where, config in everyone.items():
        name = where.partition(".")[2]
        if lacking := lacks(nodes, config.resources):
            yield f"{where}.resources asks for {', '.join(lacking)}"
        elif name in recipe.learners:
            yield from _gang_problems(recipe, name, nodes)
        elif (num := recipe.teachers[name].labelled_by.min) > (
            room := room_for(request_of(nodes, config.resources), nodes)
        ):
            wanted = in_words(request_of(nodes, config.resources))
            yield f"{where}.replicas.min: {num} x {wanted} begin together, and there is room for {room}; ask for fewer, or less in `resources`"


def lacks(nodes: Sequence[Node], resources: Resources) -> list[str]:
    """Why no node could ever host one replica or worker with these resources; empty when one could."""
    wanted = request_of(nodes, resources)
    if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return []
    best = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
    short = {name: amount for name, amount in wanted.items() if best[name] < amount}
    return [
        f"{in_words({name: amount})} ({_types(nodes) if name.startswith(OF_A_TYPE) else f'no node has more than {best[name]:g}'})"
        for name, amount in short.items()
    ] or ["all of it on one node"]


def _types(nodes: Sequence[Node]) -> str:
    found = sorted({name.removeprefix(OF_A_TYPE) for node in nodes for name in node if name.startswith(OF_A_TYPE)})
    return f"the nodes have {', '.join(found)}" if found else "no node says of which type its GPUs are"


def request_of(nodes: Sequence[Node], resources: Resources) -> dict[str, float]:
    """Of one replica or worker on one of `nodes`."""
    return bundle_of(resources, gpus_of(resources, nodes))


def total(nodes: Sequence[Node], resource: str) -> float:
    return float(sum(node.get(resource, 0) for node in nodes))


def workers_of(config: Learner | TeacherConfig) -> int:
    """That train at once."""
    if isinstance(config, CohortCommon):
        return config.workers
    train = getattr(config, "train", None)
    return train.workers if isinstance(train, TrainConfig) else 1


def _gang_problems(recipe: Recipe, learner: str, nodes: Sequence[Node]) -> Iterator[str]:
    """The workers of a student or cohort and all replicas of its live teachers run at the same time."""
    config = recipe.learners[learner]
    in_cohort = isinstance(config, CohortCommon)
    members = [("workers", workers_of(config), config.resources)]
    for name in recipe.live_teachers(learner):
        teacher = recipe.teachers[name]
        members.append((f"replicas of the live teacher {name}", teacher.answered_by, teacher.resources))
    wanted: dict[str, float] = {}
    for _, num, resources in members:
        for resource, amount in request_of(nodes, resources).items():
            wanted[resource] = wanted.get(resource, 0) + num * amount
    short = [name for name, amount in wanted.items() if amount > total(nodes, name) + 1e-9]
    if short:
        asks = ", ".join(f"{wanted[name]:g} {name} (there are {total(nodes, name):g})" for name in short)
        told = " and ".join(f"{num} {who}" for who, num, _ in members)
        key = "teachers" if len(members) > 1 else "workers_per_member" if in_cohort else "train.workers"
        cure = ", or set `workers_per_member: null`" if in_cohort else ""
        where = name_in_recipe(recipe, learner)
        yield f"{where}.{key}: {told} at once ask for {asks}; ask for fewer, or less in `resources`{cure}"


def room_for_trials(recipe: Recipe, nodes: Sequence[Node]) -> int:
    """How many trials of the recipe's search fit side by side."""
    assert recipe.search is not None
    learner = recipe.learners[recipe.search.student]
    return room_for(request_of(nodes, learner.resources), nodes) // workers_of(learner)


def check_room_for_trials(recipe: Recipe, nodes: Sequence[Node]) -> None:
    """Raise EnvironmentUnfit for a search that wants more trials at a time than there is ever room for."""
    search = recipe.search
    if (
        search is not None
        and search.max_concurrent is not None
        and search.max_concurrent > room_for_trials(recipe, nodes)
    ):
        raise EnvironmentUnfit(
            f"search.max_concurrent is {search.max_concurrent}, and there is room for {room_for_trials(recipe, nodes)} "
            f"trials of {workers_of(recipe.learners[search.student])} workers at a time; ask for fewer, or null"
        )


def this_machine(recipe: Recipe) -> list[Node]:
    """What a Ray that is started here would find, without starting it.

    Upper bounds: Ray counts no more than these. What it calls the GPUs is not known, so any name passes.
    """
    gpus = float(gpus_here())
    configs = [*recipe.teachers.values(), *recipe.learners.values()]
    called = {f"{OF_A_TYPE}{config.resources.accelerator_type}": gpus for config in configs}
    return [{"CPU": float(os.cpu_count() or 1), "GPU": gpus, **called}]


def gpus_here() -> int:
    """On which torch computes. Those beside a build for the CPU, or under a driver that is too old, are of no use here."""
    if sys.platform == "linux" and not any(Path("/dev", device).exists() for device in GPU_DEVICES):
        return 0  # torch takes seconds to say so
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
