"""Every kind of source gives the same rows; every kind of bad input is named with its place."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from teachers.config.preprocess import Preprocess
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.models.preprocess import Preprocessor
from teachers.preparing.look import look, source_digest
from teachers.preparing.prepare import prepare
from teachers.transfer_set.images import BadRow, Resize, decode_image, resized
from teachers.transfer_set.transfer_set import TransferSet

ROWS = 60
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pixels(rows: int = ROWS, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, kind, **options)
    return sink.getvalue()


def config(kind: str, path: Path | None, inputs="image", label="label", **changes) -> TransferSetConfig:
    source = changes.pop("source", None) or {"kind": kind, "path": str(path)}
    return TransferSetConfig.model_validate({"source": source, "inputs": inputs, "label": label} | changes)


def by_position(prepared: TransferSet) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rows of a one-file source in the order in which the source has them."""
    order = np.argsort([int(i.split("#")[1]) for s in prepared.segments for i in prepared.ids(s).to_pylist()])
    inputs = [prepared.inputs(segment) for segment in prepared.segments]
    whole = {name: np.concatenate([part[name] for part in inputs])[order] for name in inputs[0]}
    return whole, np.concatenate([prepared.labels(segment) for segment in prepared.segments])[order]


def hugging_face(images: list[dict], labels: list[int], names: list[str]) -> pa.Table:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    table = pa.table({"image": pa.array(images, IMAGE), "label": pa.array(labels, pa.int64())})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def ipc(path: Path, table: pa.Table, *, stream: bool = False, rows: int | None = None) -> Path:
    opened = pa.ipc.new_stream(path, table.schema) if stream else pa.ipc.new_file(path, table.schema)
    with opened as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def tables_of_mine(rows: int = ROWS, as_tables: bool = False):
    """A user's source."""
    table = pa.table(
        {"features": pa.array([[float(row), 1.0] for row in range(rows)]), "label": [row % 3 for row in range(rows)]}
    )
    return (table.slice(start, 7) for start in range(0, rows, 7)) if as_tables else table


def images_of_mine(**named):
    """A user's source that names files."""
    return pa.table({"image": pa.array([{"bytes": None, "path": "/etc/passwd"}] * 5, IMAGE), "label": [0, 1, 2, 0, 1]})


def no_table():
    return [1, 2, 3]


# ---- every kind -------------------------------------------------------------------------------------------------------


def test_digits_come_with_their_values_and_classes(tmp_path):
    from sklearn.datasets import load_digits

    given = config("", None, label="digit", source={"kind": "sklearn", "name": "digits"})
    inputs, labels = by_position(prepare(given, tmp_path / "out", chunk_rows=100))
    assert np.array_equal(inputs["image"][..., 0], load_digits().images) and inputs["image"].dtype == np.uint8
    assert np.array_equal(labels, load_digits().target)


@pytest.mark.parametrize(("name", "width", "classes"), [("iris", 4, 3), ("wine", 13, 3), ("breast_cancer", 30, 2)])
def test_the_other_sets_of_scikit_learn_are_features(tmp_path, name, width, classes):
    given = config("", None, "features", "target", source={"kind": "sklearn", "name": name})
    prepared = prepare(given, tmp_path / "out")
    assert prepared.columns[0].shape == (width,) and len(prepared.classes) == classes
    assert name != "iris" or prepared.classes == ("setosa", "versicolor", "virginica")


@pytest.mark.parametrize("form", ["parquet", "arrow file", "arrow stream", "compressed stream"])
def test_hugging_face_images_and_class_names_are_understood(tmp_path, form):
    images = [{"bytes": encoded(image), "path": None} for image in pixels()]
    table = hugging_face(images, [row % 3 for row in range(ROWS)], ["cat", "dog", "eel"])
    if form == "parquet":
        path = tmp_path / "data.parquet"
        pq.write_table(table, path, row_group_size=13)
    elif form == "compressed stream":
        path = tmp_path / "data.arrow"
        with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table, max_chunksize=9)
    else:
        path = ipc(tmp_path / "data.arrow", table, stream=form == "arrow stream", rows=11)
    given = config("parquet" if form == "parquet" else "arrow", path)
    prepared = prepare(given, tmp_path / "out", chunk_rows=10)
    inputs, labels = by_position(prepared)
    assert prepared.classes == ("cat", "dog", "eel") and prepared.columns[0].shape == (6, 5, 1)
    assert np.array_equal(inputs["image"][..., 0], pixels()) and np.array_equal(labels, np.arange(ROWS) % 3)


def nested(values: np.ndarray) -> pa.Array:
    return pa.array(values.tolist(), pa.list_(pa.list_(pa.uint8())))


def fixed(values: np.ndarray) -> pa.Array:
    array = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


