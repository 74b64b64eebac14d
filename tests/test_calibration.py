"""Calibration of teachers: learnt from labelled validation rows, applied when a target is made, never in a store."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.tasks import rows_to_calibrate_by
from orchestrator.reporting.calibration import about_calibration
from orchestrator.stages.keys import hearing, label_stage
from students.measuring.evaluate import evaluate_teachers
from students.measuring.hearing import hear
from students.measuring.labelled import Labelled
from students.objective.calibration import calibration_of
from students.objective.voices import voice_of
from students.runs.run import Source
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

ROWS, CLASSES, SHARPER = 3000, 4, 3.0
FOLDED = {
    "kind": "sklearn",
    "model": "sklearn.tree:DecisionTreeClassifier",
    "train": {"folds": 3},
    "function": None,
    "output": None,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferSet, np.ndarray]:
    """Rows whose classes were drawn from the softmax of their features."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(ROWS, CLASSES))
    label = [int(rng.choice(CLASSES, p=p)) for p in softmax(logits, 1)]
    holds = rng.random((ROWS, 2)) < 1 / (1 + np.exp(-logits[:, :2]))
    columns = {f"x{number}": logits[:, number] for number in range(CLASSES)}
    parquet.write_table(pa.table({**columns, "y": label, "a": holds[:, 0], "b": holds[:, 1]}), folder / "rows.parquet")
    return prepare(config(folder), folder / "out"), logits


def config(folder: Path, **about: Any) -> TransferSetConfig:
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    inputs = [f"x{number}" for number in range(CLASSES)]
    split = {"validation": 0.4, "test": 0.3}
    return TransferSetConfig.model_validate({"source": source, "inputs": inputs, "label": "y", "split": split, **about})


def source_of(data: TransferSet, folder: Path, how: Any, width: int = CLASSES, sharper: float = SHARPER) -> Source:
    """A teacher that is so many times too sure."""
    stores = {}
    for segment in data.segments:
        keys, said = data.keys(segment), sharper * data.inputs(segment)["features"][:, :width]
        about = (segment.name, segment.digest, "dense", data.classes, len(keys), len(keys), data.space.answer)
        store = SoftTargetStore.create(folder / segment.name, Spec("sure", "d", *about))  # type: ignore[arg-type]
        store.commit(0, keys, {"logits": said})
        store.seal()
        stores[segment.name] = store.folder
    return Source("sure", stores, calibrate=how)


def test_a_temperature_is_that_of_the_least_loss_and_undoes_what_was_too_sure(
    drawn: tuple[TransferSet, np.ndarray], tmp_path: Path
) -> None:
    data, _ = drawn
    calibrated = calibration_of(source_of(data, tmp_path, "temperature"), data)
    assert calibrated is not None
    temperature = float(1 / calibrated(torch.ones(1, CLASSES))[0, 0])
    (segment,) = data.of("validation")
    said, labels = SHARPER * data.inputs(segment)["features"].astype(np.float64), data.labels(segment)

    def loss(t: float) -> float:
        return -float(np.take_along_axis(log_softmax(said / t, 1), labels[:, None], 1).mean())

    assert temperature == pytest.approx(minimize_scalar(loss, bounds=(0.1, 20), method="bounded").x, rel=1e-2)
    assert temperature == pytest.approx(SHARPER, rel=0.15)


def test_a_teacher_that_is_less_sure_than_it_is_right_is_sharpened_and_the_report_says_by_how_much(
    drawn: tuple[TransferSet, np.ndarray], tmp_path: Path
) -> None:
    data, _ = drawn
    source = source_of(data, tmp_path, "temperature", sharper=0.25)
    calibrated = calibration_of(source, data)
    assert calibrated is not None
    temperature = float(1 / calibrated(torch.ones(1, CLASSES))[0, 0])
    assert temperature == pytest.approx(0.25, rel=0.15)
    figures = evaluate_teachers(data.folder, [source])["teachers"]["sure"]
    assert figures["temperature"] == pytest.approx(temperature)
    assert figures["ece"] < figures["uncalibrated"]["ece"] / 2
    told = next(about_calibration({"teachers": {"sure": {"calibrate": "temperature"}}}, {"sure": figures}))
    assert f"(temperature {temperature:.2f}, which makes it surer than it was)" in told


