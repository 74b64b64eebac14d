import math
import os

import numpy as np
import pytest
import skops.io
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from orchestrator.stages.keys import label_stage
from teachers.config.preprocess import Preprocess
from teachers.config.published import HuggingFaceTeacher, OnnxTeacher
from teachers.config.resources import Resources
from teachers.config.teacher import CallableTeacher, CheckpointTeacher, ModuleTeacher, SklearnTeacher
from teachers.errors import RecipeError, StoreError, TeacherError
from teachers.models.adapters import load_teacher, teacher_classes
from teachers.models.asking import with_unknown
from teachers.models.checked import check_scores
from teachers.models.estimators import class_names, fit_sklearn
from teachers.models.folded import said_of
from teachers.models.folder import ModelConfig, save_model
from teachers.models.formats import canonical_skops
from teachers.models.preprocess import Preprocessor
from teachers.models.scores import to_logits
from teachers.models.teacher import LoadedTeacher
from teachers.tasks.space import Space
from teachers.zoo import mlp

MLP = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": 4}}
GIVEN = MLP | {"preprocess": {"normalise": "auto"}}
"""With weights, whoever brings them says how they were fed."""
TREES = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier", "arguments": {"n_estimators": 5}}


@pytest.fixture
def load(digits, tmp_path):
    def load(config, trained=None, trust=()):
        return load_teacher(
            config,
            columns=digits.columns,
            space=digits.space,
            trained=trained,
            trust=trust,
            device="cpu",
            user_path=tmp_path,
        )

    return load


@pytest.fixture
def module():
    torch.manual_seed(0)
    return mlp(4, num_classes=10, input_shape=(1, 8, 8)).eval()


def some_rows(digits, rows=7):
    return {name: np.array(column) for name, column in digits.inputs(digits.of("validation")[0], 0, rows).items()}


def expected_logits(module, digits):
    inputs = Preprocessor(Preprocess(), digits.columns)(some_rows(digits))
    with torch.inference_mode():
        return module(inputs)


def labelled_rows(digits):
    [segment] = digits.of("train")
    rows = np.flatnonzero(digits.labelled(segment))
    features = Preprocessor(Preprocess(), digits.columns)({"image": digits.inputs(segment)["image"][rows]})
    return features.flatten(1).numpy(), digits.labels(segment)[rows]


def write_safetensors(path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".safetensors", lambda path, state: write_safetensors(path, state)),
        (".pt", lambda path, state: torch.save(state, path)),
        (".pt", lambda path, state: torch.save({"state_dict": state, "epoch": 3}, path)),
    ],
    ids=["safetensors", "pt", "checkpoint with a state dict"],
)
def test_a_module_with_given_weights_says_what_that_module_says(load, digits, module, tmp_path, suffix, write):
    write(tmp_path / f"weights{suffix}", module.state_dict())
    teacher = load(ModuleTeacher(**GIVEN, weights=str(tmp_path / f"weights{suffix}")))
    torch.testing.assert_close(teacher(some_rows(digits)), expected_logits(module, digits))
    assert (teacher.classes, teacher.output) == (digits.classes, "logits")


def test_a_prefix_is_taken_off_the_names(load, digits, module, tmp_path):
    write_safetensors(tmp_path / "w.safetensors", {f"module.{k}": v for k, v in module.state_dict().items()})
    config = ModuleTeacher(**GIVEN, weights=str(tmp_path / "w.safetensors"), strip_prefix="module.")
    torch.testing.assert_close(load(config)(some_rows(digits)), expected_logits(module, digits))


def test_weights_that_do_not_fit_are_listed_by_name(load, module, tmp_path):
    state = {f"module.{name}" if name.startswith("1.") else name: t for name, t in module.state_dict().items()}
    state["3.bias"] = torch.zeros(11)
    write_safetensors(tmp_path / "w.safetensors", state)
    told = r"2 missing: 1\.bias, 1\.weight; 2 unexpected: module\.1\.bias, module\.1\.weight; 1 misshaped: 3\.bias \[11\], expected \[10\]"
    with pytest.raises(TeacherError, match=told):
        load(ModuleTeacher(**GIVEN, weights=str(tmp_path / "w.safetensors")))


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch code-was-run",)


