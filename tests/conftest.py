"""What several tests stand on: one Ray cluster and one prepared transfer set for the whole session.

Ray, torch and our own packages are imported inside the fixtures: a test of a recipe needs none of them.
"""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from teachers.transfer_set.transfer_set import TransferSet

SESSION_FOLDER = tempfile.TemporaryDirectory(prefix="collegium-tests-")
TOKEN = Path(SESSION_FOLDER.name) / "ray-token"
TOKEN.touch(mode=0o600)
TOKEN.write_text("tests-" + os.urandom(16).hex())
os.environ |= {  # read when ray and mlflow are imported
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",  # tiny networks are slower on several, and far slower beside other work
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",  # no dashboard here; else Ray asks that of another cluster
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": str(TOKEN),
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process of a trainer's seven
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
}


LONGEST = (
    "test_pipeline",
    "test_live",
    "test_faults",
    "test_jobs",
    "test_labelling",
    "test_live_pipeline",
)
"""Files of tests, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("ray")}

    def turn(item: pytest.Item) -> int:
        """Several files run side by side: the longest begin, so that no one waits for them in the end."""
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST) + (item.path not in long)

    items.sort(key=turn)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums are those of every machine, and tiny networks are no slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of this process, for all tests of the session."""
    import ray

    ray.init(
        address="local",
        num_cpus=8,  # logical: room for replicas, trainers and their drivers side by side
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 << 20,
        logging_level="ERROR",
    )
    yield
    gc.collect()  # a handle that is found in a cycle when Ray has ended ends the process
    ray.shutdown()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> "TransferSet":
    """scikit-learn's digits, prepared: 100 labelled rows, image uint8 [8, 8, 1], classes "0" to "9". Read only."""
    from teachers.config.transfer_set import SklearnSource, TransferSetConfig
    from teachers.preparing.prepare import prepare

    source = SklearnSource(kind="sklearn", name="digits")
    config = TransferSetConfig(source=source, inputs="image", label="digit", labelled=100)
    return prepare(config, tmp_path_factory.mktemp("digits"))
