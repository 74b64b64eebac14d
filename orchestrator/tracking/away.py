"""A tracking server, or its database, that does not do what it is asked: what MLflow raises then, and how a person is told."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from teachers.config.secrets import without_password
from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.storage.disk import is_full

from .names import REFUSED

DATABASE_FULL = "database or disk is full"
"""Of SQLite."""


def prepare_environment() -> None:
    """Settings that MLflow reads when it is imported; those that are set already stay."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the tracker tries again itself, when it has time
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


@contextmanager
def told_if_away(uri: str) -> Iterator[None]:
    """Raise EnvironmentUnfit when the server does not answer, or the database file cannot be written.

    A server that is well and refuses what it is told is a CollegiumError.
    """
    try:
        yield
    except failures() as error:
        reason = reason_of(error)
        if getattr(error, "error_code", None) == REFUSED:
            raise CollegiumError(
                f"MLflow at {without_password(uri)} answers, and does not take what it is told ({reason})"
            ) from error
        if uri.startswith("sqlite:"):
            file = uri.removeprefix("sqlite:///")
            raise EnvironmentUnfit(
                f"MLflow's database {file} cannot be used ({reason}); make room there, or mend that, and run the same "
                f"command again"
            ) from error
        raise EnvironmentUnfit(
            f"MLflow at {without_password(uri)} does not answer ({reason}); start it, or leave out tracking.uri and "
            f"MLFLOW_TRACKING_URI to keep runs in SQLite beside the results"
        ) from error


def reason_of(error: BaseException) -> str:
    """In a line: what the disk or the database itself says, without what SQLAlchemy puts around it."""
    said = without_password(str(error)).strip() or type(error).__name__
    if is_full(error) or DATABASE_FULL in said:
        return "no space left on its disk"
    lines = said.splitlines()
    return next((line for line in lines if "sqlite3." in line), lines[0])[:300]


def failures() -> tuple[type[Exception], ...]:
    """What a call of MLflow raises when its server or database, or the disk, fails."""
    prepare_environment()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow lets some of a database that it opens through

    return MlflowException, SQLAlchemyError, OSError
