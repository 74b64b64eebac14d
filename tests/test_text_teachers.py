"""Who reads text as it is: functions and pipelines as teachers, pipelines as students, in and out of fold, from a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import skops.io
import torch
from pyarrow import parquet
from pydantic import TypeAdapter

import students
from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.reporting.by_class import _text
from students.config.estimator import EstimatorStudent
from students.delivering.predict import predict_file
from students.fitting.fit import fit
from students.measuring.footprint import footprint
from students.measuring.mistakes import _looks
from students.runs.of_student import student_run
from students.runs.session import PlainSession
from teachers.config.teacher import TeacherConfig
from teachers.errors import RecipeError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher
from teachers.models.estimators import fit_sklearn, labelled_rows
from teachers.transfer_set.columns import Column
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from tests import text_models
from tests.text_rows import asked_for, prepared
from tests.training_runs import make_store, source


def teacher_of(**said: Any) -> TeacherConfig:
    config: TeacherConfig = TypeAdapter(TeacherConfig).validate_python(said)
    return config


def sklearn_teacher(make: str, **more: Any) -> TeacherConfig:
    return teacher_of(kind="sklearn", model=f"tests.text_models:{make}", **more)


def loaded(config: TeacherConfig, rows: TransferSet, trained: Path | None = None) -> Questioner:
    about: dict[str, Any] = {"columns": rows.columns, "space": rows.space, "trust": (), "device": "cpu"}
    return Questioner(load_teacher(config, trained=trained, user_path=rows.folder, **about), "who", config)


def asked(questioner: Questioner, rows: TransferSet, split: Any = "test") -> tuple[np.ndarray, np.ndarray]:
    (segment,) = rows.of(split)
    return questioner.ask(rows.inputs(segment), rows.keys(segment)), rows.labels(segment)


def test_a_function_gets_text_as_an_array_of_str(tmp_path: Path) -> None:
    rows = prepared(tmp_path)
    config = teacher_of(kind="callable", function="tests.text_models:by_umlaut", output="probabilities", version="1")
    said, _ = asked(loaded(config, rows), rows)
    own = text_models.by_umlaut(rows.inputs(rows.of("test")[0])).argmax(1)
    np.testing.assert_array_equal(said.argmax(1), own)


@pytest.mark.parametrize("make", ["words", "counts", "characters", "calibrated"])
def test_a_pipeline_says_what_it_says_when_it_is_fitted_on_the_same_strings(tmp_path: Path, make: str) -> None:
    rows = prepared(tmp_path / "rows")
    config = sklearn_teacher(make)
    files = fit_sklearn(config, rows, tmp_path / "fitted")
    learnt = labelled_rows(config, rows)
    assert files[0] == "model.skops" and learnt.features.shape == (60,) and set(map(type, learnt.features)) == {str}
    own = getattr(text_models, make)().fit(learnt.features, learnt.labels)
    said, labels = asked(loaded(config, rows, tmp_path / "fitted"), rows)
    expected = own.predict_proba(rows.inputs(rows.of("test")[0])["text"])
    np.testing.assert_allclose(torch.tensor(said).softmax(1), 0.999 * expected + 0.001 / 3, atol=1e-5)
    assert (said.argmax(1) == labels).mean() > 0.9
    assert fit_sklearn(config, rows, tmp_path / "again") == files
    assert (tmp_path / "again" / files[0]).read_bytes() == (tmp_path / "fitted" / files[0]).read_bytes()


def test_texts_and_numbers_stand_side_by_side_texts_first(tmp_path: Path) -> None:
    rows = prepared(tmp_path / "rows", ["size", "title", "text"])
    config = sklearn_teacher("beside", preprocess={"normalise": None})
    learnt = labelled_rows(config, rows)
    train = MergedSplit(rows, "train")
    chosen = train.chosen(np.flatnonzero(train.labelled()))
    assert learnt.features.shape == (60, 3) and learnt.features.dtype == object
    for at, name in enumerate(("title", "text")):
        assert learnt.features[:, at].tolist() == chosen[name].tolist()
    np.testing.assert_array_equal(learnt.features[:, 2].astype(np.float32), chosen["features"][:, 0].astype(np.float32))
    fit_sklearn(config, rows, tmp_path / "fitted")
    said, labels = asked(loaded(config, rows, tmp_path / "fitted"), rows)
    assert (said.argmax(1) == labels).mean() > 0.9


def test_out_of_fold_a_text_is_read_by_who_has_not_learnt_it(tmp_path: Path) -> None:
    rows = prepared(tmp_path / "rows")
    config = sklearn_teacher("words", train={"folds": 3})
    fit_sklearn(config, rows, tmp_path / "fitted")
    questioner = loaded(config, rows, tmp_path / "fitted")
    (segment,) = rows.of("train")
    fold = questioner.teacher.fold_of(rows, segment)  # type: ignore[attr-defined]
    inputs, keys = rows.inputs(segment), rows.keys(segment)
    said = questioner.ask(inputs, keys, fold)
    parts = [skops.io.load(tmp_path / f"fitted/teacher/fold-{number}/model.skops") for number in range(3)]
    for row in np.flatnonzero(rows.labelled(segment))[:10]:
        own = parts[fold[row]].predict_proba(inputs["text"][row : row + 1])
        np.testing.assert_allclose(torch.tensor(said[row]).softmax(0), 0.999 * own[0] + 0.001 / 3, atol=1e-5)


def test_a_pipeline_from_a_file_reads_text(tmp_path: Path) -> None:
    rows = prepared(tmp_path / "rows")
    train = MergedSplit(rows, "train").chosen(np.arange(90))["text"]
    own = text_models.calibrated().fit(
        train, ["de" if "ist" in each else "en" if "the" in each else "fi" for each in train]
    )
    skops.io.dump(own, tmp_path / "own.skops")
    config = teacher_of(kind="sklearn", weights=str(tmp_path / "own.skops"))
    said, _ = asked(loaded(config, rows), rows)
    expected = own.predict(rows.inputs(rows.of("test")[0])["text"])
    assert [rows.classes[each] for each in said.argmax(1)] == expected.tolist()


def learnt(tmp_path: Path, make: str = "words", **more: Any) -> tuple[TransferSet, Any]:
    """(rows, the run of a student that is a pipeline)."""
    rows = prepared(tmp_path / "rows")
    config = EstimatorStudent.model_validate(
        {"kind": "sklearn", "model": f"tests.text_models:{make}", "teachers": ["wide"]} | more
    )
    where = {"folder": tmp_path, "stage": tmp_path, "stage_name": "distill/words", "transfer_set": rows.folder}
    store = source(make_store(tmp_path / "store", rows))
    run = student_run("student", config, 0, sources=(store,), user_path=tmp_path, **where)
    (result,) = fit([run], PlainSession())
    assert result.validation is not None
    return rows, run


def test_a_pipeline_that_is_a_student_learns_text_and_runs_on_strings(tmp_path: Path) -> None:
    rows, run = learnt(tmp_path, arguments={"C": 100.0})
    model = students.load(run.folder)
    (segment,) = rows.of("test")
    texts = rows.inputs(segment)["text"]
    answers = model({"text": texts})
    assert answers.shape == (len(texts), 3)
    torch.testing.assert_close(model({"text": texts.astype(str)}), answers)
    torch.testing.assert_close(model({"text": texts[:1]}), answers[:1])
    sizes = footprint(run.folder, {"text": texts})
    assert sizes["parameters"] > 3 and sizes["latency"]["batch_1"]["p50_ms"] > 0


WRITTEN = {
    "csv": lambda path, rows: pd.DataFrame(rows).to_csv(path, index=False),
    "jsonl": lambda path, rows: path.write_text(
        "".join(json.dumps(dict(zip(rows, row, strict=True))) + "\n" for row in zip(*rows.values(), strict=True))
    ),
    "parquet": lambda path, rows: parquet.write_table(pa.table(rows), path),
    "arrow": lambda path, rows: pl.DataFrame(rows).write_ipc(path),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_raw_text_of_every_format_is_predicted_and_bad_rows_are_named(tmp_path: Path, kind: str) -> None:
    rows, run = learnt(tmp_path)
    texts = ["das Haus ist alt", None, "a\0 house \N{PILE OF POO}", "talo on vanha\ntai ei", "x " * 100_000]
    path = tmp_path / f"new.{kind}"
    WRITTEN[kind](path, {"number": [1, 2, 3, 4, 5], "text": texts})
    said: list[str] = []
    bad: list[str] = []
    done = predict_file(run.folder, path, None, write_line=said.append, tell_bad=bad.append)
    assert (done.num_rows, done.num_bad) == (5, 1) and bad[0].startswith(f"new.{kind}#1: text is missing")
    good = np.array([text for text in texts if text is not None], object)
    own = [rows.classes[at] for at in students.load(run.folder)({"text": good}).argmax(1)]
    assert [json.loads(line)["class"] for line in said] == [own[0], None, *own[1:]]
    renamed: list[str] = []
    WRITTEN[kind](path, {"number": [1, 2, 3, 4, 5], "words": texts})
    with pytest.raises(RecipeError, match="no column 'text', which the model takes"):
        predict_file(run.folder, path, None, write_line=renamed.append, tell_bad=bad.append)
    predict_file(run.folder, path, None, inputs=["words=text"], write_line=renamed.append, tell_bad=bad.append)
    assert renamed == said
    with pytest.raises(RecipeError, match="column 'number' holds int64, the model takes text"):
        WRITTEN["parquet"](tmp_path / "other.parquet", {"number": [1]})
        predict_file(
            run.folder,
            tmp_path / "other.parquet",
            None,
            inputs=["number=text"],
            write_line=said.append,
            tell_bad=bad.append,
        )


def test_a_pipeline_whose_last_step_takes_no_weights_cannot_be_a_student(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="neighbours takes no `sample_weight`"):
        learnt(tmp_path, "neighbours")


def test_a_checked_plan_tries_all_who_read_text(tmp_path: Path) -> None:
    rules = {"kind": "callable", "function": "tests.text_models:by_umlaut", "output": "probabilities", "version": "1"}
    words = {"kind": "sklearn", "model": "tests.text_models:words"}
    recipe = {
        "format": 1,
        "name": "texts",
        "transfer_set": asked_for(),
        "teachers": {"rules": rules, "words": words, "calibrated": {**words, "model": "tests.text_models:calibrated"}},
        "students": {"small": {**words, "teachers": ["rules", "words"]}},
    }
    plan(Recipe.model_validate(recipe), tmp_path / "out", check=True)
    networks = {"small": {"model": "students.models:mlp", "arguments": {"hidden": 4}, "teachers": ["words"]}}
    with pytest.raises(RecipeError, match=r"students\.small\.preprocess: column 'text' is text.*say `ngrams: \{\}`"):
        plan(Recipe.model_validate(recipe | {"students": networks}), tmp_path / "out", check=True)


def test_what_a_mistake_reads_is_shown_cut_and_escaped(tmp_path: Path) -> None:
    value = np.array("<b>bold</b>\0\n" + "x" * 400, object)
    shown = _looks(Column("text", "text", (), (), ()), value, {}, ())
    assert shown == {"column": "text", "text": str(value)[:300], "of": 413}
    assert _text(shown) == "<b>bold</b>\\x00 " + "x" * 287 + " ..."


@pytest.mark.parametrize("split", ["train", "test"])
def test_chosen_rows_are_those_of_the_whole(tmp_path: Path, split: Any) -> None:
    rows = prepared(tmp_path / "rows", ["text", "size"])
    (segment,) = rows.of(split)
    whole, numbers = rows.inputs(segment), np.arange(0, segment.num_rows, 3)
    found = rows.chosen(segment, numbers)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values[numbers])
    assert rows.chosen(segment, numbers[:0])["text"].shape == (0,)
