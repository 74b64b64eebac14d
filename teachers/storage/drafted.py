"""A folder that somebody asked for, written whole or not at all. Knows nothing of what is in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ..errors import RecipeError


@contextmanager
def drafted_folder(folder: Path) -> Iterator[Path]:
    """A folder that nobody reads yet; it takes its name in one step, or is gone after an error. Raises RecipeError for one that is there."""
    if folder.exists():
        raise RecipeError(f"{folder} is there already, and is not written over; choose another name")
    draft = folder.absolute().with_name(f".draft-{uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
