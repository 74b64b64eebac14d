"""One kill of each kind, by SIGKILL, of real processes of a real run; `python -m tests.faults` does ten of each."""

from pathlib import Path

import pytest

from tests import faults


@pytest.mark.slow
def test_a_killed_actor_worker_and_driver_cost_no_row_and_change_no_bit(tmp_path: Path) -> None:
    expected = faults.undisturbed(tmp_path, faults.SMALLEST)
    found = faults.disturbed_by_all(tmp_path, seed=0)
    assert len(expected.keys) == 9 and len(expected.students) == 2
    assert faults.compare(found, expected) == []
