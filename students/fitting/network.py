"""On which network the workers of a trainer talk to each other: that of the addresses by which Ray knows their nodes.

Left to itself gloo listens where the host's name resolves to, and on many hosts (Debian's and Ubuntu's among them) that is
loopback, where no other node reaches it.
"""

import os
from dataclasses import dataclass
from typing import Any

import psutil
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.util import get_node_ip_address

INTERFACE = "GLOO_SOCKET_IFNAME"


def interface_of(address: str) -> str | None:
    """The network interface of this host that has `address`."""
    found = psutil.net_if_addrs().items()
    return next((name for name, places in found if any(place.address == address for place in places)), None)


def use_own_interface() -> None:
    """In a worker, before it meets the others. What the user has set stays."""
    name = interface_of(get_node_ip_address())
    if name is not None:
        os.environ.setdefault(INTERFACE, name)


class OwnBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_own_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class OwnNetwork(TorchConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[OwnBackend]:
        return OwnBackend
