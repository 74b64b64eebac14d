"""Training rows beside those of the source: unlabelled files (`transfer_set.extra`) and synthetic rows (`transfer_set.munge`)."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError
from sklearn.neighbors import NearestNeighbors

from orchestrator.planning.beside import beside_notes
from orchestrator.planning.counting import with_counts
from orchestrator.recipe.load import load_recipe
from orchestrator.reporting.beside import about_beside
from orchestrator.running.run import smoke
from orchestrator.stages import keys
from students.measuring.labelled import Labelled
from teachers.config.munge import Munge
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing.count import count, count_prepared
from teachers.preparing.look import digests_beside, look, source_digest
from teachers.preparing.prepare import prepare
from teachers.preparing.synthetic import Table, neighbours, synthetic
from teachers.transfer_set.columns import UNKNOWN
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

INPUTS = ["age", {"column": "fare", "missing": "allow"}, "color"]


def table(rows: int, seed: int = 0, *, label: bool = True, first: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    found = {
        "id": [f"row {row}" for row in range(first, first + rows)],
        "age": random.normal(40, 10, rows),
        "fare": pa.array(random.gamma(2, 50, rows), mask=random.random(rows) < 0.1),
        "color": [("red", "green", "blue")[place] for place in random.integers(0, 3, rows)],
    }
    return pa.table(found | ({"y": random.integers(0, 2, rows)} if label else {}))


def written(path: Path, rows: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return path


def config(path: Path, extra: Path | None = None, **changes: Any) -> TransferSetConfig:
    beside = {} if extra is None else {"extra": {"kind": "parquet", "path": str(extra)}}
    base = {"source": {"kind": "parquet", "path": str(path)}, "inputs": INPUTS, "label": "y", "id": "id"}
    return TransferSetConfig.model_validate({**base, **beside, **changes})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    return written(folder / "a.pq", table(300)), written(folder / "more" / "a.pq", table(80, 1, label=False, first=300))


@pytest.fixture(scope="module")
def both(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferSet, TransferSet]:
    """The same source without and with what lies beside it."""
    folder, more = tmp_path_factory.mktemp("sets"), {"munge": {"factor": 1.5, "p": 0.5, "s": 2}}
    return prepare(config(files[0]), folder / "alone"), prepare(config(*files, **more), folder / "beside")


def test_the_source_s_own_segments_and_statistics_are_what_they_were(both: tuple[TransferSet, TransferSet]) -> None:
    alone, beside = both
    own = {segment.name: segment.digest for segment in beside.segments if segment.kind == segment.split}
    assert own == {segment.name: segment.digest for segment in alone.segments}
    assert beside.columns == alone.columns and beside.judged_on() == alone.judged_on()
    assert {segment.name for segment in beside.segments} - {*own} == {"extra-0", "munge-0"}


def test_rows_beside_are_training_rows_without_labels_and_are_counted(
    files: tuple[Path, Path], both: tuple[TransferSet, TransferSet]
) -> None:
    alone, beside = both
    (train,) = alone.of("train")
    counts = {segment.name: segment.num_rows for segment in beside.of("train")}
    assert counts == {"train-0": train.num_rows, "extra-0": 80, "munge-0": round(1.5 * train.num_rows)}
    for name in ("extra-0", "munge-0"):
        assert not beside.labelled(beside.segment(name)).any() and (beside.labels(beside.segment(name)) == -1).all()
    assert beside.num_labelled == alone.num_labelled
    assert len(np.unique(MergedSplit(beside, "train").keys())) == sum(counts.values())
    assert beside.report["beside"] == {"extra": 80, "munge": counts["munge-0"], "labels_not_read": []}
    assert "80 of `transfer_set.extra`" in " ".join(about_beside(beside.report))
    seen = look(config(*files, munge={"factor": 1.5}))
    counted = count(config(*files, munge={"factor": 1.5}), seen)
    assert counted is not None and counted.rows["train"] == sum(counts.values())
    assert counted.num_labelled["train"] == train.num_rows
    assert counted.beside == {"extra": 80, "munge": counts["munge-0"]} == count_prepared(beside).beside
    assert f"{counts['munge-0']:,} synthetic rows" in " ".join(beside_notes(with_counts(seen, counted)))
    assert "beside" not in alone.report


def test_a_label_that_is_there_is_not_read_and_that_is_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    labelled = written(tmp_path / "b.pq", table(80, 1, first=300))
    made = prepare(config(files[0], labelled), tmp_path / "out")
    assert not made.labelled(made.segment("extra-0")).any()
    assert made.report["beside"]["labels_not_read"] == ["y"]
    assert any("'y', which is not read" in line for line in beside_notes(look(config(files[0], labelled))))
    assert any("`y`, which nobody has read" in line for line in about_beside(made.report))
    without = prepare(config(*files), tmp_path / "2")
    assert made.segment("extra-0").digest == without.segment("extra-0").digest


def test_a_value_that_only_extra_has_is_unknown(files: tuple[Path, Path], tmp_path: Path) -> None:
    rows = table(10, 1, label=False, first=300)
    odd = written(tmp_path / "odd.pq", rows.set_column(3, "color", pa.array(["mauve"] * 10)))
    made = prepare(config(files[0], odd), tmp_path / "out")
    assert (made.inputs(made.segment("extra-0"))["categories"] == UNKNOWN).all()
    assert "mauve" not in made.columns[1].values[0]


def test_without_an_id_files_of_one_name_do_not_collide(files: tuple[Path, Path], tmp_path: Path) -> None:
    made = prepare(config(*files, id=None), tmp_path)
    assert made.ids(made.segment("extra-0"))[0].as_py().startswith("extra/a.pq#")


def test_one_id_in_both_is_an_error_that_names_both(files: tuple[Path, Path], tmp_path: Path) -> None:
    same = written(tmp_path / "same.pq", table(10, 2, label=False, first=295))
    with pytest.raises(DataError, match=r"the id 'row 29\d' is there twice, at a.pq#29\d and extra/same.pq#\d"):
        prepare(config(files[0], same), tmp_path / "out")
    with pytest.raises(DataError, match="is there twice"):
        count(config(files[0], same), look(config(files[0], same)))


def test_growing_extra_adds_a_segment_of_the_new_rows(files: tuple[Path, Path], tmp_path: Path) -> None:
    before = prepare(config(*files), tmp_path / "1")
    more = written(
        tmp_path / "more.pq",
        pa.concat_tables([table(80, 1, label=False, first=300), table(20, 3, label=False, first=380)]),
    )
    after = prepare(config(files[0], more), tmp_path / "2", earlier=tmp_path / "1")
    kept = {segment.name: segment.digest for segment in before.segments}
    assert {name: after.segment(name).digest for name in kept} == kept
    assert [(s.name, s.num_rows) for s in after.segments if s.name not in kept] == [("extra-1", 20)]


def test_copies_of_test_rows_are_counted_and_dropped_where_that_is_asked(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    alone = prepare(config(files[0]), tmp_path / "alone")
    tested = set(alone.ids(alone.of("test")[0]).to_pylist())
    rows = table(300).filter(pa.array([name in tested for name in table(300)["id"].to_pylist()])).drop(["y"])
    copies = written(tmp_path / "b.pq", rows.set_column(0, "id", pa.array([f"copy {n}" for n in range(len(rows))])))
    both = written(tmp_path / "c.pq", pa.concat_tables([pq.read_table(copies), table(5, 7, label=False, first=900)]))
    kept, dropped = (prepare(config(files[0], both, duplicates=how), tmp_path / how) for how in ("keep", "drop"))
    assert kept.report["duplicates_across_splits"]["extra/test"] == len(rows)
    assert dropped.report["dropped_duplicates"]["extra"] == len(rows)
    assert dropped.segment("extra-0").num_rows == 5 and kept.segment("extra-0").num_rows == len(rows) + 5


@pytest.mark.parametrize(
    "columns, told",
    [
        ({"age": [1.0], "id": ["x"]}, "transfer_set.extra: .*'fare'.*; its input columns are those of the source"),
        (
            {"id": ["x"], "age": ["old"], "fare": [1.0], "color": ["red"]},
            "transfer_set.extra: none of the 1 rows .* fits the source's; .*age is 'old', not a number",
        ),
        ({"id": [], "age": [], "fare": [], "color": []}, "transfer_set.extra: "),
    ],
)
def test_rows_that_do_not_fit_are_told_in_one_line_before_work(
    files: tuple[Path, Path], tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    path = written(tmp_path / "odd.pq", pa.table(columns))
    with pytest.raises((RecipeError, DataError), match=told) as error:
        look(config(files[0], path))
    assert "\n" not in str(error.value)


def test_a_path_that_is_not_there_and_groups_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"transfer_set\.extra\.path"):
        look(config(files[0], tmp_path / "nowhere"))
    with pytest.raises(ValidationError, match="keeps groups apart"):
        config(*files, split={"group_by": "color"})


def test_a_bad_row_beside_is_named_with_its_place(files: tuple[Path, Path], tmp_path: Path) -> None:
    rows = table(80, 1, label=False, first=300).to_pylist()
    rows[40]["age"] = None
    odd = written(tmp_path / "odd.pq", pa.Table.from_pylist(rows))
    with pytest.raises(DataError, match=r"extra/odd\.pq#40: age is missing"):
        prepare(config(files[0], odd), tmp_path / "stop")
    assert prepare(config(files[0], odd, on_bad_row="skip"), tmp_path / "skip").segment("extra-0").num_rows == 79


def test_keys_name_both_contents_and_stay_where_there_is_nothing_beside(files: tuple[Path, Path]) -> None:
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "table.yaml", [])
    stage = keys.prepare_stage(recipe, "a")
    assert {"extra", "munge"}.isdisjoint(stage.config) and [*stage.inputs] == ["source"]
    more = recipe.model_copy(update={"transfer_set": config(*files)})
    digests = source_digest(config(*files)), digests_beside(config(*files))["extra"]
    assert digests[0] != digests[1] and digests_beside(config(files[0])) == {}
    assert keys.prepare_stage(more, digests[0], {"extra": digests[1]}).inputs["extra"] == digests[1]
    assert "path" not in keys.prepare_stage(more, digests[0], {"extra": digests[1]}).config["extra"]


def test_a_smoke_run_makes_few_synthetic_rows() -> None:
    path = Path(__file__).parents[1] / "recipes" / "table.yaml"
    for munge, rows in (("{rows: 100000}", 256), ("{factor: 0.5}", 128)):
        found = smoke(load_recipe(path, [f"transfer_set.munge={munge}"])).transfer_set.munge
        assert found is not None and found.rows == rows


def random_table(rows: int = 200, numbers: int = 3, categories: int = 2, seed: int = 0) -> Table:
    random = np.random.default_rng(seed)
    keys_ = np.sort(random.integers(0, 2**63, rows).astype(np.uint64))
    return Table(
        keys_, random.normal(size=(rows, numbers)), random.integers(1, 4, (rows, categories)).astype(np.uint64)
    )


@pytest.mark.parametrize(("numbers", "categories"), [(3, 0), (3, 2), (20, 0), (20, 2), (0, 3)])
def test_neighbours_are_those_that_scikit_learn_finds(numbers: int, categories: int) -> None:
    """The oracle: one-hot categories and numbers over their range, in Euclidean space; equally near ones are as good."""
    rows = random_table(150, numbers, categories)
    scaled = (rows.numbers - rows.numbers.min(0)) / np.ptp(rows.numbers, 0) * 2**0.5 if numbers else np.zeros((150, 0))
    each = [(rows.categories[:, at, None] == np.arange(1, 4)).astype(float) for at in range(categories)]
    points = np.concatenate([scaled, *each], 1)
    found = neighbours(rows)
    assert (found != np.arange(150)).all()
    nearest = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points).kneighbors(points)[0]
    distance = np.linalg.norm(points - points[found], axis=1)
    np.testing.assert_allclose(distance, np.where(nearest[:, 0] > 1e-6, nearest[:, 0], nearest[:, 1]), atol=1e-5)


def test_rows_do_not_change_at_p_0_and_are_of_the_neighbour_at_p_1_and_large_s() -> None:
    rows = random_table()
    near = neighbours(rows)
    same = synthetic(rows, near, Munge(rows=1, p=0), 0)
    assert np.array_equal(same.numbers, rows.numbers) and np.array_equal(same.categories, rows.categories)
    theirs = synthetic(rows, near, Munge(rows=1, p=1, s=1e9), 0)
    np.testing.assert_allclose(theirs.numbers, rows.numbers[near], atol=1e-6)
    assert np.array_equal(theirs.categories, rows.categories[near])


def test_synthetic_rows_are_decided_by_key_and_seed_alone() -> None:
    rows = random_table()
    near = neighbours(rows)
    whole = synthetic(rows, near, Munge(rows=1, p=0.5), 0)
    some = np.arange(len(rows.keys))[::-3]
    order = np.sort(np.unique(np.concatenate([some, near[some]])))
    place = {row: at for at, row in enumerate(order.tolist())}
    part = Table(rows.keys[order], rows.numbers[order], rows.categories[order])
    again = synthetic(part, np.array([place.get(near[row], 0) for row in order.tolist()]), Munge(rows=1, p=0.5), 0)
    mine = [place[row] for row in some.tolist()]
    assert np.array_equal(again.numbers[mine], whole.numbers[some])
    assert np.array_equal(again.categories[mine], whole.categories[some])
    for other in (Munge(rows=1, p=0.5, seed=1), Munge(rows=1, p=0.5)):
        assert not np.array_equal(synthetic(rows, near, other, 1).numbers, whole.numbers)


def test_as_many_values_change_as_p_says_and_as_far_as_s_says() -> None:
    rows = random_table(20_000, 2, 0)
    near = neighbours(rows)
    made = synthetic(rows, near, Munge(rows=1, p=0.3, s=4), 0)
    assert abs((made.numbers != rows.numbers).mean() - 0.3) < 0.01
    moved = made.numbers != rows.numbers
    away = (made.numbers - rows.numbers[near])[moved] / np.abs(rows.numbers - rows.numbers[near])[moved]
    assert abs(away.std() - 1 / 4) < 0.01 and abs(away.mean()) < 0.01


def values_of(made: TransferSet, name: str) -> dict[str, np.ndarray]:
    return made.inputs(made.segment(name))


def test_values_of_synthetic_rows_are_like_those_of_training_rows(both: tuple[TransferSet, TransferSet]) -> None:
    made = both[1]
    real, new = values_of(made, "train-0"), values_of(made, "munge-0")
    assert {*np.unique(new["categories"])} <= {*np.unique(real["categories"])}
    for at in range(2):
        there, here = real["features"][:, at], new["features"][:, at]
        wide = np.nanmax(there) - np.nanmin(there)
        assert np.nanmin(here) > np.nanmin(there) - wide and np.nanmax(here) < np.nanmax(there) + wide
        assert abs(np.nanmean(here) - np.nanmean(there)) < wide / 10
    assert np.isnan(new["features"][:, 1]).mean() == pytest.approx(np.isnan(real["features"][:, 1]).mean(), abs=0.06)


def test_no_test_or_validation_row_is_used(files: tuple[Path, Path], tmp_path: Path) -> None:
    munge = {"munge": {"rows": 150, "p": 0.5}}
    before = prepare(config(files[0], **munge), tmp_path / "1")
    judged = {name for split in ("validation", "test") for s in before.of(split) for name in before.ids(s).to_pylist()}
    rows = table(300).to_pylist()
    for row in rows:
        if row["id"] in judged:
            row["age"] = 1e6
    other = prepare(config(written(tmp_path / "a.pq", pa.Table.from_pylist(rows)), **munge), tmp_path / "2")
    assert other.segment("munge-0").digest == before.segment("munge-0").digest


def test_neither_the_order_of_rows_nor_chunks_nor_the_runner_decide_anything(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    more = {"munge": {"rows": 500, "p": 0.5}}
    before = prepare(config(*files, **more), tmp_path / "1")
    shuffled = table(300).take(pa.array(np.random.default_rng(1).permutation(300)))
    path = written(tmp_path / "a.pq", shuffled)

    def backwards(function: Any, items: Any) -> list[Any]:
        items = list(items)
        return [function(item) for item in items[::-1]][::-1]

    after = prepare(config(path, files[1], **more), tmp_path / "2", run=backwards, chunk_rows=17)
    assert [s.digest for s in after.segments] == [s.digest for s in before.segments]
    assert after.segment("munge-0").num_rows == 500
    assert before.ids(before.segment("munge-0")).to_pylist() == after.ids(after.segment("munge-0")).to_pylist()


def test_images_and_text_have_no_synthetic_rows(tmp_path: Path) -> None:
    digits = {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"}
    with pytest.raises(RecipeError, match=r"transfer_set.munge: column 'image' is an image.*`train.mix`"):
        look(TransferSetConfig.model_validate({**digits, "munge": {"rows": 10}}))
    for wrong in ({}, {"rows": 5, "factor": 2}, {"rows": 0}, {"factor": 1, "p": 2}, {"factor": 1, "s": 0}):
        with pytest.raises(ValidationError):
            Munge.model_validate(wrong)


def test_image_files_beside_an_array_of_images_are_read_as_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        (tmp_path / "more" / "any").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / "more" / "any" / f"{number}.png")
        for name in ("a", "b"):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            for copy in range(20):
                path = tmp_path / "own" / name / f"{number}-{copy}.png"
                Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(path)
    base = {"source": {"kind": "image_folder", "path": str(tmp_path / "own")}, "inputs": "image", "label": "label"}
    extra = {"extra": {"kind": "image_folder", "path": str(tmp_path / "more")}}
    made = prepare(TransferSetConfig.model_validate({**base, **extra}), tmp_path / "out")
    assert made.segment("extra-0").num_rows == 3 and made.classes == ("a", "b")
    assert Labelled.of(made, "train").labels.shape[0] == dataclasses.asdict(made.of("train")[0])["num_rows"]
