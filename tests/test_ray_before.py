"""A script that has imported ray before it asks us for anything: what Ray found around it then is not what its processes find."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ray
from orchestrator.cluster.cluster import cluster

def squared(number):
    return number * number

with cluster() as joined:
    print(*joined.map(squared, [1, 2, 3], user_path=__import__("pathlib").Path.cwd()))
import os
print(os.environ["RAY_AUTH_MODE"], ray.is_initialized())
"""


@pytest.mark.ray
def test_a_script_that_imports_ray_first_is_let_into_the_ray_that_it_starts(tmp_path: Path) -> None:
    """Ray keeps the mode that it found when it was imported, and its processes ask for a token: they would turn us away for ever."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    (tmp_path / "home").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert told.stdout.splitlines() == ["1 4 9", "token False"], told.stderr[-2000:]
    assert (tmp_path / "home" / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
