"""Labels out: what detectors said in their stores, each and together, as a folder that any trainer takes, with its images.

Memory holds a window of rows. Knows nothing of recipes or Ray.
"""

import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import RecipeError, StoreError
from ..soft_targets.alignment import Alignment
from ..soft_targets.class_map import ClassMap
from ..soft_targets.combine.rules import COMBINE
from ..soft_targets.reader import SoftTargets
from ..sources.upright import UNTURNED, size_in
from ..storage.drafted import drafted_folder
from ..storage.seal import inside
from ..tasks.boxes import SCORE, boxes_of
from ..transfer_set.answers import Answered, answers_of
from ..transfer_set.transfer_set import Segment, TransferSet
from .box_files import FILES, IMAGES, BoxFiles, Shown, named_apart, usable

ROWS = 512
"""Of a window."""
TOGETHER = "together"
"""What all teachers say is called so among what each says."""
SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "WEBP": ".webp"}
ROW_NUMBER = re.compile(r"#\d+$")


@dataclass(frozen=True)
class Wanted:
    """What leaves. `teachers`: None is all; `rule`: how several become one; labels are boxes of a score of `keep_above` or more.

    `root`: folder of the source's images, to be linked (or copied); None, or where one is not there: pixels as they were
    prepared. `class_maps`: by teacher, the recipe's.
    """

    kind: str
    teachers: Sequence[str] | None = None
    rule: str = "wbf"
    keep_above: float = 0.3
    copies: bool = False
    root: Path | None = None
    class_maps: Mapping[str, ClassMap] | None = None


@dataclass
class Written:
    """`unknown`: images of which nobody knows anything, which are left out; `as_prepared`: written from prepared pixels."""

    images: int = 0
    boxes: int = 0
    unknown: int = 0
    as_prepared: int = 0


Chosen = NDArray[np.bool_] | None
"""Which rows of a segment leave; None: all."""


def export_boxes(
    segments: Sequence[Answered], folder: Path, wanted: Wanted, chosen: Sequence[Chosen] | None = None
) -> Written:
    """Write `folder` in one step, of all rows, or of those `chosen` in each segment. Raises RecipeError for what does not fit
    together, and where it is there already; StoreError while shards are missing, or the rows are not there."""
    rows, teachers = checked(segments, wanted)
    transfer_set = rows[0][0]
    names = iter(_names(transfer_set, [segment for _, segment in rows]))
    written = Written()
    with drafted_folder(folder) as draft:
        files = FILES[wanted.kind](draft, transfer_set.space.names)
        for number, each in enumerate(segments):
            some = None if chosen is None else chosen[number]
            _write_segment(each, teachers, wanted, names, draft, files, written, some)
        files.finish()
    return written


def checked(segments: Sequence[Answered], wanted: Wanted) -> tuple[list[tuple[TransferSet, Segment]], list[str]]:
    """The rows of each segment, and the teachers that are heard. Raises as `export_boxes`."""
    rows = [each.rows for each in segments if each.rows is not None]
    if len(rows) < len(segments) or not rows:
        raise StoreError("the rows that these stores are about are not there; give OUT, the folder of the whole run")
    transfer_set = rows[0][0]
    if transfer_set.space.answer != "boxes":
        raise RecipeError(f"boxes are what `task: detection` has; these stores are of `{transfer_set.space.task}`")
    teachers = _teachers(segments, wanted)
    if wanted.rule not in COMBINE["boxes"]:
        raise RecipeError(f"--combine: no rule {wanted.rule!r}; there are {', '.join(COMBINE['boxes'])}")
    return rows, teachers


def _teachers(segments: Sequence[Answered], wanted: Wanted) -> list[str]:
    there = dict.fromkeys(name for each in segments for name in each.stores)
    named = list(wanted.teachers or sorted(there))
    for name in named:
        if name not in there:
            raise RecipeError(f"--teachers: nobody called {name!r} has labelled here; there are {', '.join(there)}")
        for each in segments:
            if name not in each.stores:
                raise RecipeError(
                    f"{name!r} has not labelled the segment {each.name}: name those who have by --teachers; here there are "
                    f"{', '.join(each.stores)}"
                )
    return named


def _names(transfer_set: TransferSet, segments: Sequence[Segment]) -> Iterator[tuple[str, str]]:
    """(what the image may be called in the source, what it is called here) of every row, in order; the latter without an ending where
    there is none."""
    ids = [name for segment in segments for name in transfer_set.ids(segment).to_pylist()]
    keys = np.concatenate([transfer_set.keys(segment) for segment in segments]).tolist()
    files = [ROW_NUMBER.sub("", name) for name in ids]
    own = [
        name if Path(name).suffix.lower() in (*SUFFIX.values(), ".jpeg") else f"{key:016x}"
        for name, key in zip(files, keys, strict=True)
    ]
    return zip(files, named_apart(own, keys), strict=True)