@pytest.mark.parametrize("how", ["temperature", "isotonic"])
def test_what_a_teacher_does_not_know_of_a_row_is_calibrated_to_nothing(
    drawn: tuple[TransferSet, np.ndarray], tmp_path: Path, how: Any
) -> None:
    data, _ = drawn
    calibrated = calibration_of(source_of(data, tmp_path, how), data)
    assert calibrated is not None
    said = torch.randn(4, CLASSES)
    said[2] = torch.nan
    assert calibrated(said).isnan().all(1).tolist() == [False, False, True, False]


def test_isotonic_is_scikit_learns_one_class_against_all_others(
    drawn: tuple[TransferSet, np.ndarray], tmp_path: Path
) -> None:
    data, _ = drawn
    source = source_of(data, tmp_path, "isotonic")
    calibrated = calibration_of(source, data)
    assert calibrated is not None
    (segment,), (test,) = data.of("validation"), data.of("test")
    stored = SoftTargets.open(source.stores[segment.name]).said()
    p, labels = stored.softmax(1).numpy(), data.labels(segment)
    asked = SoftTargets.open(source.stores[test.name]).said()
    q = asked.softmax(1).numpy()
    expected = np.stack(
        [IsotonicRegression(out_of_bounds="clip").fit(p[:, c], labels == c).predict(q[:, c]) for c in range(CLASSES)], 1
    )
    expected /= expected.sum(1, keepdims=True)
    floored = (1 - source.probability_floor) * expected + source.probability_floor / CLASSES
    np.testing.assert_allclose(calibrated(asked).softmax(1).numpy(), floored, atol=1e-4)


