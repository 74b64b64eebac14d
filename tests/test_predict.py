"""Predictions of raw files: what evaluation says of the same rows, whatever file they come from."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import students
from orchestrator.cli.main import collegium
from orchestrator.cli.named_model import folder_of
from orchestrator.cli.predict import SOME_BAD
from orchestrator.reporting.document import FORMAT as REPORT_FORMAT
from orchestrator.stages.stages import FORMAT as STAGE_FORMAT
from students.delivering.predict import Predicted, predict_file, schema_for
from students.measuring.labelled import Labelled, ask
from teachers.config.preprocess import Preprocess
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError, StoreError
from teachers.models.folder import ModelConfig, load_model, save_model
from teachers.models.modules import build_module
from teachers.models.preprocess import Preprocessor
from teachers.preparing.prepare import prepare
from teachers.storage.seal import write_seal
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet

ROWS = 60
CLASSES = ["no", "yes", "perhaps"]


def model_of(prepared: TransferSet, folder: Path, preprocess: Preprocess | None = None) -> Path:
    """An untrained network for these rows, as training leaves one."""
    torch.manual_seed(0)
    ready = Preprocessor(preprocess or Preprocess(), prepared.columns)
    model, arguments = "teachers.zoo:mlp", {"hidden": 8}
    module = build_module(model, arguments, num_classes=len(prepared.classes), input_shape=ready.input_shape)
    config = ModelConfig(model, arguments, prepared.space, ready.resolved(), prepared.made_of)
    save_model(folder, module.state_dict(), config)
    return folder


def evaluated(prepared: TransferSet, folder: Path) -> dict[str, tuple[str, list[float]]]:
    """{id: (class, probability of each)} of the test rows, as evaluation asks the model."""
    rows = Labelled.of(prepared, "test").require("test")
    p = torch.softmax(ask(load_model(folder), rows), -1)
    ids = [
        prepared.ids(segment).filter(pa.array(mask)) for segment, mask in zip(rows.segments, rows.masks, strict=True)
    ]
    names = pa.concat_arrays(ids).to_pylist()
    return {id: (prepared.classes[int(row.argmax())], row.tolist()) for id, row in zip(names, p, strict=True)}


def said(folder: Path, source: Path, **how: Any) -> tuple[list[dict[str, Any]], list[str], Predicted]:
    """(rows, why some are bad, counts) of `predict_file`."""
    lines: list[str] = []
    bad: list[str] = []
    done = predict_file(folder, source, None, write_line=lines.append, tell_bad=bad.append, **how)
    return [json.loads(line) for line in lines], bad, done


def agrees(
    rows: list[dict[str, Any]], expected: Mapping[str, tuple[str, list[float]]], classes: tuple[str, ...]
) -> None:
    found = {row["id"]: row for row in rows}
    assert expected.keys() <= found.keys()
    for id, (name, p) in expected.items():
        assert found[id]["class"] == name
        assert [found[id][each] for each in classes] == pytest.approx(p, abs=1e-6)
        assert found[id]["probability"] == pytest.approx(max(p), abs=1e-6)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Two columns that float32 rounds, in another order than the recipe names them, and one that nobody reads."""
    generator = np.random.default_rng(0)
    return pa.table(
        {
            "b": 1.7e9 + generator.integers(0, 1000, ROWS),
            "note": ["x, y"] * ROWS,
            "a": generator.normal(size=ROWS),
            "y": [CLASSES[number] for number in generator.integers(0, 3, ROWS)],
        }
    )


def semicolons(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=";"))


def tabs(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter="\t"))


def jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)


def npz(table: pa.Table, path: Path) -> None:
    np.savez(path, **{name: table[name].to_numpy() for name in ("a", "b")}, y=np.array(table["y"].to_pylist()))


TABLES: dict[str, tuple[str, Callable[[pa.Table, Path], None]]] = {
    "rows.csv": ("csv", pyarrow.csv.write_csv),
    "semicolons.csv": ("csv", semicolons),
    "tabs.tsv": ("csv", tabs),
    "rows.jsonl": ("jsonl", jsonl),
    "rows.parquet": ("parquet", pq.write_table),
    "rows.arrow": ("arrow", arrow),
    "rows.npz": ("numpy", npz),
}


