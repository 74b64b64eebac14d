"""Functions that say boxes, what nobody may say of a row, and asking about mirror images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from teachers.config.teacher import CallableTeacher
from teachers.errors import TeacherError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher
from teachers.models.detectors.checked import wrong_boxes
from teachers.models.detectors.said import Keeping, Places, turned_back
from teachers.tasks.boxes import CLASS, SCORE, boxes_of, num_valid
from teachers.tasks.overlap import overlaps
from teachers.tasks.space import Space
from teachers.tasks.suppression import not_suppressed
from teachers.transfer_set.columns import Column

SPACE = Space("detection", ("cat", "dog"), max_boxes=4)
IMAGE = Column("image", "image", (8, 8, 3), (), ())
KEYS = np.array([11, 22, 33], np.uint64)
BOX = [0.1, 0.2, 0.5, 0.6]
HERE = "tests.test_detectors_callable:"


def dicts(batch: dict[str, Any]) -> list[dict[str, Any]]:
    two = {"boxes": [BOX, [0.2, 0.2, 0.9, 0.9]], "scores": [0.3, 0.8], "classes": ["cat", 1]}
    return [two, {"boxes": [], "scores": [], "classes": []}, two][: len(batch["image"])]


def arrays(batch: dict[str, Any]) -> torch.Tensor:
    rows = torch.zeros(len(batch["image"]), 2, 6)
    rows[..., CLASS] = -1
    rows[0] = torch.tensor([[*BOX, 0.3, 0.0], [0.2, 0.2, 0.9, 0.9, 0.8, 1.0]])
    rows[2] = rows[0]
    return rows


def flat(batch: dict[str, Any]) -> NDArray[Any]:
    return arrays(batch).flatten(1).numpy()


def knows_some(batch: dict[str, Any]) -> tuple[Any, NDArray[np.bool_]]:
    return dicts(batch), np.array([True, True, False])


def too_many(batch: dict[str, Any]) -> list[dict[str, Any]]:
    scores = np.linspace(0.05, 0.95, 10)
    return [{"boxes": [BOX] * 10, "scores": scores, "classes": [0] * 10} for _ in batch["image"]]


TRIES = [0]


def busy(batch: dict[str, Any]) -> list[Any]:
    TRIES[0] += 1
    return [None if TRIES[0] == 1 and number == 0 else said for number, said in enumerate(dicts(batch))]


def wrong(box: list[float]) -> list[dict[str, Any]]:
    return [
        {"boxes": [BOX], "scores": [0.5], "classes": [0]},
        {"boxes": [BOX, box[:4]], "scores": [0.5, box[4]], "classes": [0, box[5]]},
        {"boxes": [], "scores": [], "classes": []},
    ]


def inverted(batch: Any) -> Any:
    return wrong([0.5, 0.2, 0.1, 0.6, 0.9, 0])


def in_pixels(batch: Any) -> Any:
    return wrong([12.0, 30.0, 50.0, 60.0, 0.9, 0])


def not_finite(batch: Any) -> Any:
    return wrong([0.1, float("nan"), 0.5, 0.6, 0.9, 0])


def too_sure(batch: Any) -> Any:
    return wrong([*BOX, 1.5, 0])


def of_no_class(batch: Any) -> Any:
    return wrong([*BOX, 0.9, 2])


def below_all_classes(batch: Any) -> Any:
    return wrong([*BOX, 0.9, -1])


def another_name(batch: Any) -> Any:
    return [{"boxes": [BOX], "scores": [0.5], "classes": ["cow"]}] * 3


def no_scores(batch: Any) -> Any:
    return [{"boxes": [BOX], "classes": [0]}] * 3


def other_lengths(batch: Any) -> Any:
    return [{"boxes": [BOX, BOX], "scores": [0.5], "classes": [0]}] * 3


def five_columns(batch: Any) -> Any:
    return np.zeros((3, 4, 5))


def two_rows(batch: Any) -> Any:
    return dicts(batch)[:2]


def left_half(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Sees only what is bright in the left half: a box around it."""
    found = []
    for image in batch["image"]:
        bright = np.argwhere(image[:, : image.shape[1] // 2, 0] > 128)
        low, high = (bright.min(0), bright.max(0) + 1) if len(bright) else (np.zeros(2), np.zeros(2))
        size = np.array([*image.shape[:2]])
        corners = [*(low / size)[::-1], *(high / size)[::-1]]
        found.append(
            {
                "boxes": [corners] * bool(len(bright)),
                "scores": [0.9] * bool(len(bright)),
                "classes": [0] * bool(len(bright)),
            }
        )
    return found


def asked(name: str, rows: int = 3, images: Any = None, **more: Any) -> NDArray[np.float32]:
    config = CallableTeacher.model_validate(
        {"kind": "callable", "function": HERE + name, "output": "boxes", "retry_pause_s": 0.0} | more
    )
    how: dict[str, Any] = {"trained": None, "trust": (), "device": "cpu", "user_path": Path(__file__).parents[1]}
    teacher = load_teacher(config, columns=(IMAGE,), space=SPACE, **how)
    pixels = np.zeros((rows, 8, 8, 3), np.uint8) if images is None else images
    return boxes_of(Questioner(teacher, "mine", config).ask({"image": pixels}, KEYS[: len(pixels)]))


@pytest.mark.parametrize("name", ["dicts", "arrays", "flat"])
def test_a_function_says_boxes_as_dicts_or_as_an_array(name: str) -> None:
    said = asked(name)
    assert said.shape == (3, 4, 6) and num_valid(said).tolist() == [2, 0, 2]
    np.testing.assert_allclose(said[0, :2], [[0.2, 0.2, 0.9, 0.9, 0.8, 1], [*BOX, 0.3, 0]], rtol=1e-6)
    np.testing.assert_array_equal(said[2], said[0])


def test_a_row_that_a_function_does_not_know_is_unknown_and_an_empty_one_is_empty() -> None:
    said = asked("knows_some")
    assert np.isnan(said[2]).all() and (said[1, :, CLASS] == -1).all() and num_valid(said)[0] == 2


def test_of_too_many_boxes_the_best_are_kept_and_low_ones_where_that_is_asked_for() -> None:
    np.testing.assert_allclose(asked("too_many")[0, :, SCORE], [0.95, 0.85, 0.75, 0.65], rtol=1e-6)
    assert num_valid(asked("too_many", score_above=0.8)).tolist() == [2, 2, 2]
    assert num_valid(asked("too_many", nms_above=0.5)).tolist() == [1, 1, 1]


def test_a_row_that_could_not_be_answered_is_asked_again() -> None:
    TRIES[0] = 0
    np.testing.assert_array_equal(asked("busy"), asked("dicts"))


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "inverted",
            r"corners in another order \(the first: 0.5, 0.2, 0.1, 0.6, 0.9, 0 as x1, .*expected x1, y1, x2, y2 with x1 < x2",
        ),
        ("in_pixels", "corners outside 0 to 1 of the image .* of pixels, divide by the image's width and height"),
        ("not_finite", "NaN or infinity in a box"),
        ("too_sure", r"scores outside 0 to 1 \(the first: .*1.5"),
        ("of_no_class", "a class outside 0 to 1"),
        ("below_all_classes", "a class outside 0 to 1"),
    ],
)
def test_what_nobody_may_say_is_told_with_the_keys_of_its_rows(name: str, told: str, flips: bool) -> None:
    with pytest.raises(TeacherError, match=rf"teacher 'mine' says {told}.*, in 1 of 3 rows; sample_key 22"):
        asked(name, flips=flips)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("another_name", r"says 'cow' of row 0 of a batch, which is none of its classes \(cat, dog\)"),
        ("no_scores", "gave a dict with boxes, classes of row 0 of a batch; expected a list with"),
        ("other_lengths", r"gave boxes \[2, 4\], scores \[1\], classes \[1\] of row 0 of a batch"),
        ("five_columns", r"gave an array of shape \[3, 4, 5\]; expected a list with"),
        ("two_rows", r"returned scores of shape \[2, 24\], expected \[3, 24\]"),
    ],
)
def test_another_form_is_refused(name: str, told: str) -> None:
    with pytest.raises(TeacherError, match=told):
        asked(name)


