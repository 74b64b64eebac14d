"""What a model costs: parameters, bytes on disk, and how long an answer takes. Knows nothing of how good it is."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teachers.models.estimator_module import EstimatorModule
from teachers.models.folder import LoadedModel, load_model

BATCHES = (1, 32)
WARM_UP = 20
REPETITIONS = 200
LIMIT_S = 2.0
"""Of one batch size, and a quarter of it to warm up: a model too slow for all repetitions is timed with those that fit."""
FEWEST = 7
"""Repetitions, however long they take."""

Inputs = Mapping[str, NDArray[Any]]


def footprint(
    folder: Path, inputs: Inputs, *, trust: Sequence[str] = (), threads: int = 1, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """`parameters`, `bytes` (of the weights on disk) and `latency` of a model folder, asked with rows of `inputs`."""
    model = load_model(folder, trust=trust, device=device)
    return {
        "parameters": num_parameters(model),
        "bytes": (folder / model.config.weights).stat().st_size,
        "latency": latency(model, inputs, threads=threads, device=torch.device(device)),
    }


def num_parameters(model: LoadedModel) -> int:
    """Of a network; of an estimator the numbers that it has learnt."""
    if isinstance(model.module, EstimatorModule):
        return model.module.num_numbers
    return sum(parameter.numel() for parameter in model.module.parameters())


def latency(
    model: Callable[[Inputs], object], inputs: Inputs, *, threads: int, device: torch.device | None = None
) -> dict[str, Any]:
    """p50 and p95 in ms from canonical inputs to logits, at batch 1 and 32, with device name and thread count."""
    device = device or torch.device("cpu")
    found: dict[str, Any] = {"device": device_name(device), "threads": threads}
    with torch_threads(threads):
        for size in BATCHES:
            seconds = _times(model, _rows(inputs, size), device)
            p50, p95 = np.quantile(seconds, [0.5, 0.95]) * 1e3
            found[f"batch_{size}"] = {"p50_ms": float(p50), "p95_ms": float(p95)}
    return found


def device_name(device: torch.device) -> str:
    """What was timed: the GPU's name, or the CPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rows(inputs: Inputs, size: int) -> Inputs:
    """`size` rows, the given ones over again where there are fewer."""
    return {name: np.resize(column, (size, *column.shape[1:])) for name, column in inputs.items()}


def _times(model: Callable[[Inputs], object], inputs: Inputs, device: torch.device) -> list[float]:
    def ask() -> float:
        start = time.perf_counter()
        model(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    warmed, seconds = [ask()], list[float]()
    while len(warmed) < WARM_UP and sum(warmed) < LIMIT_S / 4:
        warmed.append(ask())
    while len(seconds) < REPETITIONS and (sum(seconds) < LIMIT_S or len(seconds) < FEWEST):
        seconds.append(ask())
    return seconds
