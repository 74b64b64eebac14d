"""CPU, memory, network and GPUs of every node, on request: `system/<node>/...` on the run's MLflow page.

The names are those of MLflow's own monitor, which sees one machine only and needs MLflow there. Here an actor without a
CPU of its own sits on each node, the driver asks them all now and then, and what they say goes the way of all figures.
"""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import psutil

from ..cluster.cluster import Cluster
from .tracker import Tracker

EVERY_S = 10.0
WAIT_S = 5.0
"""For the answers of all nodes; who is later says nothing this time."""
POLL_S = 0.5
MB = 1e6


class Meter:
    """Of the machine that it is on."""

    def __init__(self) -> None:
        self.network = psutil.net_io_counters()
        self.gpus = _gpus()
        psutil.cpu_percent()  # the first call has nothing to compare with

    def read(self) -> dict[str, float]:
        """Percent, megabytes and watts; the network's megabytes since the meter was made."""
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage("/"), psutil.net_io_counters()
        figures = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MB,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "network_receive_megabytes": (network.bytes_recv - self.network.bytes_recv) / MB,
            "network_transmit_megabytes": (network.bytes_sent - self.network.bytes_sent) / MB,
        }
        for number, gpu in enumerate(self.gpus):
            figures |= {f"gpu_{number}_{name}": value for name, value in _of_gpu(gpu).items()}
        return figures


def _gpus() -> list[Any]:
    """NVIDIA's, where its Python module is installed and finds some."""
    try:
        import pynvml
    except ImportError:
        return []
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    return []


def _of_gpu(gpu: Any) -> dict[str, float]:
    import pynvml

    figures: dict[str, float] = {}
    with suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        figures |= {
            "memory_usage_megabytes": memory.used / MB,
            "memory_usage_percentage": 100 * memory.used / memory.total,
        }
    with suppress(pynvml.NVMLError):
        figures["utilization_percentage"] = float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
    with suppress(pynvml.NVMLError):
        figures["power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000
    return figures


class SystemMetrics:
    """A context: while it lasts, and once the cluster was joined, all nodes are measured, those that join later too."""

    def __init__(self, cluster: Cluster, tracker: Tracker) -> None:
        self.cluster, self.tracker = cluster, tracker
        self.meters: dict[str, Any] = {}
        """Actors by node id."""
        self.over = Event()
        self.thread = Thread(target=self._serve, name="system-metrics", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()

    def _serve(self) -> None:
        while not self.over.wait(POLL_S) and not self.cluster.is_joined:
            pass
        number = 0
        while not self.over.is_set():
            begun = time.monotonic()
            self.tracker.log("", self.read(), step=number)
            number += 1
            self.over.wait(max(0.0, EVERY_S - (time.monotonic() - begun)))
        self._leave()

    def read(self) -> dict[str, float]:
        """Every figure of every node that answers in time."""
        import ray

        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        names = names_of(nodes)
        for node in nodes.keys() - self.meters.keys():
            self.meters[node] = _started(node)
        for node in self.meters.keys() - nodes.keys():
            del self.meters[node]
        asked = {self.meters[node].read.remote(): names[node] for node in nodes}
        figures: dict[str, float] = {}
        for ref in ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_S)[0]:
            with suppress(ray.exceptions.RayError):  # the node is gone: the next round does without it
                figures |= {f"system/{asked[ref]}/{key}": value for key, value in ray.get(ref).items()}
        return figures

    def _leave(self) -> None:
        import ray

        for meter in self.meters.values():
            with suppress(ray.exceptions.RayError):
                ray.kill(meter)


def names_of(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By id the host's name; several nodes of one host get a part of their ids too."""
    hosts = {node: str(found["NodeManagerHostname"]) for node, found in nodes.items()}
    num = Counter(hosts.values())
    return {node: host if num[host] == 1 else f"{host}-{node[:6]}" for node, host in hosts.items()}


def _started(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0)(Meter).options(scheduling_strategy=there).remote()
