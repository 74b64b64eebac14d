"""Two stores about the same rows are compared as their definitions say, in blocks; those of other rows are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import expit, rel_entr, softmax

from orchestrator.cli.main import collegium
from teachers.errors import StoreError
from teachers.soft_targets.difference import difference
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from tests.test_answers import a_store, out

__all__ = ["out"]
NAMES = ("a", "b", "c")


def stored(folder: Path, said: np.ndarray, **about: object) -> Path:
    """A whole store of what is said of the rows 0, 1, ..."""
    given = {"encoding": "dense", "names": NAMES, "num_rows": len(said), "rows_per_shard": 64, "answer": "class_axis"}
    spec = Spec(folder.name, folder.name, "train-0", "51de", **(given | about))  # type: ignore[arg-type]
    store, keys = SoftTargetStore.create(folder, spec), np.arange(len(said), dtype=np.uint64)
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {spec.named[0]: said[first : first + num]})
    store.seal()
    return folder


def drawn(seed: int, rows: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=3, size=(rows, len(NAMES))).astype(np.float32)


def read(folder: Path) -> np.ndarray:
    return SoftTargets.open(folder).said().double().numpy()


def test_agreement_and_divergence_of_classes_are_those_of_scipy_whatever_their_order(tmp_path: Path) -> None:
    one, other = drawn(1), drawn(2)
    one[5], other[[5, 9]] = np.nan, np.nan
    first = stored(tmp_path / "one", one)
    second = stored(tmp_path / "other", other[:, [2, 0, 1]], names=("c", "a", "b"), rows_per_shard=50)
    said, theirs = (np.delete(each, [5, 9], 0) for each in (read(first), read(second)[:, [1, 2, 0]]))
    p, q = softmax(said, 1), softmax(theirs, 1)
    kl = rel_entr(p, q).sum(1)
    found = difference(first, second, most=4)
    assert (found.rows, found.unknown) == (198, 2)
    assert found.agreement == pytest.approx((said.argmax(1) == theirs.argmax(1)).mean())
    assert found.kl == pytest.approx(kl.mean()) and found.kl_back == pytest.approx(rel_entr(q, p).sum(1).mean())
    order = np.argsort(-kl)[:4]
    keys = np.delete(np.arange(200), [5, 9])[order]
    assert [(row.place, row.sample_key) for row in found.most] == [(key, key) for key in keys]
    assert [row.distance for row in found.most] == pytest.approx(kl[order])
    assert found.most[0].said[0] == f"{NAMES[p[order[0]].argmax()]} {p[order[0]].max():.3f}"


def test_a_store_is_no_different_from_itself(tmp_path: Path) -> None:
    first = stored(tmp_path / "one", drawn(1))
    found = difference(first, first)
    assert (found.agreement, found.kl, found.kl_back, found.most) == (1.0, 0.0, 0.0, ())


def test_of_classes_alone_no_divergence_is_told_but_the_rows_that_disagree(tmp_path: Path) -> None:
    one, other = drawn(1), drawn(1)
    other[[3, 8]] = other[[3, 8]][:, [1, 2, 0]]
    found = difference(stored(tmp_path / "one", one, encoding="label"), stored(tmp_path / "other", other))
    assert found.kl is None and found.agreement == pytest.approx(1 - 2 / 200)
    assert [row.place for row in found.most] == [3, 8]


def test_of_several_classes_decisions_agree_and_of_numbers_the_error_is_told(tmp_path: Path) -> None:
    one, other = (stored(tmp_path / f"set-{n}", drawn(n), answer="class_set") for n in (1, 2))
    said, theirs = read(one), read(other)
    p, q = expit(said), expit(theirs)
    found = difference(one, other)
    assert found.agreement == pytest.approx(((said > 0) == (theirs > 0)).mean())
    assert found.kl == pytest.approx((rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(1).mean())
    one, other = (stored(tmp_path / f"values-{n}", drawn(n), answer="values") for n in (1, 2))
    apart = read(one) - read(other)
    found = difference(one, other, most=1)
    assert found.agreement is None and found.kl is None and found.rmse is not None
    assert list(found.rmse.values()) == pytest.approx(np.sqrt((apart**2).mean(0)))
    assert found.most[0].place == np.abs(apart).max(1).argmax()


def test_blocks_of_any_size_give_the_same(tmp_path: Path) -> None:
    one, other = (stored(tmp_path / str(n), drawn(n)) for n in (1, 2))
    whole = difference(one, other)
    parts = difference(one, other, block_bytes=7 * 8 * len(NAMES))
    assert parts.most == whole.most and parts.kl == pytest.approx(whole.kl) and parts.agreement == whole.agreement


def test_stores_of_other_rows_of_other_classes_and_of_boxes_are_refused_in_one_line(tmp_path: Path) -> None:
    first = stored(tmp_path / "one", drawn(1))
    about = SoftTargetStore.open(first).spec
    folder = tmp_path / "other"
    for change, told in (
        (
            {"segment": "test-0", "segment_digest": "beef"},
            "is about the rows test-0 beef.*only stores of the same rows",
        ),
        ({"names": ("a", "b", "x")}, "do not know the same names: c, x are of one alone"),
        ({"answer": "values"}, "class_axis and values"),
    ):
        SoftTargetStore.create(folder, replace(about, **change))  # type: ignore[arg-type]
        done = CliRunner().invoke(collegium, ["store", "diff", str(first), str(folder)])
        assert isinstance(done.exception, StoreError) and "\n" not in str(done.exception)
        with pytest.raises(StoreError, match=told):
            raise done.exception
        (folder / "spec.json").unlink()
    boxes = replace(about, answer="boxes", max_boxes=2)
    SoftTargetStore.create(folder, boxes)
    SoftTargetStore.create(tmp_path / "boxes", boxes)
    with pytest.raises(StoreError, match="say boxes"):
        difference(folder, tmp_path / "boxes")


def test_the_command_names_rows_as_the_transfer_set_does(tmp_path: Path, out: tuple[Path, TransferSet]) -> None:
    folder, rows = out
    segment = rows.of("test")[0]
    first, second = (a_store(folder, rows, segment, "wide", seed=seed) for seed in (1, 2))
    done = CliRunner().invoke(collegium, ["store", "diff", str(first), str(second), "--rows", "3", "--json"])
    document = json.loads(done.stdout)
    ids = rows.ids(segment).to_pylist()
    assert [row["id"] for row in document["most"]] == [ids[row["place"]] for row in document["most"]]
    assert len(document["most"]) == 3 and document["rows"] == segment.num_rows
    told = CliRunner().invoke(collegium, ["store", "diff", str(first), str(second), "--rows", "3"]).stdout
    assert f"{segment.num_rows} rows compared\nagreement" in told and document["most"][0]["id"] in told
    refused = CliRunner().invoke(collegium, ["store", "diff", str(folder), str(second)])
    assert "name one of their folders" in str(refused.exception)
