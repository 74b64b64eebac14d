"""Tasks on the Ray cluster and the wait for what they come to: who finds no room says so, and what nobody wants is ended.

Each task says first that it has begun, so that one that still waits for room can be told from one that works.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from teachers.errors import CollegiumError
from teachers.process.log_lines import Carried
from teachers.process.waiting import POLL_S, Wait, go_on
from teachers.storage.disk import is_unfit
from teachers.users_code.imports import UserPath, check_own_packages, load, use_user_path

if TYPE_CHECKING:
    from teachers.resources.reservation import Request

log = logging.getLogger(__name__)


def remote(work: Callable[..., Iterator[Any]], **options: Any) -> Any:
    """`run_item` or `run_once` as a Ray task. A task whose worker dies is done again."""
    import ray

    return ray.remote(num_returns="streaming", max_retries=3, **options)(work)


def run_item(shared: tuple[Callable[[Any], Any], UserPath, Carried], item: Any) -> Iterator[Any]:
    function, user_path, log_as = shared
    yield None
    _take_up(user_path, log_as)
    yield function(item)


def run_once(
    function: str, arguments: Sequence[Any], keywords: Mapping[str, Any], user_path: UserPath, log_as: Carried
) -> Iterator[Any]:
    """None at once, then what the function of an import string returns."""
    yield None
    _take_up(user_path, log_as)
    yield load(function)(*arguments, **keywords)


def _take_up(user_path: UserPath, log_as: Carried) -> None:
    check_own_packages()
    log_as.take_up()
    use_user_path(user_path)


class Tasks:
    """A context with the tasks that are under way, each of which asked for the room `asked`; what is left is cancelled."""

    def __init__(self, asked: "Request") -> None:
        self.asked, self.sent, self.wait = asked, deque[Any](), Wait(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            for task in self.sent:
                ray.cancel(task, force=True)

    def __len__(self) -> int:
        return len(self.sent)

    def send(self, task: Any, *arguments: Any) -> None:
        self.sent.append(task.remote(*arguments))

    def next(self) -> Any:
        """What the oldest one came to. Raises what it raised, without Ray's wrapping when it can be told."""
        from teachers.resources.reservation import in_need

        try:
            self._next(lambda: self.wait.tell(lambda: f"{in_need([self.asked])}; or its process is starting"))
            result = self._next(go_on)
        except SystemError as error:  # what Ray makes of a signal that it notices while it waits
            raise error.__cause__ or error from None
        self.sent.popleft()
        self.wait.begin()
        return result

    def _next(self, still_waiting: Callable[[], None]) -> Any:
        import ray

        while not ray.wait([self.sent[0]], timeout=POLL_S)[0]:
            still_waiting()
        try:
            return ray.get(next(self.sent[0]))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CollegiumError) or is_unfit(error.cause):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise CollegiumError(
                f"a Ray worker was lost ({one_line(error)}); run the same command again: it goes on from here"
            ) from error


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
