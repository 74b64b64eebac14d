"""One kill of each kind, by SIGKILL, of real processes of a real run; `python -m tests.faults` does ten of each."""

from pathlib import Path

import pytest

from tests import faults


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> faults.Outcome:
    return faults.undisturbed(tmp_path_factory.mktemp("undisturbed"), faults.SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["driver", "teacher actor"])
def test_a_killed_process_costs_no_row_and_changes_no_bit(kind: str, expected: faults.Outcome, tmp_path: Path) -> None:
    found, _, _ = faults.disturbed(tmp_path, kind, seed=0)
    assert len(expected.keys) == 9 and len(expected.students) == 4
    assert faults.compare(found, expected) == []


@pytest.mark.slow
def test_a_killed_training_worker_and_a_killed_node_take_the_cohort_back(tmp_path: Path) -> None:
    faults.node_killed(tmp_path, seed=0)
