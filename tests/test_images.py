"""Image files of every kind that people bring: what Pillow's own first frame shows, upright, in eight bits, at one size."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from teachers.config.preprocess import FitName
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.transfer_set.images import BadRow, Resize, decode_image

from .test_sources import ROWS, config, encoded, pixels

SIDES = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def palette(transparent: bool, *, as_bytes: bool = False) -> bytes:
    image = Image.fromarray(SIDES).quantize(16)
    options = {} if not transparent else {"transparency": bytes([0, 128] + [255] * 14) if as_bytes else 3}
    return saved(image, "PNG", **options)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_file_of_many_frames_is_its_first_one(kind: str) -> None:
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "lime", "blue")]
    payload = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert decode_image(payload).tolist() == np.asarray(frames[0]).tolist()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (saved(Image.fromarray(SIDES), "WEBP", lossless=True), SIDES),
        (palette(False), np.asarray(Image.fromarray(SIDES).quantize(16).convert("RGB"))),
        (palette(True), np.asarray(Image.fromarray(SIDES).quantize(16).convert("RGB"))),
        (palette(True, as_bytes=True), np.asarray(Image.fromarray(SIDES).quantize(16).convert("RGB"))),
        (saved(Image.fromarray(SIDES).convert("RGBA"), "PNG"), SIDES),
        (saved(Image.fromarray(SIDES[..., 0]).convert("LA"), "PNG"), SIDES[..., :1]),
        (saved(Image.fromarray(SIDES[..., 0]), "GIF"), SIDES[..., :1]),
        (saved(Image.fromarray(SIDES[..., 0] > 99), "PNG"), 255 * (SIDES[..., :1] > 99)),
    ],
    ids=["WebP", "palette", "one transparent colour", "transparent colours", "RGBA", "grey with alpha", "grey GIF", "bits"],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_an_image_is_what_it_shows_in_colour_or_grey(payload: bytes, expected: np.ndarray) -> None:
    assert np.array_equal(decode_image(payload), expected)


def test_cmyk_is_turned_into_the_colours_that_it_prints() -> None:
    image = Image.new("CMYK", (16, 12), (255, 0, 0, 0))  # cyan
    assert np.abs(decode_image(saved(image, "JPEG", quality=100)).astype(int) - (0, 255, 255)).max() <= 3


def test_sixteen_bits_are_scaled_not_cut() -> None:
    deep = np.linspace(0, 65_535, 12 * 16).reshape(12, 16).astype(np.uint16)
    found = decode_image(saved(Image.fromarray(deep), "PNG"))[..., 0]
    assert np.abs(found - deep / 257).max() <= 0.5 and found.min() == 0 and found.max() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_is_upright_whatever_file_holds_it(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    payload = saved(Image.fromarray(SIDES), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(payload)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(decode_image(payload), expected)
    assert expected.shape == ((16, 12, 3) if orientation > 4 else (12, 16, 3))


def test_what_is_no_such_image_is_a_bad_row_with_a_reason() -> None:
    for payload, said in (
        (b"BM" + bytes(60), "not a PNG, JPEG, GIF or WebP"),
        (palette(True)[:-40], "cannot be decoded"),
    ):
        with pytest.raises(BadRow, match=said):
            decode_image(payload)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "hamming", "box", "nearest"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_size_is_a_square_made_as_the_recipe_says(fit: FitName, resample: Any) -> None:
    image, by = Image.fromarray(SIDES), Image.Resampling[resample.upper()]
    expected = {
        "squash": image.resize((8, 8), by),
        "crop": image.resize((8, 8), by, box=(2, 0, 14, 12)),
        "pad": ImageOps.expand(image.resize((8, 6), by), (0, 1, 0, 1)),
    }[fit]
    found = decode_image(encoded(SIDES), resize=Resize(8, fit, resample))
    assert np.array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_images_of_all_sizes_are_prepared_by_the_recipes_rule(tmp_path: Path, fit: FitName) -> None:
    for row in range(ROWS):
        folder = tmp_path / "data" / "ab"[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:02}.png").write_bytes(encoded(SIDES if row % 3 else SIDES.transpose(1, 0, 2)))
    given = config("image_folder", tmp_path / "data", image_size=8, fit=fit, resample="bicubic")
    prepared = prepare(given, tmp_path / "out")
    for segment in prepared.segments:
        for name, image in zip(prepared.ids(segment).to_pylist(), prepared.inputs(segment)["image"], strict=True):
            payload = (tmp_path / "data" / name.removesuffix("#0")).read_bytes()
            assert np.array_equal(image, decode_image(payload, resize=Resize(8, fit, "bicubic")))


# ---- colour among grey ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_bad_row", ["stop", "skip"])
@pytest.mark.parametrize(
    "colours",
    [
        {"a": range(0), "b": range(40)},  # a class in colour after a class in grey
        {"a": range(40), "b": range(0)},
        {"a": range(39, 40), "b": range(0)},  # one image that nobody looks at first
        {"a": range(0), "b": range(17, 18)},
    ],
)
def test_grey_among_colour_becomes_colour_wherever_the_colour_stands(
    tmp_path: Path, colours: dict[str, range], on_bad_row: str
) -> None:
    expected: dict[str, np.ndarray] = {}
    for name, coloured in colours.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for row in range(40):
            image = pixels(1, (6, 5, 3) if row in coloured else (6, 5), row)[0]
            (tmp_path / "data" / name / f"{row:02}.png").write_bytes(encoded(image))
            expected[f"{name}/{row:02}.png#0"] = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    given = config("image_folder", tmp_path / "data", on_bad_row=on_bad_row)
    prepared = prepare(given, tmp_path / "out", chunk_rows=11)
    found = {
        name: image
        for segment in prepared.segments
        for name, image in zip(prepared.ids(segment).to_pylist(), prepared.inputs(segment)["image"], strict=True)
    }
    assert found.keys() == expected.keys() and prepared.report["bad_rows"] == 0
    assert all(np.array_equal(found[name], image) for name, image in expected.items())
    assert not [*(tmp_path / "out").glob(".pieces-*")]


def test_a_plan_sees_the_colour_of_rows_all_over_the_source(tmp_path: Path) -> None:
    for name, shape in (("a", (6, 5)), ("b", (6, 5, 3))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for row in range(40):
            (tmp_path / "data" / name / f"{row}.png").write_bytes(encoded(pixels(1, shape, row)[0]))
    assert look(config("image_folder", tmp_path / "data")).columns[0].shape == (6, 5, 3)