def test_a_pickle_is_not_opened_without_opt_in(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"0.weight": RunsCode()}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match=r"runs whatever code is in it.*allow_pickle: true"):
        load(ModuleTeacher(**GIVEN, weights="w.pt"))
    assert not (tmp_path / "code-was-run").exists()


def test_a_pickled_module_teaches_with_opt_in(load, digits, module, tmp_path):
    torch.save(module, tmp_path / "w.pt")
    teacher = load(ModuleTeacher(**GIVEN, weights=str(tmp_path / "w.pt"), allow_pickle=True))
    torch.testing.assert_close(teacher(some_rows(digits)), expected_logits(module, digits))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"not weights at all"], ids=["no file", "empty", "garbage"])
def test_a_file_that_holds_no_weights_is_said_to_hold_none(load, tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TeacherError, match=str(path)):
        load(ModuleTeacher(**GIVEN, weights=str(path)))


def test_a_model_folder_teaches_with_its_own_classes(load, digits, module, tmp_path):
    classes = tuple("jihgfedcba")
    resolved = Preprocessor(Preprocess(), digits.columns).resolved()
    save_model(
        tmp_path / "m",
        module.state_dict(),
        ModelConfig(MLP["model"], MLP["arguments"], Space("classification", classes), resolved),
    )
    config = CheckpointTeacher(kind="checkpoint", path=str(tmp_path / "m"))
    teacher = load(config)
    torch.testing.assert_close(teacher(some_rows(digits)), expected_logits(module, digits))
    assert teacher.classes == teacher_classes(config, digits.space, None) == classes


def test_a_trained_module_may_be_the_recipes_own_and_another_folder_may_not(load, digits, module, tmp_path):
    (tmp_path / "my_model.py").write_text("from teachers.zoo import mlp as make\n")
    resolved = Preprocessor(Preprocess(), digits.columns).resolved()
    about = ModelConfig("my_model:make", MLP["arguments"], digits.space, resolved)
    save_model(tmp_path / "trained", module.state_dict(), about)
    mine = ModuleTeacher(kind="module", model="my_model:make", arguments={"hidden": 4}, train={"steps": 1})
    torch.testing.assert_close(load(mine, tmp_path / "trained")(some_rows(digits)), expected_logits(module, digits))
    with pytest.raises(StoreError, match="my_model:make"):
        load(CheckpointTeacher(kind="checkpoint", path=str(tmp_path / "trained")))


def test_an_estimator_is_fitted_on_exactly_the_labelled_rows(load, digits, tmp_path):
    config = SklearnTeacher(**TREES, seed=3)
    fit_sklearn(config, digits, tmp_path)
    features, labels = labelled_rows(digits)
    assert len(labels) == digits.num_labelled == 100
    own = ExtraTreesClassifier(n_estimators=5, random_state=3).fit(features, labels)
    inputs = Preprocessor(Preprocess(), digits.columns)(some_rows(digits)).flatten(1).numpy()
    teacher = load(config, trained=tmp_path)
    np.testing.assert_array_equal(teacher(some_rows(digits)), own.predict_proba(inputs))
    assert (teacher.classes, teacher.output) == (digits.classes, "probabilities")


def test_an_estimator_of_some_classes_is_fitted_on_their_rows_alone(load, digits, tmp_path):
    config = SklearnTeacher(**TREES, seed=3, classes=["7", "2", "5"], class_map={})
    fit_sklearn(config, digits, tmp_path)
    features, labels = labelled_rows(digits)
    names = np.array(digits.classes)[labels]
    mine = np.isin(names, config.classes)
    own = ExtraTreesClassifier(n_estimators=5, random_state=3)
    own.fit(features[mine], np.array([config.classes.index(name) for name in names[mine]]))
    inputs = Preprocessor(Preprocess(), digits.columns)(some_rows(digits)).flatten(1).numpy()
    teacher = load(config, trained=tmp_path)
    np.testing.assert_array_equal(teacher(some_rows(digits)), own.predict_proba(inputs))
    assert teacher.classes == ("7", "2", "5")


