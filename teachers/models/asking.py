"""A function that asks elsewhere: what it could not answer is asked again, after growing pauses. No other row is.

It says so in one of three ways: `None` in the place of a row's scores; `AskAgain`, of the whole batch; or it lets through
what an HTTP library raises when nobody answers, is too busy, or has had enough of us.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import AskAgain, TeacherError, UsersCodeError
from .scores import tensor_of

LONGEST_PAUSE_S = 120.0
"""Whatever a server asks for: a teacher that is silent for long counts as stalled."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers of HTTP that another try may not get."""
UNREACHED = {"ConnectionError", "TimeoutError", "Timeout", "TransportError", "APIConnectionError"}
"""Exceptions of Python, requests, httpx, openai, and all that are made from them."""

log = logging.getLogger(__name__)

Answers = np.ndarray | torch.Tensor
Batch = Mapping[str, np.ndarray]


def asked_until_answered(
    function: Callable[[Batch], Any], batch: Batch, name: str, *, retries: int, pause_s: float
) -> Answers:
    """The function's answers `[rows, C]`; rows that it could not answer are asked again alone, `retries` times at most.

    The pause before doubles each time, from `pause_s` on. Raises TeacherError for rows that nobody has answered then.
    """
    num_rows = len(next(iter(batch.values())))
    left = np.arange(num_rows)
    answers: list[Any] = [None] * num_rows
    for again in range(retries + 1):
        said, failure = _ask(function, {column: values[left] for column, values in batch.items()} if again else batch)
        if not again and failure is None and not _some_failed(said, num_rows):
            return said  # type: ignore[no-any-return]
        if failure is None and len(said) != len(left):
            raise TeacherError(
                f"{name} gave {len(said)} answers for the {len(left)} rows that were left; expected one for each"
            )
        for row, answer in zip(left, said if failure is None else (), strict=False):
            answers[row] = answer
        left = np.array([row for row in left if answers[row] is None], int)
        if not len(left):
            return _together(answers, name)
        why = f" ({failure})" if failure is not None else ""
        if again < retries:
            pause = min(max(pause_s * 2**again, getattr(failure, "after_s", None) or 0.0), LONGEST_PAUSE_S)
            unanswered = f"{name} could not answer {len(left)} of {num_rows} rows{why}"
            log.warning("%s; they are asked again in %.3g s", unanswered, pause)
            time.sleep(pause)
    raise TeacherError(
        f"{name} could not answer {len(left)} of {num_rows} rows in {retries + 1} tries{why}; what was answered before is "
        f"kept, and the same command asks for the rest"
    )


def with_unknown(said: Any, name: str) -> Any:
    """`(scores, known)`, `known` bool `[rows]`, as scores with NaN in the rows that are not known; anything else as it is.

    Raises TeacherError for a `known` of another length.
    """
    if not isinstance(said, tuple) or len(said) != 2:
        return said
    known = np.asarray(said[1])
    if known.dtype != bool or known.ndim != 1:  # answers about two rows
        return said
    scores = tensor_of(said[0]).detach().to("cpu", torch.float32, copy=True).numpy()
    if len(known) != len(scores):
        raise TeacherError(
            f"{name} gave scores of {len(scores)} rows and says of {len(known)} whether it knows them; expected one for each"
        )
    scores[~known] = np.nan
    return scores


def _together(answers: Sequence[Any], name: str) -> np.ndarray:
    try:
        return np.stack([np.asarray(answer, np.float32) for answer in answers])
    except (TypeError, ValueError) as error:
        raise TeacherError(
            f"{name} answered some rows otherwise than others ({error}); expected scores of one length"
        ) from error


def _ask(function: Callable[[Batch], Any], batch: Batch) -> tuple[Any, AskAgain | None]:
    """What it says, or why nobody answered."""
    try:
        return function(batch), None
    except UsersCodeError as error:
        failure = _passing(error.__cause__)
        if failure is None:
            raise
        return None, failure


def _some_failed(said: Any, num_rows: int) -> bool:
    is_list = isinstance(said, list | tuple) or (isinstance(said, np.ndarray) and said.dtype == object)
    return is_list and len(said) == num_rows and any(answer is None for answer in said)


def _passing(error: BaseException | None) -> AskAgain | None:
    """What may be gone at another try, as one exception; None for a mistake that stays."""
    if error is None or isinstance(error, AskAgain):
        return error
    response = getattr(error, "response", None)
    status = next((found for where in (error, response) for key in ("status_code", "code", "status") if isinstance(found := getattr(where, key, None), int)), None)  # fmt: skip
    reason = getattr(error, "reason", None)  # what urllib keeps of it
    kinds = {kind.__name__ for each in (error, reason) for kind in type(each).__mro__}
    if status not in PASSING and (status is not None or not kinds & UNREACHED):
        return None
    headers = getattr(error, "headers", None) or getattr(response, "headers", None) or {}
    after = str(headers.get("Retry-After", ""))
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return AskAgain(f"{type(error).__name__}: {said}", after_s=float(after) if after.isdecimal() else None)
