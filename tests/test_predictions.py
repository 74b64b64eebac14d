"""Predictions that exist: every row finds its own, by id or by number; what does not fit is named before anything is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from scipy.special import log_softmax, softmax

from orchestrator.planning.answers import prediction_problems
from orchestrator.recipe.checks import class_problems, file_problems
from orchestrator.recipe.model import Recipe
from orchestrator.stages.keys import label_stage, teacher_digest
from teachers.config.predictions import PredictionsTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import CollegiumError, DataError, RecipeError, TeacherError
from teachers.labelling.predictions import fill
from teachers.labelling.shard import LabelTask
from teachers.models.predictions import Predictions
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.space import Space
from teachers.transfer_set.answers import answered_segments, write_answers
from teachers.transfer_set.transfer_set import TransferSet

ROWS, CLASSES = 300, ("ant", "bee", "cow")
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(ROWS, 3)).astype(np.float32)
P = softmax(LOGITS, 1)
LABELS = P.argmax(1)
IDS = [f"row {number}" for number in range(ROWS)]


def made(folder: Path, **about: Any) -> TransferSetConfig:
    """How a transfer set of ROWS rows is made, whose source lies in `folder`."""
    label = np.array(CLASSES)[LABELS]
    parquet.write_table(
        pa.table({"name": IDS, "x": LOGITS[:, 0], "y": label, "price": LOGITS[:, 1]}), folder / "rows.parquet"
    )
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    told = {"source": source, "inputs": "x", "label": "y", "id": "name", **about}
    return TransferSetConfig.model_validate(told)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferSetConfig, TransferSet]:
    folder = tmp_path_factory.mktemp("rows")
    how = made(folder)
    return how, prepare(how, folder / "out")


def config(path: Path, **about: Any) -> PredictionsTeacher:
    told = {"kind": "predictions", "path": str(path), "id": "name", "output": "probabilities", **about}
    return PredictionsTeacher.model_validate(told)


def filled(rows: tuple[TransferSetConfig, TransferSet], how: PredictionsTeacher, folder: Path) -> dict[str, np.ndarray]:
    """What the stores say, {id: logits [C]} in the transfer set's order, NaN where nothing is known."""
    told, data = rows
    classes = Predictions.open(how, data.space).classes
    tasks = []
    for segment in data.segments:
        about = (segment.name, segment.digest, how.encoding, classes, segment.num_rows, 64, data.space.answer)
        store = SoftTargetStore.create(folder / segment.name, Spec("theirs", "digest", *about))
        tasks.append(LabelTask(data.folder, segment.name, store.folder))
    report = fill("theirs", how, tasks, told)
    assert report.rows == sum(segment.num_rows for segment in data.segments)
    found = {}
    for task, segment in zip(tasks, data.segments, strict=True):
        SoftTargetStore.open(task.store).seal()
        output = SoftTargets.open(task.store).spec.answered
        said = SoftTargets.open(task.store).rows()
        fields = {name: torch.from_numpy(np.concatenate(values.parts)) for name, values in said.items()}
        decoded = output.encodes.decode(fields, output.width, how.probability_floor)
        order = [classes.index(name) for name in data.classes]
        found |= dict(zip(data.ids(segment).to_pylist(), decoded.numpy()[:, order], strict=True))
    return found


def check(found: dict[str, np.ndarray], expected: np.ndarray = P, floor: float = 1e-3) -> None:
    said = softmax(np.stack([found[name] for name in IDS]), 1)
    expected = (1 - floor) * expected + floor / expected.shape[1] if floor else expected
    assert np.abs(said - expected).max() < 3e-3


def shuffled() -> np.ndarray:
    return np.random.default_rng(1).permutation(ROWS)


def lists(values: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values.tolist(), kind or pa.list_(pa.float32()))