@pytest.mark.parametrize("column", [nested, fixed, pa.FixedShapeTensorArray.from_numpy_ndarray])
def test_lists_of_pixels_are_images(tmp_path, column):
    path = tmp_path / "data.parquet"
    if column is pa.FixedShapeTensorArray.from_numpy_ndarray:
        path = ipc(tmp_path / "data.arrow", pa.table({"image": column(pixels()), "label": np.arange(ROWS) % 2}), rows=8)
    else:
        pq.write_table(pa.table({"image": column(pixels()), "label": np.arange(ROWS) % 2}), path)
    prepared = prepare(config(path.suffix[1:], path), tmp_path / "out")
    assert prepared.columns[0].kind == "image" and prepared.columns[0].shape == (6, 5, 1)
    assert np.array_equal(by_position(prepared)[0]["image"][..., 0], pixels())


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int16(), pa.float16()])
def test_lists_of_numbers_are_features(tmp_path, kind):
    values = np.random.default_rng(0).integers(-9, 9, (ROWS, 4)).astype(np.float16)
    lists = pa.array(values.astype(float).tolist(), pa.list_(pa.float64())).cast(pa.list_(kind))
    pq.write_table(pa.table({"x": lists, "label": np.arange(ROWS) % 2}), tmp_path / "data.parquet")
    prepared = prepare(config("parquet", tmp_path / "data.parquet", "x"), tmp_path / "out")
    exact = np.float64 if kind == pa.float64() else np.float32
    assert prepared.columns[0].kind == "number" and prepared.columns[0].dtype == exact
    found = by_position(prepared)[0]["x"]
    assert found.dtype == exact and np.array_equal(found, values.astype(exact))


@pytest.mark.parametrize("form", ["int64", "uint32 beside int8", "decimal", "float64", "lists of int64", "csv"])
def test_numbers_that_float32_would_round_are_normalised_first(tmp_path, form):
    """Seconds since 1970: float32 has steps of 128 there, and the rows differ by less than 100."""
    seconds = 1_700_000_000 + np.random.default_rng(0).integers(0, 100, ROWS)
    path, inputs = tmp_path / "data.parquet", ["t"]
    if form == "csv":
        path = tmp_path / "data.csv"
        path.write_text("\n".join(["t,label", *(f"{t},{row % 2}" for row, t in enumerate(seconds.tolist()))]))
    else:
        plain = pa.array(seconds, pa.int64())
        columns = {
            "int64": {"t": plain},
            "uint32 beside int8": {"t": plain.cast(pa.uint32()), "small": pa.array([1, 2] * 30, pa.int8())},
            "decimal": {"t": plain.cast(pa.decimal128(20, 0)).cast(pa.decimal128(24, 3))},
            "float64": {"t": plain.cast(pa.float64())},
            "lists of int64": {"t": pa.array([[t] for t in seconds.tolist()], pa.list_(pa.int64()))},
        }[form]
        inputs = [*columns]
        pq.write_table(pa.table(columns | {"label": np.arange(ROWS) % 2}), path)
    prepared = prepare(config(path.suffix[1:], path, inputs), tmp_path / "out")
    preprocessor = Preprocessor(Preprocess(), prepared.columns)
    inputs, _ = by_position(prepared)
    (name,) = inputs
    train = np.concatenate([prepared.inputs(segment)[name] for segment in prepared.of("train")])[:, 0]
    expected = (seconds - train.mean()) / train.std()
    found = preprocessor(inputs)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_scalar_columns_are_joined_in_the_order_of_the_recipe(tmp_path):
    table = pa.table(
        {"a": np.arange(ROWS), "b": np.arange(ROWS) * 0.5, "c": np.arange(ROWS) % 2 == 0, "label": ["x", "y"] * 30}
    )
    pq.write_table(table, tmp_path / "data.parquet")
    inputs = [{"column": "c", "as": "number"}, "a", "b"]
    prepared = prepare(config("parquet", tmp_path / "data.parquet", inputs), tmp_path / "out")
    expected = np.stack([np.arange(ROWS) % 2 == 0, np.arange(ROWS), np.arange(ROWS) * 0.5], axis=1).astype(np.float32)
    assert [column.name for column in prepared.columns] == ["features"]
    assert np.array_equal(by_position(prepared)[0]["features"], expected)


def test_images_and_numbers_stand_side_by_side(tmp_path):
    table = pa.table({"image": nested(pixels()), "age": np.arange(ROWS), "label": np.arange(ROWS) % 2})
    pq.write_table(table, tmp_path / "data.parquet")
    prepared = prepare(config("parquet", tmp_path / "data.parquet", ["age", "image"]), tmp_path / "out")
    inputs, _ = by_position(prepared)
    assert np.array_equal(inputs["image"][..., 0], pixels()) and np.array_equal(
        inputs["features"][:, 0], np.arange(ROWS)
    )


def test_a_folder_of_tables_is_read_in_the_order_of_names(tmp_path):
    table = tables_of_mine()
    for number, name in enumerate(["b/1.parquet", "a.parquet", "_metadata.parquet", ".hidden.parquet"]):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(number * 10, 10), tmp_path / "data" / name)
    prepared = prepare(config("parquet", tmp_path / "data", "features"), tmp_path / "out")
    ids = {name for segment in prepared.segments for name in prepared.ids(segment).to_pylist()}
    assert ids == {f"{file}#{row}" for file in ("a.parquet", "b/1.parquet") for row in range(10)}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_tables_hold_numeric_features(tmp_path, kind):
    values = np.random.default_rng(0).normal(size=(ROWS, 2))
    path = tmp_path / f"data.{kind}"
    if kind == "csv":
        lines = ["a,label,b", *(f"{a!r},c{row % 3}, {b!r} " for row, (a, b) in enumerate(values.tolist()))]
    else:
        lines = [json.dumps({"a": a, "b": b, "label": f"c{row % 3}"}) for row, (a, b) in enumerate(values.tolist())]
    path.write_text("\n".join(lines))
    prepared = prepare(config(kind, path, ["a", "b"]), tmp_path / "out")
    inputs, labels = by_position(prepared)
    assert prepared.classes == ("c0", "c1", "c2") and np.array_equal(labels, np.arange(ROWS) % 3)
    assert np.array_equal(inputs["features"], values)


