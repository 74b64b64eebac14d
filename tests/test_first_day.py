"""The first day of a new user, in small: eleven jobs, done as their owner would do them, and what comes of each.

Two runs carry them. *Tables*, from a notebook's functions: a LightGBM model, a file of predictions, one fault in 200, six
students, rows that are appended. *Pictures*, from the command line: weights of a network of one's own, a folder of mixed
images, a deliverable that is asked and exported.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score

from tests import warm

lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed: a teacher of the first day is missing")

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
GUIDES = ROOT / "docs/guides"

pytestmark = pytest.mark.campaign


def collegium(here: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = warm.run(words, here, surroundings(here))
    assert done.returncode == code, (
        f"{words} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done


def surroundings(here: Path) -> dict[str, str]:
    """Of a user's shell: nothing of the tests' own cluster."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"ASKED": str(here / "asked")}


def block(guide: str, word: str) -> str:
    """The Python lines of a guide that hold `word`."""
    text = (GUIDES / guide).read_text()
    (found,) = (lines for lines in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in lines)
    return str(found)


def write(here: Path, name: str, recipe: Mapping[str, Any]) -> str:
    (here / name).write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
    return name


# ---- tables

ROWS, FAULTS, APPENDED = 4000, 20, 300
NOTEBOOK = '''
import json, os
from pathlib import Path

import numpy as np
import ray
from torch import nn

from orchestrator import run

REACH = 3.0


def rule(batch):
    """What an engineer would say: far out is a fault."""
    with open(os.environ["ASKED"], "a") as told:
        told.write("".join(f"{x} {y}\\n" for x, y in batch["features"]))
    far = np.linalg.norm(batch["features"], axis=1) - REACH
    return np.stack([4 * far, -4 * far], axis=1)


class Net(nn.Sequential):
    def __init__(self, hidden, num_classes, input_shape):
        super().__init__(nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, num_classes))


if __name__ == "__main__":
    recipe = json.loads(Path("recipe.json").read_text())
    recipe["teachers"]["rule"]["function"] = rule
    recipe["students"]["of_rule"]["model"] = Net
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)  # both runs are on it
    for until in ("export", "label"):
        finished = run(recipe, "out", until=until)
        Path(f"{until}.json").write_text(json.dumps({"report": finished.report, "folder": str(finished.folder)}))
        if until == "export":
            Path("asked").rename("asked first")
            Path("2026-02.csv").rename("rows/2026-02.csv")
'''
PREDICTIONS = '''
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("predictions.npz")


def said(batch):
    """What another program said of these rows, written down before."""
    with np.load(FILE) as kept:
        by_row = {row.tobytes(): scores for row, scores in zip(kept["rows"], kept["scores"], strict=True)}
    return [by_row.get(row.tobytes(), [0.005, 0.995]) for row in batch["features"].astype(np.float64)]
'''


