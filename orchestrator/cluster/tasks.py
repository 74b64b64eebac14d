"""Tasks on the Ray cluster and the wait for what they come to: who finds no room says so, and what nobody wants is ended.

Each task says first where it has begun, so that one that still waits for room can be told from one that works, and one whose
node is gone begins again elsewhere. Ray itself asks nobody but the task's process, and where a node's power or cable is cut that
is silent: it gives it up after the five minutes and more of gRPC's client keepalive (ray-project/ray#31640, #44692).
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from teachers.errors import CollegiumError
from teachers.process.log_lines import Carried, ids
from teachers.process.waiting import POLL_S, Wait, go_on
from teachers.storage.disk import is_unfit
from teachers.users_code.imports import UserPath, check_own_packages, load, use_user_path

if TYPE_CHECKING:
    from teachers.resources.reservation import Request

log = logging.getLogger(__name__)

TRIES = 4
"""Of a task whose process or node is lost."""
LOOK_S = 5.0
"""Between two looks at whether the node of a task is there."""


class Lost(Exception):
    """The process or the node of a task."""


def remote(work: Callable[..., Iterator[Any]], **options: Any) -> Any:
    """`run_item` or `run_once` as a Ray task, which `Tasks` does again where its process or node is lost."""
    import ray

    return ray.remote(num_returns="streaming", max_retries=0, **options)(work)


def run_item(shared: tuple[Callable[[Any], Any], UserPath, Carried], item: Any) -> Iterator[Any]:
    function, user_path, log_as = shared
    yield _here()
    _take_up(user_path, log_as)
    yield function(item)


def run_once(
    function: str, arguments: Sequence[Any], keywords: Mapping[str, Any], user_path: UserPath, log_as: Carried
) -> Iterator[Any]:
    """Ray's id of the node at once, then what the function of an import string returns."""
    yield _here()
    _take_up(user_path, log_as)
    yield load(function)(*arguments, **keywords)


def _here() -> str:
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return node


def _take_up(user_path: UserPath, log_as: Carried) -> None:
    check_own_packages()
    log_as.take_up()
    use_user_path(user_path)


@dataclass
class Sent:
    """A task that was begun by `begin`, what it says, and how often it may be."""

    begin: Callable[[], Any]
    says: Any = None
    tries_left: int = TRIES

    def again(self) -> None:
        self.says, self.tries_left = self.begin(), self.tries_left - 1


class Tasks:
    """A context with the tasks that are under way, each of which asked for the room `asked`; what is left is cancelled."""

    def __init__(self, asked: "Request") -> None:
        self.asked, self.sent, self.wait = asked, deque[Sent](), Wait(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sent in self.sent:
            _cancel(sent.says)

    def __len__(self) -> int:
        return len(self.sent)

    def send(self, task: Any, *arguments: Any) -> None:
        self.sent.append(sent := Sent(partial(task.remote, *arguments)))
        sent.again()

    def next(self) -> Any:
        """What the oldest one came to. Raises what it raised, without Ray's wrapping when it can be told."""
        try:
            result = self._outcome(self.sent[0])
        except SystemError as error:  # what Ray makes of a signal that it notices while it waits
            raise error.__cause__ or error from None
        self.sent.popleft()
        self.wait.begin()
        return result

    def _outcome(self, sent: Sent) -> Any:
        from teachers.resources.reservation import in_need

        while True:
            try:
                node = _item(
                    sent.says, lambda: self.wait.tell(lambda: f"{in_need([self.asked])}; or its process is starting")
                )
                return _item(sent.says, Looking(node).look)
            except Lost as lost:
                if not sent.tries_left:
                    raise CollegiumError(
                        f"a Ray worker was lost ({lost}); run the same command again: it goes on from here"
                    ) from lost
                log.warning("a task of %s begins again: %s", ids().get("stage", "this run"), lost)
                _cancel(sent.says)
                self.wait.begin()
                sent.again()


@dataclass
class Looking:
    """For the node of a task, now and then."""

    node: str
    at: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Raises Lost when the cluster has given the node up."""
        import ray

        go_on()
        if time.monotonic() - self.at < LOOK_S:
            return
        self.at, nodes = time.monotonic(), []
        with suppress(
            RuntimeError, ray.exceptions.RayError
        ):  # of a head that does not answer: `HeadWatch` tells of that
            nodes = ray.nodes()
        for node in nodes:
            if node["NodeID"] == self.node and not node["Alive"]:
                raise Lost(f"node {node['NodeManagerAddress']} is gone")


def _item(says: Any, still_waiting: Callable[[], None]) -> Any:
    """The next thing that a task says. Raises Lost when its process has died."""
    import ray

    while not ray.wait([says], timeout=POLL_S)[0]:
        still_waiting()
    of_a_process = ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError
    try:
        return ray.get(next(says))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CollegiumError) or is_unfit(error.cause):
            raise error.cause from None
        raise
    except (*of_a_process, ray.exceptions.LocalRayletDiedError, ray.exceptions.ObjectLostError) as error:
        raise Lost(one_line(error)) from error
    except ray.exceptions.RayError as error:
        raise CollegiumError(
            f"a Ray worker was lost ({one_line(error)}); run the same command again: it goes on from here"
        ) from error


def _cancel(says: Any) -> None:
    import ray

    with suppress(ray.exceptions.RayError):
        ray.cancel(says, force=True)


def await_room(asked: "Request", nodes: Sequence[Mapping[str, Any]], wait_s: float) -> None:
    """Where none of the `nodes` that are up could hold it, wait for one that can: a task would wait for ever.

    Raises EnvironmentUnfit when none has come within `wait_s`.
    """
    from teachers.resources.reservation import reserved

    up = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in asked.bundle.items()) for node in up):
        with reserved([asked], wait_s):
            pass


def one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