def test_text_that_is_longer_than_a_block_is_read_whole(tmp_path):
    rows, half = 150_000, f".5{'0' * 30}"  # more than 4 MiB
    csv, jsonl = tmp_path / "data.csv", tmp_path / "data.jsonl"
    csv.write_text("\n".join(["a,label", *(f"{row}{half},{row % 7}" for row in range(rows))]))
    jsonl.write_text("\n".join(f'{{"a": {row}{half}, "label": {row % 7}}}' for row in range(rows)))
    for path in (csv, jsonl):
        prepared = prepare(config(path.suffix[1:], path, "a"), tmp_path / path.suffix)
        inputs, labels = by_position(prepared)
        assert np.array_equal(inputs["features"][:, 0], np.arange(rows) + np.float32(0.5))
        assert np.array_equal(labels, np.arange(rows) % 7)


@pytest.mark.parametrize("form", ["npz", "compressed npz", "npy folder", "Fortran order", "big-endian"])
def test_numpy_arrays_are_columns(tmp_path, form):
    values = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    arrays = {"image": pixels(shape=(6, 5, 3)), "x": values, "label": np.arange(ROWS) % 4}
    path = tmp_path / "data.npz"
    if form == "npy folder":
        path = tmp_path / "data"
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    elif form == "compressed npz":
        np.savez_compressed(path, **arrays)
    elif form == "Fortran order":
        np.savez(path, image=arrays["image"], x=np.asfortranarray(values), label=arrays["label"])
    elif form == "big-endian":
        np.savez(path, image=arrays["image"], x=values.astype(">f4"), label=arrays["label"].astype(">i8"))
    else:
        np.savez(path, **arrays)
    prepared = prepare(config("numpy", path, ["image", "x"]), tmp_path / "out", chunk_rows=17)
    inputs, labels = by_position(prepared)
    assert np.array_equal(inputs["image"], arrays["image"]) and np.array_equal(inputs["x"], values)
    assert np.array_equal(labels, arrays["label"])


@pytest.mark.parametrize("as_tables", [False, True])
def test_a_function_of_the_users_is_a_source(tmp_path, as_tables):
    source = {"kind": "import", "function": f"{__name__}:tables_of_mine", "arguments": {"as_tables": as_tables}}
    inputs, labels = by_position(prepare(config("", None, "features", source=source), tmp_path / "out"))
    assert np.array_equal(inputs["features"][:, 0], np.arange(ROWS)) and np.array_equal(labels, np.arange(ROWS) % 3)


def image_folder(root: Path, rows: int = ROWS, kind: str = "PNG", shape: tuple[int, ...] = (6, 5)) -> Path:
    for row, image in enumerate(pixels(rows, shape)):
        folder = root / ("cat" if row % 3 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row:03}.{kind.lower()}").write_bytes(encoded(image, kind))
    return root


@pytest.mark.parametrize(("kind", "shape"), [("PNG", (6, 5)), ("JPEG", (16, 12, 3))])
def test_an_image_folder_has_a_class_for_every_folder(tmp_path, kind, shape):
    root = image_folder(tmp_path / "data", kind=kind, shape=shape)
    (root / "empty").mkdir()
    (root / "README.md").write_text("beside the class folders nobody minds")
    (root / "cat" / ".DS_Store").write_text("hidden")
    prepared = prepare(config("image_folder", root), tmp_path / "out", chunk_rows=7)
    assert prepared.classes == ("cat", "dog", "empty")
    for segment in prepared.segments:
        for name, image, label in zip(
            prepared.ids(segment).to_pylist(), prepared.inputs(segment)["image"], prepared.labels(segment), strict=True
        ):
            with Image.open(root / name.removesuffix("#0")) as opened:
                assert np.array_equal(np.asarray(opened).reshape(image.shape), image)
            assert prepared.classes[label] == name.split("/")[0]


def test_split_folders_of_images_hold_class_folders(tmp_path):
    image_folder(tmp_path / "data" / "train")
    image_folder(tmp_path / "data" / "test", 9)
    split = {"files": {"train": "train", "test": "test"}, "validation": 0.2}
    prepared = prepare(config("image_folder", tmp_path / "data", split=split), tmp_path / "out")
    assert prepared.of("test")[0].num_rows == 9 and prepared.classes == ("cat", "dog")
    assert all(name.startswith("test/") for name in prepared.ids(prepared.of("test")[0]).to_pylist())