FORMS = {
    "lists": lambda at: {"p": lists(P[at])},
    "lists of fixed size": lambda at: {"p": lists(P[at], pa.list_(pa.float64(), 3))},
    "a column a class": lambda at: {name: P[at, number] for number, name in reversed([*enumerate(CLASSES)])},
    "structs": lambda at: {"p": pa.array([dict(zip(reversed(CLASSES), row[::-1], strict=True)) for row in P[at].tolist()])},
    "tensors": lambda at: {"p": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (3,)), lists(P[at], pa.list_(pa.float32(), 3)))},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_numbers_is_the_same_in_any_order_of_rows(rows: Any, tmp_path: Path, form: str) -> None:
    at = shuffled()
    columns = FORMS[form](at)
    parquet.write_table(
        pa.table({"name": [IDS[row] for row in at], **columns}), tmp_path / "p.parquet", row_group_size=37
    )
    scores = "p" if "p" in columns else None
    check(filled(rows, config(tmp_path / "p.parquet", scores=scores), tmp_path / "stores"))


def test_every_file_of_the_same_numbers_is_the_same(rows: Any, tmp_path: Path) -> None:
    at = shuffled()
    table = pa.table({"name": [IDS[row] for row in at], **FORMS["a column a class"](at)})
    with pa.OSFile(str(tmp_path / "p.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    csv.write_csv(table, tmp_path / "p.csv")
    csv.write_csv(table, tmp_path / "semi.csv", csv.WriteOptions(delimiter=";"))
    names = np.array(IDS)[at]
    np.savez(tmp_path / "p.npz", name=names, p=P[at][:, ::-1], classes=np.array(CLASSES[::-1]))
    (tmp_path / "parts").mkdir()
    parquet.write_table(table.slice(0, 100), tmp_path / "parts" / "a.parquet")
    parquet.write_table(table.slice(100), tmp_path / "parts" / "b.parquet")
    for name, about in (
        ("p.arrow", {}),
        ("p.csv", {}),
        ("semi.csv", {"delimiter": "auto"}),
        ("p.npz", {"scores": "p"}),
        ("parts", {}),
    ):
        check(filled(rows, config(tmp_path / name, **about), tmp_path / "stores" / name))


def test_what_the_numbers_are_is_told(rows: Any, tmp_path: Path) -> None:
    said = {"logits": LOGITS - 3, "log_probabilities": log_softmax(LOGITS, 1)}
    for output, values in said.items():
        parquet.write_table(pa.table({"name": IDS, "p": lists(values)}), tmp_path / "p.parquet")
        check(filled(rows, config(tmp_path / "p.parquet", scores="p", output=output), tmp_path / output), floor=0)
    one_hot = np.eye(3)[LABELS]
    for values in (np.array(CLASSES)[LABELS], LABELS):  # names, or places where no class is a number
        parquet.write_table(pa.table({"name": IDS, "class": values}), tmp_path / "p.parquet")
        how = config(tmp_path / "p.parquet", scores="class", output="classes")
        check(filled(rows, how, tmp_path / "stores" / str(values.dtype)), one_hot)


def test_row_numbers_count_from_the_source_s_first_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", p=P)
    for about in ({"id": None}, {"id": "name", "limit": 40}):
        folder = tmp_path / str(len(about))
        folder.mkdir()
        how = made(folder, **about)
        data = prepare(how, folder / "out", chunk_rows=64)
        asked = config(tmp_path / "p.npz", scores="p", id=None, by_row_number=True)
        found = filled((how, data), asked, folder / "stores")
        for name, logits in found.items():
            number = int(name.rpartition("#")[2]) if "#" in name else int(name.removeprefix("row "))
            assert np.abs(softmax(logits) - (0.999 * P[number] + 0.001 / 3)).max() < 3e-3
    for wrong in (P[:-1], np.concatenate([P, P[:1]])):
        np.savez(tmp_path / "q.npz", p=wrong)
        asked = config(tmp_path / "q.npz", scores="p", id=None, by_row_number=True)
        with pytest.raises(
            TeacherError, match=rf"q\.npz has {len(wrong)} rows, the source of the transfer set 300; by row number"
        ):
            filled((how, data), asked, folder / f"wrong-{len(wrong)}")


def table(at: np.ndarray | slice = slice(None), **columns: Any) -> pa.Table:
    return pa.table({"name": np.array(IDS)[at].tolist(), "p": lists(P[at]), **columns})


BAD: dict[str, tuple[pa.Table, dict[str, Any], type[CollegiumError], str]] = {
    "an id twice": (table(np.array([*range(ROWS), 7])), {}, TeacherError, r"something is said twice.*'row 7' \(p.parquet#300\)"),
    "an id that is null": (pa.table({"name": [*IDS[:-1], None], "p": lists(P)}), {}, TeacherError, r"p.parquet#299: 'name' \(the id\) is missing"),
    "rows that lack": (table(slice(0, 290)), {}, TeacherError, r"says nothing of 10 of 300 rows of the transfer set, and max_missing is 0; the first: 'row "),
    "ids of something else": (pa.table({"name": [f"r{n}" for n in range(ROWS)], "p": lists(P)}), {}, TeacherError, r"says nothing of 300 of 300.*300 of its rows are none of these: is 'name' what `transfer_set.id` names\?"),
    "unnormalised": (pa.table({"name": IDS, "p": lists(np.where(np.arange(ROWS)[:, None] == 5, 2 * P, P))}), {}, TeacherError, r"declares `output: probabilities`, but they are not, in 1 of 300 rows; rows p.parquet#5"),
    "log-probabilities that are none": (table(), {"output": "log_probabilities"}, TeacherError, r"declares `output: log_probabilities`, but they are not, in 300 of 300"),
    "half a row": (pa.table({"name": IDS, "p": lists(np.where(np.arange(3 * ROWS).reshape(-1, 3) == 7, np.nan, P))}), {}, TeacherError, r"NaN or infinity .*, in 1 of 300 rows; rows p.parquet#2"),
    "a row too long": (pa.table({"name": IDS, "p": pa.array([*P[1:].tolist(), [1.0]])}), {}, TeacherError, r"p.parquet#299: 1 numbers in 'p', 3 expected, one a class"),
    "other labels": (table(label=np.array(CLASSES)[np.roll(LABELS, 1)]), {"label": "label"}, TeacherError, r"'label' is another label than the transfer set's in \d+ of \d+ rows, the first: 'row \d+' \(p.parquet#\d+\)"),
    "labels of no class": (table(label=["dog", *np.array(CLASSES)[LABELS[1:]]]), {"label": "label"}, TeacherError, r"p.parquet#0: 'label': label 'dog' is not among the classes"),
    "a class of nobody's": (pa.table({"name": IDS, "p": ["dog", *np.array(CLASSES)[LABELS[1:]]]}), {"output": "classes"}, TeacherError, r"p.parquet#0: 'dog' in 'p' is none of the classes 'ant', 'bee', 'cow'"),
    "words": (pa.table({"name": IDS, "p": ["much", *map(str, P[1:, 0])]}), {"scores": ["p", "p2"], "classes": ["ant", "bee"]}, RecipeError, r"path: p.parquet: no column 'p2'"),
    "no column": (table(), {"scores": "q"}, RecipeError, r"path: p.parquet: no column 'q'; did you mean 'p'\?|path: p.parquet: no column 'q'"),
    "no column of a class": (table(), {"scores": None}, RecipeError, r"scores: .*p.parquet has no column that is called like a class \('ant', 'bee', 'cow'\).*it has 'name', 'p'"),
    "fewer classes": (pa.table({"name": IDS, "p": lists(P[:, :2], pa.list_(pa.float32(), 2))}), {}, RecipeError, r"scores: .* has 2 numbers a row, and there are 3 classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named_and_nothing_is_written(rows: Any, tmp_path: Path, case: str) -> None:
    wrong, about, kind, said = BAD[case]
    parquet.write_table(wrong, tmp_path / "p.parquet")
    with pytest.raises(kind, match=said):
        filled(rows, config(tmp_path / "p.parquet", **{"scores": "p", **about}), tmp_path / "stores")
    assert not list(tmp_path.glob("stores/*/shards/*"))


def test_text_that_is_no_number_is_named(rows: Any, tmp_path: Path) -> None:
    parquet.write_table(
        pa.table({"name": IDS, "ant": ["much", *map(str, P[1:, 0])], "bee": P[:, 1], "cow": P[:, 2]}),
        tmp_path / "p.parquet",
    )
    with pytest.raises(TeacherError, match=r"p.parquet#0: 'much' stands where a number is expected"):
        filled(rows, config(tmp_path / "p.parquet"), tmp_path / "stores")


def test_rows_without_predictions_are_unknown_and_never_invented(
    rows: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = [None if number in (1, 4) else row for number, row in enumerate(P[:290].tolist())]  # 2 null, 10 absent
    parquet.write_table(pa.table({"name": IDS[:290], "p": pa.array(said)}), tmp_path / "p.parquet")
    found = filled(rows, config(tmp_path / "p.parquet", scores="p", max_missing=0.04), tmp_path / "stores")
    unknown = {name for name, logits in found.items() if np.isnan(logits).all()}
    assert unknown == {"row 1", "row 4", *IDS[290:]}
    assert not [name for name in IDS if name not in unknown and np.isnan(found[name]).any()]
    assert "says nothing of 12 of 300 rows" in caplog.text
    with pytest.raises(TeacherError, match="says nothing of 12 of 300 rows"):
        filled(rows, config(tmp_path / "p.parquet", scores="p", max_missing=0.039), tmp_path / "other")


def test_what_a_store_exports_is_a_file_of_predictions(rows: Any, tmp_path: Path) -> None:
    _, data = rows
    parquet.write_table(table(), tmp_path / "p.parquet")
    filled(rows, config(tmp_path / "p.parquet", scores="p"), tmp_path / "stores")
    prepared = data.folder.parent
    folders = [tmp_path / "stores" / segment.name for segment in data.segments]
    (prepared / "out" / "SEAL.json").touch()
    write_answers([*answered_segments(folders, prepared)], tmp_path / "exported.parquet")
    again = config(tmp_path / "exported.parquet", id="id", scores="theirs.probabilities", label="label")
    check(filled(rows, again, tmp_path / "again"))


def test_numbers_and_sets_of_classes_are_predicted_too(tmp_path: Path) -> None:
    how = made(tmp_path, label=["price"], task="regression")
    data = prepare(how, tmp_path / "numbers")
    parquet.write_table(
        pa.table({"name": IDS, "price": LOGITS[:, 1] + 1, "true": LOGITS[:, 1]}), tmp_path / "p.parquet"
    )
    found = filled((how, data), config(tmp_path / "p.parquet", output="values", label="true"), tmp_path / "stores")
    assert np.allclose([found[name][0] for name in IDS], LOGITS[:, 1] + 1, atol=1e-3)
    with pytest.raises(TeacherError, match=r"'price' is another label than the transfer set's in \d+ of \d+ rows"):
        filled((how, data), config(tmp_path / "p.parquet", output="values", label="price"), tmp_path / "others")


def recipe(path: Path, folder: Path, **about: Any) -> Recipe:
    rows = made(folder).model_dump(mode="json")
    teacher = config(path, scores="p").model_dump(mode="json") | about
    return Recipe.model_validate({"format": 1, "name": "r", "transfer_set": rows, "teachers": {"theirs": teacher}})


def test_classes_that_differ_are_named_by_the_recipe_s_key(tmp_path: Path) -> None:
    metadata = {"classes": '["ant", "bee", "dog"]'}
    parquet.write_table(table().replace_schema_metadata(metadata), tmp_path / "p.parquet")
    (problem,) = class_problems(recipe(tmp_path / "p.parquet", tmp_path), CLASSES)
    assert problem.startswith("teachers.theirs: the teacher's classes 'dog' are not in the transfer set")
    mapped = recipe(tmp_path / "p.parquet", tmp_path, class_map={"dog": None})
    assert not [*class_problems(mapped, CLASSES)]
    (problem,) = file_problems(recipe(tmp_path / "none.parquet", tmp_path))
    assert "teachers.theirs.path: there is no file" in problem


def test_what_counts_is_what_the_file_holds_and_how_it_is_joined(tmp_path: Path) -> None:
    def key(name: str, source: str = "s", **about: Any) -> str:
        told = recipe(tmp_path / name, tmp_path, **about)
        return label_stage(
            told.teachers["theirs"], "theirs", ("train", "d"), teacher_digest(told, "theirs", None, source), ["a"], "t"
        ).key

    for name in ("p.parquet", "copy.parquet"):
        parquet.write_table(table(), tmp_path / name)
    parquet.write_table(table(slice(0, 299)), tmp_path / "less.parquet")
    assert (
        key("p.parquet")
        == key("copy.parquet")
        == key("p.parquet", max_missing=0.5, label="y")
        == key("p.parquet", "another")
    )
    by_number = {"id": None, "by_row_number": True}
    keys = [
        key("p.parquet"),
        key("less.parquet"),
        key("p.parquet", output="logits"),
        key("p.parquet", **by_number),
        key("p.parquet", "another", **by_number),
    ]
    assert len(set(keys)) == 5


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"id": None}, "say whose row is whose"),
        ({"by_row_number": True}, "one of them"),
        ({"mode": "live"}, "leave `mode: live` out"),
        ({"preprocess": {"normalise": None}}, "leave `preprocess` out"),
        ({"output": "classes"}, "needs `scores`"),
        ({"output": "classes", "scores": ["a"]}, "is one column"),
    ],
)
def test_what_makes_no_sense_of_a_file_is_refused(about: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(Path("p.parquet"), **about)


def test_a_line_that_cannot_be_read_harms_a_check_by_row_number_alone(tmp_path: Path) -> None:
    lines = [f'{{"name": "{name}", "x": 1, "y": "ant"}}' for name in IDS]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:4], "{half", *lines[4:]]) + "\n")
    source = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}
    rows = {"source": source, "inputs": "x", "label": "y", "id": "name", "on_bad_row": "skip"}
    parquet.write_table(table(), tmp_path / "p.parquet")
    space = Space("classification", CLASSES)

    def problems(**about: Any) -> list[str]:
        theirs = config(tmp_path / "p.parquet", scores="p", **about).model_dump(mode="json")
        told = {"format": 1, "name": "r", "transfer_set": rows, "teachers": {"theirs": theirs}}
        return [*prediction_problems(Recipe.model_validate(told), space, None)]

    assert problems() == []
    (problem,) = problems(id=None, by_row_number=True)
    assert "rows.jsonl#4" in problem and "none can be told by its number" in problem


