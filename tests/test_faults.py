"""One kill of each kind, by SIGKILL, of real processes of a real run; `python -m tests.faults` does ten of each."""

from pathlib import Path

import pytest

from tests import faults


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, faults.Outcome]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return {setup.name: faults.undisturbed(folder, setup) for setup in (faults.SMALL, faults.PEERS)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", faults.FAULTS)
def test_a_killed_process_costs_no_row_and_changes_no_bit(
    kind: str, expected: dict[str, faults.Outcome], tmp_path: Path
) -> None:
    undisturbed = expected[faults.FAULTS[kind][0].name]
    found, _, _ = faults.disturbed(tmp_path, kind, seed=0)
    assert len(undisturbed.students) == 4
    assert faults.compare(found, undisturbed) == []


@pytest.mark.slow
def test_a_killed_node_takes_its_member_back_to_the_last_common_checkpoint(tmp_path: Path) -> None:
    faults.node_killed(tmp_path, seed=0)
