"""What the doctor finds without starting anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = "import importlib.util, py_compile; py_compile.compile(importlib.util.find_spec('torch').origin)"
LOOK = "import json; from orchestrator.cli.doctor import _bytecode; print(json.dumps([vars(each) for each in _bytecode()]))"


@pytest.mark.parametrize(("forbidden", "compiled"), [(True, False), (True, True), (False, False)])
def test_packages_that_every_process_would_compile_again_are_found(
    forbidden: bool, compiled: bool, tmp_path: Path
) -> None:
    """Told only where no import may keep what it compiled, and nothing has compiled before."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    if compiled:
        subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)
    if forbidden:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert len(found) == (forbidden and not compiled)
    assert all("compileall" in each["cure"] and each["is_slow"] for each in found)
