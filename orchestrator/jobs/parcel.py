"""What a submitted job takes along: Collegium itself, the recipe, the modules and maps of classes that it names; one zip file.

Never data, weights or environments: only Python modules, one YAML file and CSVs of class maps are ever read. Knows nothing of Ray.
"""

import hashlib
import importlib.metadata
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from teachers.config.strict import IMPORT_PATTERN
from teachers.errors import RecipeError
from teachers.users_code.digest import users_modules
from teachers.users_code.following import OURS, file_of
from teachers.users_code.imports import SUBMITTED
from teachers.users_code.in_main import is_in_main

from ..recipe.along import files_along
from ..recipe.model import Recipe
from ..recipe.shipped import home

NO_IMPORTS = {"arguments", "classes", "class_map"}
"""Keys of a recipe whose values are never import strings."""
LARGEST = 64 << 20
"""Bytes: Ray keeps packages in the memory of the head."""


@dataclass(frozen=True)
class Parcel:
    """`files` by their names in the zip; `absent`: import strings whose modules are not here."""

    files: Mapping[str, bytes]
    absent: list[str] = field(default_factory=list)

    def zipped(self) -> bytes:
        """The same files give the same bytes, wherever and whenever."""
        buffer = io.BytesIO()
        with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
            for name in sorted(self.files):
                entry = ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, self.files[name])
        return buffer.getvalue()

    def modules(self) -> list[str]:
        """The user's files, as they lie in their folder."""
        return [name.removeprefix(f"{SUBMITTED}/") for name in sorted(self.files) if name.startswith(f"{SUBMITTED}/")]


def uri_of(zipped: bytes) -> str:
    """By which Ray knows a package: its content."""
    return f"gcs://_ray_pkg_{hashlib.sha1(zipped, usedforsecurity=False).hexdigest()}.zip"


def pack(recipe: Recipe, file: Path, *, installed: bool) -> Parcel:
    """`file`: the recipe's. `installed`: the cluster has Collegium, only what is the user's is taken.

    The user's directory must stand on `sys.path`, and be the working directory. Raises RecipeError for a module or file that
    cannot be read.
    """
    files = {f"{SUBMITTED}/{file.name}": file.read_bytes()}
    files |= {f"{SUBMITTED}/{name}": path.read_bytes() for name, path in files_along(recipe).items()}
    absent = []
    for name in sorted(set(import_strings(recipe.model_dump(mode="json")))):
        if is_in_main(name):
            raise RecipeError(
                f"{name} is defined in a notebook or script, and a job takes modules along; put it into one"
            )
        modules = users_modules(name)
        if modules is None:
            absent.append(name)
        else:
            files |= {f"{SUBMITTED}/{file_of(module, path)}": path.read_bytes() for module, path in modules.items()}
    if not installed:
        files |= dict(_ours())
    if (size := sum(map(len, files.values()))) > LARGEST:
        raise RecipeError(
            f"modules and class maps have {size / 2**20:.0f} MiB; at most {LARGEST >> 20} MiB go with a job"
        )
    return Parcel(files, absent)


def import_strings(value: Any) -> Iterator[str]:
    """Every text in a recipe that reads `package.module:name`."""
    if isinstance(value, str):
        if re.fullmatch(IMPORT_PATTERN, value):
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in NO_IMPORTS:
                yield from import_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from import_strings(inner)


def _ours() -> Iterator[tuple[str, bytes]]:
    """What our wheel holds: three packages, recipes, and the metadata that the version is read from."""
    beside = Path(__file__).resolve().parents[2]
    for package in OURS:
        for path in sorted((beside / package).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".yaml", ".json", ".html", ".j2", ".css", ".md"):
                yield path.relative_to(beside).as_posix(), path.read_bytes()
    for path in (home() / "recipes").glob("*.yaml"):
        yield f"orchestrator/recipes/{path.name}", path.read_bytes()
    about = importlib.metadata.distribution("collegium")
    yield f"collegium-{about.version}.dist-info/METADATA", (about.read_text("METADATA") or "").encode()