def tabular(folder: Path, name: str, table: pa.Table) -> TransferSet:
    kind, write = TABLES[name]
    write(table, folder / name)
    source = {"kind": kind, "path": str(folder / name)}
    if delimiter := {semicolons: ";", tabs: "\t"}.get(write):
        source["delimiter"] = delimiter
    config = {"source": source, "inputs": ["a", "b"], "label": "y", "classes": CLASSES}
    return prepare(TransferSetConfig.model_validate(config), folder / "prepared")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_predicted_as_evaluation_predicts_its_test_rows(name: str, table: pa.Table, tmp_path: Path) -> None:
    prepared = tabular(tmp_path, name, table)
    folder = model_of(prepared, tmp_path / "model")
    rows, bad, done = said(folder, tmp_path / name, probabilities=True)
    assert (bad, done) == ([], Predicted(ROWS, 0))
    assert [row["id"] for row in rows] == [f"{name}#{row}" for row in range(ROWS)]
    agrees(rows, evaluated(prepared, folder), prepared.classes)


def test_one_model_says_the_same_of_its_rows_in_every_kind_of_table(table: pa.Table, tmp_path: Path) -> None:
    folder = model_of(tabular(tmp_path, "rows.csv", table), tmp_path / "model")
    first, _, _ = said(folder, tmp_path / "rows.csv")
    for name, (_, write) in TABLES.items():
        write(table, tmp_path / name)
        rows, _, _ = said(folder, tmp_path / name)
        assert [row["class"] for row in rows] == [row["class"] for row in first]
        assert [row["probability"] for row in rows] == pytest.approx([row["probability"] for row in first], abs=1e-6)


@pytest.mark.parametrize("name", ["semicolons.csv", "tabs.csv", "extras.npz"])
def test_other_delimiters_and_further_arrays_change_no_answer(
    tables: Path, table: pa.Table, tmp_path: Path, name: str
) -> None:
    """A model folder does not say how another file parts its values, nor what else lies in an archive."""
    if name == "extras.npz":
        arrays = {each: table[each].to_numpy() for each in ("a", "b")}
        np.savez(tmp_path / name, **arrays, class_names=np.array(CLASSES), odd=np.array([{}], object))
    else:
        options = pyarrow.csv.WriteOptions(delimiter={"semicolons.csv": ";", "tabs.csv": "\t"}[name])
        pyarrow.csv.write_csv(table, tmp_path / name, options)
    rows, bad, _ = said(tables / "model", tmp_path / name)
    expected, _, _ = said(tables / "model", tables / "rows.parquet")
    assert not bad and [row["class"] for row in rows] == [row["class"] for row in expected]


def photos(folder: Path, *, size: tuple[int, int] | None = None) -> None:
    """Grey and colour, PNG and JPEG, of several sizes, a class a folder."""
    generator = np.random.default_rng(1)
    for row in range(ROWS):
        place = folder / ("cat", "dog")[row % 2]
        place.mkdir(parents=True, exist_ok=True)
        height, width = size or generator.integers(9, 20, 2)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels if row % 4 < 2 else pixels[..., 0])
        image.save(place / f"{row}.{('png', 'jpg', 'gif', 'webp')[row % 3 + (row % 6 == 5)]}")


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_folder_of_grey_and_colour_images_of_any_size_is_predicted_as_evaluation_predicts_it(
    fit: str, tmp_path: Path
) -> None:
    photos(tmp_path / "photos")
    config = {"source": {"kind": "image_folder", "path": str(tmp_path / "photos")}, "inputs": "image", "label": "label"}
    sized = {**config, "image_size": 8, "fit": fit, "resample": "bicubic"}
    prepared = prepare(TransferSetConfig.model_validate(sized), tmp_path / "prepared")
    folder = model_of(prepared, tmp_path / "model", Preprocess(resize=6))
    rows, bad, _ = said(folder, tmp_path / "photos", probabilities=True)
    assert (len(rows), bad) == (ROWS, [])
    expected = evaluated(prepared, folder)
    agrees(rows, expected, prepared.classes)

    id, (name, p) = next(iter(expected.items()))
    (row,), _, _ = said(folder, tmp_path / "photos" / id.rpartition("#")[0])  # one image alone
    assert (row["class"], row["probability"]) == (name, pytest.approx(max(p), abs=1e-6))

    pixels = [np.asarray(Image.open(tmp_path / "photos" / row["id"].rpartition("#")[0])) for row in rows]
    encoded = [(tmp_path / "photos" / row["id"].rpartition("#")[0]).read_bytes() for row in rows]
    pq.write_table(pa.table({"photo": encoded}), tmp_path / "photos.parquet")
    tables, _, _ = said(folder, tmp_path / "photos.parquet", inputs=["photo"])
    assert [row["class"] for row in tables] == [row["class"] for row in rows]

    png = [number for number, row in enumerate(rows) if ".png" in row["id"] and pixels[number].ndim == 2][:1]
    np.save(tmp_path / "grey.npy", pixels[png[0]][None])  # grey for a model of colour, another size, another file
    (row,), _, _ = said(folder, tmp_path / "grey.npy")
    assert row["class"] == rows[png[0]]["class"]


