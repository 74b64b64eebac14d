"""What is submitted to a cluster: the command that runs there, what it takes along, and a name for it. No Ray, no network."""

import hashlib
import importlib.metadata
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from teachers.config.secrets import looks_like, without_password
from teachers.errors import RecipeError
from teachers.users_code.digest import named_in
from teachers.users_code.imports import use_user_path

from ..cluster.capacity import AUTOSCALING
from ..recipe.along import data_paths, is_elsewhere
from ..recipe.load import load_recipe
from ..recipe.model import Recipe
from ..stages.code import code_documents
from .arrival import EXPECTED
from .parcel import Parcel, pack, uri_of
from .verb import Verb

SECRETS = (
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"),
)
"""Variables that a job may need, and that are never passed on unasked."""
MASK = "***"
ENDING_S = 30
"""So long a job that is stopped may take to write how far it is, and to tell MLflow; then Ray kills it. Its default is 3."""


@dataclass(frozen=True)
class Submission:
    """`environment`: variables of the job; those in `hidden` are shown to nobody by us."""

    name: str
    entrypoint: str
    parcel: Parcel
    zipped: bytes
    environment: Mapping[str, str]
    hidden: frozenset[str]
    out: str
    notes: Sequence[str]

    @property
    def uri(self) -> str:
        return uri_of(self.zipped)

    def runtime_env(self) -> dict[str, Any]:
        """Of the job, as Ray takes it. Readable by everybody on the cluster."""
        return {"py_modules": [self.uri], "env_vars": dict(self.environment)}

    def shown(self) -> dict[str, Any]:
        """All of it, for people: without the values of variables that were asked for by name."""
        environment = {name: MASK if name in self.hidden else value for name, value in self.environment.items()}
        return {
            "format": 1,
            "id": self.name,
            "entrypoint": self.entrypoint,
            "runtime_env": {**self.runtime_env(), "env_vars": environment},
            "ships": {"bytes": len(self.zipped), "files": len(self.parcel.files), "yours": self.parcel.modules()},
            "notes": list(self.notes),
        }


def make(
    file: Path,
    overrides: Sequence[str],
    out: str | None,
    *,
    verb: Verb = "run",
    flags: Sequence[str] = (),
    variables: Sequence[str] = (),
    autoscaling: bool = False,
    installed: bool = False,
    user_path: Path | None = None,
) -> Submission:
    """`file` is the recipe's; `flags` go to the command as they are; `variables` are passed on from the environment.

    Raises RecipeError for what cannot work on a cluster: a recipe with mistakes, relative paths, passwords in the open.
    """
    use_user_path(user_path or Path.cwd())
    recipe = load_recipe(file, overrides)
    out = _checked_out(out, recipe)
    if problems := [*_relative(recipe), *_passwords(file, overrides)]:
        raise RecipeError("\n".join(problems))
    parcel = pack(recipe, file, installed=installed)
    zipped = parcel.zipped()
    asked = [part for override in overrides for part in ("-o", override)]
    # -P: the folder in which Ray starts the command must not come before our packages.
    command = ["python", "-P", "-m", "orchestrator", verb, file.name, *asked, "--out", out, *flags]
    entrypoint = f"exec {shlex.join(command)}"
    environment, notes = _environment(variables)
    environment[EXPECTED] = importlib.metadata.version("collegium")
    environment.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(ENDING_S))
    if autoscaling:
        environment[AUTOSCALING] = "1"
    notes += [_needs(name) for name in dict.fromkeys(name for _, name in recipe.variables()) if name not in variables]
    notes += [f"{name}: there is no such module here; it must be installed on the cluster" for name in parcel.absent]
    decided = "\0".join([entrypoint, uri_of(zipped), *sorted(environment)])
    readable = recipe.name.lower().replace("_", "-")
    name = f"{readable}-{hashlib.sha256(decided.encode()).hexdigest()[:8]}"
    return Submission(name, entrypoint, parcel, zipped, environment, frozenset(variables), out, notes)


def _checked_out(out: str | None, recipe: Recipe) -> str:
    """Raises RecipeError for a folder that means nothing on another machine."""
    if out is not None and ("://" in out or PurePosixPath(out).is_absolute()):
        return out
    given = "a job needs --out" if out is None else f"--out {out} is relative, and a cluster has no folder of yours"
    raise RecipeError(
        f"{given}; name one that all of its nodes see: --out /shared/{recipe.name}, --out s3://bucket/{recipe.name}"
    )


def _relative(recipe: Recipe) -> Iterator[str]:
    """Files that the recipe looks for in a working directory, which there is none of."""
    for key, value in data_paths(recipe):
        if not is_elsewhere(value):
            yield (
                f"{key}: {value} is relative, and data does not go with a job; name a place that all nodes see: "
                f"-o {key}=/shared/{PurePosixPath(value).name}"
            )
    for where, document in code_documents(recipe):
        for named in named_in(document):
            for file in named.relative():
                yield (
                    f"{where}.{named.at.rstrip('.')}".rstrip(".")
                    + f": {file} is relative, and files that code reads do "
                    f"not go with a job; name a place that all nodes see"
                )


def _needs(variable: str) -> str:
    return (
        f"the recipe reads {variable} from the environment: pass it on with --env {variable}, or set it on the cluster"
    )


def _passwords(file: Path, overrides: Sequence[str]) -> Iterator[str]:
    """What looks like a secret in what everybody on the cluster can read: comments of the recipe too."""
    lines = {f"{file}:{number}": line for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)}
    for where, text in (lines | {f"-o {over.partition('=')[0]}": over for over in overrides}).items():
        if found := looks_like(text):
            yield f"{where}: looks like {found}; everybody on the cluster could read it, leave it out"


def _environment(variables: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What the job gets of this environment, and what is to be said of that."""
    if missing := [name for name in variables if name not in os.environ]:
        raise RecipeError(f"--env {missing[0]}: there is no such variable in this environment")
    if wrong := [name for name in variables if name.startswith("RAY_AUTH_")]:
        raise RecipeError(f"--env {wrong[0]}: a cluster's token is not passed on; its nodes have it")
    environment = {name: os.environ[name] for name in variables}
    notes = []
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri and "MLFLOW_TRACKING_URI" not in environment:
        if _goes_anywhere(uri):
            environment["MLFLOW_TRACKING_URI"] = uri
        else:
            notes.append(
                "MLFLOW_TRACKING_URI is not passed on: it names this machine or has a password; "
                "set it on the cluster, or give `tracking.uri`"
            )
    if kept := [name for name in SECRETS if name in os.environ and name not in variables]:
        notes.append(f"not passed on: {', '.join(kept)}; what the job needs goes with --env NAME, or better lies there")
    if variables:
        notes.append(f"everybody on the cluster can read {', '.join(variables)}")
    return environment, notes


def _goes_anywhere(uri: str) -> bool:
    parts = urlsplit(uri)
    loopback = (parts.hostname or "").startswith("127.") or parts.hostname in ("localhost", "::1", None)
    return parts.scheme in ("http", "https") and not loopback and without_password(uri) == uri
