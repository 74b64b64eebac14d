"""What no teacher may say: another shape than is expected, NaN, infinity, scores that are not what it declares."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config.task import AnswerName
from ..errors import TeacherError
from .declared import undeclared
from .detectors.checked import wrong_boxes
from .folded import Scores
from .scores import tensor_of
from .teacher import Teacher


def check_scores(
    scores: Scores, teacher: Teacher, name: str, sample_key: np.ndarray, called: str = "sample_key"
) -> Tensor:
    """The scores of the rows `sample_key` as f32 on the CPU. Raises TeacherError for what no teacher may say, which calls its rows
    by the name of `called`.

    Of a teacher that may not know, NaN says that it does not: of one class of many in all scores of a row, else in any.
    """
    try:
        checked = tensor_of(scores).detach().to("cpu", torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TeacherError(
            f"teacher {name!r} returned a {type(scores).__name__}, expected an array ({error})"
        ) from error
    expected = (len(sample_key), teacher.width)
    if teacher.answer == "boxes" and tuple(checked.shape) == expected:
        for wrong, what in wrong_boxes(checked, len(teacher.classes), may_not_know=teacher.may_not_know):
            _complain(wrong, sample_key, f"teacher {name!r} says {what}", called)
        return checked
    if tuple(checked.shape) != expected:
        raise TeacherError(
            f"teacher {name!r} returned scores of shape {list(checked.shape)}, expected {list(expected)}: a row for each input "
            f"and a column for each of its {COLUMNS[teacher.answer]}; of the rows from {called} {sample_key[0]} on"
        )
    unknown, told = checked.isnan() & teacher.may_not_know, ""
    if teacher.may_not_know and teacher.answer in WHOLE:
        unknown &= unknown.all(1, keepdim=True)
        told = " (NaN in all scores of a row would say that it knows nothing of it)"
    _complain(
        ~(checked.isfinite() | unknown).all(1), sample_key, f"teacher {name!r} says NaN or infinity{told}", called
    )
    wrong = torch.from_numpy(undeclared(checked.numpy(), teacher.output, teacher.answer))
    _complain(wrong, sample_key, f"teacher {name!r} declares `output: {teacher.output}`, but they are not", called)
    return checked


COLUMNS: dict[AnswerName, str] = {
    "class_axis": "classes",
    "class_set": "classes",
    "values": "numbers",
    "boxes": "boxes' corners, score and class",
}
WHOLE: tuple[AnswerName, ...] = ("class_axis", "boxes")
"""Of which a teacher knows all of a row, or nothing."""


def check_features(
    values: Tensor, output: str, name: str, sample_key: np.ndarray, shape: Sequence[int] | None = None
) -> np.ndarray:
    """What a layer gives of the rows `sample_key`, f32 `[rows, *shape]`, on the CPU. Raises TeacherError for NaN or infinity, and
    for another `shape` than of the rows before."""
    found = values.detach().to("cpu", torch.float32)
    expected = [len(sample_key), *(found.shape[1:] if shape is None else shape)]
    if [*found.shape] != expected:
        raise TeacherError(
            f"teacher {name!r} gives {[*found.shape]} as {output}, expected {expected}, as of the rows before; of the rows from "
            f"sample_key {sample_key[0]} on"
        )
    finite = found.reshape(len(found), -1).isfinite().all(1)
    _complain(~finite, sample_key, f"teacher {name!r} gives NaN or infinity as {output}", "sample_key")
    features: np.ndarray = found.numpy()
    return features


def _complain(wrong: Tensor, sample_key: np.ndarray, what: str, called: str) -> None:
    if num_wrong := int(wrong.sum()):
        keys = ", ".join(str(key) for key in sample_key[wrong.numpy()][:5])
        raise TeacherError(
            f"{what}, in {num_wrong} of {len(sample_key)} rows; {called} {keys}{' ...' * (num_wrong > 5)}"
        )
