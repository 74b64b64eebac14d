import base64
import io
import json

import numpy as np
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
import pytest
import scipy.special
import scipy.stats
import sklearn.datasets
import sklearn.metrics
import torch
from PIL import Image

import students
from orchestrator.reporting import unjudged as without_labels
from orchestrator.reporting.document import FORMAT
from orchestrator.reporting.kept import newest_report, write_report
from orchestrator.reporting.note import note
from orchestrator.reporting.page import page
from orchestrator.reporting.unjudged import SAID, is_unjudged, lines, unjudged_report
from students.delivering.export import export_student
from students.delivering.predict import predict_file
from students.fitting.fit import fit
from students.measuring import evaluate, footprint
from students.measuring.cohort import evaluate_cohort
from students.measuring.judged import Voice
from students.measuring.labelled import Labelled
from students.measuring.mistakes import worst_mistakes
from students.measuring.unjudged import said_of
from students.runs import best
from students.runs.run import Source
from students.runs.session import PlainSession
from teachers.config.transfer_set import NumpySource, SklearnSource, SplitConfig, TransferSetConfig
from teachers.errors import DataError, RecipeError, StoreError
from teachers.preparing.prepare import prepare
from teachers.soft_targets.combine.rules import COMBINE
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.space import Space
from tests.judged_rows import Rows
from tests.training_runs import make_run


def make_source(
    folder, transfer_set, name, *, seed=0, classes=None, splits=("validation", "test"), encoding="dense", **options
) -> Source:
    """A teacher that knows the true class, with noise; it knows `classes` only."""
    stores = {}
    classes = tuple(classes or transfer_set.classes)
    for segment in (segment for split in splits for segment in transfer_set.of(split)):
        stores[segment.name] = folder / f"{name}-{segment.name}"
        spec = Spec(name, "digest", segment.name, segment.digest, encoding, classes, segment.num_rows, 128)
        store = SoftTargetStore.create(stores[segment.name], spec)
        logits = np.random.default_rng(seed).normal(size=(segment.num_rows, len(classes))).astype(np.float32)
        for row, label in enumerate(transfer_set.labels(segment)):
            if transfer_set.classes[label] in classes:
                logits[row, classes.index(transfer_set.classes[label])] += 2
        for number in range(store.num_shards):
            first, num_rows = store.shard_rows(number)
            keys = transfer_set.keys(segment)[first : first + num_rows]
            store.commit(number, keys, {"logits": logits[first : first + num_rows]})
        store.seal()
    return Source(name=name, stores=stores, **options)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A student and its control, three seeds each, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        make_run(folder, digits, name=name, seed=seed, objective=({"loss": "hard"},), labelled_only=True, steps=steps)
        for name, steps in (("student", 60), ("control", 5))
        for seed in (0, 1, 2)
    ]
    fit(runs, PlainSession())
    return {
        name: {run.seed: run.folder for run in runs if run.name.startswith(name)} for name in ("student", "control")
    }