def test_a_damaged_file_is_one_line(rows: Any, tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DataError, match=r"p.parquet: cannot be read as parquet"):
        filled(rows, config(tmp_path / "p.parquet", scores="p"), tmp_path / "stores")
    (tmp_path / "p.pkl").touch()
    with pytest.raises(RecipeError, match=r"p.pkl is none of the files that are read here \(.parquet"):
        filled(rows, config(tmp_path / "p.pkl", scores="p"), tmp_path / "stores")


def test_the_most_probable_classes_alone_leave_the_rest_to_the_others_evenly(rows: Any, tmp_path: Path) -> None:
    order = np.argsort(-P, 1)[:, :2]
    kept = np.take_along_axis(P, order, 1)
    short = [
        row.tolist()[: 1 + number % 2] for number, row in enumerate(order)
    ]  # of one row one class, of the next two
    probabilities = [row.tolist()[: 1 + number % 2] for number, row in enumerate(kept)]
    expected = np.zeros_like(P)
    for number, (which, how) in enumerate(zip(short, probabilities, strict=True)):
        expected[number] = (1 - sum(how)) / (3 - len(which))
        expected[number, which] = how
    logs = pa.array([np.log(row).tolist() for row in probabilities], pa.list_(pa.float32()))
    table = pa.table({"name": IDS, "k": pa.array(short, pa.list_(pa.int32())), "p": logs})
    parquet.write_table(table, tmp_path / "p.parquet")
    how = config(tmp_path / "p.parquet", scores="p", indices="k", output="log_probabilities", probability_floor=1e-4)
    found = filled(rows, how, tmp_path / "stores")
    assert np.allclose(softmax(np.stack([found[name] for name in IDS]), 1), expected, atol=2e-3)


