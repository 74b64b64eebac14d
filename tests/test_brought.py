"""Models that are brought: fed as they were made, or refused in one line that says what they are and what to do."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from orchestrator.building.pipeline import check_prepared
from orchestrator.planning.planning import plan
from orchestrator.recipe.checks import check_before_work
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.stages import keys
from orchestrator.stages.stages import Built
from teachers.config.teacher import SklearnTeacher, TeacherConfig
from teachers.errors import DataError, RecipeError, StoreError, TeacherError
from teachers.models.adapters import load_teacher, look_like_probabilities
from teachers.models.estimators import fit_sklearn
from teachers.models.folder import read_config
from teachers.models.modules import build_module
from teachers.models.state import load_state
from teachers.preparing.prepare import prepare
from teachers.storage.seal import Seal
from teachers.transfer_set.transfer_set import TransferSet
from teachers.zoo import mlp
from tests.test_count import iris, rare

TEACHER: TypeAdapter[TeacherConfig] = TypeAdapter(TeacherConfig)
STUDENT = {"model": "students.models:mlp", "arguments": {"hidden": 4}}


def recipe_of(teacher: dict[str, Any], **more: Any) -> Recipe:
    source = {"kind": "sklearn", "name": "iris"}
    student = {**STUDENT, "teachers": ["brought"], "train": {"steps": 1}}
    return Recipe.model_validate(
        {
            "format": 1,
            "name": "r",
            "transfer_set": {"source": source, "inputs": "features", "label": "target"},
            "teachers": {"brought": teacher},
            "students": {"small": student},
            **more,
        }
    )


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    return prepare(iris(), tmp_path_factory.mktemp("flowers"))


def accuracy(config: TeacherConfig, flowers: TransferSet) -> float:
    teacher = load_teacher(
        config,
        columns=flowers.columns,
        space=flowers.space,
        trained=None,
        trust=(),
        device="cpu",
        user_path=Path.cwd(),
    )
    (train,) = flowers.of("train")
    said = np.asarray(teacher(flowers.inputs(train))).argmax(1)
    return float((said == flowers.labels(train)).mean())


def dumped(estimator: Any, path: Path) -> str:
    data = load_iris()
    skops.io.dump(estimator.fit(data.data.astype(np.float32), data.target), path)
    return str(path)


# ---- fed as they were made


def test_a_network_with_weights_must_be_told_how_it_was_fed(tmp_path: Path) -> None:
    given = {"kind": "module", "model": "teachers.zoo:mlp", "weights": "w.safetensors"}
    with pytest.raises(ValidationError, match=r"say how they were fed.*normalise: null.*mean.*normalise: auto"):
        TEACHER.validate_python(given)
    for said in (None, "auto", {"mean": [0.5], "std": [0.5]}):
        assert TEACHER.validate_python({**given, "preprocess": {"normalise": said}}).preprocess.is_stated
    assert TEACHER.validate_python({**given, "preprocess": {"function": "mine:prepare"}}).preprocess.function
    trained_here = {"kind": "module", "model": "teachers.zoo:mlp", "train": {"steps": 1}}
    assert TEACHER.validate_python(trained_here).preprocess.normalise == "auto"


@pytest.mark.parametrize("within", [False, True], ids=["pipeline", "search over a pipeline"])
def test_a_pipeline_is_fed_as_it_is(flowers: TransferSet, tmp_path: Path, within: bool) -> None:
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0))
    search = GridSearchCV(pipeline, {"randomforestclassifier__max_depth": [8, 9]}, cv=2)
    path = dumped(search if within else pipeline, tmp_path / "m.skops")
    config = SklearnTeacher(kind="sklearn", weights=path, trusted=["numpy.dtype", "numpy.ma.MaskedArray"])
    check_before_work(recipe_of({"kind": "sklearn", "weights": path}))
    assert config.preprocess.normalise is None
    if not within:  # scikit-learn's own accuracy on these rows is 1 as well
        assert accuracy(config, flowers) == 1.0


def test_an_estimator_alone_does_not_say_how_it_was_fed_and_is_refused_until_somebody_does(
    flowers: TransferSet, tmp_path: Path
) -> None:
    path = dumped(RandomForestClassifier(20, random_state=0), tmp_path / "forest.skops")
    with pytest.raises(
        RecipeError, match=r"teachers\.brought\.weights: .*a RandomForestClassifier and no pipeline.*nor"
    ):
        check_before_work(recipe_of({"kind": "sklearn", "weights": path}))
    stated = {"kind": "sklearn", "weights": path, "preprocess": {"normalise": None}}
    check_before_work(recipe_of(stated))
    assert accuracy(TEACHER.validate_python(stated), flowers) == 1.0


def test_a_recipe_that_was_resolved_says_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    path = dumped(make_pipeline(StandardScaler(), SVC(probability=True)), tmp_path / "m.skops")
    recipe = recipe_of({"kind": "sklearn", "weights": path})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    "teacher",
    [
        {"kind": "checkpoint", "path": "model"},
        {"kind": "callable", "function": "mine:say", "output": "logits"},
    ],
    ids=lambda teacher: str(teacher["kind"]),
)
def test_who_prepares_its_inputs_itself_takes_no_preprocess(teacher: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="leave `preprocess` out"):
        TEACHER.validate_python({**teacher, "preprocess": {"normalise": None}})
    TEACHER.validate_python(TEACHER.validate_python(teacher).model_dump(mode="json"))


def test_statistics_of_the_rows_decide_nothing_of_a_function_or_of_what_is_fed_as_it_is() -> None:
    def key(teacher: dict[str, Any], statistics: str) -> str:
        config = TEACHER.validate_python(teacher)
        return keys.label_stage(config, "t", ("train-0", "rows"), "weights", ["a"], statistics).key

    function = {"kind": "callable", "function": "math:floor", "output": "logits"}
    pipeline = {"kind": "sklearn", "weights": "m.skops"}
    for teacher in (function, pipeline):
        assert key(teacher, "before") == key(teacher, "after")
    trained_here = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}
    assert key(trained_here, "before") != key(trained_here, "after")


# ---- what an estimator has learnt


class Strict(ExtraTreesClassifier):
    """Wants labels 0 to K - 1 without a gap, as XGBoost's does."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Strict":
        if not np.array_equal(np.unique(y), np.arange(len(np.unique(y)))):
            raise ValueError(f"Invalid classes inferred from unique values of `y`, got {np.unique(y)}")
        return super().fit(X, y, sample_weight)