@pytest.fixture(scope="module")
def evaluation(digits, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    sources = [make_source(folder, digits, "wide", seed=0), make_source(folder, digits, "deep", seed=1)]
    chosen = best.delivered(trained["student"])
    return evaluate.evaluate_student(digits.folder, sources, trained["student"], trained["control"], chosen)


def test_teachers_and_ensemble_are_measured_on_what_their_stores_say(digits, tmp_path):
    sources = [make_source(tmp_path, digits, "wide", seed=0), make_source(tmp_path, digits, "deep", seed=1)]
    found = evaluate.evaluate_teachers(digits.folder, sources)
    (segment,) = digits.of("test")
    p = []
    for source in sources:
        store = pyarrow.dataset.dataset(source.stores[segment.name] / "shards", format="ipc").to_table()
        table = store.sort_by("sample_key")["logits.value"].combine_chunks().flatten().to_numpy()
        p.append(scipy.special.softmax(table.astype(np.float64).reshape(segment.num_rows, 10), axis=1))
    labels = digits.labels(segment)
    for name, said in zip(("wide", "deep", "ensemble"), [*p, np.mean(p, axis=0)], strict=True):
        figures = found["ensemble"] if name == "ensemble" else found["teachers"][name]
        assert figures["accuracy"] == sklearn.metrics.accuracy_score(labels, said.argmax(1))
        assert figures["nll"] == pytest.approx(sklearn.metrics.log_loss(labels, said), abs=1e-5)
        assert set(figures["validation"]) == {"rows", "accuracy", "nll"}
    assert found["agreement"]["names"] == ["wide", "deep", "ensemble"]
    assert found["rows"] == segment.num_rows
    json.dumps(found, allow_nan=False)


def test_two_teachers_together_are_better_than_each(digits, tmp_path):
    sources = [make_source(tmp_path, digits, name, seed=seed) for seed, name in enumerate(("wide", "deep", "third"))]
    found = evaluate.evaluate_teachers(digits.folder, sources)
    assert found["ensemble"]["accuracy"] > max(teacher["accuracy"] for teacher in found["teachers"].values())


def test_a_teacher_of_some_classes_never_says_another(digits, tmp_path):
    even = make_source(tmp_path, digits, "even", classes="02468", class_map={})
    found = evaluate.evaluate_teachers(digits.folder, [even, make_source(tmp_path, digits, "all", seed=1)])
    (segment,) = digits.of("test")
    share = (digits.labels(segment) % 2 == 0).mean()
    assert 0.5 * share < found["teachers"]["even"]["accuracy"] <= share
    assert found["teachers"]["even"]["nll"] <= 100
    json.dumps(found, allow_nan=False)


def test_without_stores_of_the_validation_rows_nothing_is_said_of_them(digits, tmp_path):
    found = evaluate.evaluate_teachers(digits.folder, [make_source(tmp_path, digits, "wide", splits=("test",))])
    assert "validation" not in found["teachers"]["wide"]


def test_what_a_teacher_says_of_labelled_training_rows_stands_beside_validation_where_it_labelled_them(
    digits, tmp_path
):
    cached = make_source(tmp_path, digits, "cached", splits=("train", "validation", "test"))
    live = make_source(tmp_path, digits, "live", seed=1)
    found = evaluate.evaluate_teachers(digits.folder, [cached, live])["teachers"]
    (segment,) = digits.of("train")
    store = pyarrow.dataset.dataset(cached.stores[segment.name] / "shards", format="ipc").to_table()
    table = store.sort_by("sample_key")["logits.value"].combine_chunks().flatten().to_numpy()
    labelled = digits.labelled(segment)
    said = table.reshape(segment.num_rows, 10).argmax(1)[labelled]
    expected = sklearn.metrics.accuracy_score(digits.labels(segment)[labelled], said)
    assert found["cached"]["training"]["rows"] == labelled.sum() == 100
    assert found["cached"]["training"]["accuracy"] == expected
    assert "training" not in found["live"]


def test_which_rows_are_right_is_kept_for_every_seed_and_the_confusions_of_the_delivered_one(
    digits, trained, evaluation
):
    (segment,) = digits.of("test")
    labels = digits.labels(segment)
    for kind in ("student", "control"):
        for seed, packed in zip(sorted(trained[kind]), evaluation["by_row"][kind], strict=True):
            said = students.load(trained[kind][seed])(digits.inputs(segment)).argmax(-1).numpy()
            bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8), count=segment.num_rows)
            assert np.array_equal(bits.astype(bool), said == labels)
            if kind == "student" and seed == evaluation["delivered"]:
                assert evaluation["confusion"]["matrix"] == sklearn.metrics.confusion_matrix(labels, said).tolist()


