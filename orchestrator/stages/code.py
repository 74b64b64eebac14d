"""The user's code in a recipe: where it is named, what of it decides a stage, and all of it as one run takes it along."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teachers.config.preprocess import Preprocess
from teachers.config.teacher import CheckpointTeacher
from teachers.errors import RecipeError
from teachers.models.text import text_transform
from teachers.storage.seal import local
from teachers.users_code.calls import within
from teachers.users_code.code import UsersCode, let_go
from teachers.users_code.digest import NAMES_CODE, NAMES_NO_CODE, inputs_of, one_look
from teachers.users_code.imports import use_user_path

from ..recipe.model import Recipe
from ..recipe.search import Choice

NAMED_IN_A_MODEL = ("model", "arguments", "preprocess")


def code_inputs(where: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Inputs of a stage: whatever decides the code that a part of the recipe names, which stands under `where`."""
    with within(where):
        return inputs_of(document)


def text_by_content(where: str, document: Any) -> None:
    """In a part of the recipe, say of every tokenizer and encoder what it holds, in place of where it lies."""
    if isinstance(document, list):
        for each in document:
            text_by_content(where, each)
    for key, value in document.items() if isinstance(document, dict) else ():
        if key == "preprocess" and value is not None:
            with within(where):
                text = text_transform(Preprocess.model_validate(value), ("text",))
            for kind in ("tokenizer", "encoder"):
                if text is not None and kind in value:
                    value[kind] = {**value[kind], "path": text.content}
        elif key not in NAMES_NO_CODE:
            text_by_content(where, value)


def code_of_folder(teacher: CheckpointTeacher) -> dict[str, Any]:
    """What a model folder says of its code, as a recipe would; nothing where it is no model folder, which is told elsewhere."""
    try:
        document = json.loads(local(Path(teacher.path), "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    found = {key: document.get(key) for key in NAMED_IN_A_MODEL} if isinstance(document, dict) else {}
    return {**found, "files": list(teacher.files)}


def code_of_views(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that names what makes views."""
    return {"transform": list(recipe.transfer_set.transforms), "files": list(recipe.transfer_set.files)}


def code_documents(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """All parts of a recipe that name code, and where they stand in it."""
    yield "transfer_set.source", recipe.transfer_set.source.model_dump(mode="json")
    for key in ("extra", "corrections"):
        if (beside := getattr(recipe.transfer_set, key)) is not None:
            yield f"transfer_set.{key}", beside.model_dump(mode="json")
    yield "transfer_set", code_of_views(recipe)
    for name, teacher in recipe.teachers.items():
        yield f"teachers.{name}", teacher.model_dump(mode="json")
        if teacher.kind == "checkpoint":
            yield f"teachers.{name}", code_of_folder(teacher)
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            yield f"{kind}.{name}", learner.model_dump(mode="json")
    yield from _choices(recipe)


def _choices(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """Code that only trials of a search name."""
    if recipe.search is None or recipe.search.student not in recipe.learners:
        return
    files = [*getattr(recipe.learners[recipe.search.student], "files", ())]
    for path, entry in recipe.search.space.items():
        field = path.rpartition(".")[2]
        if field in NAMES_CODE and isinstance(entry, Choice):
            one_by_one = [each for value in entry.choice for each in (value if isinstance(value, list) else [value])]
            yield f"search.space.{path}", {field: one_by_one, "files": files}


def code_of_choices(recipe: Recipe) -> dict[str, str]:
    """As `code_inputs`, of a whole search."""
    found: dict[str, str] = {}
    for where, document in _choices(recipe):
        found |= code_inputs(where, document)
    return found


def code_problems(recipe: Recipe) -> Iterator[str]:
    """Code that cannot be read or followed, files that are listed and not there."""
    for where, document in code_documents(recipe):
        try:
            code_inputs(where, document)
        except RecipeError as error:
            yield str(error)


@contextmanager
def users_code(recipe: Recipe, folder: Path, out: Path | None = None, notes: Path | None = None) -> Iterator[UsersCode]:
    """Look at the user's code once: keys inside are about what lies there now, and this process imports nothing else.

    Raises RecipeError with all that is wrong with it.
    """
    use_user_path(folder)
    with one_look():
        if problems := [*code_problems(recipe)]:
            raise RecipeError("\n".join(problems))
        code = UsersCode.of([document for _, document in code_documents(recipe)], folder, out=out, notes=notes)
        use_user_path(code)
        try:
            yield code
        finally:
            let_go()