def test_neither_cpus_nor_the_moment_are_in_the_bytes_of_a_fitted_estimator(digits, tmp_path):
    for cpus in (1, 2):
        fit_sklearn(SklearnTeacher(**TREES, resources=Resources(cpus=cpus)), digits, tmp_path / str(cpus))
    assert (tmp_path / "1" / "model.skops").read_bytes() == (tmp_path / "2" / "model.skops").read_bytes()


@pytest.mark.parametrize("seen", [[0, 3, 7], ["0", "3", "7"]], ids=["integers", "names"])
def test_an_estimator_that_saw_some_classes_has_those(load, digits, tmp_path, seen):
    generator = np.random.default_rng(0)
    features = generator.random((30, 64), dtype=np.float32)
    estimator = LogisticRegression().fit(features, np.array(seen)[np.arange(30) % 3])
    skops.io.dump(estimator, tmp_path / "m.skops")
    config = SklearnTeacher(kind="sklearn", weights=str(tmp_path / "m.skops"))
    teacher = load(config)
    assert teacher.classes == teacher_classes(config, digits.space, None) == ("0", "3", "7")
    assert np.shape(teacher(some_rows(digits))) == (7, 3)


@pytest.mark.parametrize(
    ("found", "given", "classes", "expected"),
    [
        ([0, 2], None, ("cat", "dog", "owl"), ("cat", "owl")),
        ([1, 2, 3], None, ("1", "2", "3"), ("1", "2", "3")),
        (["dog", "fox"], None, ("cat", "dog"), ("dog", "fox")),
        ([7, 9], ["cat", "dog"], ("cat", "dog"), ("cat", "dog")),
    ],
)
def test_classes_of_an_estimator_are_names_or_positions(found, given, classes, expected):
    assert class_names(found, given, classes) == expected


@pytest.mark.parametrize(("found", "given"), [([7, 9], None), ([0, 1], ["cat"])])
def test_classes_that_cannot_be_named_are_an_error(found, given):
    with pytest.raises(TeacherError, match="classes"):
        class_names(found, given, ("cat", "dog"))


def test_a_skops_file_with_types_that_nobody_vouched_for_is_refused_until_they_are_listed(load, digits, tmp_path):
    (tmp_path / "my_estimator.py").write_text(
        "from sklearn.linear_model import LogisticRegression\nclass Mine(LogisticRegression):\n    pass\n"
    )
    config = SklearnTeacher(kind="sklearn", model="my_estimator:Mine")
    vouched = config.model_copy(update={"trusted": ["my_estimator.Mine"]})
    with pytest.raises(RecipeError, match="my_estimator"):  # not on the path before a teacher of this user is loaded
        fit_sklearn(config, digits, tmp_path)
    load(CallableTeacher(kind="callable", function="math:floor", output="logits"))
    with pytest.raises(TeacherError, match=r"my_estimator\.Mine.*trusted"):
        fit_sklearn(config, digits, tmp_path)
    fit_sklearn(vouched, digits, tmp_path)
    with pytest.raises(TeacherError, match=r"my_estimator\.Mine.*trusted"):
        load(config, trained=tmp_path)
    assert load(vouched, trained=tmp_path).classes == digits.classes


def test_an_estimator_without_probabilities_cannot_teach(digits, tmp_path):
    with pytest.raises(TeacherError, match="predict_proba"):
        fit_sklearn(SklearnTeacher(kind="sklearn", model="sklearn.svm:LinearSVC"), digits, tmp_path)


def test_a_misspelt_argument_of_an_estimator_is_a_mistake_in_the_recipe(digits, tmp_path):
    config = SklearnTeacher(**(TREES | {"arguments": {"trees": 3}}))
    with pytest.raises(RecipeError, match="trees"):
        fit_sklearn(config, digits, tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"not an archive"], ids=["no file", "empty", "garbage"])
