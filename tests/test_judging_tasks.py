"""Judging several classes a row and numbers: gains, standings, whole evaluations, what is delivered and predicted."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
import sklearn.dummy
import sklearn.metrics
import torch
import yaml

from orchestrator.reporting.comparison import comparison_of
from students.delivering.export import export_student
from students.delivering.predict import predict_file
from students.delivering.thresholds import thresholds_beside
from students.measuring import evaluate
from students.measuring.by_row import from_document, gain_between, row_by_row, to_document
from students.measuring.gain import verdict
from students.measuring.judged import Voice
from students.measuring.labelled import Labelled, ask
from students.measuring.standing import judge
from students.runs.run import Source
from students.tasks.figure import FIGURES
from students.tasks.tasks import TASKS
from teachers.config.preprocess import Preprocess
from teachers.errors import RecipeError, StoreError
from teachers.models.folder import ModelConfig, load_model, save_model
from teachers.models.modules import build_module
from teachers.models.preprocess import Preprocessor
from teachers.tasks.space import Space
from tests.judged_rows import Rows
from tests.task_runs import FEATURES, make_store, prepared

NEW = ("multilabel", "regression")

# ---- gains


def experiment(task, random, *, seeds=3, num_rows=200, width=1, gain=0.0, seed_sd=0.1):
    """Rows, and what two arms of `seeds` trainings say: they err alike on hard rows, each a little by itself, and differ by
    `gain` and by nothing else."""
    truth = random.normal(size=(num_rows, width))
    hard = 0.35 * random.normal(size=truth.shape)
    names = tuple(map(str, range(width)))
    if task == "multilabel":
        labels = (truth + 0.5 * random.normal(size=truth.shape) > 1).astype(np.int8)
        space = Space(task, names)
    else:
        labels, space = truth.astype(np.float32), Space(task, names, (0.0,) * width, (1.0,) * width)

    def says(better):
        noise = 0.5 * np.exp(seed_sd * random.normal() - better)
        return Voice(torch.from_numpy((truth + hard + noise * random.normal(size=truth.shape)).astype(np.float32)))

    rows = Rows(space, torch.from_numpy(labels), np.arange(num_rows).astype(np.uint64))
    return rows, [{seed: says(better) for seed in range(seeds)} for better in (gain, 0.0)]


def gain_of(task, *options, **shape):
    rows, arms = experiment(task, *options, **shape)
    student, control = (row_by_row(rows, arm) for arm in arms)
    return gain_between(task, student, control, rows.groups)


@pytest.mark.parametrize("task", NEW)
def test_where_nothing_differs_but_the_seeds_a_verdict_is_rare(task):
    random, repetitions = np.random.default_rng(7), 40
    said = [gain_of(task, random, num_rows=120).conclusion for _ in range(repetitions)]
    assert len(said) - said.count("open") <= scipy.stats.binom.ppf(0.999, repetitions, 0.05)


@pytest.mark.parametrize(("task", "word"), [("multilabel", "points of test macro AP"), ("regression", "in test RMSE (+ is less)")])  # fmt: skip
def test_a_large_gain_is_found_and_a_loss_is_one_with_plus_for_better(task, word):
    random = np.random.default_rng(1)
    better, worse = (gain_of(task, random, seeds=5, num_rows=600, gain=by, seed_sd=0.03) for by in (0.7, -0.7))
    assert (better.conclusion, worse.conclusion) == ("helps", "hurts")
    assert better.mean > 0 > worse.mean and better.won > better.lost
    assert verdict(better).startswith("Distillation helps: +") and word in verdict(better)
    assert verdict(worse).startswith("Distillation hurts: \N{MINUS SIGN}")


def test_a_gain_in_rmse_is_the_difference_of_scikit_learns_and_its_interval_that_of_the_delta_method():
    rows, arms = experiment("regression", np.random.default_rng(3), num_rows=400, gain=0.5)
    student, control = (row_by_row(rows, {0: arm[0], 1: arm[0]}) for arm in arms)  # two seeds that are one
    found = gain_between("regression", student, control, rows.groups)
    truth = rows.labels.numpy()
    errors = [(arm[0].said.numpy() - truth)[:, 0].astype(np.float64) for arm in arms]
    rmse = [sklearn.metrics.root_mean_squared_error(truth, arm[0].said.numpy()) for arm in arms]
    assert found.mean == pytest.approx(rmse[1] - rmse[0], rel=1e-6)
    influence = errors[1] ** 2 / (2 * rmse[1]) - errors[0] ** 2 / (2 * rmse[0])
    half = scipy.stats.t.ppf(0.975, 399) * influence.std(ddof=1) / np.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def test_rows_of_one_group_are_no_more_evidence_than_one_row():
    rows, arms = experiment("regression", np.random.default_rng(3), num_rows=100, gain=0.3)
    fourfold = [{seed: Voice(voice.said.repeat_interleave(4, 0)) for seed, voice in arm.items()} for arm in arms]
    grouped = Rows(rows.space, rows.labels.repeat_interleave(4, 0), np.arange(100).repeat(4).astype(np.uint64))
    alone, together = (
        gain_between("regression", *(row_by_row(of, arm) for arm in said), of.groups)
        for of, said in ((rows, arms), (grouped, fourfold))
    )
    assert together.grouped and together.units == alone.units == 100
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


@pytest.mark.parametrize("task", NEW)
def test_what_a_document_keeps_gives_the_same_gain(task):
    rows, arms = experiment(task, np.random.default_rng(2))
    found = [row_by_row(rows, arm) for arm in arms]
    kept = [from_document(json.loads(json.dumps(to_document(each))), len(rows.labels)) for each in found]
    assert gain_between(task, *kept, rows.groups) == gain_between(task, *found, rows.groups)


# ---- standings and the commonest answer


@pytest.mark.parametrize("task", NEW)
def test_a_dead_teacher_is_called_better_in_about_5_percent_of_cases_and_a_good_one_always(task):
    random, repetitions = np.random.default_rng(5), 20
    known = torch.ones(2, dtype=torch.bool)
    found = []
    for _ in range(repetitions):
        rows, _ = experiment(task, random, seeds=1, num_rows=60, width=2)
        dead = torch.from_numpy(random.normal(size=(60, 2)).astype(np.float32)) * (0.0 if task == "regression" else 1.0)
        if task == "regression":  # no better than the mean, and as far from it as chance takes it
            dead = dead + torch.from_numpy(0.02 * random.normal(size=(60, 2)).astype(np.float32))
        found.append(rows.task.standing(dead, rows.labels, known, rows.labels, rows.space)["stands"])
    assert found.count("better") <= scipy.stats.binom.ppf(0.999, repetitions, 0.05)
    rows, (good, _) = experiment(task, random, seeds=1, num_rows=60, width=2)
    standing = rows.task.standing(good[0].said, rows.labels, known, rows.labels, rows.space)
    assert standing["stands"] == "better" and standing["low"] < standing["high"]
    assert standing["figures"].keys() == {figure.key for figure in FIGURES[task]}


def test_a_teacher_in_other_units_is_no_better_than_the_mean_however_well_it_ranks():
    rows, (good, _) = experiment("regression", np.random.default_rng(5), seeds=1)
    fahrenheit = 9 / 5 * good[0].said + 32
    found = rows.task.standing(fahrenheit, rows.labels, torch.ones(1, dtype=torch.bool), rows.labels, rows.space)
    assert found["stands"] == "no better" and found["figures"]["spearman"] > 0.7
    assert found["words"]["always"] == "answering the mean of the training labels"


@pytest.mark.parametrize("task", NEW)
def test_of_rows_that_nobody_knows_nothing_can_be_told(task):
    rows, (good, _) = experiment(task, np.random.default_rng(5), seeds=1, num_rows=20)
    unknown = torch.full_like(rows.labels, -1 if task == "multilabel" else torch.nan)
    found = rows.task.standing(good[0].said, unknown, torch.ones(1, dtype=torch.bool), rows.labels, rows.space)
    assert found["stands"] == "open" and found["rows"] == 0


def test_the_commonest_answer_is_scikit_learns_dummy():
    random = np.random.default_rng(0)
    train, test = random.normal(3, 2, size=(50, 1)).astype(np.float32), random.normal(size=(40, 1)).astype(np.float32)
    space = Space("regression", ("y",), (3.0,), (2.0,))
    found = TASKS["regression"].commonest(torch.from_numpy(test), torch.from_numpy(train), space)
    said = sklearn.dummy.DummyRegressor().fit(train, train).predict(test)
    assert found["figures"]["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(test, said), rel=1e-6)
    assert "always answers the mean of the training labels" in found["remark"]
    flags = (random.random((50, 2)) < 0.3).astype(np.int8)
    found = TASKS["multilabel"].commonest(torch.from_numpy(flags), torch.from_numpy(flags), Space("multilabel", ("a", "b")))  # fmt: skip
    assert found["figures"]["macro_average_precision"] == pytest.approx(flags.mean())
    assert found["figures"]["nll"] == pytest.approx(sklearn.metrics.log_loss(flags.ravel(), np.tile(flags.mean(0), 50)), rel=1e-5)  # fmt: skip


# ---- whole evaluations


@pytest.fixture(scope="module", params=NEW)
def evaluated(request, tmp_path_factory):
    """(transfer set, runs, evaluation of a student, of teachers, sources)."""
    folder = tmp_path_factory.mktemp(request.param)
    data = prepared(folder, request.param)
    sources = [
        Source(
            name,
            {
                data.of(split)[0].name: make_store(folder / f"{name}-{split}", data, split=split, name=name, seed=seed)
                for split in ("validation", "test")
            },
        )
        for seed, name in enumerate(("wide", "deep"))
    ]  # fmt: skip
    runs = {kind: {seed: network(folder / f"{kind}-{seed}", data, seed + start) for seed in (0, 1)} for kind, start in (("student", 0), ("control", 5))}  # fmt: skip
    student = evaluate.evaluate_student(data.folder, sources, runs["student"], runs["control"], 1)
    return data, runs, student, evaluate.evaluate_teachers(data.folder, sources), sources


def network(folder, data, seed):
    """An untrained one, as training leaves it."""
    torch.manual_seed(seed)
    ready = Preprocessor(Preprocess(), data.columns)
    arguments = {"hidden": 8}
    module = build_module("teachers.zoo:mlp", arguments, num_classes=data.space.width, input_shape=ready.input_shape)
    inputs = tuple(data.made_of)
    save_model(folder, module.state_dict(), ModelConfig("teachers.zoo:mlp", arguments, data.space, ready.resolved(), inputs))  # fmt: skip
    (folder / "result.json").write_text(json.dumps({"validation": None}))
    return folder


def test_every_seed_has_the_figures_of_the_model_itself(evaluated):
    data, runs, student, teachers, _ = evaluated
    json.dumps([student, teachers], allow_nan=False)
    rows = Labelled.of(data, "test")
    for run in student["student"]["runs"]:
        said = ask(load_model(runs["student"][run["seed"]]), rows)
        thresholds = [*run["thresholds"].values()] if "thresholds" in run else None
        meter = rows.task.meter(rows.space, thresholds)
        meter.update(said, rows.labels)
        assert {figure.key: run[figure.key] for figure in FIGURES[data.space.task]} == meter.figures()
    assert teachers["teachers"].keys() == {"wide", "deep"} and teachers["agreement"]["names"] == ["wide", "deep", "ensemble"]  # fmt: skip


def test_thresholds_are_each_networks_own_from_validation(evaluated):
    data, runs, student, teachers, _ = evaluated
    if data.space.task == "regression":
        assert "thresholds" not in student["student"]["runs"][0]
        return
    rows = Labelled.of(data, "validation")
    for run in student["student"]["runs"]:
        chosen = TASKS["multilabel"].thresholds(ask(load_model(runs["student"][run["seed"]]), rows), rows.labels)
        assert run["thresholds"] == dict(zip(data.space.names, chosen, strict=True))
    assert teachers["ensemble"]["thresholds"].keys() == set(data.space.names)


def test_teachers_stand_on_validation_and_two_students_are_compared(evaluated):
    data, _, student, _, sources = evaluated
    document = judge(data.folder, sources, "validation")
    json.dumps(document, allow_nan=False)
    assert {found["stands"] for found in document["teachers"].values()} == {"better"}
    compared = comparison_of({"one": student, "other": student}, data)
    (pair,) = compared["pairs"]
    assert pair["mean"] == 0.0 and pair["conclusion"] == "open" and pair["figure"] == FIGURES[data.space.task][0].key


def test_what_is_delivered_predicts_in_the_words_of_the_task(evaluated, tmp_path):
    data, runs, student, _, _ = evaluated
    task, names = data.space.task, data.space.names
    recipe = {"name": "mine", "task": task, "students": {"small": {"teachers": ["wide"], "objective": [], "train": {"steps": 5, "epochs": None, "batch_size": 8}}}, "cohorts": {}}  # fmt: skip
    model = tmp_path / "model"
    export_student(runs["student"][1], model, name="small", evaluation={**student, "source_digest": "d"}, recipe_yaml=yaml.safe_dump(recipe), transfer_set=data.folder)  # fmt: skip
    card = (model / "README.md").read_text()
    assert FIGURES[task][0].label in card and ("is said from its probability on" in card) == (task == "multilabel")
    table = pq.read_table(data.folder.parent / "rows.parquet").select([f"x{number}" for number in range(FEATURES)])
    pq.write_table(table, tmp_path / "new.parquet")
    quiet = {"write_line": lambda line: None, "tell_bad": lambda line: None}
    predict_file(model, tmp_path / "new.parquet", tmp_path / "said.parquet", **quiet)
    found = pq.read_table(tmp_path / "said.parquet")
    with torch.inference_mode():
        said = load_model(model)({"features": np.stack([column.to_numpy() for column in table.columns], 1)})
    if task == "regression":
        assert found.column_names == ["id", *names]
        assert np.allclose(np.stack([found[name].to_numpy() for name in names], 1), said.numpy(), rtol=1e-5)
        with pytest.raises(RecipeError, match="this model gives numbers, and no probabilities"):
            predict_file(model, tmp_path / "new.parquet", None, probabilities=True, **quiet)
        return
    thresholds = thresholds_beside(model, names)
    holds = said.double().sigmoid().numpy() >= np.array(thresholds)
    assert found["classes"].to_pylist() == [";".join(np.array(names)[row]) for row in holds]
    predict_file(model, tmp_path / "new.parquet", tmp_path / "said.parquet", probabilities=True, **quiet)
    assert np.allclose(pq.read_table(tmp_path / "said.parquet")["red"].to_numpy(), said[:, 0].sigmoid().numpy())


@pytest.mark.parametrize("held", ['{"red": 2}', "[]", '{"blue": 0.5}', "3"])
def test_thresholds_that_are_none_are_refused(tmp_path, held):
    (tmp_path / "metrics.json").write_text(f'{{"thresholds": {held}}}')
    with pytest.raises(StoreError, match="expected a probability for each of"):
        thresholds_beside(tmp_path, ["red"])


def test_rows_without_a_label_are_told_of_in_the_figures_of_the_task():
    said = torch.tensor([[1.0, -2.0], [3.0, -2.0]])
    spread = TASKS["regression"].unjudged(said, Space("regression", ("a", "b"), (0.0, 0.0), (2.0, 1.0)))
    assert spread["spread"] == pytest.approx(np.sqrt((np.std([1, 3], ddof=1) / 2) ** 2 / 2))
    assert spread["said"] == {"a": 2.0, "b": -2.0}
    found = TASKS["multilabel"].unjudged(said, Space("multilabel", ("a", "b")))
    p = torch.sigmoid(said.double()).numpy()
    assert found["entropy"] == pytest.approx(np.mean(scipy.stats.entropy(np.stack([p, 1 - p]), axis=0)))
    assert found["coverage"] == 0.5 and found["said"] == {"a": 1.0, "b": 0.0}