def test_a_mirror_image_shows_what_the_image_does_not() -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[0, 2:4, 6:8] = 255  # on the right alone, which the function does not see
    images[1, 2:4, 0:2] = 255
    images[2, 2:4, 0:2] = images[2, 2:4, 6:8] = 255
    assert num_valid(asked("left_half", images=images)).tolist() == [0, 1, 1]
    both = asked("left_half", images=images, flips=True)
    assert num_valid(both).tolist() == [1, 1, 2]
    np.testing.assert_allclose(both[0, 0], [0.75, 0.25, 1.0, 0.5, 0.9, 0], rtol=1e-6)
    np.testing.assert_allclose(both[1, 0], [0.0, 0.25, 0.25, 0.5, 0.9, 0], rtol=1e-6)


def test_flips_of_who_sees_the_same_in_both_say_it_once() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    said, both = (asked("middle", images=images, flips=flips) for flips in (False, True))
    np.testing.assert_allclose(both, said, atol=1e-6)


def middle(batch: Any) -> Any:
    return [{"boxes": [[0.25, 0.1, 0.75, 0.6]], "scores": [0.9], "classes": [0]} for _ in batch["image"]]


def test_boxes_behind_the_end_are_no_boxes() -> None:
    row = torch.tensor([[*BOX, 0.5, -1, *BOX, 0.5, 0]])
    found = [what for rows, what in wrong_boxes(row, 2, may_not_know=False) if rows.any()]
    assert found == ["boxes behind the end of a row's boxes (a class of -1 ends them)"]


boxes = st.lists(
    st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 10)] * 2, st.integers(0, 2), st.integers(1, 1000)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(boxes, st.sampled_from([0.2, 0.5, 0.7, 1.0]))
def test_nms_is_what_one_pass_from_the_best_on_gives(found: list[tuple[int, ...]], above: float) -> None:
    found.sort(key=lambda each: -each[5])
    corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, *_ in found], dtype=torch.float32).reshape(-1, 4)
    label = torch.tensor([each[4] for each in found], dtype=torch.int64)
    iou, kept = overlaps(corners, corners), list[int]()
    for at in range(len(found)):
        if not any(label[at] == label[other] and iou[at, other] > above for other in kept):
            kept.append(at)
    assert torch.nonzero(not_suppressed(corners, label, above)).flatten().tolist() == kept


def test_turned_back_twice_is_as_it_was_and_no_box_stays_none() -> None:
    said = torch.from_numpy(asked("dicts").reshape(3, -1))
    torch.testing.assert_close(turned_back(turned_back(said)), said)
    assert num_valid(boxes_of(turned_back(said).numpy())).tolist() == [2, 0, 2]


def test_places_without_rows_or_without_boxes_are_rows_without_boxes() -> None:
    for keeping in (Keeping(3), Keeping(3, nms_above=0.5)):
        none = keeping.rows(Places(torch.zeros(0, 5, 4), torch.zeros(0, 5), torch.zeros(0, 5).long()))
        empty = keeping.rows(Places(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0).long()))
        assert none.shape == (0, 18) and num_valid(boxes_of(empty.numpy())).tolist() == [0, 0]
