"""Files that a recipe names: small ones that go with a submitted job, and data, which has to lie where all nodes see it.

Files that code reads are told by that code's digest, not here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from teachers.errors import RecipeError
from teachers.soft_targets.class_map import file_of
from teachers.users_code.digest import NAMES_NO_CODE
from teachers.users_code.imports import submitted_folder
from teachers.users_code.installed import placed

from .model import Recipe

NAMES_DATA = ("path", "weights")
"""Fields of a recipe that hold a path of data, a network or a tokenizer, wherever they stand."""


def data_paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, path) of all that is too large to go with a job."""
    yield from _paths_in(recipe.model_dump(mode="json", by_alias=True), "")


def _paths_in(document: Any, at: str) -> Iterator[tuple[str, str]]:
    """Of a search's space too, whose keys are paths of fields, and whose values stand under `choice`."""
    items = document.items() if isinstance(document, Mapping) else enumerate(document)
    for key, value in items:
        name, where = str(key).rpartition(".")[2], f"{at}{key}"
        if name in NAMES_DATA and isinstance(value, str):
            yield where, value
        elif name in NAMES_DATA and isinstance(value, Mapping) and set(value) == {"choice"}:
            yield from ((where, each) for each in value["choice"] if isinstance(each, str))
        elif isinstance(value, Mapping | list) and name not in NAMES_NO_CODE:
            yield from _paths_in(value, f"{where}.")


def is_elsewhere(path: str) -> bool:
    """Whether a path means the same on every node: an address, an absolute one, or one of an installed package."""
    return "://" in path or PurePosixPath(path).is_absolute() or placed(path).is_absolute()


def files_along(recipe: Recipe) -> dict[str, Path]:
    """By its name in a job, each small file that is named by a relative path. Raises RecipeError for one that cannot go."""
    found = {}
    for key, file in _small_files(recipe):
        path = Path(file)
        if path.is_absolute():
            continue
        if ".." in path.parts:
            raise RecipeError(
                f"{key}: {file} lies above this folder, and a job takes along what is in it; copy it here"
            )
        if not path.is_file():
            raise RecipeError(f"{key}: there is no file {file} (looked from {Path.cwd()})")
        found[path.as_posix()] = path
    return found


def _small_files(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, path) of maps of classes, of crops that a detector is shown, and of the names of images that boxes are of."""
    for name, teacher in recipe.teachers.items():
        if (file := file_of(teacher.class_map)) is not None:
            yield f"teachers.{name}.class_map.file", file
        for shown, files in (getattr(teacher, "examples", None) or {}).items():
            yield from ((f"teachers.{name}.examples.{shown}", file) for file in files)
        if (images := getattr(teacher, "images", None)) is not None:
            yield f"teachers.{name}.images", images


def _where(folder: Path, file: str) -> str:
    """Where a file lies that came along; an absolute path stays what it is."""
    return str(folder / file) if (folder / file).is_file() else file


def arrived(recipe: Recipe) -> Recipe:
    """In a submitted job, the recipe with the files that came along where this node keeps them; elsewhere as it is."""
    folder = submitted_folder()
    if folder is None:
        return recipe
    teachers = {}
    for name, teacher in recipe.teachers.items():
        file = file_of(teacher.class_map)
        here = folder / file if file is not None else folder
        if teacher.class_map is not None and here.is_file():  # an absolute path stays what it is
            teacher = teacher.model_copy(update={"class_map": {**teacher.class_map, "file": str(here)}})
        if examples := getattr(teacher, "examples", None):
            moved = {shown: [_where(folder, file) for file in files] for shown, files in examples.items()}
            teacher = teacher.model_copy(update={"examples": moved})
        if (images := getattr(teacher, "images", None)) is not None:
            teacher = teacher.model_copy(update={"images": _where(folder, images)})
        teachers[name] = teacher
    return recipe.model_copy(update={"teachers": teachers})
