"""On what a process of Ray computes: the GPU that it was given, or the CPU. Knows nothing of what is computed."""

import ray
import torch

from ..errors import EnvironmentUnfit


def device_of(who: str, num_gpus: float) -> str:
    """`cuda` for `who` was given a GPU or a share of one. Raises EnvironmentUnfit where torch finds none on such a node.

    On the CPU it would do the same, many times slower, on a node that is paid for its GPU.
    """
    if num_gpus <= 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
    raise EnvironmentUnfit(
        f"{who} was given a GPU of node {ray.util.get_node_ip_address()}, and torch finds none there: torch "
        f"{torch.__version__} {built}; give the node a driver that is new enough, or the build of torch for its driver, "
        f"or ask for `gpus: 0`"
    )