def test_every_seed_of_student_and_control_is_measured_as_the_model_itself_answers(digits, trained, evaluation):
    (segment,) = digits.of("test")
    labels = torch.from_numpy(digits.labels(segment).astype(np.int64))
    assert [run["seed"] for run in evaluation["student"]["runs"]] == [0, 1, 2]
    for kind in ("student", "control"):
        for run in evaluation[kind]["runs"]:
            logits = students.load(trained[kind][run["seed"]])(digits.inputs(segment))
            assert run["accuracy"] == float((logits.argmax(-1) == labels).double().mean())
            assert run["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-5)
            assert run["validation"]["accuracy"] > 0
    json.dumps(evaluation, allow_nan=False)


def test_the_gain_is_that_of_the_accuracies(evaluation):
    means = [np.mean([run["accuracy"] for run in evaluation[kind]["runs"]]) for kind in ("student", "control")]
    assert evaluation["gain"]["mean"] == pytest.approx(means[0] - means[1], abs=1e-12)
    assert evaluation["verdict"].startswith("Distillation helps")
    assert evaluation["agreement"]["names"] == ["wide", "deep", "ensemble", "student", "control"]


def test_a_student_is_compared_with_its_own_combination(digits, trained, tmp_path):
    sources = [make_source(tmp_path, digits, "wide", seed=0), make_source(tmp_path, digits, "deep", seed=1)]
    alone = {"combine": "weighted", "teacher_weights": {"wide": 1.0, "deep": 0.0}}
    found = evaluate.evaluate_student(digits.folder, sources, trained["student"], None, 0, **alone)
    teachers = evaluate.evaluate_teachers(digits.folder, sources)
    assert found["ensemble"]["accuracy"] == teachers["teachers"]["wide"]["accuracy"]
    assert found["gain"] is None
    assert found["control"] is None
    assert found["verdict"].startswith("No control was trained")


@pytest.mark.parametrize("encoding", ["label", "dense"])
def test_where_a_store_keeps_the_class_only_no_figure_is_made_of_the_floor(digits, trained, tmp_path, encoding):
    own = make_source(tmp_path, digits, "own", seed=0)
    short = make_source(tmp_path, digits, "short", seed=1, encoding=encoding)
    teachers = evaluate.evaluate_teachers(digits.folder, [own, short])
    student = evaluate.evaluate_student(digits.folder, [own, short], trained["student"], None, 0)
    invented = {"nll", "brier", "ece", "reliability", "kl"} if encoding == "label" else set()

    def missing(figures):
        return {key for key, value in figures.items() if value is None}

    assert missing(teachers["teachers"]["own"]) == invented & {"kl"}  # its own are its own; the ensemble's are not
    assert missing(teachers["teachers"]["short"]) == missing(teachers["ensemble"]) == invented
    assert missing(teachers["teachers"]["short"]["validation"]) == invented & {"nll"}
    assert missing(student["ensemble"]) == invented - {"kl"}
    assert missing(student["student"]["runs"][0]) == invented & {"kl"}
    for figures in (teachers["teachers"]["short"], teachers["ensemble"], student["student"]["runs"][0]):
        assert 0 < figures["accuracy"] <= 1 and 0 < figures["agreement"] <= 1


def test_a_rule_is_given_the_teachers_in_the_order_of_its_term(digits, trained, tmp_path):
    sources = [make_source(tmp_path, digits, "wide", seed=0), make_source(tmp_path, digits, "deep", seed=1)]
    own = {"combine": "tests.test_evaluate:the_first_one", "order": ["deep", "wide"]}
    found = evaluate.evaluate_student(digits.folder, sources, trained["student"], None, 0, **own)
    teachers = evaluate.evaluate_teachers(digits.folder, sources)
    assert found["ensemble"]["accuracy"] == teachers["teachers"]["deep"]["accuracy"]
    assert found["ensemble"]["accuracy"] != teachers["teachers"]["wide"]["accuracy"]


def the_first_one(logits, *, temperature, known, labels=None):
    first = torch.eye(len(logits))[0]
    return COMBINE["class_axis"]["weighted"](logits, temperature=temperature, known=known, teacher_weights=first)


def test_the_table_of_classes_is_of_teachers_ensemble_and_the_mean_of_seeds(digits, trained, evaluation):
    (segment,) = digits.of("test")
    labels = digits.labels(segment)
    found = evaluation["by_class"]
    assert found["classes"] == list(digits.classes) and found["support"] == np.bincount(labels, minlength=10).tolist()
    assert [*found["recall"]] == ["wide", "deep", "ensemble", "student", "control"]
    said = [students.load(run)(digits.inputs(segment)).argmax(-1) for run in trained["student"].values()]
    recalls = [sklearn.metrics.recall_score(labels, each, average=None) for each in said]
    assert found["recall"]["student"] == pytest.approx(np.mean(recalls, 0))
    commonest = np.bincount(labels).argmax()
    share = pytest.approx((labels == commonest).mean())
    assert evaluation["commonest"] == {
        "class": digits.classes[commonest],
        "share": share,
        "classes": 10,
        "remark": None,
    }


def test_the_surest_mistakes_are_those_of_the_delivered_seed_with_the_rows_themselves(digits, trained, evaluation):
    (segment,) = digits.of("test")
    images, labels, ids = digits.inputs(segment)["image"], digits.labels(segment), digits.ids(segment).to_pylist()
    p, said = torch.softmax(students.load(trained["student"][evaluation["delivered"]])(digits.inputs(segment)), -1).max(
        -1
    )
    wrong = sorted(np.flatnonzero(said.numpy() != labels), key=lambda row: -p[row])
    found = evaluation["mistakes"]
    assert [mistake["id"] for mistake in found] == [ids[row] for row in wrong[: len(found)]] and len(found) > 5
    for mistake, row in zip(found, wrong, strict=False):
        assert (mistake["label"], mistake["said"]) == (digits.classes[labels[row]], digits.classes[said[row]])
        assert mistake["confidence"] == pytest.approx(float(p[row]), abs=1e-6)
        (shown,) = mistake["inputs"]
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["png"]))))
        assert np.corrcoef(drawn.ravel(), images[row].ravel())[0, 1] > 0.999