def machines(rows: int, faults: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(x and y of each row, whether it is a fault): faults lie far out, in steps of 1/1024, which every float holds."""
    draw = np.random.default_rng(seed)
    angle, faulty = draw.uniform(0, 2 * np.pi, rows), np.arange(rows) < faults
    far = np.where(faulty, draw.uniform(3.2, 4, rows), draw.uniform(0, 2.9, rows))
    place = np.round(1024 * far[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)) / 1024
    order = draw.permutation(rows)
    return place[order], faulty[order]


def table(place: np.ndarray, faulty: np.ndarray, first: int) -> pa.Table:
    ids = [f"m{number}" for number in range(first, first + len(place))]
    return pa.table({"machine": ids, "x": place[:, 0], "y": place[:, 1], "state": np.where(faulty, "fault", "fine")})


def six_students() -> dict[str, Any]:
    """A network of the notebook's, and five ways to teach another one, whose control is one."""
    heard = (["rule"], ["boosted"], ["kept"], ["rule", "boosted"], ["boosted", "kept"], ["rule", "boosted", "kept"])
    train = {"steps": 250, "seeds": [0, 1], "class_weights": "balanced", "learning_rate": 0.05}
    model = "students.models:mlp"
    return {
        "_".join(["of", *teachers]): {"model": model, "arguments": {"hidden": 8}, "teachers": teachers, "train": train}
        for teachers in heard
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six students, and the labels of rows that came after it."""
    import skops.io

    here = tmp_path_factory.mktemp("tables")
    place, faulty = machines(ROWS, FAULTS, seed=0)
    (here / "rows").mkdir()
    pyarrow.csv.write_csv(table(place, faulty, 0), here / "rows" / "2026-01.csv")
    own, states = machines(3000, 300, seed=1)  # the user's model has seen other rows
    booster = lightgbm.LGBMClassifier(n_estimators=40, random_state=0, verbose=-1)
    skops.io.dump(booster.fit(own, np.where(states, "fault", "fine")), here / "boosted.skops")
    scores = np.clip(np.where(faulty, 0.5, 0.1) + np.random.default_rng(3).normal(0, 0.15, ROWS), 0.01, 0.99)
    np.savez(here / "predictions.npz", rows=place, scores=np.stack([scores, 1 - scores], 1))
    (here / "mine.py").write_text(PREDICTIONS)
    (here / "notebook.py").write_text(NOTEBOOK)
    types = yaml.safe_load(re.search(r"trusted: (\[[^]]*lightgbm[^]]*\])", (GUIDES / "teachers.md").read_text())[1])  # type: ignore[index]
    recipe = {
        "format": 1,
        "name": "machines",
        "transfer_set": {
            "source": {"kind": "csv", "path": "rows"},
            "inputs": ["x", "y"],
            "label": "state",
            "id": "machine",
            "split": {"train": 0.5, "validation": 0.2, "test": 0.3, "stratify": True},
        },
        "teachers": {
            "rule": {"kind": "callable", "output": "logits"},
            "boosted": {
                "kind": "sklearn",
                "weights": "boosted.skops",
                "trusted": types,
                "preprocess": {"normalise": None},
            },
            "kept": {
                "kind": "callable",
                "function": "mine:said",
                "files": ["predictions.npz"],
                "output": "probabilities",
                "require": None,
            },
        },
        "students": six_students(),
        "tracking": {"register_models": False},
    }
    (here / "recipe.json").write_text(json.dumps(recipe))
    pyarrow.csv.write_csv(table(*machines(APPENDED, 0, seed=2), ROWS), here / "2026-02.csv")
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=here, env=surroundings(here), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return here


def told(here: Path, until: str = "export") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((here / f"{until}.json").read_text())
    return found


def exported(here: Path) -> list[dict[str, Any]]:
    """What was said of every row, with ids, splits and labels, as `store export` writes it."""
    if not (here / "said.parquet").exists():
        collegium(here, "store", "export", "out", "--parquet", "said.parquet")
    rows: list[dict[str, Any]] = pq.read_table(here / "said.parquet").to_pylist()
    return rows


def place_of(here: Path) -> dict[str, tuple[float, float]]:
    files = sorted((here / "rows").glob("*.csv"))
    rows = pa.concat_tables([pyarrow.csv.read_csv(file) for file in files]).to_pylist()
    return {row["machine"]: (row["x"], row["y"]) for row in rows}


def test_a_lightgbm_model_says_of_every_row_what_it_says_at_home(tables: Path) -> None:
    import skops.io

    path = tables / "boosted.skops"
    booster = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    where, rows = place_of(tables), exported(tables)
    own = booster.predict_proba([where[row["id"]] for row in rows])
    said = [[row["boosted.probabilities"][name] for name in booster.classes_] for row in rows]
    assert len(rows) == ROWS + APPENDED
    np.testing.assert_allclose(said, own, atol=3e-3)  # the floor, and what a store rounds
    right = [row["boosted.class"] == row["label"] for row in rows if row["split"] == "test" and number(row) < ROWS]
    assert told(tables)["report"]["teachers"]["boosted"]["test_accuracy"] == pytest.approx(np.mean(right))


def number(row: Mapping[str, Any]) -> int:
    return int(row["id"].removeprefix("m"))


def test_predictions_in_a_file_are_a_teacher_and_their_average_precision_is_scikit_learns(tables: Path) -> None:
    with np.load(tables / "predictions.npz") as kept:
        scores = kept["scores"][:, 0]
    rows = [row for row in exported(tables) if row["split"] == "test" and number(row) < ROWS]
    fault = [row["label"] == "fault" for row in rows]
    expected = average_precision_score(fault, scores[[number(row) for row in rows]])
    rare = told(tables)["report"]["by_class"]["rare"]
    assert 0.2 < expected < 0.9 and rare["classes"] == ["fault"]
    assert rare["average_precision"]["kept"] == pytest.approx(expected)
    (stage,) = (
        s for s in told(tables, "label")["report"]["stages"] if (s["name"], s.get("part")) == ("kept", "test-1")
    )
    assert stage["reason"] == "not built before"


def test_of_appended_rows_only_these_are_asked(tables: Path) -> None:
    def lines(name: str) -> list[tuple[float, ...]]:
        return sorted(tuple(map(float, line.split())) for line in (tables / name).read_text().splitlines())

    where = list(place_of(tables).values())
    assert lines("asked first") == sorted(where[:ROWS])
    assert lines("asked") == sorted(where[ROWS:])
    labels = [stage for stage in told(tables, "label")["report"]["stages"] if stage["stage"] == "label"]
    assert {stage["part"] for stage in labels if stage["reused"]} == {"train-0", "validation-0", "test-0"}


def test_of_one_fault_in_200_the_report_tells_what_its_figures_are_worth(tables: Path) -> None:
    report = told(tables)["report"]
    counts = {split: classes["fault"] for split, classes in report["transfer_set"]["labelled_of_classes"].items()}
    assert counts == {"train": 10, "validation": 4, "test": 6}  # their shares of 20
    cautions = "\n".join(report["cautions"])
    assert "Validation has fewer than 10 labelled rows of 1 of 2 classes ('fault' 4)" in cautions
    assert "1 of 2 classes have fewer than 20 test rows ('fault' 6)" in cautions
    for name, student in report[
        "students"
    ].items():  # who always says "fine" is right on 99.5 %, and says nothing of a fault
        found = student["by_class"]
        is_said = found["said"]["student"][found["classes"].index("fault")] > 0
        assert (f"{name} never says 1 of the 2 classes that are tested: 'fault' (6 test rows)" in cautions) != is_said
    assert "class_weights: balanced` may help" not in cautions  # it is what they have


def test_six_students_are_one_table_and_equal_controls_are_trained_once(tables: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(collegium(tables, "report", "out", "--csv").stdout)))
    names = list(told(tables)["report"]["students"])
    pairs = {(line["student"], line["against"]) for line in lines}
    assert {(one, other) for one in names for other in names if one != other} <= pairs
    assert len(lines) == 6 * 5 + 6 == len(pairs)
    trained = [s for s in told(tables)["report"]["stages"] if s["stage"] == "distill" and "control" in s["part"]]
    assert len(trained) == 12
    built = {(stage["name"], stage["part"]) for stage in trained if not stage["reused"]}
    assert built == {(name, f"control/seed-{seed}") for name in ("of_rule", "of_boosted") for seed in (0, 1)}


def test_functions_of_a_notebook_teach_and_learn_and_their_source_stands_in_the_recipe(tables: Path) -> None:
    report = told(tables)["report"]
    assert report["recipe"]["teachers"]["rule"]["function"] == "__main__:rule"
    assert report["recipe"]["students"]["of_rule"]["model"] == "__main__:Net"
    place = place_of(tables)
    rule = {row["id"]: row["rule.class"] for row in exported(tables)}
    assert all(rule[id] == ("fault" if np.hypot(*place[id]) > 3 else "fine") for id in rule)


def test_every_format_of_the_same_rows_is_predicted_as_the_report_counts_them(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from orchestrator.cli.main import collegium as command

    monkeypatch.chdir(tables)
    rows = [row for row in exported(tables) if row["split"] == "test" and number(row) < ROWS]
    where = place_of(tables)
    x, y = np.array([where[row["id"]] for row in rows]).T
    data = pa.table({"y": y, "machine": [row["id"] for row in rows], "x": x})
    pyarrow.csv.write_csv(data, "new.csv")
    pq.write_table(data, "new.parquet")
    pyarrow.feather.write_feather(data, "new.arrow")
    Path("new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data.to_pylist()))
    np.savez("new.npz", x=x, y=y)
    np.save("new.npy", np.stack([x, y], 1))
    said = {}
    for file in ("new.csv", "new.parquet", "new.arrow", "new.jsonl", "new.npz", "new.npy"):
        done = CliRunner().invoke(command, ["predict", "machines-of_rule_boosted_kept", file, "--out", "out"])
        assert done.exit_code == 0, done.output
        said[file] = [json.loads(line) for line in done.stdout.splitlines()]
    classes = {file: [row["class"] for row in found] for file, found in said.items()}
    assert all(found == classes["new.csv"] for found in classes.values())
    sure = {file: [row["probability"] for row in found] for file, found in said.items()}
    assert len(set(sure["new.csv"])) > 100
    for found in sure.values():
        np.testing.assert_allclose(found, sure["new.csv"], atol=1e-6)
    confusion = told(tables)["report"]["students"]["of_rule_boosted_kept"]["confusion"]["matrix"]
    names = told(tables)["report"]["by_class"]["classes"]
    counted = np.zeros((2, 2), int)
    for row, found in zip(rows, classes["new.csv"], strict=True):
        counted[names.index(row["label"]), names.index(found)] += 1
    assert counted.tolist() == confusion


# ---- pictures

SIZE, MEAN, STD = 24, [0.78, 0.78, 0.78], [0.05, 0.05, 0.05]
KINDS = ("bars", "plain", "rungs")
RESNET = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return nn.functional.relu(x + self.bn2(self.conv2(nn.functional.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = Block(width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.layer1(nn.functional.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))
"""


def picture(kind: str, draw: np.random.Generator, *, grey: bool) -> Image.Image:
    """Faint stripes, or none, of any size and tint: what only a network sees that gets them standardised."""
    height, width = draw.integers(SIZE, 40, 2)
    wave = 14 * np.sign(np.sin(np.arange(max(height, width)) * 2 * np.pi / 8 + draw.uniform(0, 6)))
    stripes = {"bars": wave[None, :width], "rungs": wave[:height, None], "plain": np.zeros((1, 1))}[kind]
    light = 199 + np.broadcast_to(stripes, (height, width)) + draw.normal(0, 3, (height, width))
    tint = 0 if grey else draw.uniform(-8, 8, 3)
    pixels = light[:, :, None] + np.broadcast_to(tint, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("L" if grey else "RGB")


def as_pixels(image: Image.Image) -> np.ndarray:
    """What the owner of the network did with a picture: the middle square, 24 pixels wide, in colour."""
    edge, (width, height) = min(image.size), image.size
    left, top = (width - edge) // 2, (height - edge) // 2
    square = image.convert("RGB").crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def standardised(pixels: np.ndarray) -> torch.Tensor:
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def own_network(here: Path) -> torch.nn.Module:
    known: dict[str, Any] = {"__name__": "resnet"}
    exec((here / "resnet.py").read_text(), known)
    torch.manual_seed(0)
    network: torch.nn.Module = known["ResNet"](len(KINDS))
    return network


def trained_at_home(here: Path) -> None:
    draw, network = np.random.default_rng(1), own_network(here)
    labels = torch.arange(96) % 3
    inputs = standardised(np.stack([as_pixels(picture(KINDS[k], draw, grey=k == 0)) for k in labels]))
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), labels).backward()
        optimiser.step()
    save_file(network.state_dict(), here / "resnet.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a teacher that was trained elsewhere, on a folder as people have it."""
    here = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    forms = ("a.png", "b.jpg", "c.gif", "d.webp", "e.jpeg")
    for kind in KINDS:
        (here / "photos" / kind).mkdir(parents=True)
        for count in range(40):
            image = picture(kind, draw, grey=count % 4 == 0)
            image.save(here / "photos" / kind / f"{count:02}{forms[count % 5]}", quality=95)
    (here / "resnet.py").write_text(RESNET)
    trained_at_home(here)
    collegium(here, "run", write(here, "pictures.yaml", of_pictures()), "--out", "out")
    return here


def of_pictures(**teacher: Any) -> dict[str, Any]:
    brought = {"kind": "module", "model": "resnet:ResNet", "weights": "resnet.safetensors"}
    return {
        "format": 1,
        "name": "pictures",
        "transfer_set": {
            "source": {"kind": "image_folder", "path": "photos"},
            "inputs": "image",
            "label": "label",
            "image_size": SIZE,
            "fit": "crop",
            "split": {"train": 0.5, "validation": 0.2, "test": 0.3, "stratify": True},
        },
        "teachers": {"own": teacher or brought | {"preprocess": {"normalise": {"mean": MEAN, "std": STD}}}},
        "students": {
            "small": {
                "model": "students.models:small_conv_net",
                "arguments": {"width": 4},
                "teachers": ["own"],
                "train": {"steps": 60, "seeds": [0], "learning_rate": 0.01},
                "control": False,
            }
        },
    }


def report_of(here: Path) -> dict[str, Any]:
    (file,) = (here / "out" / "runs").glob("*/report.json")
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def test_weights_of_ones_own_are_as_right_as_at_home_on_a_folder_of_mixed_images(pictures: Path) -> None:
    from safetensors.torch import load_file

    network = own_network(pictures)
    network.load_state_dict(load_file(pictures / "resnet.safetensors"))
    files = sorted((pictures / "photos").glob("*/*"))
    with torch.no_grad():
        own = network.eval()(standardised(np.stack([as_pixels(Image.open(file)) for file in files]))).argmax(1)
    at_home = {f"{file.relative_to(pictures / 'photos')}#0": KINDS[k] for file, k in zip(files, own, strict=True)}
    rows = exported(pictures)
    assert {row["id"]: row["own.class"] for row in rows} == at_home
    right = [at_home[row["id"]] == row["label"] for row in rows if row["split"] == "test"]
    assert len(right) > 30 and np.mean(right) > 0.9
    assert report_of(pictures)["teachers"]["own"]["test_accuracy"] == pytest.approx(np.mean(right))


def test_weights_that_do_not_say_how_they_were_fed_are_refused_before_any_work(pictures: Path) -> None:
    silent = write(pictures, "silent.yaml", of_pictures(kind="module", model="resnet:ResNet", weights="resnet.safetensors"))  # fmt: skip
    (line,) = collegium(pictures, "plan", silent, code=2).stderr.strip().splitlines()
    assert "teachers.own" in line and "say how they were fed" in line and "preprocess: {normalise: null}" in line


def test_a_hugging_face_folder_under_checkpoint_is_told_what_it_is_and_which_kind_reads_it(pictures: Path) -> None:
    (pictures / "vit").mkdir()
    (pictures / "vit" / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViT"]}))
    (pictures / "vit" / "model.safetensors").write_bytes(b"")
    wrong = write(pictures, "wrong.yaml", of_pictures(kind="checkpoint", path="vit"))
    (line,) = collegium(pictures, "plan", wrong, code=2).stderr.strip().splitlines()
    assert "teachers.own.path" in line and "a Hugging Face model (vit)" in line and "kind: module" in line


def test_the_delivered_student_predicts_the_folder_and_so_does_what_is_exported_of_it(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed: nothing was exported for elsewhere")
    collegium(pictures, "predict", "pictures-small", "photos", "--out", "out", "--output", "said.jsonl")
    said = {row["id"]: row["class"] for row in map(json.loads, (pictures / "said.jsonl").read_text().splitlines())}
    tested = [row for row in exported(pictures) if row["split"] == "test"]
    counted = np.zeros((3, 3), int)
    for row in tested:
        counted[KINDS.index(row["label"]), KINDS.index(said[row["id"]])] += 1
    assert counted.tolist() == report_of(pictures)["students"]["small"]["confusion"]["matrix"]
    monkeypatch.chdir(pictures)
    images = np.stack([as_pixels(Image.open(pictures / "photos" / row["id"].removesuffix("#0"))) for row in tested])
    collegium(pictures, "export", "pictures-small", "--out", "out", "--onnx")
    known: dict[str, Any] = {"images": images}
    exec(block("export.md", "onnxruntime").replace("digits-small-elsewhere", "pictures-small-elsewhere"), known)
    assert [KINDS[k] for k in known["logits"].argmax(1)] == [said[row["id"]] for row in tested]
    script = [sys.executable, "pictures-small-elsewhere/predict.py", "photos"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert {row["id"]: row["class"] for row in map(json.loads, done.stdout.splitlines())} == said
