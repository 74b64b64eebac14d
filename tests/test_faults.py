"""One kill of each kind, by SIGKILL, of real processes of a real run; `python -m tests.faults` does ten of each."""

import os
from pathlib import Path

import pytest

from orchestrator.recipe.load import load_recipe
from orchestrator.running.run import run
from tests import faults, moment_faults


@pytest.mark.campaign
def test_a_killed_actor_worker_and_driver_cost_no_row_and_change_no_bit(ray_cluster: None, tmp_path: Path) -> None:
    calm = tmp_path / "calm"  # on the session's cluster, whose processes are there already
    run(load_recipe(faults.RECIPES / faults.SMALLEST.recipe, faults.SMALLEST.overrides), calm, until="distill")
    expected = faults.outcome(calm)
    found = faults.disturbed_by_all(tmp_path, seed=0)
    assert len(expected.keys) == 3 and len(expected.students) == 1
    assert faults.compare(found, expected) == []


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all kinds share one undisturbed run."""
    return tmp_path_factory.mktemp("moments")


@pytest.mark.campaign
@pytest.mark.parametrize("kind", moment_faults.KINDS)
def test_a_moment_of_a_shard_at_which_somebody_dies_costs_no_row_and_changes_no_bit(moments: Path, kind: str) -> None:
    if kind == "disk full in mid-shard" and os.geteuid() != 0:
        pytest.skip("only root may mount a file system, and so fill one")
    (killed,) = faults.kills(moments, kind, times=1, seed=0)
    assert killed.problems == []
