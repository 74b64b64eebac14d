"""What networks and estimators get of categories and of missing numbers; the oracles are scikit-learn's own transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import students
from orchestrator.cli.main import collegium
from orchestrator.recipe.model import Recipe
from teachers.config.preprocess import Normalise, Preprocess
from teachers.config.teacher import CheckpointTeacher, SklearnTeacher
from teachers.errors import DataError, RecipeError, TeacherError
from teachers.models.adapters import load_teacher
from teachers.models.estimators import fit_sklearn, flat
from teachers.models.folder import load_model
from teachers.models.preprocess import Preprocessor
from teachers.preparing.prepare import prepare
from teachers.transfer_set.columns import MISSING, UNKNOWN
from teachers.transfer_set.transfer_set import TransferSet

from .test_mixed_tables import INPUTS, config, mixed
from .test_predict import model_of, said

TRUSTED = ["functools.partial", "sklearn.utils.validation.check_array"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    folder = tmp_path_factory.mktemp("mixed")
    pq.write_table(mixed(), folder / "data.pq")
    return prepare(config(folder / "data.pq", INPUTS, id="id"), folder / "out")


def rows_of(prepared: TransferSet, *splits: str) -> dict[str, np.ndarray]:
    inputs = [prepared.inputs(segment) for split in splits for segment in prepared.of(split)]  # type: ignore[arg-type]
    return {name: np.concatenate([part[name] for part in inputs]) for name in inputs[0]}


def made(prepared: TransferSet, *splits: str, **given: Any) -> Any:
    return Preprocessor(Preprocess(**given), prepared.columns)(rows_of(prepared, *splits))


def test_one_hot_stands_behind_the_normalised_numbers(prepared: TransferSet) -> None:
    train, test = rows_of(prepared, "train"), rows_of(prepared, "validation", "test")
    scaler, imputer = StandardScaler(), SimpleImputer()
    numbers = scaler.fit_transform(imputer.fit_transform(train["features"]))
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train["categories"])
    expected = np.hstack([numbers, hot.transform(train["categories"])])
    found = made(prepared, "train").numpy()
    # scikit-learn's deviation is of the filled column, ours of the values that are there
    lack = np.isnan(train["features"][:, 1]).mean()
    expected[:, 1] *= np.sqrt(1 - lack)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(made(prepared, "validation", "test")[:, 3:], hot.transform(test["categories"]))
    assert Preprocessor(Preprocess(), prepared.columns).input_shape == (found.shape[1],)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("missing", "strategy"), [("mean", {"strategy": "mean"}), ("zero", {"strategy": "constant", "fill_value": 0.0})]
)
def test_missing_numbers_are_filled_and_told(prepared: TransferSet, missing: str, strategy: dict[str, Any]) -> None:
    train = rows_of(prepared, "train")["features"]
    imputer = SimpleImputer(add_indicator=True, **strategy)
    expected = imputer.fit_transform(train)
    given = {"missing": missing, "missing_indicator": True, "normalise": None, "categories": "ordinal"}
    found = made(prepared, "train", **given).numpy()
    np.testing.assert_allclose(found[:, :-2], expected, rtol=1e-6)
    kept = made(prepared, "train", missing="keep", normalise=None, categories="ordinal").numpy()
    np.testing.assert_array_equal(np.isnan(kept[:, 1]), np.isnan(train[:, 1]))


def test_ordinal_native_and_codes_are_places_in_the_sorted_values(prepared: TransferSet) -> None:
    codes = rows_of(prepared, "train", "test")["categories"]
    ordinal = made(prepared, "train", "test", categories="ordinal")[:, 3:].numpy()
    assert np.array_equal(ordinal, codes - 2)
    native = made(prepared, "train", "test", categories="native", missing="keep")[:, 3:].numpy()
    assert np.array_equal(native, np.where(codes < 2, np.nan, codes - 2.0), equal_nan=True)
    own = made(prepared, "train", "test", categories="codes")
    assert own["categories"].dtype == torch.int64 and np.array_equal(own["categories"], codes)
    assert own["features"].shape[1] == 3
    ready = Preprocessor(Preprocess(categories="codes"), prepared.columns)
    assert ready.input_shape == {"features": (3,), "categories": (2,)}
    assert ready.num_codes == tuple(2 + len(known) for known in prepared.columns[1].values)
    assert Preprocessor(Preprocess(categories="native"), prepared.columns).categorical_positions == (3, 4)
    assert Preprocessor(Preprocess(), prepared.columns).categorical_positions == ()


@pytest.mark.parametrize("categories", ["one_hot", "ordinal", "native", "codes"])
@pytest.mark.parametrize("missing", ["mean", "zero", "keep"])
def test_what_a_model_folder_keeps_gives_the_same(prepared: TransferSet, categories: str, missing: str) -> None:
    given = Preprocess.model_validate({"categories": categories, "missing": missing, "missing_indicator": True})
    first = Preprocessor(given, prepared.columns)
    again = Preprocessor.from_resolved(json.loads(json.dumps(first.resolved())), Path())
    rows = rows_of(prepared, "train", "validation", "test")
    assert again.input_shape == first.input_shape and again.resolved() == first.resolved()
    assert np.array_equal(flat(again, rows), flat(first, rows), equal_nan=True)


def test_explicit_numbers_are_of_the_features_beside_categories(prepared: TransferSet) -> None:
    given = Normalise(mean=[50.0, 0.0, 18000.0], std=[10.0, 50.0, 400.0])
    found = made(prepared, "train", normalise=given)[:, :3].numpy()
    features = rows_of(prepared, "train")["features"]
    expected = (np.where(np.isnan(features), 0.0, features) - given.mean) / given.std
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---- models from elsewhere, and delivered ones --------------------------------------------------------------------------


def raw() -> pa.Table:
    """New rows, their columns in another order and of other types, some values unknown."""
    table = mixed(30, seed=5).drop_columns(["y", "id"])
    color = [*["violet", ""] * 3, *table["color"].to_pylist()[6:]]
    table = table.set_column(table.schema.names.index("color"), "color", pa.array(color).dictionary_encode())
    return table.select(["start", "member", "color", "fare", "age"])


def test_a_delivered_model_takes_raw_tables(prepared: TransferSet, tmp_path: Path) -> None:
    folder = model_of(prepared, tmp_path / "model", Preprocess(missing_indicator=True))
    pq.write_table(raw(), tmp_path / "new.parquet")
    rows, bad, done = said(folder, tmp_path / "new.parquet", probabilities=True)
    model = students.load(folder)
    inputs = students.canonical(model, raw())
    p = torch.softmax(model(inputs), -1).numpy()
    assert not bad and [row["0"] for row in rows] == pytest.approx(p[:, 0].tolist(), abs=1e-6)
    assert inputs["categories"][:6, 0].tolist() == [UNKNOWN, MISSING] * 3
    unknown = (inputs["categories"] == UNKNOWN).sum(axis=0)
    assert done.unknown == {name: count for name, count in zip(("color", "member"), unknown, strict=True) if count}


def test_unknown_categories_are_counted_on_stderr(prepared: TransferSet, tmp_path: Path) -> None:
    folder = model_of(prepared, tmp_path / "model")
    pq.write_table(raw(), tmp_path / "new.parquet")
    ran = CliRunner().invoke(collegium, ["predict", str(folder), str(tmp_path / "new.parquet")])
    assert ran.exit_code == 0, ran.output
    assert "color: 3 of 30 rows have a value that no training row had" in ran.stderr
    assert len(ran.stdout.splitlines()) == 30


def test_rows_that_a_model_cannot_take_are_named(prepared: TransferSet, tmp_path: Path) -> None:
    model = load_model(model_of(prepared, tmp_path / "model"))
    table = raw().set_column(4, "age", pa.array([None, *range(29)], pa.int64()))
    with pytest.raises(DataError, match="1 of 30 rows cannot be used, the first is row 0: age is missing"):
        students.canonical(model, table)
    with pytest.raises(RecipeError, match=r"holds list<.*, the model takes a category"):
        students.canonical(model, raw().set_column(2, "color", pa.array([["a"]] * 30)))


def test_a_model_of_another_dictionary_teaches_by_its_own(tmp_path: Path) -> None:
    """The same rows, prepared where other values were known: what a model says of a raw row does not change."""
    tables = {"there": mixed(300, seed=7), "here": mixed(300, seed=8)}
    color = pa.array([{"red": "vermilion"}.get(value, value) for value in tables["there"]["color"].to_pylist()])
    tables["there"] = tables["there"].set_column(3, "color", color)
    sets = {}
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "data.pq")
        sets[name] = prepare(config(tmp_path / name / "data.pq", INPUTS, id="id"), tmp_path / name / "out")
    assert sets["there"].columns[1].values != sets["here"].columns[1].values
    folder = model_of(sets["there"], tmp_path / "model")
    common: dict[str, Any] = {"space": sets["here"].space, "trained": None, "trust": (), "device": "cpu"}
    teacher = load_teacher(
        CheckpointTeacher(kind="checkpoint", path=str(folder)),
        columns=sets["here"].columns,
        user_path=tmp_path,
        **common,
    )
    segment = sets["here"].of("train")[0]
    order = [int(name.split()[1]) for name in sets["here"].ids(segment).to_pylist()]
    model = load_model(folder)
    expected = model(students.canonical(model, tables["here"].take(pa.array(order))))
    torch.testing.assert_close(torch.as_tensor(teacher(sets["here"].inputs(segment))), expected)


def test_a_model_that_never_saw_a_gap_does_not_teach_of_rows_with_gaps(prepared: TransferSet, tmp_path: Path) -> None:
    whole = mixed().set_column(2, "fare", pa.array(np.arange(400.0)))
    pq.write_table(whole, tmp_path / "data.pq")
    other = prepare(config(tmp_path / "data.pq", ["age", "fare", "color", "member", INPUTS[-1]]), tmp_path / "out")
    teacher = CheckpointTeacher(kind="checkpoint", path=str(model_of(other, tmp_path / "model")))
    given: dict[str, Any] = {"space": prepared.space, "trained": None, "trust": (), "device": "cpu"}
    with pytest.raises(TeacherError, match="rows whose features are all there, and here some may be missing"):
        load_teacher(teacher, columns=prepared.columns, user_path=tmp_path, **given)


def test_a_function_is_told_what_codes_mean(prepared: TransferSet, tmp_path: Path) -> None:
    from teachers.config.teacher import CallableTeacher

    (tmp_path / "rules_of_mine.py").write_text(
        "import numpy as np\n"
        "def rule(batch, columns):\n"
        "    red = columns[1].values[0].index('red') + 2\n"
        "    is_red = batch['categories'][:, 0] == red\n"
        "    return np.stack([~is_red, is_red], 1).astype('float32')\n"
    )
    config = CallableTeacher(kind="callable", function="rules_of_mine:rule", output="logits")
    given: dict[str, Any] = {"space": prepared.space, "trained": None, "trust": (), "device": "cpu"}
    teacher = load_teacher(config, columns=prepared.columns, user_path=tmp_path, **given)
    rows = rows_of(prepared, "train")
    red = prepared.columns[1].values[0].index("red") + 2
    assert np.array_equal(np.asarray(teacher(rows))[:, 1], rows["categories"][:, 0] == red)


# ---- estimators ---------------------------------------------------------------------------------------------------------


def test_an_estimator_is_told_which_features_are_categories(prepared: TransferSet, tmp_path: Path) -> None:
    teacher = SklearnTeacher(
        kind="sklearn",
        model="sklearn.ensemble:HistGradientBoostingClassifier",
        arguments={"max_iter": 5},
        preprocess=Preprocess(categories="native", missing="keep", normalise=None),
        trusted=TRUSTED,
    )
    fit_sklearn(teacher, prepared, tmp_path)
    given: dict[str, Any] = {"space": prepared.space, "trained": tmp_path, "trust": (), "device": "cpu"}
    loaded = load_teacher(teacher, columns=prepared.columns, user_path=tmp_path, **given)
    ready = Preprocessor(teacher.preprocess, prepared.columns)
    train, test = rows_of(prepared, "train"), rows_of(prepared, "test")
    segment = prepared.of("train")[0]
    expected = HistGradientBoostingClassifier(max_iter=5, categorical_features=[3, 4], random_state=0)
    expected.fit(flat(ready, train), prepared.labels(segment))
    np.testing.assert_allclose(loaded(test), expected.predict_proba(flat(ready, test)), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "preprocess", "said"),
    [
        ("sklearn.linear_model:LogisticRegression", {"missing": "keep"}, "`missing: keep` gives NaN, which LogisticRegression does not take"),
        ("sklearn.linear_model:LogisticRegression", {"categories": "native"}, "`categories: native` gives NaN"),
        ("sklearn.ensemble:RandomForestClassifier", {"categories": "native"}, "is of estimators that are told which features"),
    ],
)  # fmt: skip
def test_an_estimator_that_takes_no_gaps_or_categories_is_refused_before_it_is_fitted(
    model: str, preprocess: dict[str, Any], said: str, prepared: TransferSet, tmp_path: Path
) -> None:
    teacher = SklearnTeacher(kind="sklearn", model=model, preprocess=Preprocess.model_validate(preprocess))
    with pytest.raises(RecipeError, match=said):
        fit_sklearn(teacher, prepared, tmp_path)


@pytest.mark.parametrize(
    ("preprocess", "said"),
    [
        ({"missing": "keep"}, "`missing: keep` gives NaN, which a network does not take; say `mean` or `zero`"),
        ({"categories": "native"}, "`categories: native` gives NaN, which a network does not take"),
    ],
)
def test_a_network_that_would_get_gaps_is_refused_in_the_recipe(preprocess: dict[str, str], said: str) -> None:
    student = {
        "model": "students.models:linear",
        "teachers": ["t"],
        "train": {"steps": 1, "seeds": [0]},
        "objective": [],
    }
    document = {
        "format": 1,
        "name": "gaps",
        "transfer_set": {"source": {"kind": "csv", "path": "t.csv"}, "inputs": ["a"], "label": "y"},
        "teachers": {"t": {"kind": "module", "model": "teachers.zoo:linear", "train": {"steps": 1}, "preprocess": preprocess}},
        "students": {"s": student | {"preprocess": preprocess}},
    }  # fmt: skip
    with pytest.raises(RecipeError) as raised:
        Recipe.from_dict(document)
    told = [line for line in str(raised.value).splitlines() if said in line]
    assert [line.partition(":")[0] for line in told] == ["teachers.t", "students.s.preprocess"]


def test_a_network_that_embeds_codes_is_told_how_many_there_are(prepared: TransferSet, tmp_path: Path) -> None:
    from teachers.models.modules import build_module

    (tmp_path / "embedding_of_mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, *, num_classes, input_shape, num_codes):\n"
        "        super().__init__()\n"
        "        self.tables = torch.nn.ModuleList([torch.nn.Embedding(number, 3) for number in num_codes])\n"
        "        self.last = torch.nn.Linear(3 * len(num_codes) + input_shape['features'][0], num_classes)\n"
        "    def forward(self, x):\n"
        "        codes = [table(x['categories'][:, at]) for at, table in enumerate(self.tables)]\n"
        "        return self.last(torch.cat([x['features'], *codes], 1))\n"
    )
    from teachers.users_code.imports import use_user_path

    use_user_path(tmp_path)
    ready = Preprocessor(Preprocess(categories="codes"), prepared.columns)
    shapes: dict[str, Any] = {"input_shape": ready.input_shape, "num_codes": ready.num_codes}
    module = build_module("embedding_of_mine:Net", {}, num_classes=2, **shapes)
    assert module(ready(rows_of(prepared, "train", "test"))).shape[1] == 2
