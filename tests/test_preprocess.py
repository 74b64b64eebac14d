"""Laws of preprocessing: shapes, numbers, and a round trip through a model folder's JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from teachers.config.preprocess import Normalise, Preprocess
from teachers.errors import RecipeError
from teachers.models.preprocess import Preprocessor
from teachers.transfer_set.columns import Column

COLOUR = Column("image", "image", (6, 8, 3), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
GREY = Column("image", "image", (8, 8, 1), (0.5,), (0.25,))
NUMBERS = Column("features", "number", (3,), (1.0, 2.0, 3.0), (1.0, 10.0, 0.5))


def pixels(column: Column, rows: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, *column.shape), dtype=np.uint8)


def channels_sum(inputs):
    """A user's function."""
    return inputs["image"].float().sum(dim=(1, 2))


def test_auto_normalises_by_the_training_rows():
    made = Preprocessor(Preprocess(), [COLOUR])({"image": pixels(COLOUR)})
    expected = (pixels(COLOUR) / 255 - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    assert made.shape == (5, 3, 6, 8) and made.dtype == torch.float32 and made.is_contiguous()
    np.testing.assert_allclose(made.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_null_leaves_numbers_alone_and_scales_images_to_one():
    config = Preprocess(normalise=None)
    values = np.array([[1.5, -2.0, 3.0]], np.float32)
    assert torch.equal(Preprocessor(config, [NUMBERS])({"features": values}), torch.tensor(values))
    assert torch.equal(
        Preprocessor(config, [GREY])({"image": np.full((1, 8, 8, 1), 255, np.uint8)}), torch.ones(1, 1, 8, 8)
    )


def test_explicit_numbers_are_taken_as_given():
    config = Preprocess(normalise=Normalise(mean=[0.0, 1.0, 2.0], std=[2.0, 2.0, 2.0]))
    made = Preprocessor(config, [NUMBERS])({"features": torch.tensor([[2.0, 3.0, 4.0]])})
    assert torch.equal(made, torch.ones(1, 3))


def test_resize_is_bilinear_with_antialiasing():
    config = Preprocess(resize=4, normalise=None)
    preprocessor = Preprocessor(config, [COLOUR])
    made = preprocessor({"image": pixels(COLOUR)})
    planes = torch.from_numpy(pixels(COLOUR)).permute(0, 3, 1, 2).float() / 255
    expected = F.interpolate(planes, (4, 4), mode="bilinear", antialias=True)
    assert preprocessor.input_shape == tuple(made.shape[1:]) == (3, 4, 4)
    torch.testing.assert_close(made, expected)


def test_several_columns_give_a_dict_by_name():
    preprocessor = Preprocessor(Preprocess(), [GREY, NUMBERS])
    made = preprocessor({"features": np.ones((5, 3), np.float32), "image": pixels(GREY)})
    assert preprocessor.input_shape == {"image": (1, 8, 8), "features": (3,)}
    assert {name: tuple(values.shape) for name, values in made.items()} == {"image": (5, 1, 8, 8), "features": (5, 3)}


def test_inputs_are_not_changed():
    given = torch.from_numpy(np.ones((2, 3), np.float32))
    Preprocessor(Preprocess(), [NUMBERS])({"features": given})
    assert torch.equal(given, torch.ones(2, 3))


def test_constants_made_in_inference_mode_serve_training_too():
    preprocessor = Preprocessor(Preprocess(), [NUMBERS])
    with torch.inference_mode():
        preprocessor({"features": torch.ones(2, 3)})
    given = torch.ones(2, 3, requires_grad=True)
    preprocessor({"features": given}).sum().backward()
    torch.testing.assert_close(given.grad, torch.tensor([[1.0, 0.1, 2.0]] * 2))


@pytest.mark.parametrize("config", [Preprocess(), Preprocess(resize=5), Preprocess(normalise=None)])
def test_what_a_model_folder_keeps_gives_the_same_inputs(config):
    first = Preprocessor(config, [COLOUR])
    again = Preprocessor.from_resolved(json.loads(json.dumps(first.resolved())), Path())
    assert again.input_shape == first.input_shape and again.resolved() == first.resolved()
    assert torch.equal(again({"image": pixels(COLOUR)}), first({"image": pixels(COLOUR)}))


def test_a_function_of_the_users_replaces_everything():
    config = Preprocess(function=f"{__name__}:channels_sum")
    preprocessor = Preprocessor(config, [COLOUR])
    assert preprocessor.input_shape == (3,)
    made = preprocessor({"image": pixels(COLOUR)})
    np.testing.assert_allclose(made.numpy(), pixels(COLOUR).sum(axis=(1, 2), dtype=np.float32))
    again = Preprocessor.from_resolved(preprocessor.resolved(), Path())
    assert torch.equal(again({"image": pixels(COLOUR)}), made)


@pytest.mark.parametrize(
    ("config", "columns", "said"),
    [
        (
            Preprocess(normalise=Normalise(mean=[0.5], std=[1.0])),
            [COLOUR],
            "has 1 numbers, column 'image' has 3 channels",
        ),
        (Preprocess(normalise=Normalise(mean=[0.5], std=[1.0])), [GREY, NUMBERS], "one input column"),
        (Preprocess(function="no_such_module:f"), [GREY], "no module"),
    ],
)
def test_a_preprocess_that_does_not_fit_is_refused(config, columns, said):
    with pytest.raises(RecipeError, match=said):
        Preprocessor(config, columns)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"other": pixels(GREY)}, "no column 'image'"),
        ({"image": pixels(COLOUR)}, r"shape \[6, 8, 3\], expected \[8, 8, 1\]"),
    ],
)
def test_inputs_of_another_kind_are_refused(inputs, said):
    with pytest.raises(RecipeError, match=said):
        Preprocessor(Preprocess(), [GREY])(inputs)