def test_folders_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    for number in range(11):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
        for row in range(6):
            (tmp_path / "data" / str(number) / f"{row}.png").write_bytes(encoded(pixels()[row]))
    prepared = prepare(config("image_folder", tmp_path / "data"), tmp_path / "out")
    assert prepared.classes == tuple(str(number) for number in range(11))


def test_tables_may_name_image_files_inside_their_folder(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    for row, image in enumerate(pixels()):
        (tmp_path / "data" / "images" / f"{row}.png").write_bytes(encoded(image))
    images = [{"bytes": None, "path": f"images/{row}.png"} for row in range(ROWS)]
    pq.write_table(hugging_face(images, [0, 1] * 30, ["a", "b"]), tmp_path / "data" / "rows.parquet")
    given = config("parquet", tmp_path / "data" / "rows.parquet")
    assert np.array_equal(by_position(prepare(given, tmp_path / "out"))[0]["image"][..., 0], pixels())
    before = source_digest(given)
    (tmp_path / "data" / "images" / "7.png").write_bytes(encoded(pixels(seed=1)[7]))
    assert source_digest(given) != before


# ---- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_other_colour_modes_become_rgb(mode):
    sink = io.BytesIO()
    Image.new("RGB", (4, 3), (0, 204, 51)).convert(mode).save(sink, "JPEG" if mode == "CMYK" else "PNG")
    made = decode_image(sink.getvalue())
    assert made.shape == (3, 4, 3) and np.abs(made.astype(int) - (0, 204, 51)).max() <= 8


def test_a_black_and_white_image_is_grey():
    sink = io.BytesIO()
    Image.new("1", (4, 3), 1).save(sink, "PNG")
    assert np.array_equal(decode_image(sink.getvalue()), np.full((3, 4, 1), 255))


def test_a_grey_image_among_colour_becomes_rgb_but_not_the_other_way(tmp_path):
    grey, colour = encoded(pixels()[0]), encoded(pixels(shape=(6, 5, 3))[0])
    assert np.array_equal(decode_image(grey, channels=3), np.repeat(pixels()[0][..., None], 3, axis=2))
    with pytest.raises(BadRow, match="3 channels, the rest have 1"):
        decode_image(colour, channels=1)


def test_deep_images_are_scaled():
    """16 bits hold 0 to 65535; the whole range becomes 0 to 255, as matplotlib reads it."""
    from matplotlib.image import imread

    payload = encoded((np.arange(256, dtype=np.uint16) * 257 + 40).clip(0, 65_535).reshape(16, 16))
    expected = np.round(255 * imread(io.BytesIO(payload), "png")).astype(np.uint8)
    assert np.array_equal(decode_image(payload)[..., 0], expected)


def test_a_photograph_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(np.zeros((8, 16, 3), np.uint8), "JPEG", exif=exif)).shape == (16, 8, 3)


def test_image_size_makes_squares_of_any_size(tmp_path):
    images = [{"bytes": encoded(pixels(1, (6 + row % 3, 5), row)[0]), "path": None} for row in range(ROWS)]
    pq.write_table(hugging_face(images, [0, 1] * 30, ["a", "b"]), tmp_path / "data.parquet")
    inputs, _ = by_position(prepare(config("parquet", tmp_path / "data.parquet", image_size=4), tmp_path / "out"))
    assert inputs["image"].shape == (ROWS, 4, 4, 1)
    with Image.open(io.BytesIO(images[1]["bytes"])) as image:
        assert np.array_equal(inputs["image"][1, ..., 0], np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR)))


def test_arrays_and_files_are_resized_alike():
    image = pixels(1, (20, 14, 3))
    for fit in ("squash", "crop", "pad"):
        resize = Resize(8, fit, "lanczos")
        assert np.array_equal(resized(image, resize)[0], decode_image(encoded(image[0]), resize=resize))


# ---- labels -----------------------------------------------------------------------------------------------------------


def labelled(tmp_path: Path, labels: pa.Array, **changes) -> tuple[TransferSet, list[int]]:
    table = pa.table({"x": np.arange(len(labels)) * 1.0, "label": labels})
    pq.write_table(table, tmp_path / "data.parquet")
    prepared = prepare(config("parquet", tmp_path / "data.parquet", "x", **changes), tmp_path / "out")
    return prepared, by_position(prepared)[1].tolist()


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a", "c"], ("a", "b", "c")),
        ([10, 9, 2], ("2", "9", "10")),
        (["10", "9", "2"], ("2", "9", "10")),
        ([1.0, 0.0, 2.0], ("0", "1", "2")),
        ([True, False, True], ("false", "true")),
    ],
)
def test_classes_are_the_sorted_values(tmp_path, values, classes):
    prepared, labels = labelled(tmp_path, pa.array(values * 20))
    assert prepared.classes == classes
    text = [str(int(v)) if isinstance(v, float) else str(v).lower() for v in values]
    assert labels == [classes.index(value) for value in text] * 20


def test_dictionary_columns_are_their_values(tmp_path):
    prepared, labels = labelled(tmp_path, pa.array(["b", "a", None] * 20).dictionary_encode())
    assert prepared.classes == ("a", "b") and labels == [1, 0, -1] * 20


