"""Rows that a teacher cannot answer: found among others, named, or left unknown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from teachers.config.teacher import DECIDES_NOTHING, CallableTeacher
from teachers.errors import BadRowsError, TeacherError, UsersCodeError
from teachers.labelling.bad_rows import MOST, answered_around
from teachers.labelling.heard import Heard
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

BRIGHT = 406
"""No sum of ten pixels is above that but in a few images."""


def said(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, 20:30].astype(np.float32)


def picky(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Raises for a whole batch in which one image is too bright for it."""
    total = inputs["image"].reshape(len(inputs["image"]), -1).astype(int).sum(1)
    if (total > BRIGHT).any():
        raise ValueError("an image is too bright")
    return said(inputs["image"])


def dizzy(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Infinity for the same images."""
    total = inputs["image"].reshape(len(inputs["image"]), -1).astype(int).sum(1)
    return np.where((total > BRIGHT)[:, None], np.inf, said(inputs["image"]))


def broken(inputs: dict[str, np.ndarray]) -> np.ndarray:
    raise KeyError("pixels")


def label(folder: Path, rows: TransferSet, function: str, **options: Any) -> SoftTargets:
    segment = rows.segment("train-0")
    about = segment.name, segment.digest, "dense", tuple(rows.classes), segment.num_rows, 200
    store = SoftTargetStore.create(folder, Spec("mine", "digest", *about))
    config = CallableTeacher(
        kind="callable", function=f"test_bad_rows:{function}", version="1", output="logits", **options
    )
    spec = TeacherSpec("mine", config, None, (), Path(__file__).parent)
    labeller = Labeller(spec, [LabelTask(rows.folder, segment.name, store.folder)], "cpu")
    for number in store.missing():
        labeller.label(0, number)
    return SoftTargets.open(store.folder)


def bright(rows: TransferSet) -> np.ndarray:
    images = rows.inputs(rows.segment("train-0"))["image"]
    return images.reshape(len(images), -1).astype(int).sum(1) > BRIGHT


@pytest.mark.parametrize("function", ["picky", "dizzy"])
def test_a_row_that_cannot_be_answered_is_left_unknown_and_no_other(
    function: str, digits: TransferSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = bright(digits)
    assert 0 < wrong.sum() <= MOST
    with caplog.at_level("WARNING"):
        found = label(tmp_path / "store", digits, function, on_bad_row="skip", batch_size=64).said().numpy()
    assert np.isnan(found).all(1).tolist() == wrong.tolist()
    segment = digits.segment("train-0")
    expected = said(digits.inputs(segment)["image"])
    shift = expected[~wrong] - found[~wrong]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=0.02)
    ids = digits.ids(segment)
    for row in np.flatnonzero(wrong):
        assert any(f"{ids[row]} of segment train-0: " in message for message in caplog.messages)


@pytest.mark.parametrize("function", ["picky", "dizzy"])
def test_unless_the_recipe_says_so_it_ends_labelling_with_its_name(
    function: str, digits: TransferSet, tmp_path: Path
) -> None:
    if function == "dizzy":  # whose rows are named by their keys, without another question
        with pytest.raises(TeacherError, match=r"says NaN or infinity.* in \d of 200 rows; sample_key \d+"):
            label(tmp_path / "store", digits, function)
        return
    with pytest.raises(BadRowsError, match=r"cannot answer \d rows? \(") as error:
        label(tmp_path / "store", digits, function)
    first = np.flatnonzero(bright(digits))[0]
    told = str(error.value)
    assert f"({digits.ids(digits.segment('train-0'))[first]} of segment train-0: " in told
    assert "on_bad_row: skip" in told and "\n" not in told


def test_of_a_teacher_that_answers_nothing_no_row_is_to_blame(digits: TransferSet, tmp_path: Path) -> None:
    with pytest.raises(UsersCodeError, match="KeyError: 'pixels'"):
        label(tmp_path / "store", digits, "broken", on_bad_row="skip")


@given(st.integers(1, 300), st.data())
def test_all_others_are_answered_whichever_rows_are_bad(rows: int, data: st.DataObject) -> None:
    most = min(MOST, rows - 1)
    bad = data.draw(st.sets(st.integers(0, rows - 1), max_size=most))
    assume(not {0, 1, 2} <= bad)  # nothing was answered before these, and no row is to blame then
    calls = 0

    def ask(part: slice) -> Heard:
        nonlocal calls
        calls += 1
        numbers = np.arange(part.start, part.stop)
        if bad & {*numbers.tolist()}:
            raise TeacherError("no")
        return Heard(numbers[:, None].astype(np.float32), {"layer": numbers[:, None] * np.ones((1, 2), np.float32)})

    found = answered_around(ask, rows, TeacherError("first"), "mine", str, skip=True)
    known = ~np.isnan(found.logits[:, 0])
    assert {*np.flatnonzero(~known).tolist()} == bad
    assert (found.logits[known, 0] == np.flatnonzero(known)).all()
    assert (found.more["layer"][known, 1] == np.flatnonzero(known)).all()
    assert calls <= 2 + 2 * max(len(bad), 1) * (int(np.log2(rows)) + 2)


def test_too_many_bad_rows_are_the_teachers_fault() -> None:
    def ask(part: slice) -> Heard:
        raise TeacherError("again")

    with pytest.raises(TeacherError, match=r"^first$"):
        answered_around(ask, 500, TeacherError("first"), "mine", str, skip=True)


def test_what_becomes_of_bad_rows_is_in_no_key_and_needs_a_store() -> None:
    given = {"kind": "callable", "function": "m:f", "version": "1", "output": "logits"}
    assert "on_bad_row" not in CallableTeacher(**given).model_dump() and "on_bad_row" in DECIDES_NOTHING
    with pytest.raises(ValidationError, match="leaves rows of a store unknown"):
        CallableTeacher(**given, on_bad_row="skip", mode="live")