def test_images_without_a_size_are_predicted_from_arrays_and_a_table_as_evaluation_predicts_them(
    tmp_path: Path,
) -> None:
    generator = np.random.default_rng(2)
    images, labels = generator.integers(0, 256, (ROWS, 7, 5, 1), dtype=np.uint8), np.arange(ROWS) % 2
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "picture.npy", images)
    np.save(tmp_path / "arrays" / "y.npy", labels)
    config = {"source": {"kind": "numpy", "path": str(tmp_path / "arrays")}, "inputs": "picture", "label": "y"}
    prepared = prepare(TransferSetConfig.model_validate(config), tmp_path / "prepared")
    folder = model_of(prepared, tmp_path / "model")
    rows, _, _ = said(folder, tmp_path / "arrays", probabilities=True)
    agrees(rows, evaluated(prepared, folder), prepared.classes)
    alone, _, _ = said(folder, tmp_path / "arrays" / "picture.npy")
    assert [row["class"] for row in alone] == [row["class"] for row in rows]
    pq.write_table(pa.table({"picture": images[..., 0].tolist()}), tmp_path / "rows.parquet")
    nested, _, _ = said(folder, tmp_path / "rows.parquet")
    assert [row["class"] for row in nested] == [row["class"] for row in rows]


@pytest.mark.parametrize("form", ["png", "npy"])
def test_a_model_of_grey_images_sees_colour_as_pillow_greys_it(form: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    colour = generator.integers(0, 256, (ROWS, 6, 6, 3), dtype=np.uint8)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])
    np.savez(tmp_path / "grey.npz", image=grey, y=np.arange(ROWS) % 2)
    config = {"source": {"kind": "numpy", "path": str(tmp_path / "grey.npz")}, "inputs": "image", "label": "y"}
    folder = model_of(prepare(TransferSetConfig.model_validate(config), tmp_path / "prepared"), tmp_path / "model")
    expected, _, _ = said(folder, tmp_path / "grey.npz", probabilities=True)
    if form == "npy":
        np.save(tmp_path / "colour.npy", colour)
    else:
        (tmp_path / "colour").mkdir()
        for row, image in enumerate(colour):
            Image.fromarray(image).save(tmp_path / "colour" / f"{row:03}.png")
    rows, bad, _ = said(folder, tmp_path / ("colour.npy" if form == "npy" else "colour"), probabilities=True)
    assert bad == []
    assert [row["0"] for row in rows] == pytest.approx([row["0"] for row in expected], abs=1e-6)