@pytest.mark.parametrize(
    "missing", [pa.array([None, 1, 0] * 20), pa.array([float("nan"), 1.0, 0.0] * 20), pa.array(["", "1", "0"] * 20)]
)
def test_a_row_without_a_label_is_transfer_data_only(tmp_path, missing):
    prepared, labels = labelled(tmp_path, missing)
    assert labels == [-1, 1, 0] * 20
    train = prepared.of("train")[0]
    assert np.array_equal(prepared.labelled(train), prepared.labels(train) >= 0)
    assert prepared.report["without_label"] == (prepared.labels(train) < 0).sum() > 0


def test_without_a_label_column_no_row_has_one(tmp_path):
    pq.write_table(tables_of_mine(), tmp_path / "data.parquet")
    given = config("parquet", tmp_path / "data.parquet", "features", label=None, classes=["a", "b"])
    prepared = prepare(given, tmp_path / "out")
    assert prepared.classes == ("a", "b") and prepared.num_labelled == 0
    assert all((prepared.labels(segment) == -1).all() for segment in prepared.segments)


def test_named_classes_give_integers_their_meaning(tmp_path):
    prepared, labels = labelled(tmp_path, pa.array([0, 1, 2] * 20), classes=["zebra", "ape", "bee"])
    assert prepared.classes == ("zebra", "ape", "bee") and labels == [0, 1, 2] * 20


def test_names_that_are_integers_are_meant_by_value(tmp_path):
    _, labels = labelled(tmp_path, pa.array([1, 2, 3] * 20), classes=["3", "2", "1"])
    assert labels == [2, 1, 0] * 20


def test_minus_one_is_no_label_in_hugging_face_metadata(tmp_path):
    images = [{"bytes": encoded(image), "path": None} for image in pixels()]
    pq.write_table(hugging_face(images, [-1, 0, 1] * 20, ["a", "b"]), tmp_path / "data.parquet")
    assert (
        by_position(prepare(config("parquet", tmp_path / "data.parquet"), tmp_path / "out"))[1].tolist()
        == [-1, 0, 1] * 20
    )


# ---- bad rows ---------------------------------------------------------------------------------------------------------


SPOILT = {
    "undecodable": "cannot be decoded",
    "no image": "not a PNG, JPEG, GIF or WebP image",
    "bomb": "a decompression bomb?",
    "another size": "7 x 5 pixels, the rest have 6 x 5; give `image_size`",
    "missing image": "image: missing",
    "path outside": "leaves the source's folder",
    "absolute path": "leaves the source's folder",
    "link outside": "leaves the source's folder",
    "no such file": "cannot be read: No such file",
    "nan": r"x\[1\] is nan",
    "infinite": r"x\[0\] is inf",
    "too large": "not a finite float32",
    "too short": r"has shape \[1\], the rest have \[2\]",
    "missing list": "x is missing",
    "missing value": "a missing value",
    "label outside": "label 7 is outside the 2 classes 'a' to 'b'",
    "no id": r"name \(the id\) is missing",
    "no group": r"name \(the group\) is missing",
}
"""What must be said of a row, by what is wrong with it."""


def spoilt(tmp_path: Path, case: str) -> TransferSetConfig:
    """A source with one bad row at number 40 (beyond what is looked at first)."""
    path, images = tmp_path / "data.parquet", [{"bytes": encoded(image), "path": None} for image in pixels()]
    features: list = [[1.0, 2.0]] * ROWS
    labels: list = [0, 1] * 30
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(pixels()[0]))
    bad_image = {
        "undecodable": encoded(pixels()[0])[:60],
        "no image": b"BM 8",
        "another size": encoded(pixels(1, (7, 5))[0]),
        "missing image": None,
    }
    bad_path = {
        "path outside": "../outside.png",
        "absolute path": str(outside),
        "link outside": "link.png",
        "no such file": "no.png",
    }
    bad_features = {
        "nan": [0.0, float("nan")],
        "infinite": [float("inf"), 0.0],
        "too large": [1e300, 0.0],
        "too short": [1.0],
        "missing list": None,
        "missing value": [None, 1.0],
    }
    names = [None if row == 40 and case in ("no id", "no group") else f"n{row}" for row in range(ROWS)]
    changes: dict = {"no id": {"id": "name"}, "no group": {"split": {"group_by": "name"}}}.get(case, {})
    if case == "label outside":
        labels[40] = 7
    if case == "bomb":
        images[40] = {"bytes": bomb(), "path": None}
    if case in bad_image:
        images[40] = {"bytes": bad_image[case], "path": None}
    if case in bad_path:
        (tmp_path / "data").mkdir()
        path = tmp_path / "data" / "data.parquet"
        (tmp_path / "data" / "link.png").symlink_to(outside)
        images[40] = {"bytes": None, "path": bad_path[case]}
    if case in bad_features:
        features[40] = bad_features[case]
    table = (
        hugging_face(images, labels, ["a", "b"])
        .append_column("x", pa.array(features))
        .append_column("name", pa.array(names))
    )
    pq.write_table(table, path, row_group_size=20)
    return config("parquet", path, "x" if case in bad_features else "image", **changes)


