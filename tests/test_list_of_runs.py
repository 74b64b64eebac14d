"""MLflow's list of runs explains itself: name, data set, source and columns of a run, read back by MLflow."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.reporting.headline import SHARED_VIEW, deep_link
from orchestrator.tracking.away import reason_of
from orchestrator.tracking.shown import VIEW_TAG, data_set, results_in_short, view
from orchestrator.tracking.tracker import Tracker
from teachers.config.transfer_set import TransferSetConfig
from teachers.transfer_set.transfer_set import TransferSet

from .test_tracking import client, fresh_database, no_uri_from_outside, out, recipe, report

__all__ = ["fresh_database", "no_uri_from_outside", "out"]


def shown(out: Path, **how: Any) -> Any:
    """The run that MLflow has of one that told nothing but its results."""
    tracker = Tracker.start(recipe(), out, out / "runs" / "20260101-000000-abcd", **how)
    ids = tracker.ids()
    assert tracker.finish(report(), {}) == []
    return client(f"sqlite:///{out / 'mlflow.db'}").get_run(ids["run_id"])


def test_a_runs_name_says_recipe_command_and_result_and_its_source_the_recipe(out: Path) -> None:
    run = shown(out, command="tune", source="mine/digits.yaml")
    assert run.info.run_name == "digits tune: small +6.0"
    assert run.data.tags["mlflow.source.name"] == "mine/digits.yaml"
    assert run.data.tags["collegium.run"] == "20260101-000000-abcd"


def test_a_run_that_has_no_result_yet_is_named_by_recipe_and_command(out: Path) -> None:
    with Tracker.start(recipe(), out, out / "runs" / "one") as tracker:
        run = client(f"sqlite:///{out / 'mlflow.db'}").get_run(tracker.ids()["run_id"])
        assert (run.info.run_name, run.info.status) == ("digits run", "RUNNING")


def test_a_result_is_the_gain_or_the_accuracy_without_a_control_and_of_many_the_first() -> None:
    def learner(accuracy: float | None, gain: float | None) -> dict[str, Any]:
        return {"test_accuracy": {"mean": accuracy}, "gain": None if gain is None else {"mean": gain}}

    recipe = {"task": "classification"}
    students = {"a": learner(0.9, -0.0123), "b": learner(0.925, None), "c": learner(None, None)}
    cohorts = {"trio": {"members": {"x": learner(0.5, 0.1), "y": learner(0.5, 0.2)}}}
    assert results_in_short({"recipe": recipe, "students": students}) == "a -1.2, b 92.5 %"
    assert (
        results_in_short({"recipe": recipe, "students": students, "cohorts": cohorts})
        == "a -1.2, b 92.5 %, trio.x +10.0 and 1 more"
    )
    assert results_in_short({"recipe": recipe, "students": {}}) == ""


@pytest.mark.parametrize(
    "source,name,kind",
    [
        ({"kind": "sklearn", "name": "digits"}, "digits", "code"),
        ({"kind": "csv", "path": "data/reviews.csv"}, "reviews.csv", "local"),
        ({"kind": "import", "function": "mine:rows"}, "mine:rows", "code"),
    ],
)
def test_the_transfer_set_is_the_data_set_of_the_run(
    out: Path, digits: TransferSet, source: dict[str, Any], name: str, kind: str
) -> None:
    config = TransferSetConfig(source=source, inputs="image", label="digit")  # type: ignore[arg-type]
    with Tracker.start(recipe(), out, out / "runs" / "one") as tracker:
        tracker.learns_from(data_set(config, digits, "a" * 64))
        tracker.learns_from(data_set(config, digits, "a" * 64))  # what is told twice is kept once
        run_id = tracker.ids()["run_id"]
    (found,) = client(f"sqlite:///{out / 'mlflow.db'}").get_run(run_id).inputs.dataset_inputs
    from mlflow.data import get_source

    assert (found.dataset.name, found.dataset.source_type) == (name, kind) and found.dataset.digest == "a" * 12
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert get_source(found.dataset).to_dict() == json.loads(found.dataset.source)
    rows = json.loads(found.dataset.profile)
    assert rows["num_rows"] == 1797 == rows["train"] + rows["validation"] + rows["test"]
    columns = json.loads(found.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["image", "digit"]


def test_headline_and_gain_of_every_student_are_columns_that_the_run_fills(out: Path) -> None:
    run = shown(out)
    experiment = client(f"sqlite:///{out / 'mlflow.db'}").get_experiment(run.info.experiment_id)
    columns = json.loads(experiment.tags[VIEW_TAG])["selectedColumns"]
    metrics = [column.removeprefix("metrics.`").rstrip("`") for column in columns if column.startswith("metrics.")]
    assert metrics == ["students.small.test_accuracy", "students.small.gain.mean"]
    assert set(metrics) <= set(run.data.metrics)
    assert "attributes.`Dataset`" in columns and VIEW_TAG.endswith(SHARED_VIEW)
    assert f"viewStateShareKey={SHARED_VIEW}" in deep_link("http://x", "1")
    assert "viewStateShareKey" not in deep_link("http://x", "1", "2")


def test_the_page_of_this_mlflow_reads_the_view_that_a_run_leaves() -> None:
    import mlflow.server

    page = "".join(
        file.read_text() for file in (Path(mlflow.server.__file__).parent / "js/build/static/js").glob("main*.js")
    )
    words = (
        "viewStateShareKey",
        VIEW_TAG.removesuffix(SHARED_VIEW),
        *json.loads(view(recipe())),
        "attributes",
        "metrics",
    )
    assert all(f'"{word}"' in page for word in words)
    assert all(f':"{name}"' in page for name in ("Source", "Dataset", "Models"))


def test_a_full_disk_is_told_as_one_whatever_stands_around_it() -> None:
    """SQLite's own error, out of a session of SQLAlchemy that writes before it reads, as MLflow's does."""
    from sqlalchemy import Column, Integer, LargeBinary, create_engine, event
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.orm import Session, declarative_base

    class Row(declarative_base()):  # type: ignore[misc]
        __tablename__ = "rows"
        id = Column(Integer, primary_key=True)
        held = Column(LargeBinary)

    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 4"))
    Row.metadata.create_all(engine)
    with Session(engine) as session, pytest.raises(OperationalError) as raised:
        session.add(Row(held=b"x" * 100_000))
        session.query(Row).all()
    assert "autoflush" in str(raised.value).splitlines()[0]
    assert reason_of(raised.value) == "no space left on its disk"
    assert reason_of(OSError(errno.ENOSPC, "No space left on device")) == "no space left on its disk"
    assert reason_of(OSError("connection refused\nby the peer")) == "connection refused"
