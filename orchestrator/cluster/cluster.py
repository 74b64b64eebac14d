"""The Ray cluster that a run works on: starting or joining it, what it has, and tasks on it.

The one module beside the command line that may catch whatever Ray throws.
"""

import atexit
import gc
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock, Thread
from typing import Any, TypeVar

import psutil

from teachers.config.resources import Resources
from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.process.log_lines import Carried, ids
from teachers.process.waiting import outcome
from teachers.resources.bundles import bundle_of, gpus_of, num_threads
from teachers.resources.pools import in_reach
from teachers.storage.disk import is_unfit
from teachers.storage.place import shipped_environment
from teachers.users_code.imports import UserPath, check_own_packages, use_user_path

from ..recipe.checks import check_before_work
from ..recipe.model import Recipe
from .capacity import check_capacity, gpus_here, total, wait_for_room_s
from .environment import DASHBOARD, own_dashboard, set_environment
from .head_watch import HeadWatch
from .joining import check_address, told
from .new_nodes import NewNodes
from .probing import check_seen

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

OBJECT_STORE_BYTES = 256 << 20
"""Only control messages and small batches pass through it; Ray's default would take a third of the machine."""
LIVE_OBJECT_STORE_BYTES = 8 << 30
"""At most, with live teachers: five float32 batches of 256 images of 224 pixels take 770 MB."""
SHARED_MEMORY = Path("/dev/shm")
CODE = "COLLEGIUM_USERS_CODE"
"""In the environment of a run's workers: Ray gives no run a worker of another environment."""


