"""`collegium review`: images that are worth a person's look."""

from pathlib import Path

import click

from .options import with_copies, with_least_score, with_rule_of_boxes, with_whose_boxes


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(1), default=50, show_default=True, help="How many, at most.")
@with_whose_boxes
@with_rule_of_boxes
@with_least_score
@with_copies
def review(
    out: Path, folder: Path, images: int, teachers: str | None, combine: str, keep_above: float, copies: bool
) -> None:
    """Write FOLDER for a labelling tool: images without a label that the detectors of OUT differ over most, with their boxes as COCO
    and as YOLO have them."""
    from teachers.labelling.review import review as write

    from .boxes_out import asked_for, tell_prepared

    segments, wanted = asked_for(out, "coco", teachers=teachers, combine=combine, keep_above=keep_above, copies=copies)
    written = write(segments, folder, wanted, images)
    click.echo(
        f"wrote {written.images:,} images with {written.boxes:,} boxes of a score of {keep_above:g} or more to "
        f"{folder / 'coco'} and {folder / 'yolo'}"
    )
    tell_prepared(written)
