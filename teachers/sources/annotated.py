"""Sources whose boxes stand in files beside the images: one table for COCO, VOC and YOLO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..config.transfer_set import SplitFiles
from ..transfer_set.transfer_set import SplitName
from .coco import coco_contents, coco_files
from .files import File, is_inside
from .voc import voc_contents, voc_files
from .yolo import yolo_contents, yolo_files

Found = tuple[Path, list[tuple[str, SplitName | None]]]


class Annotated(NamedTuple):
    files: Callable[[Any, SplitFiles | None], Found]
    """(source, files of the splits) -> (the folder of all, names in it and their splits)"""
    contents: Callable[[File], list[str]]
    """Every file that rows are made of, those that are missing or leave the folder too."""


ANNOTATED: dict[str, Annotated] = {
    "coco": Annotated(coco_files, coco_contents),
    "voc": Annotated(voc_files, voc_contents),
    "yolo": Annotated(yolo_files, yolo_contents),
}


def contents_of(file: File) -> list[str]:
    """The real files that decide the rows of `file`; a link that leaves the source is none of them."""
    assert file.root is not None
    names = ANNOTATED[file.source.kind].contents(file)
    return [name for name in names if is_inside(file.root, name) and (file.root / name).is_file()]
