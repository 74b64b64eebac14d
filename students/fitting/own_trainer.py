"""A TorchTrainer that can be ended from another thread: Ray Train 2.60 keeps the only handle that could to itself."""

from contextlib import suppress
from threading import Thread
from typing import Any

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR as WARN
from ray.exceptions import RayError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.constants import DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE as NO_WARNING
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController

ABORT_S = 3.0
"""For the workers to leave; then they are killed with their controller."""


class OwnTrainer(TorchTrainer):  # type: ignore[misc]
    controller: Any = None
    """The actor that starts the workers and looks after them, once there is one."""

    def _initialize_and_run_controller(self, **about: Any) -> Any:
        """As Ray's, but for the handle that is kept; no signal is taken over."""
        context = ray.get_runtime_context()
        here = {ray._raylet.RAY_NODE_ID_KEY: context.get_node_id()}
        environment = {"env_vars": {WARN: NO_WARNING, **get_env_vars_to_propagate()}}
        made = ray.remote(num_cpus=0, label_selector=here, runtime_env=environment)(TrainController)
        self.controller = made.remote(**about)
        ray.get(self.controller.run.remote())
        return ray.get(self.controller.get_result.remote())

    def controller_id(self) -> str | None:
        return None if self.controller is None else self.controller._actor_id.hex()

    def abort(self) -> None:
        """End it with its workers; `fit` raises then, wherever it is waited for. Not waited for on a cluster that is gone."""
        if self.controller is not None:
            ending = Thread(target=self._abort, name="abort", daemon=True)
            ending.start()
            ending.join(2 * ABORT_S)

    def _abort(self) -> None:
        with suppress(RayError):
            ray.wait([self.controller.abort.remote()], timeout=ABORT_S)
            ray.kill(self.controller)