def test_of_a_table_a_mistake_shows_its_first_values(tmp_path):
    source = SklearnSource(kind="sklearn", name="breast_cancer")
    prepared = prepare(TransferSetConfig(source=source, inputs="features", label="target"), tmp_path / "set")
    rows = Labelled.of(prepared, "test")
    wrong = torch.nn.functional.one_hot((rows.labels + 1) % 2, 2).float()
    found = worst_mistakes(Voice(wrong), wrong, rows)
    (segment,) = prepared.of("test")
    by_id = dict(zip(prepared.ids(segment).to_pylist(), prepared.inputs(segment)["features"], strict=True))
    for mistake in found:
        (shown,) = mistake["inputs"]
        assert shown["of"] == 30 and shown["values"] == by_id[mistake["id"]][: len(shown["values"])].tolist()


def test_rows_of_one_group_count_as_one_in_the_interval(trained, tmp_path):
    digits = sklearn.datasets.load_digits()
    image = (digits.images[..., None]).astype(np.uint8)
    writer = np.arange(len(image)) // 40
    np.savez(tmp_path / "rows.npz", image=image, digit=digits.target, writer=writer)
    source = NumpySource(kind="numpy", path=str(tmp_path / "rows.npz"))
    split = SplitConfig(group_by="writer")
    prepared = prepare(TransferSetConfig(source=source, inputs="image", label="digit", split=split), tmp_path / "set")
    teacher = make_source(tmp_path, prepared, "wide")
    found = evaluate.evaluate_student(prepared.folder, [teacher], trained["student"], trained["control"], 0)
    writers = {writer[int(name.partition("#")[2])] for name in prepared.ids(prepared.of("test")[0]).to_pylist()}
    assert found["gain"]["grouped"] and found["gain"]["units"] == len(writers)
    assert f"{len(writers)} groups of test rows" in found["verdict"]


