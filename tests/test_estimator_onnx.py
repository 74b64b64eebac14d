"""Delivered estimators as ONNX: the same answers, in an environment that has neither Collegium nor torch."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from students.config.estimator import EstimatorStudent
from students.delivering.export import export_student
from students.delivering.forms import said_by_onnx, to_onnx, to_pt2
from students.delivering.golden import asked, compared
from students.fitting.fit import fit
from students.runs.of_student import student_run
from students.runs.session import PlainSession
from teachers.errors import CollegiumError
from teachers.models.folder import load_model
from tests.training_runs import make_store, source

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no graph can be run")
pytest.importorskip("skl2onnx", reason="skl2onnx is not installed: no estimator can be converted")
pytest.importorskip("onnxmltools", reason="onnxmltools is not installed: no boosted tree can be converted")

MODELS = {
    "tree": ("sklearn.tree:DecisionTreeClassifier", {"max_depth": 6}),
    "forest": ("sklearn.ensemble:RandomForestClassifier", {"n_estimators": 10, "max_depth": 6}),
    "linear": ("sklearn.linear_model:LogisticRegression", {"max_iter": 500}),
    "logits": ("sklearn.tree:DecisionTreeRegressor", {"max_depth": 6}),
    "xgboost": ("xgboost:XGBClassifier", {"n_estimators": 10}),
    "lightgbm": ("lightgbm:LGBMClassifier", {"n_estimators": 10}),
    "catboost": ("catboost:CatBoostClassifier", {"iterations": 10}),
}


def fitted(folder, transfer_set, model, arguments, **more):
    learns = "logits" if "Regressor" in model else "probabilities"
    document = {"kind": "sklearn", "model": model, "arguments": arguments, "teachers": ["wide"], "learns": learns}
    config = EstimatorStudent.model_validate(document | more)
    where = {"folder": folder, "stage": folder, "stage_name": "distill/tree", "transfer_set": transfer_set.folder}
    store = make_store(folder / "store", transfer_set)
    run = student_run("student", config, 0, sources=(source(store),), user_path=folder, **where)
    fit([run], PlainSession())
    return run.folder


ALIKE = ("forest", "linear")
"""Of a library of which another one is tried anyway."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] if name in ALIKE else []) for name in MODELS]
)
def test_a_graph_says_what_the_estimator_says(name, digits, tmp_path):
    if name in ("xgboost", "lightgbm", "catboost"):
        pytest.importorskip(name)
    model = load_model(fitted(tmp_path, digits, *MODELS[name]))
    golden = asked(model, digits.inputs(digits.of("test")[0]))
    found = compared(said_by_onnx(to_onnx(model), golden.inputs), golden, model.config.space)
    assert found.rows == digits.of("test")[0].num_rows
    assert found.largest_difference < 1e-4 and found.same_class == 1.0
    with pytest.raises(CollegiumError, match="is an estimator, and no program of torch"):
        to_pt2(model)


def test_what_cannot_be_converted_is_told_in_the_converters_words(digits, tmp_path):
    model = load_model(fitted(tmp_path, digits, "sklearn.naive_bayes:ComplementNB", {}, preprocess={"normalise": None}))
    model.module.estimator.__class__ = type("Unheard", (model.module.estimator.__class__,), {})
    with pytest.raises(CollegiumError, match=r"cannot be converted to ONNX.*Unheard"):
        to_onnx(model)


ALONE = """
import json, sys
for name in ("torch", "students", "teachers", "sklearn"):
    try:
        __import__(name)
        raise SystemExit(f"{name} is here")
    except ModuleNotFoundError:
        pass
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
inputs = np.load(sys.argv[2])
[logits] = session.run(["logits"], {each.name: inputs[each.name] for each in session.get_inputs()})
np.save(sys.argv[3], logits)
"""


def said_alone(tmp_path, graph, inputs):
    """What `graph` says in a Python that finds NumPy, onnxruntime and what that imports, and nothing else."""
    site, found = tmp_path / "site", Path(sysconfig.get_path("purelib"))
    site.mkdir(exist_ok=True)
    for name in ("numpy", "numpy.libs", "onnxruntime", "flatbuffers", "google", "packaging"):
        if (found / name).exists() and not (site / name).exists():
            (site / name).symlink_to(found / name)
    (tmp_path / "model.onnx").write_bytes(graph)
    np.savez(tmp_path / "inputs.npz", **inputs)
    start = f"import sys; sys.path.append({str(site)!r})\n{ALONE}"
    files = [str(tmp_path / name) for name in ("model.onnx", "inputs.npz", "logits.npy")]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return torch.from_numpy(np.load(tmp_path / "logits.npy"))


def test_a_delivered_tree_runs_without_collegium_and_torch(digits, tmp_path):
    run = fitted(tmp_path, digits, *MODELS["tree"])
    figures = {"agreement": 1.0, "entropy": 0.5, "coverage": 1.0, "parameters": 1, "bytes": 1}
    latency = {"device": "cpu", "threads": 1, **{f"batch_{n}": {"p50_ms": 1.0, "p95_ms": 1.0} for n in (1, 32)}}
    evaluation = {
        "judged": False,
        "delivered": 0,
        "student": {"runs": [{"seed": 0, **figures, "latency": latency}]},
        "source_digest": "x",
    }
    student = {"teachers": ["wide"], "objective": [{"weight": 1, "loss": "soft"}], "learns": "probabilities"}
    recipe = {"name": "digits", "task": "classification", "students": {"tree": student}, "cohorts": {}}
    about = {"name": "tree", "evaluation": evaluation, "recipe_yaml": json.dumps(recipe)}
    files = export_student(run, tmp_path / "out", **about, transfer_set=digits.folder, onnx=True)
    assert files == [
        "model.skops",
        "config.json",
        "golden.arrow",
        "model.onnx",
        "README.md",
        "metrics.json",
        "recipe.yaml",
        "SHA256SUMS",
    ]
    inputs = {name: np.array(column) for name, column in digits.inputs(digits.of("test")[0]).items()}
    said = said_alone(tmp_path, (tmp_path / "out/model.onnx").read_bytes(), inputs)
    torch.testing.assert_close(said, load_model(tmp_path / "out")(inputs), atol=1e-4, rtol=1e-4)
    told = json.loads((tmp_path / "out/metrics.json").read_text())["onnx"]
    assert told["same_class"] == 1.0 and told["rows"] == len(said)
    card = (tmp_path / "out/README.md").read_text()
    assert "An estimator that was taught by wide" in card and "`model.onnx` needs no Collegium" in card
