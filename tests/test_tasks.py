"""Labels, spaces, encodings and combination rules of classes that each hold or not, and of numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import Ridge
from torch import Tensor

from orchestrator.recipe.model import Recipe
from teachers.config.task import ANSWER_OF
from teachers.config.teacher import SklearnTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError, TeacherError
from teachers.models.adapters import load_teacher
from teachers.models.checked import check_scores
from teachers.models.estimators import fit_sklearn, flat
from teachers.models.preprocess import Preprocessor
from teachers.models.scores import to_logits
from teachers.models.teacher import LoadedTeacher
from teachers.preparing.count import count
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.soft_targets.combine.rules import COMBINE, check_combined
from teachers.soft_targets.encodings.table import ENCODINGS, decode
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Output, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.labels import has_label, is_known, strata, usable
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet

ROWS = 400


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2))
    held = [[name for name in "abc" if rng.random() < 0.4] if rng.random() < 0.9 else None for _ in range(ROWS)]
    return pa.table(
        {
            "id": [f"row {number}" for number in range(ROWS)],
            "x": x[:, 0],
            "y": x[:, 1],
            "price": [None if number % 7 == 0 else 100 + 10 * value for number, value in enumerate(x.sum(1))],
            "area": x[:, 0] - x[:, 1],
            "lists": held,
            "text": [None if names is None else "; ".join(names) for names in held],
            **{name: [None if names is None else name in names for names in held] for name in "abc"},
            "hot": pa.FixedSizeListArray.from_arrays(
                pa.array([int(name in (names or "")) for names in held for name in "abc"]), 3
            ),
        }
    )


def config(path: Path, **about: Any) -> TransferSetConfig:
    kind = "csv" if path.suffix == ".csv" else "parquet"
    return TransferSetConfig.model_validate(
        {"source": {"kind": kind, "path": str(path)}, "inputs": ["x", "y"], **about}
    )


def prepared(table: pa.Table, folder: Path, *, as_csv: bool = False, **about: Any) -> TransferSet:
    path = folder / ("rows.csv" if as_csv else "rows.parquet")
    csv.write_csv(table, path) if as_csv else parquet.write_table(table, path)
    told = config(path, id="id", **about)
    made = prepare(told, folder / "out", chunk_rows=64)
    counted = count(told, look(told))
    assert counted is not None
    assert counted.classes == made.classes
    assert counted.num_labelled == made.report["labelled"]
    assert counted.of_class("train") == made.report["labelled_per_class"]
    return made


def labels_by_id(made: TransferSet) -> dict[str, list[float]]:
    found = {}
    for segment in made.segments:
        found |= dict(zip(made.ids(segment).to_pylist(), made.labels(segment).tolist(), strict=True))
    return found


SETS = [
    {"label": "lists"},
    {"label": "text", "label_separator": ";"},
    {"label": ["a", "b", "c"]},
    {"label": "lists", "classes": ["a", "b", "c"]},
]


@pytest.mark.parametrize("about", SETS, ids=lambda about: str(about["label"]))
def test_classes_that_each_hold_are_read_alike_from_lists_text_and_columns(
    table: pa.Table, tmp_path: Path, about: dict[str, Any]
) -> None:
    made = prepared(table, tmp_path, task="multilabel", **about)
    assert made.space == Space("multilabel", ("a", "b", "c"))
    expected = {
        name: [-1] * 3 if held is None else [int(one in held) for one in "abc"]
        for name, held in zip(table["id"].to_pylist(), table["lists"].to_pylist(), strict=True)
    }
    assert labels_by_id(made) == expected


def test_rows_of_zeros_and_ones_need_names_only_where_they_shall_have_some(table: pa.Table, tmp_path: Path) -> None:
    made = prepared(table, tmp_path, task="multilabel", label="hot")
    assert made.classes == ("0", "1", "2")
    named = prepare(
        config(tmp_path / "rows.parquet", id="id", task="multilabel", label="hot", classes=["p", "q", "r"]),
        tmp_path / "named",
    )
    assert named.classes == ("p", "q", "r")
    assert labels_by_id(named) == labels_by_id(made)


@pytest.mark.parametrize("as_csv", [False, True])
def test_numbers_keep_their_units_and_a_missing_one_is_no_label(table: pa.Table, tmp_path: Path, as_csv: bool) -> None:
    table = table.select(["id", "x", "y", "price", "area"])
    made = prepared(table, tmp_path, as_csv=as_csv, task="regression", label=["price", "area"])
    found = labels_by_id(made)
    for name, price, area in zip(*(table[column].to_pylist() for column in ("id", "price", "area")), strict=True):
        np.testing.assert_allclose(found[name], [np.nan if price is None else price, area], rtol=1e-6)
    train = np.concatenate([made.labels(segment) for segment in made.of("train")]).astype(np.float64)
    np.testing.assert_allclose(made.space.mean, np.nanmean(train, 0), rtol=1e-9)
    np.testing.assert_allclose(made.space.scale, np.nanstd(train, 0), rtol=1e-9)
    alone = prepare(
        config(tmp_path / f"rows.{'csv' if as_csv else 'parquet'}", id="id", task="regression", label="price"),
        tmp_path / "alone",
    )
    assert alone.report["without_label"] == sum(
        price is None
        for name, price in zip(*(table[c].to_pylist() for c in ("id", "price")), strict=True)
        if name in set(alone.ids(alone.of("train")[0]).to_pylist())
    )


@pytest.mark.parametrize(("task", "names"), [("multilabel", ("0", "1", "2")), ("regression", ("y[0]", "y[1]", "y[2]"))])
def test_labels_of_numpy_are_arrays_with_a_column_each(tmp_path: Path, task: Any, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 3))
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(60, 2)), y=labels)
    about = {"source": {"kind": "numpy", "path": str(tmp_path / "rows.npz")}, "inputs": "x", "label": "y", "task": task}
    made = prepare(TransferSetConfig.model_validate(about), tmp_path / "out")
    assert made.classes == names
    found = labels_by_id(made)
    assert [found[f"rows.npz#{row}"] for row in range(60)] == labels.tolist()


def replaced(table: pa.Table, column: str, values: list[Any], row: int = 3) -> pa.Table:
    held = table[column].to_pylist()
    held[row : row + len(values)] = values
    return table.set_column(table.schema.get_field_index(column), column, [held])


BAD: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("price", [float("inf")], {"task": "regression", "label": "price"}, "label price is inf, not a finite float32"),
    ("price", [1e300], {"task": "regression", "label": "price"}, "label price is 1e.300, not a finite float32"),
    (
        "price",
        [5.0] * ROWS,
        {"task": "regression", "label": "price"},
        "the label 'price' is 5 in each of the .* there is nothing to learn",
    ),
    (
        "text",
        ["a; z"],
        {"task": "multilabel", "label": "text", "label_separator": ";", "classes": ["a", "b", "c"]},
        "label 'z' is not among the classes",
    ),
]


@pytest.mark.parametrize(("column", "values", "about", "said"), BAD, ids=lambda each: str(each)[:30])
def test_a_label_that_is_none_is_told_with_its_row(
    table: pa.Table, tmp_path: Path, column: str, values: list[Any], about: dict[str, Any], said: str
) -> None:
    parquet.write_table(replaced(table, column, values, 0 if len(values) > 1 else 3), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=said) as told:
        prepare(config(tmp_path / "rows.parquet", **about), tmp_path / "out")
    if len(values) == 1:
        assert "rows.parquet:3" in str(told.value) or "rows.parquet#3" in str(told.value), told.value


def test_a_column_of_zeros_and_ones_that_holds_a_two_is_told_with_its_row(table: pa.Table, tmp_path: Path) -> None:
    numbers = table.set_column(
        table.schema.get_field_index("b"), "b", [[2 if row == 5 else row % 2 for row in range(ROWS)]]
    )
    parquet.write_table(numbers, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="label b is 2, expected 0 or 1: whether the class holds"):
        prepare(config(tmp_path / "rows.parquet", task="multilabel", label=["a", "b"]), tmp_path / "out")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"label": ["a", "b"]}, "2 columns, and a row is of one class; name one column, or say `task: multilabel`"),
    ({"task": "multilabel", "label": "text"}, "'text' is text; say what stands between two classes"),
    ({"task": "multilabel", "label": "price"}, "'price' is double; several classes of a row are a list"),
    ({"task": "multilabel", "label": ["a", "b"], "classes": ["a"]}, "1 names for 2 label columns"),
    ({"task": "multilabel", "label": "hot", "classes": ["a"]}, "1 names, and a row of 'hot' has 3 values"),
    ({"task": "regression", "label": "text"}, "'text' is string .* no number; `task: classification` learns classes"),
    ({"task": "regression", "label": "price", "classes": ["a"]}, "numbers are called as their columns are"),
    ({"task": "regression", "label": ["price", "price"]}, "'price' is there twice"),
    ({"task": "regression", "label": ["price", "x"]}, "'x' is the label, too"),
    ({"label": "price"}, "a number with decimals"),
]


@pytest.mark.parametrize(("about", "said"), REFUSED, ids=lambda each: str(each)[:40])
def test_a_label_that_cannot_be_of_its_task_is_refused_before_work(
    table: pa.Table, tmp_path: Path, about: dict[str, Any], said: str
) -> None:
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(RecipeError, match=said):
        look(config(tmp_path / "rows.parquet", **about))


def test_a_task_divides_what_rows_are_stratified_by() -> None:
    several = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [-1, -1, -1], [-1, 0, 1]], np.int8)
    assert strata(several).tolist() == [1, 0, 3, -1, 2]
    numbers = np.array([[1.0, np.nan], [np.nan, np.nan]], np.float32)
    assert strata(numbers).tolist() == [0, -1]
    assert has_label(numbers).tolist() == [True, False]
    assert np.isnan(usable(numbers, np.array([False, True]))).all()


def recipe(**about: Any) -> Recipe:
    rows = {"source": {"kind": "parquet", "path": "x"}, "inputs": "x", "label": "y"}
    teacher = {"kind": "callable", "function": "m:f", **about.pop("teacher", {"output": "logits"})}
    return Recipe.model_validate(
        {"format": 1, "name": "r", "transfer_set": rows | about.pop("rows", {}), "teachers": {"one": teacher}, **about}
    )


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"task": "regression"}, "`logits` is nothing that `task: regression` has; say `values`"),
        ({"task": "regression", "teacher": {"output": "values", "encoding": "label"}}, "`label` is nothing that `task: regression` has; say `dense`"),
        ({"task": "multilabel", "teacher": {"output": "log_probabilities"}}, "say `logits` or `probabilities`"),
        ({"rows": {"label_separator": ";"}}, "only `task: multilabel` has several classes in one text"),
        ({"task": "regression", "teacher": {"output": "values"}, "rows": {"split": {"stratify": True}}}, "the label is a number"),
    ],
)  # fmt: skip
def test_what_a_task_has_no_room_for_is_told_by_key(about: dict[str, Any], said: str) -> None:
    assert any(said in told for _, told in recipe(**about).problems())


def test_the_task_is_known_where_labels_are_read_and_stands_once_in_the_recipe() -> None:
    made = recipe(task="regression", teacher={"output": "values"})
    assert made.transfer_set.task == "regression"
    assert "task" not in made.model_dump()["transfer_set"]
    assert Recipe.model_validate(made.model_dump()) == made
    with pytest.raises(ValueError, match="stands at the top of the recipe"):
        recipe(rows={"task": "regression"})


def known_and_said(draw: Any) -> tuple[Tensor, Tensor]:
    teachers, rows, width = (draw(st.integers(1, 4)) for _ in range(3))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(teachers, rows, width, generator=generator) * 5, torch.rand(
        teachers, rows, width, generator=generator
    ) < 0.7


@settings(deadline=None)
@given(st.data())
def test_classes_of_a_set_are_combined_as_two_class_distributions_each(data: st.DataObject) -> None:
    """Oracle: the rules of one class of many, over (holds, holds not) of every class alone."""
    logits, known = known_and_said(data.draw)
    temperature = data.draw(st.sampled_from([1.0, 4.0]))
    somebody = known.any(0)
    for rule, keywords in (
        ("mean_probability", {}),
        ("mean_logits", {}),
        ("weighted", {"teacher_weights": [1.0, 2.0, 3.0, 4.0][: len(logits)]}),
    ):
        target, weights = COMBINE["class_set"][rule](logits, temperature=temperature, known=known, **keywords)
        assert torch.equal(target.isnan(), ~somebody)
        check_combined((target, weights), logits, rule, known)
        for place in range(logits.shape[2]):
            two = torch.stack([logits[..., place], torch.zeros_like(logits[..., place])], -1)
            both = known[..., place, None].expand_as(two)
            pair, _ = COMBINE["class_axis"][rule](two, temperature=temperature, known=both, **keywords)
            mine = somebody[:, place]
            torch.testing.assert_close(
                torch.sigmoid(target[mine, place] / temperature),
                torch.softmax(pair[mine] / temperature, -1)[:, 0],
                atol=1e-5,
                rtol=1e-4,
            )


@settings(deadline=None)
@given(st.data())
def test_numbers_are_combined_as_numpy_does_over_those_who_know(data: st.DataObject) -> None:
    values, known = known_and_said(data.draw)
    held = np.where(known.numpy(), values.double().numpy(), np.nan)
    weights = np.arange(1.0, len(values) + 1)
    shares = np.where(known.numpy(), weights[:, None, None], 0.0)
    with np.errstate(all="ignore"):
        expected = {
            "mean": np.where(known.any(0), np.nansum(held, 0) / known.sum(0).numpy(), np.nan),
            "median": np.array(
                [
                    [np.nan if np.isnan(column).all() else np.nanmedian(column) for column in row.T]
                    for row in held.transpose(1, 0, 2)
                ]
            ),
            "weighted": np.nansum(held * shares, 0) / shares.sum(0),
            "inverse_variance": np.nansum(held * shares, 0) / shares.sum(0),
        }
    keywords: dict[str, dict[str, Any]] = {
        "weighted": {"teacher_weights": weights.tolist()},
        "inverse_variance": {"variances": (1 / weights).tolist()},
    }
    for rule in expected:  # what else there is: test_combine_rules
        said = COMBINE["values"][rule](values, temperature=3.0, known=known, **keywords.get(rule, {}))
        check_combined(said, values, rule, known)
        np.testing.assert_allclose(said[0].numpy(), expected[rule], rtol=1e-4, atol=1e-5, err_msg=rule)


@pytest.mark.parametrize("answer", [*ANSWER_OF.values()])
def test_a_missing_teacher_changes_nothing(answer: Any) -> None:
    said = torch.rand(3, 5, 12).sort(-1).values if answer == "boxes" else torch.randn(3, 5, 4)
    if answer == "boxes":
        said[..., 5::6] = torch.randint(0, 3, (3, 5, 2)).float()
    known = torch.ones_like(said, dtype=torch.bool)
    known[2] = False
    needs = {
        "weighted": {"teacher_weights": [1.0, 2.0, 3.0]},
        "fitted": {"teacher_weights": [1.0, 2.0, 3.0]},
        "inverse_variance": {"variances": [1.0, 2.0, 3.0]},
        "best": {"merits": [1.0, 2.0, 3.0]},
    }
    alone_enough = ("mean_probability", "mean_logits", "mean", "median", "vote", "confidence", "entropy")
    for name in [each for each in COMBINE[answer] if each in (*alone_enough, *needs)]:
        rule, more = COMBINE[answer][name], needs.get(name, {})
        fewer = {key: values[:2] for key, values in more.items()}
        whole, weights = rule(said, temperature=2.0, known=known, **more)
        alone, mine = rule(said[:2], temperature=2.0, known=known[:2], **fewer)
        torch.testing.assert_close(whole, alone)
        torch.testing.assert_close(weights[:2], mine)
        assert not weights[2].any()


def test_what_is_said_of_a_set_and_of_numbers_is_kept_as_it_is() -> None:
    logits = torch.tensor([[3.5, -70000.0, 0.25], [-1.0, 2.0, 70000.0]])
    kept = ENCODINGS["class_set"]["dense"].encode(logits)
    back = decode("dense", kept, width=3, answer="class_set")
    torch.testing.assert_close(back, logits.clamp(-6e4, 6e4), rtol=1e-3, atol=0.0)
    holds = decode(
        "label", ENCODINGS["class_set"]["label"].encode(logits), width=3, answer="class_set", probability_floor=0.1
    )
    torch.testing.assert_close(holds.sigmoid(), torch.where(logits > 0, 0.95, 0.05))
    numbers = torch.tensor([[1e30, 0.1234567]])
    assert torch.equal(decode("dense", ENCODINGS["values"]["dense"].encode(numbers), width=2, answer="values"), numbers)


def test_a_store_keeps_several_outputs_of_a_teacher_apart(tmp_path: Path) -> None:
    more = (Output("hint", "values", "dense", 5),)
    spec = Spec("wide", "d", "train-0", "s", "dense", ("a", "b"), 10, 4, "class_axis", more)
    store = SoftTargetStore.create(tmp_path, spec)
    keys = np.arange(10, dtype=np.uint64)
    logits, hint = np.random.default_rng(0).normal(size=(10, 2)), np.random.default_rng(1).normal(size=(10, 5))
    for number in range(store.num_shards):
        first, rows = store.shard_rows(number)
        part = slice(first, first + rows)
        store.commit(number, keys[part], {"logits": logits[part], "hint": hint[part]})
    store.seal()
    found = SoftTargets.open(tmp_path)
    assert found.spec == spec
    assert [*spec.fields] == ["logits.value", "logits.offset", "hint.value"]
    np.testing.assert_allclose(found.said().numpy(), logits, atol=1e-2)
    np.testing.assert_array_equal(found.said(output=more[0]).numpy(), hint.astype(np.float32))


def test_scores_of_a_set_are_probabilities_each_for_itself() -> None:
    keys = np.arange(2, dtype=np.uint64)
    teacher = LoadedTeacher(("a", "b"), "probabilities", lambda batch: np.zeros(0), "class_set")
    said = check_scores(np.array([[0.9, 0.8], [0.0, 1.0]]), teacher, "t", keys)
    logits = to_logits(said, "probabilities", 1e-2, "class_set")
    torch.testing.assert_close(logits.sigmoid(), 0.99 * said + 0.005)
    with pytest.raises(TeacherError, match="declares `output: probabilities`, but they are not"):
        check_scores(np.array([[1.2, 0.0], [0.0, 1.0]]), teacher, "t", keys)


# ---- estimators of scikit-learn as teachers of several classes and of numbers


def fitted(table: pa.Table, folder: Path, model: str, **about: Any) -> tuple[TransferSet, Any, Any]:
    made = prepared(table, folder, **about)
    config = SklearnTeacher.model_validate({"kind": "sklearn", "model": model})
    fit_sklearn(config, made, folder / "teacher")
    given: dict[str, Any] = {"trust": [], "device": "cpu", "user_path": Path.cwd()}
    return (
        made,
        config,
        load_teacher(config, columns=made.columns, space=made.space, trained=folder / "teacher", **given),
    )


def learnt_rows(made: TransferSet, config: Any) -> tuple[np.ndarray, np.ndarray]:
    (segment,) = made.of("train")
    known = made.labelled(segment) & is_known(made.labels(segment)).all(1)
    features = flat(Preprocessor(config.preprocess, made.columns), made.inputs(segment))[known]
    return features, made.labels(segment)[known]


@pytest.mark.parametrize("label", [["price", "area"], "price"])
def test_a_regressor_says_what_scikit_learn_says_of_the_same_rows(
    table: pa.Table, tmp_path: Path, label: str | list[str]
) -> None:
    made, config, teacher = fitted(table, tmp_path, "sklearn.linear_model:Ridge", task="regression", label=label)
    features, labels = learnt_rows(made, config)
    (segment,) = made.of("test")
    said = check_scores(teacher(made.inputs(segment)), teacher, "ridge", made.keys(segment))
    expected = (
        Ridge().fit(features, labels).predict(flat(Preprocessor(config.preprocess, made.columns), made.inputs(segment)))
    )
    np.testing.assert_allclose(said.numpy(), expected.reshape(said.shape), rtol=1e-4)
    assert (teacher.output, teacher.answer, teacher.classes) == ("values", "values", made.classes)


@pytest.mark.parametrize("model", ["sklearn.ensemble:ExtraTreesClassifier", "sklearn.neural_network:MLPClassifier"])
def test_a_classifier_of_several_labels_says_the_probability_of_each(
    table: pa.Table, tmp_path: Path, model: str
) -> None:
    """Whether it gives an array for each class, or one for all; a class that never holds has the probability 0."""
    never = table.append_column("never", [[False] * table.num_rows])
    made, config, teacher = fitted(never, tmp_path, model, task="multilabel", label=["a", "b", "never"])
    features, labels = learnt_rows(made, config)
    (segment,) = made.of("test")
    said = check_scores(teacher(made.inputs(segment)), teacher, "several", made.keys(segment))
    assert said.shape == (segment.num_rows, 3) and teacher.answer == "class_set"
    assert float(said[:, 2].max()) < 0.2
    if "Trees" in model:
        own = ExtraTreesClassifier(random_state=0).fit(features, labels)
        asked = own.predict_proba(flat(Preprocessor(config.preprocess, made.columns), made.inputs(segment)))
        np.testing.assert_allclose(said[:, 0].numpy(), asked[0][:, 1], rtol=1e-6)
        assert not said[:, 2].any()


def test_a_classifier_of_numbers_is_refused(table: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="is a classifier, and the labels are numbers; choose a regressor"):
        fitted(table, tmp_path, "sklearn.linear_model:LogisticRegression", task="regression", label="price")