BAD_LARGEST = {
    "beyond": ([[0, 3]], [[0.5, 0.5]], "p.parquet#0: a class beyond 0 to 2; 1 here are so"),
    "twice": ([[1, 1]], [[0.5, 0.5]], "p.parquet#0: class 1 twice"),
    "too many": ([[0, 1]], [[0.5]], "p.parquet#0: 1 scores of 2 classes"),
    "above 1": ([[0, 1]], [[0.9, 0.5]], "p.parquet#0: probabilities that sum to 1.4"),
    "null": ([[0, None]], [[0.5, 0.5]], "p.parquet#0: a class beyond 0 to 2"),
    "none": ([[0, 1]], [[-0.5, 0.5]], "p.parquet#0: a score that is no probability"),
}


@pytest.mark.parametrize("case", BAD_LARGEST)
def test_lists_that_do_not_fit_each_other_are_named(rows: Any, tmp_path: Path, case: str) -> None:
    which, how, told = BAD_LARGEST[case]
    table = pa.table({"name": IDS, "k": which + [[0]] * (ROWS - 1), "p": how + [[1.0]] * (ROWS - 1)})
    parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(TeacherError, match=told):
        filled(rows, config(tmp_path / "p.parquet", scores="p", indices="k"), tmp_path / "stores")


