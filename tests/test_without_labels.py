"""Numbers, and several classes a row, of which no row has a label: names come from the recipe, the scale from teachers."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from students.config.estimator import EstimatorStudent
from students.fitting.fit import fit
from students.measuring.evaluate import evaluate_student, evaluate_teachers
from students.objective.scale import with_scale
from students.runs.of_student import student_run
from students.runs.run import Source
from students.runs.session import PlainSession
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.models.folder import load_model
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from tests.task_runs import FEATURES, LABELS, make_store, table
from tests.training_runs import make_run

TASKS = ["multilabel", "regression"]
SOFT = {"loss": "soft", "weight": 1.0}


def rows_of(folder, labels_of, **more):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(labels_of).select(range(FEATURES)), folder / "rows.parquet")
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    inputs = [f"x{number}" for number in range(FEATURES)]
    return {"source": source, "inputs": inputs, "label": None, "classes": LABELS[labels_of]} | more


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    made = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp(task)
        config = TransferSetConfig.model_validate(rows_of(folder, task, task=task))
        made[task] = prepare(config, folder / "prepared")
    return made


def heard(folder, transfer_set, **options):
    """Two teachers with stores of every split; of `deep` the order of names is its own."""
    found = []
    for seed, name in enumerate(("wide", "deep")):
        order = [*transfer_set.space.names][:: 1 if seed == 0 else -1]
        stores = {}
        for split in ("train", "validation", "test"):
            (segment,) = transfer_set.of(split)
            made = make_store(
                folder / f"{name}-{split}", transfer_set, split=split, name=name, seed=seed, order=order, **options
            )
            stores[segment.name] = made
        found.append(Source(name, stores))
    return found


def test_names_are_the_recipes_and_no_row_has_a_label(sets):
    for task in TASKS:
        space = sets[task].space
        assert space.names == tuple(LABELS[task]) and space.mean == space.scale == ()
        assert sets[task].num_labelled == 0


def test_the_scale_is_that_of_what_the_teachers_say_on_average_of_the_training_rows(sets, tmp_path):
    sources = heard(tmp_path, sets["regression"])
    (segment,) = sets["regression"].of("train")
    said = [SoftTargets.open(each.stores[segment.name]).said(1e-3).double().numpy() for each in sources]
    together = (said[0] + said[1][:, ::-1]) / 2
    space = with_scale(sets["regression"], sources).space
    np.testing.assert_allclose(space.mean, together.mean(0))
    np.testing.assert_allclose(space.scale, together.std(0))
    assert with_scale(sets["multilabel"], []) is sets["multilabel"]
    with pytest.raises(RecipeError, match="the scale of the numbers is that of what teachers say"):
        with_scale(sets["regression"], [])


def test_a_number_that_teachers_say_of_every_row_alike_is_refused(sets, tmp_path):
    with pytest.raises(DataError, match="teachers say the same 'price' of every training row"):
        with_scale(sets["regression"], heard(tmp_path, sets["regression"], noise=0.0, factor=0.0))


@pytest.mark.parametrize("task", TASKS)
def test_a_network_and_an_estimator_learn_from_teachers_alone_and_are_told_of_without_a_judge(task, sets, tmp_path):
    sources = heard(tmp_path, sets[task])
    network = make_run(tmp_path / "network", sets[task], *sources, objective=[SOFT], steps=300, learning_rate=3e-2)
    kind = "Regressor" if task == "regression" else "Classifier"
    document = {"kind": "sklearn", "model": f"sklearn.tree:DecisionTree{kind}", "arguments": {"max_depth": 6}}
    config = EstimatorStudent.model_validate(
        document | {"teachers": ["wide", "deep"], "objective": [SOFT | {"temperature": 1.0}]}
    )
    where = {"folder": tmp_path / "tree", "stage": tmp_path / "tree", "stage_name": "distill/tree"}
    tree = student_run(
        "student", config, 0, sources=tuple(sources), transfer_set=sets[task].folder, user_path=tmp_path, **where
    )
    for run in (network, tree):
        (result,) = fit([run], PlainSession())
        assert result.validation is None
        space = load_model(run.folder).config.space
        assert bool(space.scale) == (task == "regression")
        found = evaluate_student(sets[task].folder, sources, {0: run.folder}, None, 0)
        json.dumps(found, allow_nan=False)
        assert not found["judged"]
        agreement = found["student"]["runs"][0]["agreement"]
        assert agreement > 0.6
    assert not evaluate_teachers(sets[task].folder, sources)["judged"]


def test_numbers_a_thousand_times_larger_are_learnt_by_the_same_network(sets, tmp_path):
    said = []
    for factor in (1.0, 1024.0):
        sources = heard(tmp_path / str(factor), sets["regression"], factor=factor)
        run = make_run(tmp_path / f"of-{factor}", sets["regression"], *sources, objective=[SOFT], steps=100)
        fit([run], PlainSession())
        said.append(load_model(run.folder)(sets["regression"].inputs(sets["regression"].of("test")[0])).numpy())
    np.testing.assert_allclose(said[1], 1024 * said[0], rtol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_the_plan_tries_everybody_on_rows_without_a_label(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = "values" if task == "regression" else "logits"
    (tmp_path / f"mine_of_{task}.py").write_text(
        f"def say(batch):\n    return batch['features'][:, :{len(LABELS[task])}]\n"
    )
    document = {
        "format": 1,
        "name": "nobody-knows",
        "task": task,
        "transfer_set": rows_of(tmp_path / "rows", task),
        "teachers": {"mine": {"kind": "callable", "function": f"mine_of_{task}:say", "output": output}},
        "students": {
            "small": {"model": "students.models:linear", "teachers": ["mine"], "objective": [SOFT], "control": False},
            "tree": {
                "kind": "sklearn",
                "model": "sklearn.tree:DecisionTree" + ("Regressor" if task == "regression" else "Classifier"),
                "teachers": ["mine"],
                "objective": [SOFT | {"temperature": 1.0}],
                "control": False,
            },
        },
    }
    planned = plan(Recipe.from_dict(document), tmp_path / "out", check=True)
    assert any("nothing will be judged" in note for note in planned.notes)
    del document["transfer_set"]["classes"]
    with pytest.raises(RecipeError, match=r"transfer_set\.classes: without a label column the .* must be named here"):
        plan(Recipe.from_dict(document), tmp_path / "out")


def test_numbers_without_labels_that_only_live_teachers_say_are_refused_by_the_recipe() -> None:
    """Their scale is that of what stores hold, and a live teacher leaves none."""
    live = {"kind": "callable", "function": "mine:say", "output": "values", "mode": "live"}
    rows = {"source": {"kind": "csv", "path": "rows.csv"}, "inputs": ["x"], "label": None, "classes": ["price"]}
    soft = {"objective": [{"loss": "soft"}], "train": {"steps": 5}, "control": False}
    document = {
        "format": 1,
        "name": "numbers",
        "task": "regression",
        "transfer_set": rows,
        "teachers": {"asked": live, "kept": live | {"mode": "cached"}},
        "students": {
            "alone": {"model": "students.models:mlp", "teachers": ["asked"], **soft},
            "both": {"model": "students.models:mlp", "teachers": ["asked", "kept"], **soft},
        },
    }
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(document)
    assert str(caught.value) == (
        "students.alone.teachers: `transfer_set.label` is null, so the scale of the numbers is that of what teachers have said "
        "of the training rows, and 'asked' keeps nothing, being live; set `teachers.asked.mode: cached`, or let it hear one "
        "that is"
    )
    del document["students"]["alone"]
    Recipe.from_dict(document)