def object_store_bytes(recipe: Recipe | None) -> int:
    """Of a Ray that is started here: batches for live teachers lie in it, what does not fit goes over the disk."""
    if recipe is None or not any(recipe.live_teachers(student) for student in recipe.students):
        return OBJECT_STORE_BYTES
    room = psutil.virtual_memory().available // 8
    if SHARED_MEMORY.is_dir():
        room = min(room, shutil.disk_usage(SHARED_MEMORY).free // 2)
    return max(OBJECT_STORE_BYTES, min(int(room), LIVE_OBJECT_STORE_BYTES))


@contextmanager
def cluster(
    address: str | None = None, recipe: Recipe | None = None, out: Path | None = None, code: str = ""
) -> Iterator["Cluster"]:
    """The cluster at `address` (or RAY_ADDRESS), or one of this process; joined when it is first needed, left at the end.

    A run that finds everything sealed never starts Ray. Raises EnvironmentUnfit on joining, when Ray does not start,
    the cluster can never meet a request of `recipe`, or one of its nodes does not see `out`. `code`: digest of the user's
    code, of which workers know: none that holds another one is given to this run.
    """
    set_environment()
    check_address(address)
    joined = Cluster(address or os.environ.get("RAY_ADDRESS"), recipe, out, code)
    try:
        yield joined
    except BaseException as error:
        if (head := joined.head) is not None and head.gone:
            raise CollegiumError(
                f"the head of the cluster at {head.address} has not answered since {head.gone}, and a cluster ends with "
                f"its head; what is done is kept: run the same command again on a new one"
            ) from error
        if joined.new_nodes is not None and joined.new_nodes.unfit is not None:
            raise joined.new_nodes.unfit from error
        raise
    finally:
        joined.leave()


class Cluster:
    """What a run asks of Ray, and what the cluster has. Safe to use from several threads."""

    def __init__(self, address: str | None, recipe: Recipe | None, out: Path | None = None, code: str = "") -> None:
        self._address, self._recipe, self._out, self._code = address, recipe, out, code
        self.wait_for_room_s = wait_for_room_s()
        self._lock = RLock()
        self._nodes: list[dict[str, Any]] = []
        self._started_here = False
        self.head: HeadWatch | None = None
        self.new_nodes: NewNodes | None = None
        self._dashboard_port: int | None = None
        self._start: Future[None] = Future()
        # Linux ends Ray's processes when the thread that started them ends: that thread must live as long as the run.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="ray")

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Alive nodes; joins the cluster if that has not been done."""
        import ray

        with self._lock:
            if not self._nodes:
                if self._recipe is not None:
                    check_before_work(self._recipe)
                self._start = self._keeper.submit(self._join)
                outcome(self._start)
                self._nodes = [node for node in ray.nodes() if node["Alive"]]
                if self._recipe is not None:
                    for note in check_capacity(self._recipe, self.in_reach):
                        log.info("%s", note)
                if self._out is not None and (len(self._nodes) > 1 or self._address not in (None, "local")):
                    check_seen(self._out, self._nodes)
                    self.new_nodes = NewNodes(self._out, self._nodes)
        return self._nodes

    @property
    def in_reach(self) -> list[Mapping[str, float]]:
        """Resources of the nodes that are up, and of those that an autoscaler may add to them."""
        return in_reach([node["Resources"] for node in self.nodes])

    @property
    def is_joined(self) -> bool:
        return bool(self._nodes)

    def join(self) -> None:
        """Make sure that Ray runs."""
        assert self.nodes

    def join_meanwhile(self) -> None:
        """Begin to join in a thread. What goes wrong is told by the first call that needs the cluster: it tries again."""

        def join() -> None:
            with suppress(CollegiumError):
                self.join()

        Thread(target=join, name="join", daemon=True).start()

    def _join(self) -> None:
        import ray

        if ray.is_initialized():
            return
        local = self._address in (None, "local")
        options: dict[str, Any] = {"address": self._address}
        if local:
            self._dashboard_port = own_dashboard()
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # this machine is not taken away
            # Without the dashboard Ray Train leaves the placement group of a worker group that died.
            options = {
                "address": "local",
                "num_gpus": gpus_here(),
                "include_dashboard": True,
                "dashboard_port": self._dashboard_port,
                "object_store_memory": object_store_bytes(self._recipe),
            }
        else:
            shipped = shipped_environment(self._out) if self._out is not None else {}
            environment = {**shipped, **({CODE: self._code} if self._code else {})}
            options |= {"runtime_env": {"env_vars": environment}} if environment else {}
        log.info("starting Ray on this machine" if local else f"joining the Ray cluster at {self._address}")
        try:
            ray.init(
                **options,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="collegium",
                job_config=_job_config(),
            )
        except Exception as error:
            if self._address is not None and not local:
                raise told(self._address, error) from error
            raise EnvironmentUnfit(
                f"Ray did not start on this machine ({_one_line(error)}); `collegium doctor` looks closer"
            ) from error
        self._started_here = True
        self.head = HeadWatch(ray.get_runtime_context().gcs_address)

    def leave(self) -> None:
        """Leave the cluster. A start that is under way is not waited for: it ends with this process."""
        if self.new_nodes is not None:
            self.new_nodes.stop()
        if self._started_here:
            import ray

            assert self.head is not None
            self.head.stop()
            gc.collect()  # a handle that some thread finds in a cycle after Ray has ended ends this process
            if self.head.gone:
                atexit.unregister(ray.shutdown)  # it would wait for the head
            else:
                ray.shutdown()
            if self._dashboard_port is not None:
                os.environ.pop(DASHBOARD, None)
        self._keeper.shutdown(wait=self._start.done())

    def total(self, resource: str) -> float:
        self.join()
        return float(sum(node["Resources"].get(resource, 0) for node in self._nodes))

    def gpus(self, resources: Resources) -> float:
        """`auto` resolved: 1 if the cluster has any GPU or can get one, else 0."""
        return gpus_of(resources, self.in_reach)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], user_path: UserPath) -> Iterator[Result]:
        """`map(function, items)` on the cluster, results in order, a bounded number under way."""
        import ray

        self.join()
        self._await_room({"CPU": 1.0})
        run = ray.remote(num_cpus=1, max_retries=3)(_run)
        shared = ray.put((function, user_path, Carried.from_here()))
        in_flight: deque[Any] = deque()
        limit = 2 * max(1, int(total(self.in_reach, "CPU")))
        for item in items:
            in_flight.append(run.remote(shared, item))
            if len(in_flight) >= limit:
                yield _get(in_flight.popleft())
        while in_flight:
            yield _get(in_flight.popleft())

    def call(
        self, function: Callable[..., Result], *arguments: Any, resources: Resources, user_path: UserPath
    ) -> Result:
        """Run one function as a Ray task with `resources` and wait for it. Raises EnvironmentUnfit as `_await_room`."""
        import ray

        gpus = self.gpus(resources)
        options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": gpus, "max_retries": 3}
        options |= {"resources": dict(resources.custom), "accelerator_type": resources.accelerator_type}
        threads = str(num_threads(resources))
        bound = ray.remote(**options, runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}})(_call)
        self._await_room(bundle_of(resources, gpus))
        result: Result = _get(bound.remote(function, arguments, user_path, Carried.from_here()))
        return result

    def _await_room(self, bundle: dict[str, float]) -> None:
        """Where no node that is up could hold `bundle`, wait for one that can, and say so: a task would wait in silence.

        Raises EnvironmentUnfit when none has come after a while.
        """
        import ray

        from teachers.resources.reservation import Request, reserved

        self.join()
        up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in up):
            with reserved([Request(f"tasks of {ids().get('stage', 'this run')}", bundle, 1)], self.wait_for_room_s):
                pass


def _job_config() -> Any:
    """Of a job whose workers find modules as this process does: Ray would put the working directory first, before ours."""
    from ray.job_config import JobConfig

    class OwnPackagesFirst(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:  # what Ray asks before it adds that directory
            return True

    return OwnPackagesFirst()


def _run(shared: tuple[Callable[[Any], Any], UserPath, Carried], item: Any) -> Any:
    check_own_packages()
    function, user_path, log_as = shared
    log_as.take_up()
    use_user_path(user_path)
    return function(item)


def _get(result_ref: Any) -> Any:
    """The result of a task; what it raised, without Ray's wrapping when it can be told."""
    import ray

    try:
        return ray.get(result_ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CollegiumError) or is_unfit(error.cause):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise CollegiumError(
            f"a Ray worker was lost ({_one_line(error)}); run the same command again: it goes on from here"
        ) from error
    except SystemError as error:  # what Ray makes of a signal that it notices while it waits
        raise error.__cause__ or error from None


def _call(function: Callable[..., Any], arguments: Sequence[Any], user_path: UserPath, log_as: Carried) -> Any:
    check_own_packages()
    log_as.take_up()
    use_user_path(user_path)
    return function(*arguments)


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
