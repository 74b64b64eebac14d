"""A model from elsewhere may teach only where it has not learnt the rows that are tested."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.recipe.model import Recipe, public
from orchestrator.recipe.seen_rows import seen_problems
from orchestrator.stages.keys import prepare_stage
from orchestrator.stages.stages import Stage, Stages
from teachers.config.transfer_set import TransferSetConfig
from teachers.preparing.look import source_digest
from teachers.preparing.prepare import prepare
from teachers.storage.seal import write_seal

ROWS = 600


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two files of one table, in one folder."""
    folder = tmp_path_factory.mktemp("rows")
    random = np.random.default_rng(0)
    for name, first in (("a.parquet", 0), ("b.parquet", ROWS // 2)):
        rows = range(first, first + ROWS // 2)
        columns = {
            "name": [f"row-{row}" for row in rows],
            "who": [f"p{row % 40}" for row in rows],
            "x": random.normal(size=ROWS // 2),
            "y": random.integers(0, 2, ROWS // 2),
        }
        pq.write_table(pa.table(columns), folder / name)
    return folder


def transfer_set(data, **changes):
    given = {"source": {"kind": "parquet", "path": str(data)}, "inputs": "x", "label": "y", "id": "name"}
    return TransferSetConfig.model_validate(given | changes)


def recipe_with(teacher, config):
    return Recipe.model_validate(
        {
            "format": 1,
            "name": "mine",
            "transfer_set": config.model_dump(mode="json"),
            "teachers": {"old": {"kind": "checkpoint", "path": str(teacher)}},
            "students": {"small": {"model": "students.models:mlp", "teachers": ["old"]}},
        }
    )


def exported(folder, config, digest=None):
    """What says in a model folder how it was trained."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(public(recipe_with("nowhere", config))))
    (folder / "metrics.json").write_text(json.dumps({"source_digest": digest}))
    return folder


def ids(config, folder, *splits):
    prepared = prepare(config, folder)
    return {name for split in splits for segment in prepared.of(split) for name in prepared.ids(segment).to_pylist()}


FILES = {"files": {"train": "a.parquet", "test": "b.parquet"}}
SPLITS = [
    {},
    {"split": {"seed": 1}},
    {"split": {"test": 0.1}},
    {"split": {"test": 0.3}},
    {"split": {"test": 0.2, "validation": 0.3}},
    {"split": {"train": 0.4}},
    {"split": {"group_by": "who"}},
    {"key_salt": "pepper"},
    {"id": None},
    {"split": FILES},
    {"split": {"files": {"train": "b.parquet", "test": "a.parquet"}}},
]


@pytest.mark.parametrize("theirs", SPLITS, ids=json.dumps)
@pytest.mark.parametrize("ours", [SPLITS[0], SPLITS[3], SPLITS[6], SPLITS[9]], ids=json.dumps)
def test_a_model_is_refused_exactly_where_it_learnt_rows_that_are_tested_here(data, tmp_path, ours, theirs):
    with_names = {"inputs": ["x"], "source": {"kind": "parquet", "path": str(data)}}
    ours, theirs = transfer_set(data, **with_names | ours), transfer_set(data, **with_names | theirs)
    number = {f"{name}#{row}": f"row-{row + first}" for name, first in (("a.parquet", 0), ("b.parquet", ROWS // 2)) for row in range(ROWS // 2)}  # fmt: skip
    tested = {number.get(name, name) for name in ids(ours, tmp_path / "ours", "test")}
    learnt = {number.get(name, name) for name in ids(theirs, tmp_path / "theirs", "train", "validation")}
    told = [*seen_problems(recipe_with(exported(tmp_path / "model", theirs), ours))]
    assert bool(told) == bool(tested & learnt), (told, len(tested & learnt))
    if told:
        assert told[0].startswith("teachers.old.path: the model in ") and "one split" in told[0]


def test_what_differs_is_named(data, tmp_path):
    model = exported(tmp_path / "model", transfer_set(data, split={"seed": 3}))
    (told,) = seen_problems(recipe_with(model, transfer_set(data)))
    assert "(split.seed 3 there, 0 here)" in told


def test_the_same_rows_under_another_path_are_known_by_their_digest(data, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in data.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    theirs, ours = transfer_set(data, split={"seed": 3}), transfer_set(moved)
    recipe = recipe_with(exported(tmp_path / "model", theirs, source_digest(theirs)), ours)
    assert not [*seen_problems(recipe)]
    assert len([*seen_problems(recipe, source_digest(ours))]) == 1


def test_other_rows_are_nobodys_business(data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pq.read_table(data / "a.parquet"), other / "c.parquet")
    theirs, ours = transfer_set(data, split={"seed": 3}), transfer_set(other)
    recipe = recipe_with(exported(tmp_path / "model", theirs, source_digest(theirs)), ours)
    assert not [*seen_problems(recipe, source_digest(ours))]


def test_a_folder_that_says_nothing_is_not_suspected_and_one_that_cannot_be_read_is(data, tmp_path):
    (tmp_path / "bare").mkdir()
    assert not [*seen_problems(recipe_with(tmp_path / "bare", transfer_set(data)))]
    model = exported(tmp_path / "model", transfer_set(data))
    (model / "recipe.yaml").write_text("transfer_set: {source: {kind: of the future}}")
    (told,) = seen_problems(recipe_with(model, transfer_set(data)))
    assert "cannot be read by this program" in told


def test_a_training_in_an_out_was_learnt_from_the_transfer_set_beside_it(data, tmp_path):
    def build(folder):
        (folder / "made").write_text(folder.name)
        return write_seal(folder, ["made"]), {}

    theirs, ours = transfer_set(data, split={"seed": 3}), transfer_set(data)
    stages = Stages(tmp_path)
    stages.open()
    for config in (theirs, ours):
        prepared = stages.build(prepare_stage(recipe_with("nowhere", config), source_digest(config)), build)
        trained = stages.build(Stage("train_teacher", "wide", {}, {"transfer set": prepared.digest}), build)
        run = trained.folder / "teacher" / "seed-0"
        run.mkdir(parents=True)
        told = [*seen_problems(recipe_with(run, ours), source_digest(ours))]
        assert len(told) == (config is theirs)