@pytest.mark.parametrize("how", ["temperature", "isotonic"])
def test_targets_and_figures_are_calibrated_and_the_store_is_not(
    drawn: tuple[TransferSet, np.ndarray], tmp_path: Path, how: Any
) -> None:
    data, _ = drawn
    source, train = source_of(data, tmp_path, how), MergedSplit(data, "train")
    voice, raw = voice_of(source, train), voice_of(Source("sure", source.stores), train)
    rows = raw.chunk(0, 100)
    before, after = raw.said_of(rows), voice.said_of(voice.chunk(0, 100))
    assert not torch.allclose(before.softmax(1), after.softmax(1), atol=0.01)
    (test,) = data.of("test")
    stored = SoftTargets.open(source.stores[test.name]).said()
    np.testing.assert_allclose(stored.numpy(), SHARPER * data.inputs(test)["features"], atol=0.05)
    figures = evaluate_teachers(data.folder, [source])["teachers"]["sure"]
    assert figures["ece"] < figures["uncalibrated"]["ece"] / 2
    assert figures["nll"] < figures["uncalibrated"]["nll"]
    rows_of_test = Labelled.of(data, "test")
    calibrated = calibration_of(source, data)
    assert calibrated is not None
    heard = hear(rows_of_test, [source]).alone["sure"]
    torch.testing.assert_close(heard.softmax(1), calibrated(stored).softmax(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", ["temperature", "isotonic"])
def test_classes_that_each_hold_are_calibrated_each_for_itself(tmp_path: Path, drawn: Any, how: Any) -> None:
    folder = drawn[0].folder.parent
    data = prepare(config(folder, label=["a", "b"], task="multilabel"), tmp_path / "out")
    source = source_of(data, tmp_path, how, width=2)
    calibrated = calibration_of(source, data)
    assert calibrated is not None
    (test,) = data.of("test")
    logits = torch.from_numpy(data.inputs(test)["features"][:, :2].copy()).float()
    after = calibrated(SHARPER * logits).sigmoid()
    assert (after - logits.sigmoid()).abs().mean() < ((SHARPER * logits).sigmoid() - logits.sigmoid()).abs().mean() / 3


def without_validation_labels(folder: Path, tmp_path: Path) -> TransferSetConfig:
    table = parquet.read_table(folder / "rows.parquet")
    (tmp_path / "data").mkdir()
    unlabelled = table.slice(50, 50).set_column(table.schema.get_field_index("y"), "y", [pa.nulls(50, pa.int64())])
    for name, rows in (("train", table), ("test", table.slice(0, 50)), ("validation", unlabelled)):
        parquet.write_table(rows, tmp_path / "data" / f"{name}.parquet")
    files = {name: f"{name}.parquet" for name in ("train", "validation", "test")}
    return config(folder, source={"kind": "parquet", "path": str(tmp_path / "data")}, split={"files": files})


def test_without_labelled_validation_rows_who_labels_out_of_fold_is_calibrated_by_training_rows(
    tmp_path: Path, drawn: Any
) -> None:
    data = prepare(without_validation_labels(drawn[0].folder.parent, tmp_path), tmp_path / "out")
    source = source_of(data, tmp_path, "temperature")
    with pytest.raises(RecipeError, match=r"teachers\.sure\.calibrate: no labelled row that it has not learnt"):
        calibration_of(source, data)
    calibrated = calibration_of(replace(source, out_of_fold=True), data)
    assert calibrated is not None
    assert float(1 / calibrated(torch.ones(1, CLASSES))[0, 0]) == pytest.approx(SHARPER, rel=0.15)


@pytest.mark.parametrize(
    ("labelled", "teacher", "told"),
    [
        ({"train": 9, "validation": 3}, {}, False),
        ({"train": 9, "validation": 0}, {}, True),
        ({"train": 9, "validation": 0}, FOLDED, False),
        ({"train": 0, "validation": 0}, FOLDED, True),
    ],
)
def test_that_there_are_no_rows_to_calibrate_by_is_told_by_counting_labels(
    labelled: dict[str, int], teacher: dict[str, Any], told: bool
) -> None:
    problems = [*rows_to_calibrate_by(recipe(**teacher), labelled)]
    assert len(problems) == told
    assert all(each.startswith("teachers.one.calibrate: no labelled rows to calibrate by") for each in problems)


def test_the_plan_refuses_a_calibration_without_a_row_and_takes_one_out_of_fold(tmp_path: Path, drawn: Any) -> None:
    document = recipe(**FOLDED).model_dump(mode="json")
    document["transfer_set"] = without_validation_labels(drawn[0].folder.parent, tmp_path).model_dump(mode="json")
    assert plan(Recipe.model_validate(document), tmp_path / "out").stages
    document["teachers"]["one"]["train"] = {}
    with pytest.raises(RecipeError, match=r"teachers\.one\.calibrate: no labelled rows to calibrate by"):
        plan(Recipe.model_validate(document), tmp_path / "out")


def recipe(task: str = "classification", label: str | None = "y", **teacher: Any) -> Recipe:
    rows = {"source": {"kind": "parquet", "path": "x"}, "inputs": "x", "label": label}
    output = "values" if task == "regression" else "logits"
    one = {
        "kind": "callable",
        "function": f"{__name__}:recipe",
        "output": output,
        "calibrate": "temperature",
        **teacher,
    }
    one = {key: value for key, value in one.items() if value is not None}
    return Recipe.model_validate(
        {"format": 1, "name": "r", "task": task, "transfer_set": rows, "teachers": {"one": one}}
    )


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"task": "regression"}, "numbers have no probabilities to calibrate"),
        ({"label": None}, "there are no labels to calibrate it by"),
        ({"encoding": "label"}, "its store keeps the class only"),
    ],
)
def test_a_calibration_that_cannot_be_is_told_before_work(about: dict[str, Any], said: str) -> None:
    assert any(said in told for path, told in recipe(**about).problems() if path[-1] == "calibrate")


def test_a_calibration_decides_how_a_teacher_is_heard_and_not_what_it_said() -> None:
    some, none = recipe(), recipe(calibrate=None)
    keys = [label_stage(each.teachers["one"], "one", ("s", "d"), "w", ["a"], "t").config for each in (some, none)]
    assert keys[0] == keys[1]
    assert hearing(some, "one") == {**hearing(none, "one"), "calibrate": "temperature"}
