"""`collegium store export --coco` and `--yolo`: from an OUT to a folder that another program trains on."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from teachers.errors import CollegiumError

if TYPE_CHECKING:
    from teachers.labelling.boxes_out import Wanted, Written
    from teachers.transfer_set.answers import Answered

    from ..recipe.model import Recipe


def write_boxes(
    path: Path, folder: Path, kind: str, *, teachers: str | None, combine: str, keep_above: float, copies: bool
) -> None:
    """Tells what was written, and what was not."""
    from teachers.labelling.boxes_out import export_boxes

    segments, wanted = asked_for(path, kind, teachers=teachers, combine=combine, keep_above=keep_above, copies=copies)
    written = export_boxes(segments, folder, wanted)
    click.echo(
        f"wrote {written.images:,} images with {written.boxes:,} boxes of a score of {keep_above:g} or more to {folder}"
    )
    if written.unknown:
        click.echo(f"{written.unknown:,} images that no teacher knows are left out", err=True)
    tell_prepared(written)


def tell_prepared(written: "Written") -> None:
    if written.as_prepared:
        click.echo(
            f"{written.as_prepared:,} images are not in the source any more: written as they were prepared", err=True
        )


def asked_for(
    path: Path, kind: str, *, teachers: str | None, combine: str, keep_above: float, copies: bool
) -> tuple[list["Answered"], "Wanted"]:
    """What stands in an OUT, or in one store, of the newest transfer set, and what is to be made of it."""
    from teachers.labelling.boxes_out import Wanted
    from teachers.soft_targets.class_map import resolved
    from teachers.soft_targets.listing import find_stores
    from teachers.transfer_set.answers import answered_segments, of_newest

    from .bundle import newest_recipe

    folders = find_stores(path)
    out = path.absolute().parents[1] if folders == [path] else path
    recipe = newest_recipe(out)
    named = tuple(filter(None, (teachers or "").split(","))) or None
    if recipe is not None:
        named = named or tuple(recipe.teachers) or None
    maps = {} if recipe is None else {name: resolved(each.class_map) for name, each in recipe.teachers.items()}
    wanted = Wanted(
        kind,
        named,
        combine,
        keep_above,
        copies,
        root=None if recipe is None else _root(recipe),
        class_maps={name: each for name, each in maps.items() if each is not None},
    )
    return of_newest([*answered_segments(folders, out / "prepared")]), wanted


def _root(recipe: "Recipe") -> Path | None:
    """The folder that the source's images lie in; None where it is not there."""
    from teachers.sources import files_of

    try:
        return files_of(recipe.transfer_set)[0].root
    except CollegiumError:
        return None
