"""The Ray cluster that a run works on: starting or joining it, what it has, and tasks on it.

The one module beside the command line that may catch whatever Ray throws.
"""

import atexit
import gc
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from teachers.config.resources import Resources
from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.process.log_lines import Carried, ids
from teachers.process.variables import carry
from teachers.process.waiting import outcome
from teachers.resources.bundles import bundle_of, gpus_of, num_threads
from teachers.resources.pools import in_reach
from teachers.storage.place import shipped_environment
from teachers.users_code.imports import UserPath

from ..recipe.checks import check_before_work, check_variables
from ..recipe.model import Recipe
from . import tasks
from .capacity import check_capacity, gpus_here, total, wait_for_room_s
from .environment import DASHBOARD, in_groups_of_their_own, own_dashboard, set_environment, use_short_folder
from .head_watch import HeadWatch
from .joining import check_address, told
from .new_nodes import NewNodes
from .object_store import object_store_bytes
from .probing import check_seen

if TYPE_CHECKING:
    from teachers.resources.reservation import Request
    from teachers.storage.manifest import Run

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

NO_GPU = Resources(gpus=0)
IDLE = 2 * (os.cpu_count() or 1) + 8
"""Up to so many processes Ray keeps one that has nothing to do: the next task finds torch imported. Actors count, too."""
CODE = "COLLEGIUM_USERS_CODE"
"""In the environment of a run's workers: Ray gives no run a worker of another environment."""


@contextmanager
def cluster(
    address: str | None = None, recipe: Recipe | None = None, out: Path | None = None, code: str = ""
) -> Iterator["Cluster"]:
    """The cluster at `address` (or RAY_ADDRESS), or one of this process; joined when it is first needed, left at the end, if not before.

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
                    check_variables(self._recipe, alone=self._address in (None, "local"))
                    carry(name for _, name in self._recipe.variables())
                self._start = self._keeper.submit(self._join)
                if self._recipe is not None:
                    check_before_work(self._recipe)  # imports what the recipe names, which takes as long as Ray's start
                outcome(self._start)
                self._nodes = [node for node in ray.nodes() if node["Alive"]]
                try:
                    self._check()
                except BaseException:
                    self._nodes = []  # so that the next one who asks is told, too
                    raise
        return self._nodes

    def _check(self) -> None:
        """Raise EnvironmentUnfit for a cluster that could never do the work, or that does not see OUT."""
        if self._recipe is not None:
            for note in check_capacity(self._recipe, self.in_reach):
                log.info("%s", note)
        if self._out is not None and (len(self._nodes) > 1 or self._address not in (None, "local")):
            check_seen(self._out, self._nodes)
            self.new_nodes = NewNodes(self._out, self._nodes)

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
            with suppress(Exception):
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
            use_short_folder()
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # this machine is not taken away
            os.environ.setdefault("RAY_num_workers_soft_limit", str(IDLE))
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
            with in_groups_of_their_own():
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
                f"Ray did not start on this machine ({tasks.one_line(error)}); `collegium doctor` looks closer"
            ) from error
        self._started_here = True
        self.head = HeadWatch(ray.get_runtime_context().gcs_address)

    def leave(self) -> None:
        """Leave the cluster. A start that is under way is not waited for: it ends with this process."""
        if self.new_nodes is not None:
            self.new_nodes.stop()
        if self._started_here:
            import ray

            self._started_here = False
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

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        user_path: UserPath,
        resources: Resources = NO_GPU,
    ) -> Iterator[Result]:
        """`map(function, items)` on the cluster, results in order, a bounded number under way, each with `resources`."""
        import ray

        gpus = self.gpus(resources)
        asked = self._asked(bundle_of(resources, gpus))
        run = tasks.remote(tasks.run_item, num_cpus=resources.cpus, num_gpus=gpus)
        shared = ray.put((function, user_path, Carried.from_here()))
        limit = 2 * max(1, int(total(self.in_reach, "GPU" if gpus else "CPU")))
        with tasks.Tasks(asked) as under_way:
            for item in items:
                under_way.send(run, shared, item)
                if len(under_way) >= limit:
                    yield under_way.next()
            while under_way:
                yield under_way.next()

    def checks(self, user_path: UserPath) -> "Run | None":
        """What checks the files of a store: tasks where they lie; None of a cluster of this process, which does so itself."""
        return None if self._address in (None, "local") else partial(self.map, user_path=user_path)

    def call(
        self,
        function: str,
        *arguments: Any,
        resources: Resources,
        user_path: UserPath,
        node: str | None = None,
        **keywords: Any,
    ) -> Any:
        """Run the function of an import string as a Ray task of its name with `resources` and wait for it.

        This process does not import it. `node`: Ray's id of the one where it should run, if that is there and free.
        Raises EnvironmentUnfit as `await_room`.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        gpus = self.gpus(resources)
        options: dict[str, Any] = {"name": function.partition(":")[2], "num_cpus": resources.cpus, "num_gpus": gpus}
        options |= {"resources": dict(resources.custom), "accelerator_type": resources.accelerator_type}
        if node is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        threads = str(num_threads(resources))
        run = tasks.remote(tasks.run_once, **options, runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}})
        with tasks.Tasks(self._asked(bundle_of(resources, gpus))) as under_way:
            under_way.send(run, function, arguments, keywords, user_path, Carried.from_here())
            return under_way.next()

    def _asked(self, bundle: dict[str, float]) -> "Request":
        """The room for one task, once there is a node that could hold it."""
        import ray

        from teachers.resources.reservation import Request

        self.join()
        asked = Request(f"tasks of {ids().get('stage', 'this run')}", bundle, 1)
        tasks.await_room(asked, ray.nodes(), self.wait_for_room_s)
        return asked


def _job_config() -> Any:
    """Of a job whose workers find modules as this process does: Ray would put the working directory first, before ours."""
    from ray.job_config import JobConfig

    class OwnPackagesFirst(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:  # what Ray asks before it adds that directory
            return True

    return OwnPackagesFirst()
