"""One kill of each kind, by SIGKILL, of real processes of a real run; `python -m tests.faults` does ten of each."""

from pathlib import Path

import pytest

from orchestrator.recipe.load import load_recipe
from orchestrator.running.run import run
from tests import faults


@pytest.mark.campaign
def test_a_killed_actor_worker_and_driver_cost_no_row_and_change_no_bit(ray_cluster: None, tmp_path: Path) -> None:
    calm = tmp_path / "calm"  # on the session's cluster, whose processes are there already
    run(load_recipe(faults.RECIPES / faults.SMALLEST.recipe, faults.SMALLEST.overrides), calm, until="distill")
    expected = faults.outcome(calm)
    found = faults.disturbed_by_all(tmp_path, seed=0)
    assert len(expected.keys) == 3 and len(expected.students) == 1
    assert faults.compare(found, expected) == []
