"""What a report says of the machine that wrote it."""

import os
import platform
from importlib.metadata import version
from typing import Any

PACKAGES = ("collegium", "torch", "ray", "pyarrow", "mlflow", "scikit-learn", "numpy")


def environment() -> dict[str, Any]:
    """Versions and the machine that wrote the report."""
    packages = {name: version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
    }