def test_a_store_of_another_out_is_said_again_of_the_same_keys(rows: Any, tmp_path: Path) -> None:
    data = rows[1]
    for segment in data.segments:  # as its own run left it, in a folder of its own
        about = (segment.name, segment.digest, "dense", tuple(reversed(CLASSES)), segment.num_rows, 50)
        store = SoftTargetStore.create(tmp_path / "theirs" / segment.name, Spec("wide", "digest", *about))
        keys = data.keys(segment)
        said = np.random.default_rng(3).normal(size=(segment.num_rows, 3)).astype(np.float32)
        for number in range(store.num_shards):
            first, num = store.shard_rows(number)
            store.commit(number, keys[first : first + num], {"logits": said[first : first + num]})
        if segment.split == "train":
            path, expected = store.folder, dict(zip(data.ids(segment).to_pylist(), said[:, ::-1], strict=True))
    told = {"id": None, "sample_key": "sample_key", "output": "logits", "max_missing": 0.9}
    with pytest.raises(RecipeError, match="is a store that is not finished"):
        filled(rows, config(path, **told), tmp_path / "never")
    SoftTargetStore.open(path).seal()
    found = filled(rows, config(path, **told), tmp_path / "stores")
    for name, logits in expected.items():
        assert np.allclose(softmax(found[name]), softmax(logits), atol=2e-3)
    assert all(np.isnan(found[name]).all() for name in set(IDS) - set(expected))
    content = teacher_digest(recipe(path, tmp_path, **told, scores=None), "theirs", None, "s")
    (path / "shards" / "000000-0123456789abcdef.arrow").write_bytes(b"an orphan is not read")
    assert teacher_digest(recipe(path, tmp_path, **told, scores=None), "theirs", None, "s") == content
    assert filled(rows, config(path, **told), tmp_path / "again").keys() == found.keys()
    with pytest.raises(RecipeError, match="is a store, of logits by the rows' keys; say `output: logits`"):
        Predictions.open(config(path, scores="logits.value"), data.space)
