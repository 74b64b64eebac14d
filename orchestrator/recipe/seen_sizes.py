"""At which size each network sees images that stay encoded: what a recipe says of it that cannot be. Knows nothing of files."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from teachers.config.preprocess import Preprocess
from teachers.config.task import ANSWER_OF

from .file import Loc

if TYPE_CHECKING:
    from .model import Recipe


def size_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    own = {where: each for where, each in _preprocesses(recipe) if each.image_size is not None}
    if recipe.transfer_set.decode != "on_read":
        for where in own:
            yield (
                (*where, "image_size"),
                "is of images that stay encoded; say `transfer_set.decode: on_read`, or `resize` for what is stored",
            )
        return
    if ANSWER_OF[recipe.task] == "boxes":
        for where, each in own.items():
            if (each.fit or recipe.transfer_set.fit) != "squash":
                yield (
                    (*where, "fit"),
                    f"`{each.fit}` moves boxes within their image; say `squash`, which leaves them where they are",
                )
    live = [("teachers", name) for name, teacher in recipe.teachers.items() if teacher.mode == "live"]
    if live and own:
        where = next(iter(own))
        yield (
            (*where, "image_size"),
            f"{live[0][1]!r} answers live, about images as a student sees them: all see them at one size; leave it out",
        )


def _preprocesses(recipe: "Recipe") -> Iterator[tuple[Loc, Preprocess]]:
    """Of everybody who says how inputs are made."""
    named: list[tuple[str, Mapping[str, Any]]] = [("teachers", recipe.teachers), ("students", recipe.students)]
    for kind, configs in named:
        for name, config in configs.items():
            if isinstance(given := getattr(config, "preprocess", None), Preprocess):
                yield (kind, name, "preprocess"), given
    for name, cohort in recipe.cohorts.items():
        for member, config in cohort.members.items():
            if isinstance(given := getattr(config, "preprocess", None), Preprocess):
                yield ("cohorts", name, "members", member, "preprocess"), given