def test_what_is_not_skops_is_said_not_to_be(load, tmp_path, content):
    if content is not None:
        (tmp_path / "m.skops").write_bytes(content)
    with pytest.raises(TeacherError, match=r"m\.skops"):
        load(SklearnTeacher(kind="sklearn", weights=str(tmp_path / "m.skops")))


def test_canonical_skops_says_the_same_and_is_its_own_canon():
    features = np.random.default_rng(0).random((40, 6))
    estimator = ExtraTreesClassifier(3, random_state=0).fit(features, np.arange(40) % 4)
    canon = canonical_skops(skops.io.dumps(estimator))
    assert canonical_skops(canon) == canon
    loaded = skops.io.loads(canon, trusted=skops.io.get_untrusted_types(data=canon))
    np.testing.assert_array_equal(loaded.predict_proba(features), estimator.predict_proba(features))


def test_a_function_of_the_users_directory_teaches(load, digits, tmp_path):
    (tmp_path / "my_teacher.py").write_text(
        "import numpy as np\ndef say(batch, scale):\n    return scale * np.eye(10)[: len(batch['image'])]\n"
    )
    config = CallableTeacher(
        kind="callable", function="my_teacher:say", arguments={"scale": 2.0}, output="log_probabilities"
    )
    teacher = load(config)
    np.testing.assert_array_equal(teacher(some_rows(digits)), 2 * np.eye(10)[:7])
    assert (teacher.classes, teacher.output) == (digits.classes, "log_probabilities")


def test_probabilities_become_finite_logits_by_the_floor():
    probabilities = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]])
    logits = to_logits(probabilities, "probabilities", 1e-3)
    assert logits[0, 1] == pytest.approx(math.log(1e-3 / 4), rel=1e-5)
    assert logits[1, 3] == pytest.approx(math.log(0.999 * 0.4 + 1e-3 / 4), rel=1e-5)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(2))


@pytest.mark.parametrize("floor", [1e-7, 1e-3, 0.5])
def test_probabilities_that_rounding_put_outside_0_to_1_are_0_and_1(floor):
    rounded = torch.tensor([[1 + 1e-6, -1e-6], [1.0, 0.0]])
    checked = check_scores(rounded, teacher_of("probabilities"), "wide", KEYS[:2])
    logits = to_logits(checked, "probabilities", floor)
    assert torch.equal(logits[0], logits[1]) and logits.isfinite().all()


@pytest.mark.parametrize("output", ["logits", "log_probabilities"])
def test_logits_are_left_as_they_are(output):
    scores = torch.randn(3, 4)
    assert torch.equal(to_logits(scores, output, 1e-3), scores)


def teacher_of(output="logits", classes=("a", "b")):
    return LoadedTeacher(classes, output, lambda batch: batch["x"])


KEYS = np.array([11, 22, 33], np.uint64)


@pytest.mark.parametrize(
    ("scores", "output", "told"),
    [
        (np.zeros((3, 5)), "logits", r"shape \[3, 5\], expected \[3, 2\]"),
        (np.zeros(3), "logits", r"shape \[3\], expected \[3, 2\]"),
        (None, "logits", "NoneType"),
        (np.array([[0, 1], [0, np.nan], [np.inf, 0]]), "logits", r"in 2 of 3 rows; sample_key 22, 33$"),
        (np.array([[0, 1], [0, 1], [1e300, 0]]), "logits", r"sample_key 33$"),
        (np.array([[0.5, 0.5], [0, 3], [1, 0]]), "probabilities", r"`output: probabilities`.*sample_key 22$"),
        (np.array([[0.5, 0.5], [1, 0], [1.5, -0.5]]), "probabilities", r"sample_key 33$"),
        (np.zeros((3, 2)), "log_probabilities", r"`output: log_probabilities`.*sample_key 11, 22, 33$"),
    ],
)
def test_what_no_teacher_may_say_is_an_error_that_names_the_rows(scores, output, told):
    with pytest.raises(TeacherError, match=told):
        check_scores(scores, teacher_of(output), "wide", KEYS)