def test_an_estimator_is_fitted_on_numbers_without_a_gap_and_keeps_the_names(tmp_path: Path) -> None:
    """A class between two others has no training row."""
    rows = prepare(rare(tmp_path), tmp_path / "out")
    config = SklearnTeacher(kind="sklearn", model=f"{__name__}:Strict", trusted=[f"{__name__}.Strict"])
    fit_sklearn(config, rows, tmp_path / "trained")
    teacher = load_teacher(
        config,
        columns=rows.columns,
        space=rows.space,
        trained=tmp_path / "trained",
        trust=(),
        device="cpu",
        user_path=Path.cwd(),
    )
    assert (rows.classes, teacher.classes) == (("a", "b", "c"), ("a", "c"))
    (train,) = rows.of("train")
    said = np.array(teacher.classes)[np.asarray(teacher(rows.inputs(train))).argmax(1)]
    assert (said == np.array(rows.classes)[rows.labels(train)]).all()


# ---- known before anybody is trained

TRAINED_HERE = {"kind": "module", "model": "students.models:mlp", "arguments": {"hidden": 4}, "train": {"steps": 200}}


def test_a_class_map_is_held_against_real_classes_by_plan_and_by_a_run_that_has_prepared(
    flowers: TransferSet, tmp_path: Path
) -> None:
    told = r"teachers\.brought: class_map names \['Setosa'\], which the teacher does not have"
    recipe = recipe_of({**TRAINED_HERE, "class_map": {"Setosa": "setosa"}})
    with pytest.raises(RecipeError, match=told):
        plan(recipe, tmp_path / "out")
    prepared = Built(keys.prepare_stage(recipe, "source"), flowers.folder, Seal((), ""), True, "", 0.0)
    with pytest.raises(RecipeError, match=told):
        check_prepared(recipe, prepared)
    check_prepared(recipe_of(TRAINED_HERE), prepared)


def test_a_class_that_an_estimator_cannot_learn_is_told_by_plan(tmp_path: Path) -> None:
    trees = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier", "arguments": {"n_estimators": 3}}
    transfer_set = rare(tmp_path).model_dump(mode="json")
    with pytest.raises(RecipeError, match=r"teachers\.brought: no labelled training row is of 'b'.*`class_map: \{\}`"):
        plan(recipe_of(trees, transfer_set=transfer_set), tmp_path / "out")
    meant = recipe_of({**trees, "class_map": {}}, transfer_set=transfer_set)
    assert any(note.startswith("class 'b': no labelled training row") for note in plan(meant, tmp_path / "out").notes)


def test_more_labels_than_rows_are_told_by_plan(tmp_path: Path) -> None:
    transfer_set = iris(labelled=999_999).model_dump(mode="json")
    with pytest.raises(
        DataError, match=r"labelled: 999,999 labels of train rows may be used, and 1\d\d train rows have one"
    ):
        plan(recipe_of(TRAINED_HERE, transfer_set=transfer_set), tmp_path / "out")


def test_a_checked_plan_knows_the_classes_of_its_rows_and_writes_nothing(tmp_path: Path) -> None:
    """A network that cannot be made for no classes is made for those that there are."""
    student = {"model": f"{__name__}:EvenAtFirst", "teachers": ["brought"], "train": {"steps": 100}}
    transfer_set = rare(tmp_path).model_dump(mode="json")
    made = plan(
        recipe_of(TRAINED_HERE, students={"small": student}, transfer_set=transfer_set), tmp_path / "out", check=True
    )
    assert made.memory and made.bytes_needed > 0 and not (tmp_path / "out").exists()


