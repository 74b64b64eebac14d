"""The same rows make the same student, whether they came at once or bit by bit; so do their teachers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from students.data.shared import open_data
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.teacher import SklearnTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.models.estimators import fit_sklearn
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from tests.training_runs import HARD, SOFT, make_run, outputs

WHOLE, NOTHING = 1 << 30, 0
"""Of memory for rows."""


def rows(number: int) -> pa.Table:
    random = np.random.default_rng(0)
    x = pa.FixedSizeListArray.from_arrays(pa.array(random.lognormal(0, 2, 100 * 5).astype(np.float32)), 5)
    data = pa.table({"name": [f"row-{n}" for n in range(100)], "x": x, "y": random.integers(0, 3, 100)})
    return data.slice(0, number)


def prepared(folder: Path, *numbers: int) -> TransferSet:
    """The first rows, then more of them, then all."""
    earlier = None
    for number in numbers:
        path = folder / f"{number}.parquet"
        folder.mkdir(exist_ok=True)
        pq.write_table(rows(number), path)
        source = {"source": {"kind": "parquet", "path": str(path)}, "inputs": "x", "label": "y", "id": "name"}
        config = TransferSetConfig.model_validate({**source, "labelled": 20})
        transfer_set = prepare(config, folder / str(number), earlier=earlier)
        earlier = transfer_set.folder
    return transfer_set


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    found = prepared(tmp_path_factory.mktemp("grown"), 40, 60, 100)
    assert [len(found.of(split)) for split in ("train", "validation")] == [3, 3]
    return found


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    found = prepared(tmp_path_factory.mktemp("fresh"), 100)
    assert len(found.of("train")) == 1
    return found


def said(folder: Path, transfer_set: TransferSet, name: str) -> Source:
    """A teacher whose scores of a row are decided by its key."""
    stores = {}
    for segment in transfer_set.of("train"):
        of = (name, name, segment.name, segment.digest, "dense", transfer_set.classes, segment.num_rows, 64)
        store = SoftTargetStore.create(folder / f"{name}-{segment.name}", Spec(*of))
        keys = transfer_set.keys(segment)
        logits = np.stack([np.sin(keys.astype(np.float64) * (n + len(name))) for n in range(3)], 1).astype(np.float32)
        for number in store.missing():
            first, num = store.shard_rows(number)
            store.commit(number, keys[first : first + num], {"logits": logits[first : first + num]})
        stores[segment.name] = folder / f"{name}-{segment.name}"
    return Source(name, stores)


def trained(folder: Path, transfer_set: TransferSet, memory_bytes: int, **changes: object) -> dict[str, bytes]:
    sources = [] if changes.get("labelled_only") else [said(folder, transfer_set, name) for name in ("wide", "deep")]
    run: Run = make_run(
        folder, transfer_set, *sources, **{"steps": 30, "batch_size": 12, "evaluate_every": 5} | changes
    )
    session = PlainSession()
    training = Training(run, session, open_data(run, session, memory_bytes))
    run.folder.mkdir(parents=True)
    training.train()
    training.finish()
    return outputs(run)


KINDS = {
    "student": {"objective": (SOFT, HARD)},
    "window": {"objective": (SOFT, HARD), "shuffle_window": 16},
    "own rule": {"objective": ({**SOFT, "combine": "tests.training_runs:own_mean"}, HARD)},
    "labelled share": {"objective": (SOFT, HARD), "labelled_fraction": 0.5},
    "control": {"objective": ({"loss": "hard"},), "labelled_only": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_rows_that_came_bit_by_bit_is_that_of_rows_that_came_at_once(
    grown: TransferSet, fresh: TransferSet, tmp_path: Path, kind: str
) -> None:
    expected = trained(tmp_path / "fresh", fresh, WHOLE, **KINDS[kind])
    assert trained(tmp_path / "grown", grown, WHOLE, **KINDS[kind]) == expected


def test_what_is_mapped_window_by_window_is_what_is_held(
    grown: TransferSet, fresh: TransferSet, tmp_path: Path
) -> None:
    own = KINDS["own rule"] | {"shuffle_window": 16}
    expected = trained(tmp_path / "fresh", fresh, WHOLE, **own)
    assert trained(tmp_path / "grown", grown, NOTHING, **own) == expected


def test_a_forest_fitted_on_rows_that_came_bit_by_bit_is_that_of_rows_that_came_at_once(
    grown: TransferSet, fresh: TransferSet, tmp_path: Path
) -> None:
    trees = {"kind": "sklearn", "model": "sklearn.ensemble:RandomForestClassifier", "arguments": {"n_estimators": 5}}
    for name, transfer_set in (("grown", grown), ("fresh", fresh)):
        fit_sklearn(SklearnTeacher.model_validate(trees), transfer_set, tmp_path / name)
    assert (tmp_path / "grown" / "model.skops").read_bytes() == (tmp_path / "fresh" / "model.skops").read_bytes()
