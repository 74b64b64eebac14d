"""A cluster of several nodes loses some of them; `python -m tests.faults` does it again and again."""

import random
from collections.abc import Iterator

import pytest

from tests import faults, node_faults
from tests.node_faults import Nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and two nodes."""
    with Nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


def test_a_node_killed_while_it_labels_costs_no_row_and_one_that_joins_gets_its_work(nodes: Nodes) -> None:
    out = nodes.shared / "labels"
    _, batches = node_faults.kill_while_labelling(nodes, out, random.Random(0))
    found = faults.outcome(out)
    assert batches > 0
    assert sum(map(len, found.keys.values())) == 1797
    assert len({key for keys in found.keys.values() for key in keys}) == 1797