def test_size_and_latency_are_those_of_the_delivered_folder(trained, evaluation):
    run = evaluation["student"]["runs"][0]
    assert run["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert run["bytes"] == (trained["student"][0] / "model.safetensors").stat().st_size
    assert run["latency"]["threads"] == 1
    assert run["latency"]["device"] == footprint.device_name(torch.device("cpu"))
    for size in ("batch_1", "batch_32"):
        assert 0 < run["latency"][size]["p50_ms"] <= run["latency"][size]["p95_ms"]


def test_latency_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    footprint.latency(lambda inputs: None, {"x": np.zeros((1, 2))}, threads=1)
    assert torch.get_num_threads() == before


def test_a_store_of_other_rows_is_refused(digits, tmp_path):
    other = prepare(
        TransferSetConfig(
            source=SklearnSource(kind="sklearn", name="digits"), inputs="image", label="digit", key_salt="x"
        ),
        tmp_path / "other",
    )
    source = make_source(tmp_path, other, "wide")
    with pytest.raises(StoreError, match="label again"):
        evaluate.evaluate_teachers(digits.folder, [source])


def unlabelled(tmp_path, **files):
    """60 rows of two classes; `files`: which splits have labels."""
    split = {"validation": 0.2, "test": 0.3}
    (tmp_path / "data").mkdir()
    for name, labels in (files or {"rows": None}).items():
        x = np.random.default_rng(len(name)).normal(size=(60, 3)).astype(np.float32)
        labels = np.full(60, np.nan) if labels is None else labels
        np.savez(tmp_path / "data" / f"{name}.npz", x=x, y=labels)
        split = {"files": {file: f"{file}.npz" for file in files}} if files else split
    source = NumpySource(kind="numpy", path=str(tmp_path / "data"))
    config = {"source": source, "inputs": "x", "label": "y", "classes": ["a", "b"], "split": split}
    return prepare(TransferSetConfig.model_validate(config), tmp_path / "set")


def test_a_test_split_without_labels_says_so_where_others_have_some(tmp_path):
    prepared = unlabelled(tmp_path, train=np.arange(60) % 2, validation=None, test=None)
    with pytest.raises(DataError, match="test split has a label"):
        evaluate.evaluate_teachers(prepared.folder, [])


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory):
    """(the set, its teachers, one student of two seeds, what evaluations say) of rows without a label."""
    folder = tmp_path_factory.mktemp("unlabelled")
    prepared = unlabelled(folder)
    every = ("train", "validation", "test")
    sources = [make_source(folder, prepared, name, seed=seed, splits=every) for seed, name in enumerate("uv")]
    runs = [
        make_run(folder / "runs", prepared, *sources, name="student", seed=seed, objective=({"loss": "soft"},), steps=5)
        for seed in (0, 1)
    ]
    fit(runs, PlainSession())
    folders = {run.seed: run.folder for run in runs}
    student = evaluate.evaluate_student(prepared.folder, sources, folders, None, best.delivered(folders))
    return prepared, sources, student, evaluate.evaluate_teachers(prepared.folder, sources), folders


def test_rows_without_a_label_judge_nobody_and_give_what_needs_none(unjudged):
    prepared, sources, student, teachers, _ = unjudged
    (segment,) = prepared.of("test")
    assert teachers["judged"] is student["judged"] is False and student["rows"] == segment.num_rows
    for source in sources:
        found = teachers["teachers"][source.name]
        assert 0 <= found["entropy"] <= np.log(2) and sum(found["said"].values()) == pytest.approx(1)
    assert [run["seed"] for run in student["student"]["runs"]] == [0, 1]
    assert not {"accuracy", "nll", "ece"} & set(student["student"]["runs"][0])


def test_a_cohort_of_rows_without_a_label_agrees_with_itself_and_is_delivered(unjudged, tmp_path):
    prepared, _, _, _, folders = unjudged
    members = {name: {"student": folders} for name in ("a", "b")}
    found = evaluate_cohort(prepared.folder, [], members, {"a": 0, "b": 1}, as_one=True)
    assert found["judged"] is False and set(found["members"]) == {"a", "b"} and found["seed"] == 0
    assert next(run["agreement"] for run in found["as_one"]["student"]["runs"]) == 1.0
    assert (
        found["as_one"]["student"]["runs"][0]["parameters"]
        == 2 * found["members"]["a"]["student"]["runs"][0]["parameters"]
    )
    recipe = {"name": "mine", "students": {}, "cohorts": {"duo": {"members": {"a": {}, "b": {}}, "method": "mutual", "teachers": [], "objective": [], "train": {"steps": 5, "epochs": None, "batch_size": 8}}}, "task": "classification"}  # fmt: skip
    export_student(folders[0], tmp_path / "out", name="duo", evaluation={**found["as_one"], "source_digest": "d"}, recipe_yaml=json.dumps(recipe), transfer_set=prepared.folder)  # fmt: skip
    assert "Nobody has judged it" in (tmp_path / "out" / "README.md").read_text()