def bomb() -> bytes:
    """A small PNG whose header claims 20,000 x 20,000 pixels."""
    payload = bytearray(encoded(pixels()[0]))
    payload[16:24] = struct.pack(">II", 20_000, 20_000)
    payload[29:33] = struct.pack(">I", zlib.crc32(payload[12:29]))
    return bytes(payload)


@pytest.mark.parametrize("case", SPOILT)
def test_a_bad_row_stops_preparing_and_is_named(tmp_path, case):
    with pytest.raises(DataError, match=rf"(?s)1 row cannot be used.*data.parquet#40: .*{SPOILT[case]}"):
        prepare(spoilt(tmp_path, case), tmp_path / "out")


@pytest.mark.parametrize("case", SPOILT)
def test_a_bad_row_can_be_skipped_and_is_counted(tmp_path, case):
    given = spoilt(tmp_path, case).model_copy(update={"on_bad_row": "skip"})
    prepared = prepare(given, tmp_path / "out")
    assert prepared.report["bad_rows"] == 1 and prepared.report["first_bad_rows"][0].startswith("data.parquet#40: ")
    ids = {name for segment in prepared.segments for name in prepared.ids(segment).to_pylist()}
    assert len(ids) == ROWS - 1 and "data.parquet#40" not in ids


def test_of_many_bad_rows_twenty_are_named(tmp_path):
    values = np.ones(100)
    values[50:] = np.nan
    pq.write_table(pa.table({"x": values, "label": np.arange(100) % 2}), tmp_path / "data.parquet")
    with pytest.raises(DataError) as raised:
        prepare(config("parquet", tmp_path / "data.parquet", "x"), tmp_path / "out")
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("50 rows cannot be used") and "on_bad_row" in lines[0]
    assert (
        lines[1] == "  data.parquet#50: x is nan, not a finite float32"
        and lines[-1] == "  and 30 more"
        and len(lines) == 22
    )


def test_bad_lines_of_a_csv_file_are_named_and_move_no_other_row(tmp_path):
    lines = ["a,b,label", *(f"{row},1,x" for row in range(ROWS))]
    lines[5], lines[21], lines[41] = "4,oops,x", "20,1", "40,,x"
    (tmp_path / "data.csv").write_text("\n".join(lines))
    given = config("csv", tmp_path / "data.csv", ["a", "b"])
    with pytest.raises(DataError) as raised:
        prepare(given, tmp_path / "out")
    assert "#4: b is 'oops', not a number" in str(raised.value) and "#40: b is missing" in str(raised.value)
    assert "#20: 2 values, the header names 3" in str(raised.value)
    inputs, _ = by_position(prepare(given.model_copy(update={"on_bad_row": "skip"}), tmp_path / "out"))
    assert inputs["features"][:, 0].tolist() == [row for row in range(ROWS) if row not in (4, 20, 40)]


def test_bad_lines_of_a_json_lines_file_are_named(tmp_path):
    lines = [json.dumps({"a": row, "x": [1.0, row], "label": "c"}) for row in range(ROWS)]
    lines[3], lines[7], lines[11], lines[15] = (
        "{oops",
        "[1]",
        '{"a": "b", "x": [1, 2], "label": "c"}',
        '{"a": 1, "x": ["y", 2]}',
    )
    lines[19] = '{"a": NaN, "x": [1, 2], "label": "c"}'
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    given = config("jsonl", tmp_path / "data.jsonl", ["a", "x"])
    with pytest.raises(DataError) as raised:
        prepare(given, tmp_path / "out")
    for said in (
        "#3: not JSON",
        "#7: a JSON list, not an object",
        "#11: a is 'b', not a number",
        "#15: x is missing",
        "#19: a is ",
    ):
        assert said in str(raised.value)
    inputs, _ = by_position(prepare(given.model_copy(update={"on_bad_row": "skip"}), tmp_path / "out"))
    assert inputs["features"][:, 0].tolist() == [row for row in range(ROWS) if row not in (3, 7, 11, 15, 19)]


def test_what_is_no_image_in_a_class_folder_is_a_bad_row(tmp_path):
    root = image_folder(tmp_path / "data")
    (root / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "secret.png").write_bytes(encoded(pixels()[0]))
    (root / "dog" / "zz.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "elsewhere").mkdir()
    (root / "eel").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError) as raised:
        prepare(config("image_folder", root), tmp_path / "out")
    assert "cat/notes.txt#0: image: not a PNG, JPEG, GIF or WebP" in str(raised.value)
    assert "dog/zz.png#0: image: the path 'dog/zz.png' leaves" in str(raised.value)
    assert "eel#0: image: the path 'eel' leaves" in str(raised.value)


def test_a_function_may_not_name_files(tmp_path):
    source = {"kind": "import", "function": f"{__name__}:images_of_mine"}
    with pytest.raises(DataError, match="a source without files must give the bytes"):
        look(config("", None, source=source))


# ---- sources that cannot be read ----------------------------------------------------------------------------------------


