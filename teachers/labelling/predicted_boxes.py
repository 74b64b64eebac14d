"""Boxes that exist, put where they belong: rows are found by the names of their images.

An image that the files do not name is unknown; one that they name without a box is empty. Nothing is invented. Knows nothing of
stores.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..config.predictions import PredictionsTeacher
from ..config.transfer_set import TransferSetConfig
from ..errors import TeacherError
from ..models.detectors.said import Keeping, Places
from ..models.predicted_boxes import ImageBoxes, PredictedBoxes, read_boxes
from ..models.row_names import Names
from ..preparing.labels import names_in
from ..sources import chunks_of, files_of, positions_of, read
from ..tasks.boxes import CLASS, SCORE
from ..tasks.space import Space
from .joined import MOST_ROWS, NAMED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matched:
    """Which image of the files is of which row: `owner` by the row's place among `names`, the ids of all rows."""

    config: PredictionsTeacher
    predicted: PredictedBoxes
    names: Sequence[str]
    owner: Mapping[int, ImageBoxes]

    @classmethod
    def of(cls, config: PredictionsTeacher, space: Space, names: Sequence[str]) -> "Matched":
        """Raises RecipeError and TeacherError as `read_boxes`, and TeacherError where a name fits several rows, or two one."""
        predicted = read_boxes(config, space)
        rows, found = Names(names), dict[int, ImageBoxes]()
        for image in predicted.images:
            fitting = rows.like(image.name)
            if len(fitting) > 1:
                raise TeacherError(
                    f"{image.position}: {image.name!r} may be {names[fitting[0]]!r} or {names[fitting[1]]!r}; name images with the "
                    f"folders that tell them apart"
                )
            if fitting and (other := found.get(fitting[0])) is not None:
                raise TeacherError(
                    f"{config.path}: of {names[fitting[0]]!r} something is said twice, as {other.name!r} ({other.position}) and as "
                    f"{image.name!r} ({image.position}), and nobody knows which counts; leave one of them out"
                )
            found |= {at: image for at in fitting}
        return cls(config, predicted, names, found)

    def check_missing(self) -> None:
        """Raise TeacherError, with the first of them, for more rows of which nothing is said than the recipe allows."""
        missing = [name for at, name in enumerate(self.names) if at not in self.owner]
        if len(missing) <= self.config.max_missing * len(self.names):
            return
        owned = {image.name for image in self.owner.values()}
        strange = [image.name for image in self.predicted.images if image.name not in owned]
        others = (
            f"{len(strange):,} of its images are none of these rows{_some(strange)}"
            if strange
            else "all its images are rows"
        )
        empty = "" if self.config.images else "; images that were asked about and have no file are named in `images`"
        raise TeacherError(
            f"{self.config.path} says nothing of {len(missing):,} of {len(self.names):,} rows of the transfer set{_some(missing)}, and "
            f"max_missing is {self.config.max_missing:g}; {others}{empty}. A higher `max_missing` leaves them unknown"
        )

    def tell(self, max_boxes: int) -> None:
        """Warn of what is not as it stands in the files, or is missing there."""
        path, total = self.config.path, sum(len(image.boxes) for image in self.predicted.images)
        if (without := self.predicted.without_score) > 0:
            log.warning("%s: %d of %d boxes have no score, which counts as 1", path, without, total)
        if cut := sum(max(len(image.boxes) - max_boxes, 0) for image in self.owner.values()):
            told = "%s: %d boxes are left out, being beyond the best %d of their image (transfer_set.max_boxes)"
            log.warning(told, path, cut, max_boxes)
        if (missing := len(self.names) - len(self.owner)) > 0:
            log.warning("%s says nothing of %d of %d rows, in which it takes no part", path, missing, len(self.names))

    def rows(self, space: Space) -> NDArray[np.float32]:
        """f32 `[len(names), M * 6]`, NaN of rows of which nothing is said."""
        keeping, said = (
            Keeping(space.max_boxes, score_above=-1.0),
            np.full((len(self.names), space.width), np.nan, np.float32),
        )
        for at, image in self.owner.items():
            boxes = torch.from_numpy(image.boxes)[None]
            places = Places(boxes[..., :SCORE], boxes[..., SCORE].clamp(0, 1), boxes[..., CLASS].long())
            said[at] = keeping.rows(places)[0].numpy()
        return said


def _some(names: Sequence[str]) -> str:
    return f" (the first: {', '.join(map(repr, names[:NAMED]))})"


def source_names(made: TransferSetConfig) -> Iterator[str]:
    """What rows of a source will be called, in its order, without those that cannot be read."""
    column = made.id or made.input_names[0]
    for chunk in chunks_of(files_of(made), MOST_ROWS):
        if made.id is None and (positions := positions_of(chunk)) is not None:
            yield from positions
            continue
        for batch in read(chunk, [column], MOST_ROWS):
            if batch.positions and made.id is not None:
                yield from names_in(made.id, batch.data.column(0)).fill_null("").to_pylist()
            else:
                yield from batch.positions
