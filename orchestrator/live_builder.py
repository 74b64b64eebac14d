"""Live teachers beside the students that ask them: reserved together, started, and given back."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .capacity import wait_for_room_s, workers_of
from .context import Context, Taught
from .stages import Built

Replicas = Mapping[str, Sequence[Any]]
"""Actor handles by the teacher's name."""


@contextmanager
def live_teachers(
    context: Context, prepared: Built, taught: Mapping[str, Taught], learners: Sequence[str]
) -> Iterator[Replicas]:
    """Replicas of the live teachers of `learners`, who share them and a worker group; nothing is started without any.

    Raises EnvironmentUnfit when the cluster has no room for replicas and workers at once.
    """
    names = context.recipe.live_teachers(learners[0])
    if not names:
        yield {}
        return
    from teachers.labelling import TeacherSpec
    from teachers.live import live_replicas
    from teachers.reservation import Request

    context.cluster.join()
    trust = context.recipe.trusted()
    specs = [TeacherSpec(name, taught[name].config, taught[name].trained, trust, context.user_path) for name in names]
    config = context.recipe.learners[learners[0]]
    workers = Request.of(f"workers of {', '.join(learners)}", config.resources, workers_of(config))
    with live_replicas(specs, prepared.folder, [workers], wait_for_room_s()) as replicas:
        yield replicas
