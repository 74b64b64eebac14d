"""Delivered models in forms for elsewhere: the same answers in a Python that has neither torch nor Collegium."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orchestrator.cli.main import collegium
from students.delivering.elsewhere import Exported, export_elsewhere
from students.delivering.forms import said_by_onnx, to_onnx, to_pt2
from students.delivering.golden import GOLDEN, asked, golden_rows, read_golden
from teachers.config.preprocess import Preprocess
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import CollegiumError, RecipeError, StoreError
from teachers.models.folder import load_model, read_config, save_model
from teachers.preparing.prepare import prepare
from teachers.transfer_set.transfer_set import TransferSet

from .task_runs import prepared as of_task
from .task_runs import table as task_table
from .test_estimator_onnx import fitted
from .test_mixed_tables import INPUTS, config, mixed
from .test_predict import model_of, photos, said
from .text_files import WORDS, write_tokenizer

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no graph can be run")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: no graph can be made")

ALONE = """
import runpy, sys

BLOCKED = {"torch", "teachers", "students", "orchestrator", "pyarrow", "sklearn", "jinja2"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
"""

BESIDE = ("manifest.json", "golden.npz", "SHA256SUMS")


def alone(folder: Path, source: Path) -> tuple[list[dict[str, Any]], list[str], int]:
    """(rows, lines on stderr, exit code) of the folder's predict.py, where nothing of ours or of torch can be imported."""
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "predict.py"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines(), done.returncode


def agrees(folder: Path, model: Path, source: Path) -> list[dict[str, Any]]:
    """What both say of every row; the names of rows that cannot be used, too."""
    found, told, code = alone(folder, source)
    expected, bad, _ = said(model, source)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            close = isinstance(value, float)
            assert one[key] == (pytest.approx(value, abs=1e-5, rel=1e-5) if close else value), (one, other)
    assert [line.partition(": ")[0] for line in told] == [line.partition(": ")[0] for line in bad]
    assert code == (5 if bad else 0)
    return found


def written(model: Path, rows: Path | None, folder: Path, forms: Sequence[Any] = ("onnx",)) -> Exported:
    done = export_elsewhere(model, folder, forms, name="mine-small", rows=rows)
    if "onnx" in forms:
        assert done.no_script is None and len((folder / "predict.py").read_text().splitlines()) <= 80
    return done


def jsonl(table: pa.Table, path: Path) -> Path:
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    return path


def csv(table: pa.Table, path: Path, delimiter: str = ",") -> Path:
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=delimiter))
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`: of numbers, categories, truth values and dates of which some lack; `elsewhere`: exported."""
    folder = tmp_path_factory.mktemp("tables")
    pq.write_table(mixed(), folder / "data.pq")
    model_of(prepare(config(folder / "data.pq", INPUTS, id="id"), folder / "prepared"), folder / "model")
    written(folder / "model", folder / "data.pq", folder / "elsewhere")
    return folder


@pytest.mark.parametrize("name", ["new.csv", "semicolons.csv", "new.jsonl"])
def test_a_mixed_table_gets_the_answers_of_predict(name: str, tables: Path, tmp_path: Path) -> None:
    table = mixed(50, seed=1)
    if name == "new.jsonl":
        jsonl(table, tmp_path / name)
    else:
        csv(table, tmp_path / name, ";" if name == "semicolons.csv" else ",")
    agrees(tables / "elsewhere", tables / "model", tmp_path / name)


BAD = """\
age,fare,color,member,start
18,1.5,red,true,2020-03-01
x,1.5,red,true,2020-03-01
19,,,,2020-03-01
,2,red,false,2020-03-01
20,inf,green,TRUE,2020-03-01
21,nan,"  blue ",True,2020-02-30
22,3,purple,no,2021-03-01T08:30:00+02:00
23,3,red

+24,.5e1,"a rather long word, with a comma",false,2021-03-01T08:30
25,1_0,red,true,2020-03-01
"""


def test_rows_that_cannot_be_used_are_the_same_and_null(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(BAD)
    found = agrees(tables / "elsewhere", tables / "model", tmp_path / "bad.csv")
    assert [row["class"] is None for row in found].count(True) == 6
    lines = ['{"age": 1, "fare": null, "color": "red", "member": true, "start": "2020-01-01"}', "[1]", "{", "", "null"]
    lines += ['{"age": "2", "fare": "1e3", "color": 3, "member": false, "start": "2020-01-01"}', '{"age": 5}']
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    agrees(tables / "elsewhere", tables / "model", tmp_path / "bad.jsonl")


def test_a_column_that_is_not_there_is_named(tables: Path, tmp_path: Path) -> None:
    for source in (
        csv(mixed(3).drop(["fare"]), tmp_path / "new.csv"),
        jsonl(mixed(3).drop(["fare"]), tmp_path / "a.jsonl"),
    ):
        found, told, code = alone(tables / "elsewhere", source)
        assert (found, code) == ([], 1) and told == [f"{source}: no column 'fare', which the model takes"]


def test_marks_and_dates_get_the_answers_of_predict(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    days, months, hours = random.integers(1, 29, 90), random.integers(1, 13, 90), random.integers(0, 24, 90)
    german = str.maketrans(",.", ".,")
    table = pa.table(
        {
            "price": [f"{value:,.2f}".translate(german) for value in random.gamma(1, 5000, 90)],
            "day": [f"{day:02}.{month:02}.2024" for day, month in zip(days, months, strict=True)],
            "at": [
                f"2024-05-{day:02}T{hour:02}:30:00{zone}"
                for day, hour, zone in zip(days, hours, ["", "Z", "+05:30"] * 30, strict=True)
            ],
            "y": random.integers(0, 2, 90),
        }
    )
    inputs = [
        {"column": "price", "as": "number", "decimal": ",", "thousands": "."},
        {"column": "day", "as": "date", "format": "%d.%m.%Y", "missing": "allow"},
        {"column": "at", "as": "date", "unit": "hours"},
    ]
    rows = csv(table, tmp_path / "rows.csv", ";")
    source = {"kind": "csv", "path": str(rows), "delimiter": ";"}
    given = TransferSetConfig.model_validate({"source": source, "inputs": inputs, "label": "y"})
    model = model_of(prepare(given, tmp_path / "prepared"), tmp_path / "model")
    written(model, rows, tmp_path / "out")
    agrees(tmp_path / "out", model, rows)
    agrees(tmp_path / "out", model, jsonl(table, tmp_path / "rows.jsonl"))
    (tmp_path / "bad.csv").write_text(
        "price;day;at\n1.5;01.02.2024;2024-05-01\n1,5;30.02.2024;2024-05-01\n1.234,5;;2024-05-01\n12.34,5;01.02.2024;x\n"
    )
    found = agrees(tmp_path / "out", model, tmp_path / "bad.csv")
    assert [row["class"] is None for row in found] == [True, True, False, True]


def test_lists_of_numbers_get_the_answers_of_predict(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pa.table({"vector": random.normal(size=(60, 3)).tolist(), "y": random.integers(0, 2, 60)})
    rows = jsonl(table, tmp_path / "rows.jsonl")
    model = model_of(prepare(config(rows, "vector"), tmp_path / "prepared"), tmp_path / "model")
    written(model, rows, tmp_path / "out")
    agrees(tmp_path / "out", model, rows)
    lines = ['{"vector": [1, 2, 3]}', '{"vector": [1, 2]}', '{"vector": null}', '{"vector": [1, null, 3]}']
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    found = agrees(tmp_path / "out", model, tmp_path / "bad.jsonl")
    assert [row["class"] is None for row in found] == [False, True, True, True]


def test_an_estimator_of_a_table_gets_the_answers_of_predict(tables: Path, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed: no estimator can be converted")
    prepared = TransferSet.open(tables / "prepared")
    model = fitted(tmp_path, prepared, "sklearn.linear_model:LogisticRegression", {"max_iter": 500})
    written(model, tables / "data.pq", tmp_path / "out")
    agrees(tmp_path / "out", model, csv(mixed(50, seed=2), tmp_path / "new.csv"))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_the_other_tasks_get_the_answers_of_predict(task: str, tmp_path: Path) -> None:
    model = model_of(of_task(tmp_path, task), tmp_path / "model")
    if task == "multilabel":
        thresholds = dict(zip(read_config(model).classes, (0.4, 0.5, 0.6), strict=True))
        (model / "metrics.json").write_text(json.dumps({"thresholds": thresholds}))
    done = written(model, tmp_path / "rows.parquet", tmp_path / "out", ("onnx", "pt2"))
    assert all((agreement.same_class is None) == (task == "regression") for agreement in done.agreements.values())
    found = agrees(tmp_path / "out", model, csv(task_table(task), tmp_path / "rows.csv"))
    assert len({tuple(row.values())[1:] for row in found}) > 3


def odd_images(folder: Path) -> None:
    """What cameras, scanners and the web have: turned by EXIF, 16 bits, indexed, transparent, black and white, damaged."""
    random = np.random.default_rng(5)
    folder.mkdir()
    colour = Image.fromarray(random.integers(0, 256, (12, 20, 3), dtype=np.uint8))
    grey = Image.fromarray(random.integers(0, 256, (12, 20), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    colour.save(folder / "turned.jpg", exif=turned)
    Image.fromarray(random.integers(0, 2**16, (12, 20)).astype(np.uint16)).save(folder / "deep.png")
    colour.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "indexed.png")
    grey.convert("P").save(folder / "grey.gif")
    colour.convert("RGBA").save(folder / "clear.webp", lossless=True)
    see_through = colour.convert("P", palette=Image.Palette.ADAPTIVE)
    see_through.save(folder / "see_through.png", transparency=0)
    grey.convert("LA").save(folder / "la.png")
    grey.convert("1").save(folder / "black_and_white.png")
    colour.convert("CMYK").save(folder / "print.jpg")
    (folder / "damaged.png").write_bytes((folder / "deep.png").read_bytes()[:60])
    (folder / "no_image.jpg").write_text("no image")


@pytest.mark.parametrize(("fit", "channels"), [("squash", 1), ("crop", 3), ("pad", 1), (None, 3)])
def test_images_of_all_sorts_get_the_answers_of_predict(fit: str | None, channels: int, tmp_path: Path) -> None:
    photos(tmp_path / "photos", size=(20, 12) if fit is None else None)
    if channels == 1:
        for file in [*(tmp_path / "photos").rglob("*.*")]:  # WebP has no grey
            Image.open(file).convert("L").save(file.with_suffix(".png"))
            if file.suffix != ".png":
                file.unlink()
    given = {"source": {"kind": "image_folder", "path": str(tmp_path / "photos")}, "inputs": "image", "label": "label"}
    sized = {} if fit is None else {"image_size": 9, "fit": fit, "resample": "bicubic"}
    prepared = prepare(TransferSetConfig.model_validate(given | sized), tmp_path / "prepared")
    assert prepared.columns[0].shape[2] == channels
    model = model_of(prepared, tmp_path / "model", Preprocess(resize=None if fit is None else 6))
    written(model, tmp_path / "photos", tmp_path / "out")
    agrees(tmp_path / "out", model, tmp_path / "photos")
    odd_images(tmp_path / "odd")
    found = agrees(tmp_path / "out", model, tmp_path / "odd")
    used = [row["id"] for row in found if row["class"] is not None]
    assert used == ["turned.jpg#0"] if fit is None else len(used) == 9
    agrees(tmp_path / "out", model, tmp_path / "odd" / "turned.jpg")


class Both(torch.nn.Module):
    """A picture, numbers and lists of them, side by side."""

    def __init__(self, num_classes: int, input_shape: Any) -> None:
        super().__init__()
        self.last = torch.nn.Linear(sum(int(np.prod(shape)) for shape in input_shape.values()), num_classes)

    def forward(self, inputs: Any) -> Any:
        return self.last(torch.cat([each.flatten(1) for each in inputs.values()], 1))


@pytest.fixture(scope="module")
def digits_model(digits: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of digits with its golden rows, as a run delivers one."""
    folder = model_of(digits, tmp_path_factory.mktemp("delivered") / "model")
    golden = golden_rows(load_model(folder), digits.folder)
    assert golden is not None
    (folder / GOLDEN).write_bytes(golden)
    return folder


def test_golden_rows_are_of_the_test_split_with_what_the_model_says(digits: TransferSet, digits_model: Path) -> None:
    model = load_model(digits_model)
    golden = read_golden(digits_model, model)
    assert golden is not None and len(golden.said) == 64
    inputs = digits.inputs(digits.of("test")[0], 0, 64)
    np.testing.assert_array_equal(golden.inputs["image"], inputs["image"])
    np.testing.assert_array_equal(golden.said, model(inputs).numpy())


def test_any_number_of_rows_gets_the_models_answers_in_both_forms(digits: TransferSet, digits_model: Path) -> None:
    model = load_model(digits_model)
    graph, program = to_onnx(model), torch.export.load(io.BytesIO(to_pt2(model))).module()
    for rows in (1, 2, 7, 300):
        inputs = {"image": np.array(digits.inputs(digits.of("test")[0], 0, rows)["image"])}
        expected = asked(model, inputs).said
        np.testing.assert_allclose(said_by_onnx(graph, inputs), expected, atol=1e-5)
        torch.testing.assert_close(
            program({"image": torch.tensor(inputs["image"])}).numpy(), expected, atol=1e-5, rtol=1e-5
        )


def test_a_program_of_torch_is_opened_without_collegium(digits_model: Path, tmp_path: Path) -> None:
    export_elsewhere(digits_model, tmp_path / "out", ["pt2"], name="m")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.pt2", *BESIDE}
    script = "import torch; p = torch.export.load(sys.argv[1]).module(); print(p({'image': torch.zeros(5, 8, 8, 1, dtype=torch.uint8)}).shape)"
    (tmp_path / "ask.py").write_text("import sys\n" + script)
    only_torch = ALONE.replace('"torch", ', "").replace('"pyarrow", "sklearn", "jinja2"', "")
    command = [sys.executable, "-I", "-c", only_torch, str(tmp_path / "ask.py"), str(tmp_path / "out" / "model.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "torch.Size([5, 10])\n", done.stderr


def test_what_says_something_else_than_the_model_is_not_written(digits_model: Path, tmp_path: Path) -> None:
    model = load_model(digits_model)
    state = {name: tensor + 0.05 for name, tensor in model.module.state_dict().items()}
    save_model(tmp_path / "model", state, model.config)
    (tmp_path / "model" / GOLDEN).write_bytes((digits_model / GOLDEN).read_bytes())
    with pytest.raises(
        CollegiumError, match=r"model.onnx says something else than the model.*64 golden rows.*probabilities differ"
    ):
        export_elsewhere(tmp_path / "model", tmp_path / "out", ["onnx"], name="m")
    assert not (tmp_path / "out").exists()


class Branches(torch.nn.Linear):
    """What it does depends on what it sees, which no graph can say."""

    def __init__(self, num_classes: int, input_shape: Any) -> None:
        super().__init__(int(np.prod(input_shape)), num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = inputs.flatten(1)
        return super().forward(flat if flat.sum() > 0 else -flat)


def prepare_it(inputs: Any) -> Any:
    return inputs["image"].float()


def test_what_has_no_such_form_is_told_in_one_line_with_the_exporters_word(digits_model: Path, tmp_path: Path) -> None:
    model = load_model(digits_model)
    ours = "tests.test_elsewhere"
    branches = replace(model.config, model=f"{ours}:Branches", arguments={})
    save_model(tmp_path / "branches", Branches(10, (1, 8, 8)).state_dict(), branches)
    with_function = replace(model.config, preprocess=model.config.preprocess | {"function": f"{ours}:prepare_it"})
    save_model(tmp_path / "function", model.module.state_dict(), with_function)
    for name, forms, why in (
        ("branches", ["onnx"], "Branches cannot be converted to ONNX: .*data-dependent.* ...$"),
        ("branches", ["pt2"], "Branches cannot be converted to .pt2: .*data-dependent"),
        ("function", ["onnx"], "`preprocess.function` is code of yours .*prepare_it"),
    ):
        (tmp_path / name / GOLDEN).write_bytes((digits_model / GOLDEN).read_bytes())
        with pytest.raises(CollegiumError, match=why) as raised:
            export_elsewhere(tmp_path / name, tmp_path / "out", forms, name="m", trust=[ours])  # type: ignore[arg-type]
        assert len(str(raised.value).splitlines()) == 1 and len(str(raised.value)) < 400
    assert not (tmp_path / "out").exists()


def test_a_folder_without_golden_rows_says_what_to_do_and_a_damaged_one_is_told(
    digits_model: Path, tmp_path: Path
) -> None:
    model = load_model(digits_model)
    save_model(tmp_path / "model", model.module.state_dict(), model.config)
    with pytest.raises(StoreError, match=r"no golden.arrow.*--rows FILE"):
        export_elsewhere(tmp_path / "model", tmp_path / "out", ["onnx"], name="m")
    (tmp_path / "model" / GOLDEN).write_bytes((digits_model / GOLDEN).read_bytes()[:999])
    with pytest.raises(StoreError, match="holds no rows of this model"):
        export_elsewhere(tmp_path / "model", tmp_path / "out", ["onnx"], name="m")


def test_the_command_writes_over_an_earlier_export_and_over_nothing_else(digits_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(collegium, ["export", str(digits_model), "--output", str(out), *arguments])

    done = run("--onnx")
    assert done.exit_code == 0 and done.output.startswith(
        "wrote model.onnx, model.json, predict.py, manifest.json, golden.npz to"
    )
    assert "model.onnx: on 64 golden rows: the same class in 100.0%, probabilities differ by" in done.output
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=False)
    assert sums.returncode == 0
    document = json.loads(run("--onnx", "--pt2", "--json").output)
    assert set(document["files"]) == {"model.onnx", "model.pt2", "model.json", "predict.py", *BESIDE[:2]}
    assert run("--pt2").exit_code == 0 and {path.name for path in out.iterdir()} == {"model.pt2", *BESIDE}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds something else than an earlier export"):
        export_elsewhere(digits_model, out, ["onnx"], name="m")
    for wrong in (["--onnx", "-o", "a=1"], ["--rows", str(out)]):
        assert run(*wrong).exit_code == 2


TEXTS = [
    "Please book a table for two",
    "",
    "what IS the weather in Rome?",
    "naïve café Ünder 北京 天気 ひらがな e\u0301",
    "x" * 300,
    "a\0b",
]
MADE_OF_TEXT: dict[str, dict[str, Any]] = {
    "tokens": {"tokenizer": {"max_length": 9}},
    "pairs": {"tokenizer": {"max_length": 12}},
    "ngrams": {"ngrams": {"max_length": 40, "buckets": 500}},
    "ngrams of two": {
        "ngrams": {"max_length": 60, "buckets": 97, "words": [1, 3], "characters": [1, 2], "lowercase": False}
    },
}


@pytest.mark.parametrize(
    ("name", "network"),
    [("tokens", "bag"), ("pairs", "tiny_transformer"), ("ngrams", "bag"), ("ngrams of two", "tiny_transformer")],
)
def test_text_gets_the_answers_of_predict(name: str, network: str, tmp_path: Path) -> None:
    of_two = name in ("pairs", "ngrams of two")
    random = np.random.default_rng(0)
    words = [" ".join(random.choice(WORDS[4:], 6)) for _ in range(60)] + TEXTS
    rows = pa.table({"text": words, "other": words[::-1], "y": random.integers(0, 2, len(words))})
    inputs: list[Any] = [
        {"column": "text", "as": "text"},
        {"column": "other", "as": "text", "missing": "allow", "nulls": ["?"]},
    ]
    source = jsonl(rows, tmp_path / "rows.jsonl")
    prepared = prepare(config(source, inputs[: 1 + of_two]), tmp_path / "prepared")
    made = MADE_OF_TEXT[name]
    if "tokenizer" in made:
        made = {"tokenizer": made["tokenizer"] | {"path": str(write_tokenizer(tmp_path / "tokenizer"))}}
    arguments = {"dim": 8} if network == "bag" else {"dim": 8, "layers": 1, "heads": 2}
    preprocess = Preprocess.model_validate(made)
    model = model_of(
        prepared, tmp_path / "model", preprocess, network=f"students.models:{network}", arguments=arguments
    )
    (model / GOLDEN).write_bytes(golden_rows(load_model(model), prepared.folder) or b"")
    for _ in range(1 + (name == "tokens")):  # once more over what is there
        written(model, None, tmp_path / "out")
    agrees(tmp_path / "out", model, source)
    agrees(tmp_path / "out", model, csv(rows.slice(0, 60), tmp_path / "rows.csv"))
    bad = [
        {"text": "a", "other": None},
        {"text": None, "other": "b"},
        {"text": "\ud800", "other": "?"},
        {"text": "", "other": ""},
    ]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    found = agrees(tmp_path / "out", model, tmp_path / "bad.jsonl")
    assert [row["class"] is None for row in found] == [False, True, True, False]


def test_a_script_that_would_be_longer_than_80_lines_is_not_written(tmp_path: Path) -> None:
    rows = pa.table({"text": TEXTS * 10, "x": np.arange(60.0), "y": np.arange(60) % 2})
    source = jsonl(rows, tmp_path / "rows.jsonl")
    prepared = prepare(config(source, ["x", {"column": "text", "as": "text"}]), tmp_path / "prepared")
    preprocess = Preprocess.model_validate({"ngrams": {"max_length": 40, "buckets": 500}})
    model = model_of(prepared, tmp_path / "model", preprocess, "students.models:bag", {"dim": 8})
    done = export_elsewhere(model, tmp_path / "out", ["onnx"], name="m", rows=source)
    assert done.files == ("model.onnx", *BESIDE[:2]) and "lines, more than anybody reads" in (done.no_script or "")
    assert done.agreements["model.onnx"].largest_difference < 1e-5