def test_entropy_coverage_and_what_is_said_are_those_of_scipy_and_a_count():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 0.0])
    logits[:, 3] = -9.0
    rows = Rows(Space("classification", tuple("abcd")), torch.full((50,), -1))
    found = said_of(rows, Voice(logits))
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    assert found["entropy"] == pytest.approx(scipy.stats.entropy(p, axis=1).mean())
    counts = np.bincount(p.argmax(1), minlength=4)
    assert found["said"] == dict(zip("abcd", (counts / 50).tolist(), strict=True)) and found["coverage"] == 0.75
    assert said_of(rows, Voice(logits, sure=False))["entropy"] is None


def test_the_report_of_rows_without_a_label_says_that_nothing_was_judged(unjudged, tmp_path):
    prepared, _, student, teachers, folders = unjudged
    evaluations = {"teachers": teachers, "small": {**student, "source_digest": "d"}}
    recipe = {"name": "<b>mine</b>", "students": {"small": {"teachers": ["u", "v"], "objective": [], "train": {"steps": 5, "epochs": None, "batch_size": 8}}}, "cohorts": {}, "task": "classification"}  # fmt: skip
    told = unjudged_report(format=FORMAT, recipe=recipe, stages=[], evaluations=evaluations, mlflow={"experiment_id": "1", "run_id": "r", "uri": "u"}, prepared=prepared.folder, seconds=2.0)  # fmt: skip
    assert is_unjudged(evaluations) and json.loads(json.dumps(told, allow_nan=False))["notes"] == [SAID]
    text = page(told)
    assert SAID in text and "student small" in text and "teacher u" in text and "<b>mine" not in text
    assert note(told).startswith(SAID) and "student small" in note(told)
    assert dict(without_labels.figures(told))["students.small.agreement"] == pytest.approx(student["mean_agreement"])
    assert [line.partition(":")[0] for line in lines(told)][1:] == ["small"]
    (tmp_path / "runs" / "1").mkdir(parents=True)
    write_report(tmp_path / "runs" / "1", told)
    assert newest_report(tmp_path)[1]["unjudged"]["rows"] == student["rows"]
    outputs = export_student(folders[0], tmp_path / "out", name="small", evaluation=evaluations["small"], recipe_yaml=json.dumps(recipe), transfer_set=prepared.folder)  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text()
    assert "README.md" in outputs and "Nobody has judged it" in card and "accuracy of its teachers" not in card
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["judged"] is False


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ({0: (0.8, 0.5), 1: (0.9, 0.5)}, 1),
        ({1: (0.9, 0.5), 0: (0.9, 0.5)}, 0),
        ({0: (0.9, 0.5), 1: (0.9, 0.4)}, 1),
        ({2: None, 1: None}, 1),
    ],
)
def test_delivered_is_the_best_on_validation_and_the_lower_seed_of_equals(tmp_path, validation, expected):
    runs = {seed: tmp_path / str(seed) for seed in validation}
    for seed, run in runs.items():
        run.mkdir()
        found = validation[seed] and dict(zip(("accuracy", "nll"), validation[seed], strict=True))
        (run / "result.json").write_text(json.dumps({"validation": found}))
        (run / "config.json").write_text("{}")
    assert best.delivered(runs) == expected


def test_inputs_that_the_model_does_not_take_are_refused(trained, tmp_path):
    np.savez(tmp_path / "rows.npz", image=np.zeros((4, 5, 5, 1), np.uint8))
    with pytest.raises(RecipeError, match=r"the model takes image: images \[8, 8, 1\]"):
        predict_file(trained["student"][0], tmp_path / "rows.npz", None, write_line=pytest.fail, tell_bad=pytest.fail)