def table_file(tmp_path: Path) -> Path:
    pq.write_table(tables_of_mine(), tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": "featrues"}, "transfer_set.inputs: no column 'featrues'; did you mean 'features'"),
        ({"label": "lable"}, "transfer_set.label: no column 'lable'; did you mean 'label'"),
        ({"id": "nme"}, "transfer_set.id: no column 'nme'; there are 'features', 'label'"),
        ({"split": {"group_by": "lable"}}, "transfer_set.split.group_by: no column"),
        ({"id": "features"}, "transfer_set.id: "),
        ({"inputs": "label", "label": "features"}, "transfer_set.label: a label of type list"),
        ({"inputs": ["features", "features"]}, "'features' is there twice"),
        ({"inputs": ["features", "label"], "label": None, "classes": ["a"]}, "would be joined to `features`"),
        ({"inputs": ["features", "label"]}, "'label' is the label, too"),
        ({"inputs": []}, "name a column"),
        ({"classes": ["a", "a"]}, "transfer_set.classes: 'a' is there twice"),
        ({"label": None}, "transfer_set.classes: without a label column"),
    ],
)
def test_what_the_recipe_gets_wrong_is_said_before_anything_is_prepared(tmp_path, changes, said):
    given = {"inputs": "features", **changes}
    with pytest.raises(RecipeError, match=said):
        look(config("parquet", table_file(tmp_path), **given))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (np.random.default_rng(0).random((ROWS, 2, 2)).tolist(), r"holds double of shape \[2, 2\]"),
        ([[["a"]]] * ROWS, "give images, numbers, categories, text or lists"),
    ],
)
def test_columns_of_no_use_are_refused(tmp_path, column, said):
    pq.write_table(pa.table({"x": column, "label": [0, 1] * 30}), tmp_path / "data.parquet")
    with pytest.raises(RecipeError, match=said):
        look(config("parquet", tmp_path / "data.parquet", "x"))


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("parquet", "data.parqet", "no such file or folder .*did you mean .*data.parquet"),
        ("parquet", "nowhere", "no such file or folder"),
        ("parquet", "empty", r"no .parquet or .pq file in this folder"),
        ("image_folder", "data.parquet", "not a folder"),
        ("numpy", "empty", "no .npz file in this folder"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, kind, name, said):
    table_file(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=said):
        look(config(kind, tmp_path / name))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train": "data.parquet", "test": "tset.parquet"}, "transfer_set.split.files.test: no such file"),
        ({"train": "data.parquet", "test": "../outside.parquet"}, "leaves the folder"),
        ({"train": "data.parquet", "test": "data.parquet"}, "data.parquet is a file of another split, too"),
    ],
)
def test_split_files_are_other_files_inside_the_source(tmp_path, files, said):
    (tmp_path / "data").mkdir()
    table_file(tmp_path / "data")
    pq.write_table(tables_of_mine(), tmp_path / "outside.parquet")
    with pytest.raises(RecipeError, match=said):
        look(config("parquet", tmp_path / "data", "features", split={"files": files}))


def test_a_link_out_of_the_source_folder_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").symlink_to(table_file(tmp_path))
    with pytest.raises(DataError, match="a link that leads out of the folder"):
        look(config("parquet", tmp_path / "data", "features"))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl", "numpy"])
def test_a_file_of_another_kind_is_named(tmp_path, kind):
    path = tmp_path / f"data.{'npz' if kind == 'numpy' else kind}"
    path.write_bytes(b"")
    with pytest.raises((DataError, RecipeError), match=r"data\.|no column"):
        look(config(kind, path, "features"))
    path.write_bytes(b"\xff\x00 no table at all \n" * 50)
    with pytest.raises((DataError, RecipeError), match=r"data\.|no column"):
        look(config(kind, path, "features"))


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "numpy", "arrow"])
def test_a_source_without_rows_is_refused(tmp_path, kind):
    path = tmp_path / f"data.{'npz' if kind == 'numpy' else kind}"
    table = tables_of_mine(0).cast(pa.schema([("features", pa.list_(pa.float64())), ("label", pa.int64())]))
    if kind == "numpy":
        np.savez(path, features=np.zeros((0, 3)), label=np.zeros(0, np.int64))
    elif kind == "arrow":
        ipc(path, table)
    elif kind == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text("features,label\n" if kind == "csv" else "\n")
    with pytest.raises(DataError, match="no rows"):
        prepare(config(kind, path, "features"), tmp_path / "out")


def test_an_image_folder_without_images_is_refused(tmp_path):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no rows"):
        look(config("image_folder", tmp_path / "data"))


