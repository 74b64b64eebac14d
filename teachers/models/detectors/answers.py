"""What a function of the user's says of images, as rows of boxes. Knows nothing of whom it asks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import TeacherError
from ...tasks.boxes import BOX, CLASS, NO_CLASS, SCORE
from ..scores import tensor_of
from .checked import any_wrong
from .said import Keeping, Places

FORM = "a list with `{boxes: [n, 4], scores: [n], classes: [n]}` for each row, or an array [rows, n, 6]"

NOBODYS = -2.0
"""In place of a class of -1, which a box that somebody says cannot have."""


class Answers:
    """Turns what a function gives into f32 `[rows, M * 6]`: filtered, sorted, cut to the best M. A row with a box that nobody may say
    keeps that one, first."""

    def __init__(self, function: str, classes: Sequence[str], keeping: Keeping) -> None:
        self.function, self.keeping = function, keeping
        self.places = {name: number for number, name in enumerate(classes)}

    def __call__(self, said: Any) -> Any:
        """An array, or a list in which a row that nobody answered is None; a pair of either and `known`, bool `[rows]`, whose other
        rows are NaN. Raises TeacherError for anything else."""
        if isinstance(said, tuple) and len(said) == 2 and np.asarray(said[1]).dtype == bool:
            return self._known(self(said[0]), np.asarray(said[1]))
        if isinstance(said, Sequence):
            rows = [None if each is None else self._row(each, number) for number, each in enumerate(said)]
            return rows if any(row is None for row in rows) else self._stacked(rows)
        return self._stacked([self._kept(each) for each in self._of_array(said)])

    def _stacked(self, rows: Sequence[Any]) -> NDArray[np.float32]:
        return np.stack(rows) if rows else np.zeros((0, self.keeping.max_boxes * len(BOX)), np.float32)

    def _known(self, rows: Any, known: NDArray[np.bool_]) -> Any:
        if len(rows) != len(known):
            raise TeacherError(
                f"{self.function} gave boxes of {len(rows)} rows and says of {len(known)} whether it knows them; expected one for each"
            )
        nothing = np.full(self.keeping.max_boxes * len(BOX), np.nan, np.float32)
        found = [row if is_known else nothing for row, is_known in zip(rows, known, strict=True)]
        return found if any(row is None for row in found) else self._stacked(found)

    def _of_array(self, said: Any) -> list[NDArray[np.float32]]:
        """By row f32 [n, 6], without what pads it."""
        try:
            array = tensor_of(said).detach().to("cpu", torch.float32).numpy()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TeacherError(f"{self.function} gave a {type(said).__name__}; expected {FORM}") from error
        if array.ndim == 2 and array.shape[1] % len(BOX) == 0:
            array = array.reshape(len(array), -1, len(BOX))
        if array.ndim != 3 or array.shape[2] != len(BOX):
            raise TeacherError(f"{self.function} gave an array of shape {list(array.shape)}; expected {FORM}")
        return [row[row[:, CLASS] != NO_CLASS] for row in array]

    def _row(self, said: Any, number: int) -> NDArray[np.float32]:
        """Of one row, f32 [M * 6]. Raises TeacherError for what is no dict of boxes."""
        if not isinstance(said, Mapping) or not {"boxes", "scores", "classes"} <= set(said):
            what = (
                f"a dict with {', '.join(map(str, said))}" if isinstance(said, Mapping) else f"a {type(said).__name__}"
            )
            raise TeacherError(f"{self.function} gave {what} of row {number} of a batch; expected {FORM}")
        try:
            corners = np.asarray(said["boxes"], np.float32).reshape(-1, SCORE)
            scores = np.asarray(said["scores"], np.float32).reshape(-1)
            found = np.column_stack([corners, scores, self._classes(said["classes"], number)])
        except (TypeError, ValueError) as error:
            shapes = ", ".join(f"{name} {list(np.shape(said[name]))}" for name in ("boxes", "scores", "classes"))
            raise TeacherError(
                f"{self.function} gave {shapes} of row {number} of a batch; expected as many of each, boxes [n, 4] ({error})"
            ) from error
        return self._kept(found.astype(np.float32))

    def _classes(self, given: Any, number: int) -> NDArray[np.float32]:
        """Numbers, or names, of classes, f32 [n]."""
        given = list(given)
        if strange := [each for each in given if isinstance(each, str) and each not in self.places]:
            raise TeacherError(
                f"{self.function} says {strange[0]!r} of row {number} of a batch, which is none of its classes "
                f"({', '.join(self.places)}); name what it says in `classes`"
            )
        numbers = [self.places[each] if isinstance(each, str) else float(each) for each in given]
        return np.array([NOBODYS if number == NO_CLASS else number for number in numbers], np.float32)

    def _kept(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes f32 [n, 6] of a row as f32 [M * 6]."""
        each = torch.from_numpy(np.ascontiguousarray(found))
        if len(each) and bool(each.isnan().all()):
            return np.full(self.keeping.max_boxes * len(BOX), np.nan, np.float32)
        if (wrong := any_wrong(each, len(self.places), may_not_know=False)).any():
            row = np.zeros((self.keeping.max_boxes, len(BOX)), np.float32)
            row[:, CLASS], row[0] = NO_CLASS, each[wrong][0].numpy()
            return row.reshape(-1)
        places = Places(each[None, :, :SCORE], each[None, :, SCORE], each[None, :, CLASS].long())
        rows: NDArray[np.float32] = self.keeping.rows(places)[0].numpy()
        return rows