class EvenAtFirst(torch.nn.Module):
    """Begins with the same small probability for every class, as detectors do."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = torch.nn.Linear(input_shape[0], num_classes)
        torch.nn.init.constant_(self.body.bias, -math.log(num_classes))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(inputs)
        return logits


# ---- told what they are


def written(folder: Path, **files: Any) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config__json": {"model_type": "vit", "architectures": ["ViT"]}}, r"a Hugging Face model \(vit\).*kind: module"),
        ({"config__json": {"architecture": "resnet18", "pretrained_cfg": {}}}, r"a timm model \(resnet18\).*kind: timm"),
        ({"MLmodel": {}}, "an MLflow model.*kind: callable"),
        ({"forest__skops": {}}, r"an estimator.*kind: sklearn.*forest\.skops"),
        ({"net__pth": {}}, r"a network's weights.*kind: module.*net\.pth"),
    ],
    ids=["hugging face", "timm", "mlflow", "skops", "weights"],
)  # fmt: skip
def test_a_folder_of_another_program_is_told_what_it_is_and_which_kind_reads_it(
    tmp_path: Path, files: dict[str, Any], told: str
) -> None:
    folder = written(tmp_path / "vit", **files)
    with pytest.raises(StoreError, match=f"vit is no Collegium model folder.*{told}.*nothing needs to be removed"):
        read_config(folder)
    with pytest.raises(RecipeError, match=r"teachers\.brought\.path: .*nothing needs to be removed"):
        check_before_work(recipe_of({"kind": "checkpoint", "path": str(folder)}))


def test_a_file_and_nothing_at_all_are_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"w\.pt is no Collegium model folder.*kind: module"):
        read_config(tmp_path / "w.pt")
    with pytest.raises(StoreError, match="nowhere does not exist"):
        read_config(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "made"), [("m.joblib", "joblib.load"), ("m.pkl", "pickle.load")])
def test_a_pickle_is_told_how_to_become_skops_before_any_work(tmp_path: Path, name: str, made: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(RecipeError, match=rf"weights: .*{name} is no skops file.*skops\.io\.dump\({made}.*m\.skops"):
        check_before_work(recipe_of({"kind": "sklearn", "weights": str(tmp_path / name)}))


def test_weights_that_are_not_there_are_told_before_any_work(tmp_path: Path) -> None:
    network = {"kind": "module", "model": "teachers.zoo:mlp", "preprocess": {"normalise": None}}
    with pytest.raises(RecipeError, match=r"teachers\.brought\.weights: there is no file"):
        check_before_work(recipe_of({**network, "weights": str(tmp_path / "none.pt")}))
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(RecipeError, match=r"is a folder, expected a file; it holds w\.safetensors"):
        check_before_work(recipe_of({**network, "weights": str(tmp_path)}))


def test_tensors_that_do_not_fit_are_counted_and_three_of_each_kind_named() -> None:
    module = mlp([4] * 10, num_classes=3, input_shape=(4,))
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    with pytest.raises(TeacherError) as found:
        load_state(module, state, "w.pt", TeacherError)
    told = str(found.value)
    assert "of 22 tensors" in told and "22 missing: " in told and "22 unexpected: " in told
    assert told.count("module.") == 3 + 2 and len(told) < 600
    assert told.endswith("all names in the file begin with 'module.': say `strip_prefix: module.`")


def test_scores_that_are_probabilities_are_seen_whatever_they_are_called() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert look_like_probabilities(logits.softmax(1)) and look_like_probabilities(logits.softmax(1).half())
    assert not look_like_probabilities(logits) and not look_like_probabilities(logits.sigmoid())


def test_what_a_recipe_names_needs_no_trust() -> None:
    members = [{"model": "mine:part", "arguments": {}}]
    student = {"model": "mine:net", "arguments": {"members": members}, "preprocess": {"function": "words:grams"}}
    student |= {"teachers": ["brought"]}
    teacher = {"kind": "module", "model": "big:net", "train": {"steps": 1}, "preprocess": {"function": "big:prepare"}}
    trusted = recipe_of(teacher, students={"small": student}, trust=["other:net"]).trusted()
    assert {"mine:net", "mine:part", "words:grams", "big:net", "big:prepare", "other:net"} == set(trusted)


def test_the_starter_recipes_name_nobody_whose_feeding_is_unknown() -> None:
    from orchestrator.recipe.shipped import recipes

    for path in recipes().values():
        load_recipe(path)


def test_a_factory_that_takes_anything_is_still_called_as_it_was() -> None:
    def build(**arguments: Any) -> torch.nn.Module:
        return torch.nn.Linear(4, arguments.get("num_classes", 1000))

    globals()["build"] = build
    assert build_module(f"{__name__}:build", {}, num_classes=3, input_shape=(4,))(torch.zeros(1, 4)).shape == (1, 1000)