def test_a_later_file_that_lacks_a_column_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(tables_of_mine(), tmp_path / "data" / "a.parquet")
    pq.write_table(tables_of_mine().rename_columns(["featurs", "label"]), tmp_path / "data" / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet: no column 'features'; did you mean 'featurs'"):
        prepare(config("parquet", tmp_path / "data", "features"), tmp_path / "out")


@pytest.mark.parametrize(
    ("column", "kind", "changes"),
    [
        ("features", "string", {}),
        ("label", "list", {}),
        ("name", "list", {"id": "name"}),
        ("name", "list", {"split": {"group_by": "name"}}),
        ("name", "struct", {"split": {"group_by": "name"}}),
    ],
)
def test_a_later_file_of_another_type_is_named_with_both_types(tmp_path, column, kind, changes):
    (tmp_path / "data").mkdir()
    table = tables_of_mine().append_column("name", pa.array([f"n{row}" for row in range(ROWS)]))
    odd = {"string": "words", "list": [1, 2], "struct": {"a": 1}}[kind]
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    at = table.schema.names.index(column)
    pq.write_table(table.set_column(at, column, pa.array([odd] * ROWS)), tmp_path / "data" / "b.parquet")
    with pytest.raises(DataError, match=rf"^b.parquet: '{column}' is {kind}.*, and .* in a.parquet"):
        look(config("parquet", tmp_path / "data", "features", **changes))


def test_lines_whose_type_changes_on_the_way_are_named(tmp_path):
    """JSON says the type of a value row by row: no schema tells it before."""
    long = "x" * 1000
    rows = [{"a": row, "g": "u" if row < 5000 else [row], "label": row % 2, "long": long} for row in range(6000)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = config("jsonl", tmp_path / "data.jsonl", "a", split={"group_by": "g"})
    with pytest.raises(DataError, match=r"^data.jsonl: 'g' is list.*, which names nothing"):
        prepare(given, tmp_path / "out")


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "data.npz", image=np.array([{"a": 1}] * 5, object), label=np.arange(5))
    with pytest.raises(DataError, match="pickled objects, which are never loaded"):
        look(config("numpy", tmp_path / "data.npz"))


def test_arrays_of_different_length_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((5, 2)), label=np.arange(4))
    with pytest.raises(DataError, match=r"different length: .*; a row of each"):
        look(config("numpy", tmp_path / "data.npz", "x"))


def test_an_archive_that_ends_early_is_named(tmp_path):
    np.savez(tmp_path / "whole.npz", x=np.zeros((500, 2)), label=np.arange(500))
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "data.npz", "w") as cut:
        cut.writestr("x.npy", whole.read("x.npy")[:-100])
        cut.writestr("label.npy", whole.read("label.npy"))
    with pytest.raises(
        DataError, match=r"data.npz: cannot be read as numpy: an array of shape \[500, 2\] ends too early"
    ):
        prepare(config("numpy", tmp_path / "data.npz", "x"), tmp_path / "out")


@pytest.mark.parametrize(
    ("function", "said"), [("no_table", "gives a int; return a pyarrow.Table"), ("missing", "has no 'missing'")]
)
def test_a_function_that_gives_no_table_is_refused(function, said):
    source = {"kind": "import", "function": f"{__name__}:{function}"}
    with pytest.raises(RecipeError, match=said):
        look(config("", None, source=source))


def test_labels_of_no_class_are_bad_rows(tmp_path):
    with pytest.raises(DataError, match=r"label 0.5 names no class, it is a number with decimals"):
        labelled(tmp_path, pa.array([0.0, 1.0, 1.0] * 20 + [0.5]))
    with pytest.raises(DataError, match="label 'bee' is not among the classes; did you mean 'been'"):
        labelled(tmp_path, pa.array(["bee", "ant"] * 30), classes=["been", "ant"])


def test_labels_that_are_all_missing_need_named_classes(tmp_path):
    with pytest.raises(DataError, match=r"name them in transfer_set.classes"):
        labelled(tmp_path, pa.nulls(ROWS, pa.int64()))


# ---- look and digest --------------------------------------------------------------------------------------------------


def test_a_look_knows_what_preparing_finds_and_writes_nothing(tmp_path):
    path = table_file(tmp_path)
    seen = look(config("parquet", path, "features"))
    prepared = prepare(config("parquet", path, "features"), tmp_path / "out")
    assert [(c.name, c.kind, c.shape, c.wide) for c in seen.columns] == [
        (c.name, c.kind, c.shape, c.wide) for c in prepared.columns
    ]
    assert (seen.classes, seen.num_rows, seen.num_bytes) == (None, ROWS, ROWS * 16)
    assert {entry.name for entry in tmp_path.iterdir()} == {"data.parquet", "out"}


def test_a_digest_is_of_the_content_not_of_the_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        table_file(tmp_path / name)
    digests = [source_digest(config("parquet", tmp_path / name, "features")) for name in ("a", "b")]
    assert digests[0] == digests[1]
    os.utime(tmp_path / "a" / "data.parquet", (0, 0))
    assert source_digest(config("parquet", tmp_path / "a", "features")) == digests[0]
    pq.write_table(tables_of_mine(ROWS + 1), tmp_path / "a" / "data.parquet")
    assert source_digest(config("parquet", tmp_path / "a", "features")) != digests[0]


def test_the_digest_of_a_function_is_of_its_code_and_arguments():
    digests = {
        source_digest(
            config("", None, source={"kind": "import", "function": f"{__name__}:{name}", "arguments": arguments})
        )
        for name, arguments in [("tables_of_mine", {}), ("tables_of_mine", {"rows": 5}), ("images_of_mine", {})]
    }
    assert len(digests) == 3


def test_an_image_folders_digest_minds_names_and_pixels_only(tmp_path):
    root = image_folder(tmp_path / "data", 9)
    before = source_digest(config("image_folder", root))
    (root / "README.md").write_text("no row")
    assert source_digest(config("image_folder", root)) == before
    (root / "dog" / "000.png").rename(root / "dog" / "moved.png")
    assert source_digest(config("image_folder", root)) != before
