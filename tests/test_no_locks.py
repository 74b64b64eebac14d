"""Storage whose kernel refuses flock: work goes on, and what only one process may do is left alone and said."""

import errno
from pathlib import Path

import pytest

from . import without_flock

REFUSALS = [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK]

WORK = """
import logging, sys
from pathlib import Path
from orchestrator.tracking.ledger import Ledger
from orchestrator.tracking.server import connect
from students.runs.curves import append_metrics
from teachers.errors import StoreError
from tests.test_stages import fill, opened, stage
logging.basicConfig(level=logging.INFO)
out = Path(sys.argv[1])
first, second = opened(out).build(stage(), fill), opened(out).build(stage(temperature=2.0), fill)
append_metrics(first.folder, [dict(stage="s", run="r", step=1, key="k", value=1.0, time=1.0)])
connect(f"sqlite:///{out}/mlflow.db", out, "an experiment")
with Ledger(out, "uri", "1", "run").alone() as mine:
    print(first.reused, second.reused, mine, (first.folder / "metrics.jsonl").read_text().count("\\n"))
(first.folder / "y.bin").write_bytes(b"spoiled")
try:
    opened(out).build(stage(), fill)
except StoreError as error:
    print(error)
print((first.folder / "y.bin").read_bytes() == b"spoiled")
"""

GC = """
import sys
from orchestrator.cli.store import gc
gc([sys.argv[1], "--grace", "0"])
"""


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
def test_where_storage_has_no_locks_work_goes_on_nothing_is_repaired_and_it_is_said_once(
    tmp_path: Path, number: int
) -> None:
    done = without_flock.run(number, WORK, tmp_path)
    assert done.returncode == 0, done.stderr
    worked, refused, spoiled = done.stdout.splitlines()
    assert worked.split() == ["False", "False", "True", "1"]
    assert done.stderr.count("has no locks") == 1
    assert "label/wide is damaged" in refused and "not repaired: this storage has no locks" in refused
    assert spoiled == "True"


def test_nothing_is_removed_where_storage_has_no_locks(tmp_path: Path) -> None:
    from .test_store import a_store

    store = a_store(tmp_path / "wide")
    orphan = store.folder / "shards" / "000002-0123456789abcdef.arrow"
    orphan.write_bytes(b"an orphan")
    done = without_flock.run(errno.ENOSYS, GC, store.folder)
    assert "nothing more is removed: this storage has no locks" in done.stderr and orphan.exists()
    assert done.returncode != 0