@pytest.mark.parametrize(
    ("scores", "output"),
    [
        (np.array([[1, 2], [3, 4], [5, 6]]), "logits"),
        (torch.tensor([[0.5, 0.5], [1, 0], [0, 1]], dtype=torch.float64), "probabilities"),
        (np.log([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]), "log_probabilities"),
        ([[0.0, 1.0]] * 3, "logits"),
    ],
)
def test_scores_of_any_array_type_are_taken_as_float32(scores, output):
    checked = check_scores(scores, teacher_of(output), "wide", KEYS)
    assert checked.dtype == torch.float32
    np.testing.assert_allclose(checked.numpy(), np.asarray(scores), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_read_only_slice_of_what_a_function_keeps_is_taken_without_a_word():
    """torch would warn that writing to it is undefined; nobody writes."""
    kept = np.array([[0.5, 0.5]] * 5)
    kept.flags.writeable = False
    checked = check_scores(kept[:3], teacher_of("probabilities"), "wide", KEYS)
    checked[:] = 0
    assert (kept == 0.5).all()
    assert with_unknown((kept[:3], np.array([True, False, True])), "wide").shape == (3, 2)


def test_a_linear_student_is_one_layer() -> None:
    from students.models import linear, mlp

    shape = {"num_classes": 3, "input_shape": (2, 4)}
    layers = [layer for layer in linear(**shape) if list(layer.parameters())]
    assert [tuple(layer.weight.shape) for layer in layers] == [(3, 8)]
    assert linear(**shape).state_dict().keys() == mlp([], **shape).state_dict().keys()


def test_a_function_whose_rows_are_called_columns_is_given_them_once(digits, tmp_path, monkeypatch) -> None:
    (tmp_path / "called_columns.py").write_text(
        "import numpy as np\ndef teach(columns):\n    return np.zeros((len(columns['image']), 10), np.float32)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = CallableTeacher(kind="callable", function="called_columns:teach", output="logits")
    given = {"space": digits.space, "trained": None, "trust": [], "device": "cpu", "user_path": tmp_path}
    teacher = load_teacher(config, columns=digits.columns, **given)
    assert teacher(digits.inputs(digits.of("test")[0], 0, 3)).shape == (3, 10)


@pytest.mark.parametrize(
    "changes", [{"precision": "bfloat16"}, pytest.param({"compile": True}, marks=pytest.mark.campaign)]
)
def test_a_network_is_computed_as_the_recipe_says_and_only_then_has_another_key(
    changes, digits, load, module, tmp_path
):
    save_file(module.state_dict(), tmp_path / "mlp.safetensors")
    plain = ModuleTeacher(**GIVEN, weights=str(tmp_path / "mlp.safetensors"))
    other = ModuleTeacher(**GIVEN, weights=str(tmp_path / "mlp.safetensors"), **changes)
    assert not {"precision", "compile"} & set(plain.model_dump())
    about = "wide", ("train-0", "a"), "weights", ["0"], "statistics"
    assert label_stage(plain, *about).key != label_stage(other, *about).key
    rows = some_rows(digits, 40)
    said, found = (said_of(load(config)(rows)).scores.float() for config in (plain, other))
    assert not torch.equal(said, found) or changes == {"compile": True}
    torch.testing.assert_close(found, said, rtol=0.02, atol=0.05)
    fewer = {name: column[:9] for name, column in rows.items()}
    torch.testing.assert_close(said_of(load(other)(fewer)).scores.float(), found[:9], rtol=0.02, atol=0.05)


def test_only_who_is_computed_by_torch_has_a_precision(tmp_path):
    path = {"path": str(tmp_path)}
    with pytest.raises(ValidationError, match="dtype: bfloat16"):
        HuggingFaceTeacher(kind="huggingface", **path, precision="bfloat16")
    with pytest.raises(ValidationError, match="precision"):
        OnnxTeacher(kind="onnx", **path, precision="bfloat16")
