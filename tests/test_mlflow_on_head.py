"""The database of MLflow outlives the head that served it."""

import importlib.util
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("mlflow_on_head", Path(__file__).parents[1] / "deploy/mlflow_on_head.py")
assert SPEC is not None and SPEC.loader is not None
on_head = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(on_head)


def write(database: Path, *values: int) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("create table if not exists points (value)")
        connection.executemany("insert into points values (?)", [(value,) for value in values])


def read(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        return [value for (value,) in connection.execute("select value from points order by value")]


def test_a_new_head_begins_with_the_last_copy(tmp_path: Path) -> None:
    old, new, keep = tmp_path / "old/mlflow.db", tmp_path / "new/mlflow.db", str(tmp_path / "keep/mlflow")
    new.parent.mkdir()
    write(old, 1, 2)
    on_head.snapshot(old, keep)
    write(old, 3)
    on_head.snapshot(old, keep)
    assert on_head.restore(new, keep) and read(new) == [1, 2, 3]


def test_a_head_that_has_a_database_keeps_it(tmp_path: Path) -> None:
    old, own, keep = tmp_path / "old/mlflow.db", tmp_path / "own/mlflow.db", str(tmp_path / "keep")
    write(old, 1)
    on_head.snapshot(old, keep)
    write(own, 7)
    assert not on_head.restore(own, keep) and read(own) == [7]


def test_the_first_head_of_all_begins_empty(tmp_path: Path) -> None:
    assert not on_head.restore(tmp_path / "mlflow.db", str(tmp_path / "keep"))
    assert not (tmp_path / "mlflow.db").exists()


def test_a_database_that_is_not_there_does_not_replace_the_copy(tmp_path: Path) -> None:
    old, keep = tmp_path / "old/mlflow.db", str(tmp_path / "keep")
    write(old, 1)
    on_head.snapshot(old, keep)
    with pytest.raises(sqlite3.OperationalError):
        on_head.snapshot(tmp_path / "mlflow.db", keep)
    assert on_head.restore(tmp_path / "again.db", keep) is False  # a copy is found by the database's own name
    assert on_head.restore(tmp_path / "mlflow.db", keep) and read(tmp_path / "mlflow.db") == [1]


def test_a_copy_that_is_taken_in_a_transaction_has_all_of_it_or_nothing(tmp_path: Path) -> None:
    database, keep = tmp_path / "head/mlflow.db", str(tmp_path / "keep")
    write(database, 1)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("insert into points values (2)")  # not committed
        on_head.snapshot(database, keep)
    assert on_head.restore(tmp_path / "mlflow.db", keep) and read(tmp_path / "mlflow.db") == [1]


def test_the_last_copy_is_taken_when_the_server_has_ended(tmp_path: Path) -> None:
    database, keep = tmp_path / "head/mlflow.db", str(tmp_path / "keep")
    write(database, 1)
    ended = threading.Event()
    ended.set()
    on_head.keep_copies(database, keep, ended)
    assert on_head.restore(tmp_path / "mlflow.db", keep) and read(tmp_path / "mlflow.db") == [1]


def test_the_server_answers_its_own_names_and_tunnels_only(tmp_path: Path) -> None:
    command = on_head.server_command(tmp_path / "mlflow.db", "127.0.0.1", "/keep")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:5000,localhost:*,127.0.0.1:*"
    assert command[command.index("--artifacts-destination") + 1] == "/keep/artifacts"