def _write_segment(
    answered: Answered,
    teachers: Sequence[str],
    wanted: Wanted,
    names: Iterator[tuple[str, str]],
    draft: Path,
    files: BoxFiles,
    written: Written,
    chosen: Chosen,
) -> None:
    assert answered.rows is not None
    transfer_set, segment = answered.rows
    opened = {name: SoftTargets.open(answered.stores[name].folder) for name in teachers}
    keys, asked = transfer_set.keys(segment), asked_of(opened, transfer_set, wanted)
    (draft / IMAGES / segment.split).mkdir(parents=True, exist_ok=True)
    for first in range(0, segment.num_rows, ROWS):
        rows = slice(first, min(first + ROWS, segment.num_rows))
        said = heard(opened, transfer_set, wanted, rows)
        together = _together(list(said.values()), wanted.rule, asked)
        stored = transfer_set.inputs(segment, first, rows.stop - first, as_stored=True)
        ((column, held),) = [(each, stored[each.name]) for each in transfer_set.columns if each.kind == "image"]
        for row in range(rows.stop - first):
            source, name = next(names)
            if chosen is not None and not chosen[first + row]:
                continue
            if bool(together[row].isnan().all()):
                written.unknown += 1
                continue
            payload = held[row] if column.encoded else _file_of(wanted.root, source)
            if payload is None:
                written.as_prepared += 1
            place, size = _put(draft / IMAGES / segment.split / name, payload, held[row], wanted)
            boxes = usable(boxes_of(together[row].numpy()))
            labels = boxes[boxes[:, SCORE] >= wanted.keep_above]
            knows = {each: values[row] for each, values in said.items() if not bool(values[row].isnan().all())}
            voices = {each: usable(boxes_of(values.numpy())) for each, values in knows.items()} | {TOGETHER: boxes}
            shown = Shown(place.relative_to(draft).as_posix(), segment.split, size, int(keys[first + row]))
            files.add(shown, labels, voices)
            written.images, written.boxes = written.images + 1, written.boxes + len(labels)


def _aligned(found: SoftTargets, transfer_set: TransferSet, name: str, wanted: Wanted) -> Alignment:
    return Alignment.of(found.spec.names, transfer_set.space, (wanted.class_maps or {}).get(name))


def heard(
    opened: Mapping[str, SoftTargets], transfer_set: TransferSet, wanted: Wanted, rows: slice
) -> dict[str, Tensor]:
    """What each teacher says of some rows, f32 `[rows, M * 6]`, in the classes of the transfer set."""
    return {
        name: _aligned(found, transfer_set, name, wanted)(answers_of(found, rows)) for name, found in opened.items()
    }


def asked_of(opened: Mapping[str, SoftTargets], transfer_set: TransferSet, wanted: Wanted) -> Tensor | None:
    """The classes that each teacher looks for, bool `[K, C]`; None where all look for all."""
    every = torch.ones(len(transfer_set.space.names), dtype=torch.bool)
    each = [_aligned(found, transfer_set, name, wanted).looked_for for name, found in opened.items()]
    stacked = torch.stack([every if own is None else own for own in each])
    return None if bool(stacked.all()) else stacked


def _together(said: Sequence[Tensor], rule: str, asked: Tensor | None) -> Tensor:
    """f32 `[rows, M * 6]`, NaN where nobody knows the row."""
    stacked = torch.stack([*said])
    known = ~stacked.isnan()
    combine = COMBINE["boxes"][rule]  # type: ignore[index]
    target, _ = combine(stacked.masked_fill(~known, 0.0), temperature=1.0, known=known, asked=asked)
    return target.masked_fill(~known.any(0), torch.nan)


def _file_of(root: Path | None, name: str) -> Path | None:
    """The source's own file of an image."""
    try:
        path = None if root is None else inside(root, name)
    except (StoreError, ValueError):
        return None
    return path if path is not None and path.is_file() else None


def _put(path: Path, payload: bytes | Path | None, pixels: Any, wanted: Wanted) -> tuple[Path, tuple[int, int]]:
    """Put one image where `path` says, upright; (its path, with an ending; its (width, height))."""
    if payload is None:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        path = path.with_name(f"{path.name if not path.suffix else path.stem}.png")
        image.save(path)
        return path, image.size
    held = payload if isinstance(payload, bytes) else payload.read_bytes()
    size, kind = size_in(io.BytesIO(held))
    path = path if path.suffix else path.with_name(path.name + SUFFIX.get(kind, ".png"))
    if size.orientation != UNTURNED:  # programs differ in whether they turn it
        with Image.open(io.BytesIO(held)) as image:
            ImageOps.exif_transpose(image).save(path, format=kind, **({"quality": 95} if kind == "JPEG" else {}))
    elif isinstance(payload, bytes):
        path.write_bytes(payload)
    else:
        _link(payload, path, copies=wanted.copies)
    return path, size.shown


def _link(source: Path, path: Path, *, copies: bool) -> None:
    """A second name of the same file, which needs no room; a copy where that cannot be."""
    try:
        if not copies:
            os.link(source.resolve(), path)
            return
    except OSError:
        pass
    shutil.copyfile(source, path)
