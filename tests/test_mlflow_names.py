"""Names and values that MLflow does not take, what is registered, and who is champion; by MLflow's own rules."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.recipe.model import Recipe
from orchestrator.running.run import smoke
from orchestrator.tracking import names
from orchestrator.tracking.server import connect, resolve_uri
from orchestrator.tracking.tracker import Tracker
from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.process import log_lines

from .test_tracking import client, fresh_database, model_folder, no_uri_from_outside, out, recipe, report

__all__ = ["fresh_database", "no_uri_from_outside", "out"]

ODD = [
    "a, b",
    "cock (bird)",
    "a;b",
    "x" * 300,
    "",
    ".",
    "..",
    "../up",
    "/root",
    "a//b",
    "a/",
    "a/../b",
    "tab\t",
    "\ud800",
    "n\n",
]
ODD += ["ampersand & co", "50 %", "ünïcode", "plain.name-1_2/3 4"]


@pytest.fixture(autouse=True)
def nothing_was_told() -> None:
    log_lines.once.cache_clear()


@settings(deadline=None)  # MLflow is imported by the first
@given(st.one_of(st.sampled_from(ODD), st.text(max_size=400)))
def test_a_name_made_fit_is_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils import validation

    fit = names.fit_name(name)
    validation._validate_param(fit, "value")
    validation._validate_metric(fit, 1.0, 0, 0)
    fit.encode()
    assert names.fit_name(fit) == fit


@given(st.lists(st.one_of(st.sampled_from(ODD), st.text(alphabet="a,;./ ", max_size=8)), unique=True))
def test_two_names_stay_two(given_names: list[str]) -> None:
    assert len({names.fit_name(name) for name in given_names}) == len(given_names)


def test_a_name_that_mlflow_takes_is_left_as_it_is() -> None:
    for name in ("students.small.train.steps", "system/node-1/cpu", "plain name_2", "ünïcode"):
        assert names.fit_name(name) == name


@given(st.text(min_size=0, max_size=50), st.integers(1, 300))
def test_a_value_is_one_that_every_database_takes_and_says_how_long_it_was(text: str, times: int) -> None:
    fit = names.fit_value(text * times)
    fit.encode()
    assert len(fit) <= names.LONGEST_PARAM and "\0" not in fit
    assert fit.endswith("characters)") or len(text) * times <= names.LONGEST_PARAM


def with_classes(classes: dict[str, str]) -> Recipe:
    document = recipe().model_dump(mode="json")
    document["teachers"]["wide"] |= {"classes": [*classes], "class_map": classes}
    return Recipe.model_validate(document)


def test_a_run_of_classes_with_commas_begins_and_each_is_a_parameter_of_its_own(out: Path) -> None:
    classes = {"tench, a fish": "fish", "tench; a fish": "fish", "cock (bird)": "bird", "z" * 300: "z", "a/../b": "b"}
    with Tracker.start(with_classes(classes), out, out / "runs" / "1") as tracker:
        tracker.log("label/wide", {"accuracy of tench, a fish": 0.5, "a//b": math.nan})
        tracker.finish(report(), {})
    found = client(resolve_uri(None, out)).get_run(tracker.ids()["run_id"]).data.params
    assert sorted(value for name, value in found.items() if ".class_map." in name) == sorted(classes.values())


def test_what_mlflow_refuses_is_told_by_name_and_all_else_is_sent(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = resolve_uri(None, out)
    mlflow = client(uri)
    run = mlflow.create_run(connect(uri, out, "an experiment").experiment_id).info.run_id
    mlflow.log_param(run, "b", "was said before")
    with caplog.at_level(logging.WARNING):
        names.log_batch(mlflow, run, params=names.params({"a": "1", "b": "another", "c": "3", "d": "4"}))
    assert mlflow.get_run(run).data.params == {"a": "1", "b": "was said before", "c": "3", "d": "4"}
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["MLflow does not take 'b' of params"]


def test_a_server_that_refuses_a_name_is_not_told_as_one_that_is_away(out: Path) -> None:
    with pytest.raises(
        CollegiumError, match=r"answers, and does not take .*'name' exceeds the maximum length"
    ) as found:
        connect(resolve_uri(None, out), out, "x" * 501)
    assert not isinstance(found.value, EnvironmentUnfit) and "room" not in str(found.value)


def test_a_figure_of_a_model_that_is_no_number_is_left_out(out: Path) -> None:
    folder = model_folder(out / "models" / "small-a")
    (folder / "metrics.json").write_text(json.dumps({"test": {"accuracy": 0.92, "nll": math.nan}}))
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        tracker.finish(report(), {"small": folder})
    (logged,) = client(resolve_uri(None, out)).search_logged_models([tracker.ids()["experiment_id"]])
    assert {metric.key: metric.value for metric in logged.metrics} == {"accuracy": 0.92}


def told(out: Path, number: int, of: Recipe, folder: Path, judged_on: str = "these rows") -> None:
    with Tracker.start(of, out, out / "runs" / str(number)) as tracker:
        assert tracker.finish(report(judged_on=judged_on), {"small": folder}) == []


def champion(out: Path) -> Any:
    return client(resolve_uri(None, out)).get_model_version_by_alias("digits-small", "champion").tags["collegium.key"]


def test_the_champion_stays_where_the_next_was_judged_on_other_rows_and_that_is_said(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told(out, 1, recipe(), model_folder(out / "models" / "small-a", 0.8))
    with caplog.at_level(logging.WARNING):
        told(out, 2, recipe(), model_folder(out / "models" / "small-b", 0.99), "other rows")
    assert champion(out) == "small-a"
    assert "champion stays version 1, which was judged on other rows" in caplog.text
    told(out, 3, recipe(), model_folder(out / "models" / "small-c", 0.9))
    assert champion(out) == "small-c"
    assert len(client(resolve_uri(None, out)).search_model_versions("name = 'digits-small'")) == 3


def test_a_smoke_run_registers_nothing(out: Path) -> None:
    told(out, 1, smoke(recipe()), model_folder(out / "models" / "small-a"))
    mlflow = client(resolve_uri(None, out))
    assert mlflow.search_registered_models() == []
    told(out, 2, recipe(), out / "models" / "small-a")
    assert len(mlflow.search_registered_models()) == 1


def test_what_students_are_judged_on_is_rows_and_labels_of_validation_and_test_alone(tmp_path: Path) -> None:
    from teachers.preparing.prepare import prepare

    from .test_transfer_set import config, table, written

    def judged_on(name: str, train: Any, test: Any) -> str:
        for file, rows in {"train": train, "validation": table(20, seed=1), "test": test}.items():
            written(tmp_path / name, rows, name=f"{file}.parquet")
        files = {file: f"{file}.parquet" for file in ("train", "validation", "test")}
        return prepare(config(tmp_path / name, split={"files": files}), tmp_path / f"{name}-out").judged_on()

    test = table(30, seed=2)
    first = judged_on("first", table(40), test)
    assert judged_on("more to train on", table(60), test) == first
    column = test.column_names.index("y")
    relabelled = test.set_column(column, "y", [[(label.as_py() + 1) % 3 for label in test["y"]]])
    assert judged_on("other labels", table(40), relabelled) != first
    assert judged_on("other rows", table(40), table(30, seed=3)) != first
