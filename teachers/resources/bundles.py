"""What one replica or worker asks of one node, in Ray's names. Plain arithmetic: imports no Ray."""

from collections.abc import Iterable, Mapping

from ..config.resources import OF_A_TYPE, Resources


def gpus_of(resources: Resources, nodes: Iterable[Mapping[str, float]]) -> float:
    """`auto` resolved: 1 if any of `nodes` has a GPU, else 0."""
    return float(any(node.get("GPU", 0) > 0 for node in nodes)) if resources.gpus == "auto" else resources.gpus


def bundle_of(resources: Resources, gpus: float) -> dict[str, float]:
    """Nothing in it is 0. `gpus` is what `resources.gpus` came to."""
    bundle = {"CPU": resources.cpus, **({"GPU": gpus} if gpus else {}), **resources.custom}
    if resources.accelerator_type is not None:
        bundle[f"{OF_A_TYPE}{resources.accelerator_type}"] = 0.001
    return bundle


def room_for(bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many of such bundles all nodes together hold, each on one node, when nothing else runs."""
    return sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in bundle.items()) for node in nodes)


def num_threads(resources: Resources) -> int:
    """Of torch: as many as CPUs, which Ray does not see to."""
    return max(1, int(resources.cpus))