@pytest.fixture(scope="module")
def tables(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, trained on `rows.parquet`, columns a and b."""
    folder = tmp_path_factory.mktemp("tables")
    model_of(tabular(folder, "rows.parquet", table), folder / "model")
    return folder


def test_a_model_folder_keeps_the_columns_their_order_and_their_types(tables: Path) -> None:
    (made,) = load_model(tables / "model").config.inputs
    assert (made["name"], made["sources"], made["types"], made["wide"]) == (
        "features",
        ["a", "b"],
        ["double"] * 2,
        True,
    )


def of_table(folder: Path, table: pa.Table, **how: Any) -> list[str]:
    pq.write_table(table, folder / "new.parquet")
    rows, _, _ = said(folder / "model", folder / "new.parquet", **how)
    return [row["class"] for row in rows]


def test_columns_are_found_by_name_and_mapped_by_inputs(tables: Path, table: pa.Table) -> None:
    expected = of_table(tables, table)
    assert of_table(tables, table.select(["a", "b"])) == expected
    renamed = table.rename_columns(["second", "note", "first", "y"])
    assert of_table(tables, renamed, inputs=["second=b", "first=a"]) == expected
    assert of_table(tables, renamed, inputs=["first", "second"]) == expected  # in the model's order
    assert of_table(tables, table.rename_columns(["b", "note", "first", "y"]), inputs=["first"]) == expected
    assert of_table(tables, table.rename_columns(["b", "note", "u=v", "y"]), inputs=["u=v=a"]) == expected
    together = pa.table({"features": np.stack([table["a"], table["b"]], axis=1).tolist()})
    assert of_table(tables, together) == expected
    assert of_table(tables, together.rename_columns(["m"]), inputs=["m"]) == expected
    crossed = table.rename_columns(["a", "note", "b", "y"])
    assert of_table(tables, crossed, inputs=["a=b", "b=a"]) == expected  # said in so many words


@pytest.mark.parametrize(
    ("names", "inputs", "told"),
    [
        ("bnay", ["b", "a"], r"--inputs b, a: the model takes a, b, and finds them by name; .*--inputs b=a"),
        ("bnxy", ["b", "x"], r"the model takes a, b, and finds them by name"),
        ("bnxy", [], r"no column 'a', which the model takes; there are 'b', 'n', 'x', 'y'; .*--inputs NEW=a"),
        ("znxy", [], r"no columns 'a' and 'b'"),
        ("znxy", ["x"], r"'x' holds one number, the model takes features: 2 numbers a row \(a, b\)"),
        ("bnxy", ["x=c"], r"the model has no column 'c'; it takes a, b"),
        ("bnxy", ["w=a"], r"new\.parquet has no column 'w'"),
        ("bnxy", ["w"], r"new\.parquet has no column 'w'"),
        ("bnxy", ["x=a", "b=a"], r"'a' is mapped twice"),
        ("bnxy", ["x", "x"], r"'x' is there twice"),
        ("bnxy", ["b=a"], r"'b' would stand for two columns"),
        ("bany", ["n=b"], r"'a' holds string|'n' holds"),
    ],
)
def test_missing_and_swapped_columns_are_refused_with_their_names(
    tables: Path, table: pa.Table, names: str, inputs: list[str], told: str
) -> None:
    if inputs == ["n=b"]:
        table = table.set_column(2, "list", pa.array([[1.0, 2.0]] * ROWS))
    with pytest.raises(RecipeError, match=told):
        of_table(tables, table.rename_columns(list(names)), inputs=inputs)


def test_a_bad_row_is_a_line_and_a_null_in_its_place(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("a,b\n1,2\n1,2,3\nx,2\n,2\n3,4\n1,1e999\n5,6,7\n")
    rows, bad, done = said(tables / "model", tmp_path / "new.csv", probabilities=True)
    assert done == Predicted(7, 5)
    assert [row["id"] for row in rows] == [f"new.csv#{row}" for row in range(7)]
    without = {"class", "probability", *CLASSES}
    assert [all(row[name] is None for name in without) for row in rows] == [row in (1, 2, 3, 5, 6) for row in range(7)]
    assert [line.partition(":")[0] for line in bad] == [f"new.csv#{row}" for row in (1, 2, 3, 5, 6)]
    assert "3 values" in bad[0] and "'x'" in bad[1] and "missing" in bad[2]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_nulls_and_probabilities_read_back_from_every_output(tables: Path, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "new.csv").write_text("b,a\n2,1\n2,x\n")
    output = tmp_path / f"out{suffix}"
    done = predict_file(
        tables / "model",
        tmp_path / "new.csv",
        output,
        probabilities=True,
        write_line=pytest.fail,
        tell_bad=lambda line: None,
    )
    assert done == Predicted(2, 1)
    match suffix:
        case ".parquet":
            first, second = pq.read_table(output).to_pylist()
        case ".csv":
            first, second = csv.DictReader(io.StringIO(output.read_text()))
            second = {name: value or None for name, value in second.items()}
        case _:
            first, second = map(json.loads, output.read_text().splitlines())
    assert list(first) == ["id", "class", "probability", *CLASSES]
    assert sum(float(first[name]) for name in CLASSES) == pytest.approx(1)
    assert float(first[first["class"]]) == float(first["probability"])
    assert [second[name] for name in list(second)[1:]] == [None] * 5


def test_a_class_that_is_called_as_a_column_keeps_one_of_its_own() -> None:
    assert schema_for(Space("classification", ("id", "cat", "id_")), probabilities=True).names == [
        "id",
        "class",
        "probability",
        "id_",
        "cat",
        "id__",
    ]


def test_the_output_is_refused_before_anything_is_read(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("b,a\n2,1\n")
    for name, told in (("out.xls", "written as"), ("no/out.csv", "no folder"), ("new.csv", "is what is read")):
        with pytest.raises(RecipeError, match=told):
            predict_file(
                tables / "nowhere",
                tmp_path / "new.csv",
                tmp_path / name,
                write_line=pytest.fail,
                tell_bad=pytest.fail,
            )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["rows.py"], "neither a table nor an image"),
        (["a.csv", "b.jsonl"], r"several kinds \(csv, jsonl\)"),
        ([], "neither"),
    ],
)
def test_what_is_no_source_is_told_what_one_is(tables: Path, tmp_path: Path, names: list[str], told: str) -> None:
    (tmp_path / "new").mkdir()
    for name in names:
        (tmp_path / "new" / name).write_text("")
    with pytest.raises(RecipeError, match=told):
        said(tables / "model", tmp_path / "new" / names[0] if len(names) == 1 else tmp_path / "new")


def test_a_model_of_unknown_columns_takes_them_in_the_order_that_is_given(tables: Path, table: pa.Table) -> None:
    config = load_model(tables / "model").config
    save_model(
        tables / "bare",
        load_model(tables / "model").module.state_dict(),
        ModelConfig(config.model, config.arguments, config.space, config.preprocess),
    )
    expected, _, _ = said(tables / "model", tables / "rows.parquet")
    rows, _, _ = said(tables / "bare", tables / "rows.parquet", inputs=["a", "b"])
    assert [row["class"] for row in rows] == [row["class"] for row in expected]
    np.save(tables / "matrix.npy", np.stack([table["a"], table["b"]], axis=1))
    rows, _, _ = said(tables / "bare", tables / "matrix.npy")
    assert [row["id"] for row in rows] == [f"matrix.npy#{row}" for row in range(ROWS)]
    with pytest.raises(
        RecipeError, match=r"no column 'features', of 2 numbers a row.*name its 2 columns, in the order"
    ):
        said(tables / "bare", tables / "rows.parquet")


def test_all_foreign_code_of_a_folder_is_named_at_once_with_what_to_say(tables: Path, tmp_path: Path) -> None:
    config = load_model(tables / "model").config
    foreign = ModelConfig("mine:net", {}, config.space, {**config.preprocess, "function": "txt:grams"})
    save_model(tmp_path / "foreign", {}, foreign)
    with pytest.raises(StoreError, match=r"'mine:net', 'txt:grams'.*pass trust=\['mine:net', 'txt:grams'\]"):
        students.load(tmp_path / "foreign")
    with pytest.raises(StoreError, match=r"names 'txt:grams',.*pass trust=\['txt:grams'\]"):
        students.load(tmp_path / "foreign", trust=["mine"])
    with pytest.raises(StoreError, match=r"add --trust mine:net --trust txt:grams"):
        said(tmp_path / "foreign", tables / "rows.parquet", vouching="command")
    with pytest.raises(StoreError, match=r"`trust:` in the recipe: \[mine:net, txt:grams\]"):
        load_model(tmp_path / "foreign")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`: of pictures that it resizes, and of numbers that float32 rounds, several columns at once."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(4)
    images = generator.integers(0, 256, (ROWS, 9, 7, 3), dtype=np.uint8)
    np.savez(folder / "rows.npz", image=images, y=np.arange(ROWS) % 2)
    config = {"source": {"kind": "numpy", "path": str(folder / "rows.npz")}, "inputs": "image", "label": "y"}
    model_of(
        prepare(TransferSetConfig.model_validate(config), folder / "prepared"), folder / "model", Preprocess(resize=6)
    )
    return folder


@pytest.mark.parametrize("kind", ["tables", "pictures"])
def test_a_loaded_student_is_a_module_that_can_be_exported_and_used_after(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    model = students.load(folder / "model")
    assert isinstance(model, torch.nn.Module) and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    generator = torch.Generator().manual_seed(0)
    rows = {
        name: torch.randint(0, 256, (5, *zeros.shape[1:]), generator=generator).to(zeros.dtype)
        for name, zeros in model.example().items()
    }
    for _ in range(2):  # before anything was asked, and after
        rows_dim = torch.export.Dim("rows")
        exported = torch.export.export(
            model, (model.example(),), dynamic_shapes=({name: {0: rows_dim} for name in rows},)
        )
        torch.testing.assert_close(exported.module()(rows), model(rows))
    assert model(rows).shape == (5, len(model.config.classes))
    model.requires_grad_()
    model(rows).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_columns_of_an_example_have_the_dtypes_of_the_rows_that_predict_reads(tables: Path, pictures: Path) -> None:
    (features,) = students.load(tables / "model").example(3).values()
    assert (features.dtype, features.shape) == (torch.float64, (3, 2))
    (image,) = students.load(pictures / "model").example().values()
    assert (image.dtype, image.shape) == (torch.uint8, (2, 9, 7, 3))


def test_the_six_lines_for_onnx_in_the_guide_say_what_the_model_says(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed, the lines of docs/guides/export.md were not run")
    guide = (Path(__file__).parents[1] / "docs/guides/export.md").read_text()
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "onnxruntime" in block)
    assert len([line for line in block.splitlines() if line and not line.startswith("import")]) == 6
    monkeypatch.chdir(tmp_path)
    images = np.load(pictures / "rows.npz")["image"]
    told = block.replace("out/digits/models/small-<key>", str(pictures / "model"))
    known: dict[str, Any] = {"images": images}
    exec(told, known)
    expected = students.load(pictures / "model")({"image": images})
    np.testing.assert_allclose(known["logits"], expected.numpy(), atol=1e-5)


def deliver(out: Path, model: Path, key: str, *, recipe: str = "digits", name: str = "small") -> Path:
    """A model of an OUT, as the export stage leaves one."""
    folder = out / "models" / f"{name}-{key}"
    shutil.copytree(model, folder)
    stage = {"format": STAGE_FORMAT, "name": name, "part": "", "key": key, "config": {"recipe": {"name": recipe}}}
    (folder / "STAGE.json").write_text(json.dumps(stage))
    write_seal(folder, ["config.json", "model.safetensors"])
    return folder


def finish(out: Path, run: str, *keys: str) -> None:
    (out / "runs" / run).mkdir(parents=True)
    report = {"format": REPORT_FORMAT, "stages": [{"stage": "export", "key": key} for key in keys]}
    (out / "runs" / run / "report.json").write_text(json.dumps(report))


def test_a_name_is_the_newest_model_of_its_recipe(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, model = Path("out/digits"), tables / "model"
    first, second = deliver(out, model, "aaa"), deliver(out, model, "bbb")
    deliver(Path("out/digits-smoke"), model, "ccc")
    elsewhere = deliver(Path("out/mine"), model, "ddd", recipe="flowers", name="tiny")
    assert folder_of("digits-small", None) == second  # the last that was built
    finish(out, "20260101-000000-aa", "bbb")
    finish(out, "20260102-000000-aa", "aaa")
    finish(out, "20260103-000000-aa", "else")
    assert folder_of("digits-small", None) == first  # of the last run that has one
    assert folder_of("flowers-tiny", None) == elsewhere  # in an OUT of another name
    assert folder_of("small", out) == first
    assert folder_of(str(second), None) == second
    deliver(Path("out/fashion"), model, "eee", recipe="fashion")
    with pytest.raises(click.UsageError, match=r"out/digits and in out/fashion; say which: --out out/digits"):
        folder_of("small", None)
    for wrong in ("digits-smal", "out/digits/models/small-*"):
        with pytest.raises(click.UsageError, match="digits-small"):
            folder_of(wrong, None)


def test_the_command_finds_code_in_the_working_directory_and_its_exit_code_tells_of_bad_rows(
    tables: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("from teachers.zoo import mlp as net\n")
    model = load_model(tables / "model")
    save_model(tmp_path / "model", model.module.state_dict(), replace(model.config, model="mine:net"))
    (tmp_path / "new.csv").write_text("a,b\n1,2\nx,3\n")
    command = [Path(sys.executable).parent / "collegium", "predict", "model", "new.csv", "--trust", "mine:net"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == SOME_BAD == 5
    assert [json.loads(line)["class"] is None for line in done.stdout.splitlines()] == [False, True]
    assert done.stderr.splitlines() == ["new.csv#1: a is 'x', not a number", "1 of 2 rows have no prediction"]


def test_a_model_that_is_named_writes_a_table(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deliver(Path("out/digits"), tables / "model", "aaa")
    Path("new.csv").write_text("a,b\n1,2\n")
    done = CliRunner().invoke(collegium, ["predict", "digits-small", "new.csv", "--output", "said.csv"])
    assert (done.exit_code, done.output) == (0, "wrote 1 rows to said.csv\n")
