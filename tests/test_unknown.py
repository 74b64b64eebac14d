"""Teachers that know nothing of some rows, or of some classes: kept, left out of what a student hears, and told."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F

from orchestrator.reporting.together import about_unknown
from students.data.batches import Batches
from students.data.copies import taught
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.measuring.evaluate import evaluate_teachers
from students.measuring.standing import judge
from students.objective.losses.classification import soft, soft_of_softened, teacher_label
from students.objective.losses.known import compared_over_known
from students.runs.run import Live, Source
from students.runs.session import PlainSession
from students.training.steps import Stepper
from students.training.train import Training, make_stepper
from teachers.config.teacher import CallableTeacher
from teachers.errors import TeacherError
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.models.asking import with_unknown
from teachers.models.checked import check_scores
from teachers.models.folder import load_model
from teachers.models.scores import to_logits
from teachers.models.teacher import LoadedTeacher
from teachers.soft_targets.encodings.table import ENCODINGS
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Commit, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import verify
from teachers.transfer_set.answers import answered_segments, write_answers
from tests import task_runs
from tests.boxes import images
from tests.test_evaluate import make_source
from tests.training_runs import HARD, SOFT, make_run, make_store, outputs, source

SESSION = PlainSession()
KEYS = np.array([11, 22, 33], np.uint64)
NAN = float("nan")


# what a teacher may say


def teacher_of(output="logits", answer="class_axis", **options):
    return LoadedTeacher(("a", "b"), output, lambda batch: batch["x"], answer, **options)


@pytest.mark.parametrize("output", ["logits", "log_probabilities", "probabilities"])
def test_a_row_of_nan_says_that_nothing_is_known_of_it(output):
    scores = np.array([[0.25, 0.75], [NAN, NAN], [1.0, 0.0]])
    scores = np.log(scores + 1e-9) if output == "log_probabilities" else scores
    checked = check_scores(scores, teacher_of(output), "t", KEYS)
    logits = to_logits(checked, output, 1e-3)
    assert logits[1].isnan().all() and logits[[0, 2]].isfinite().all()


@pytest.mark.parametrize("answer", ["class_set", "values"])
def test_of_several_classes_or_numbers_each_may_be_unknown(answer):
    scores = np.array([[0.25, NAN], [NAN, NAN], [1.0, 0.0]])
    output = "values" if answer == "values" else "probabilities"
    checked = check_scores(scores, teacher_of(output, answer), "t", KEYS)
    assert checked.isnan().tolist() == np.isnan(scores).tolist()
    with pytest.raises(TeacherError, match=r"infinity.*sample_key 22"):
        check_scores(np.array([[1, 1], [NAN, np.inf], [0, 0]]), teacher_of(output, answer), "t", KEYS)


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        ([[0.0, 1.0], [NAN, 1.0], [0.0, 1.0]], {}),  # half a row
        ([[0.0, 1.0], [NAN, NAN], [0.0, 1.0]], {"may_not_know": False}),  # of a network
    ],
)
def test_any_other_nan_is_a_mistake_that_names_its_rows(scores, options):
    with pytest.raises(TeacherError, match=r"says NaN or infinity.*in 1 of 3 rows; sample_key 22$"):
        check_scores(np.array(scores), teacher_of(**options), "t", KEYS)


def test_a_function_may_say_beside_its_scores_which_rows_it_knows():
    scores, known = [[0.0, 1.0], [5.0, 5.0], [2.0, 1.0]], [True, False, True]
    for said in ((scores, np.array(known)), (torch.tensor(scores), known)):
        found = with_unknown(said, "f")
        assert np.isnan(found).all(1).tolist() == [False, True, False] and found[2].tolist() == [2.0, 1.0]
    two = ([0.25, 0.75], [0.5, 0.5])  # answers about two rows
    assert with_unknown(two, "f") is two
    with pytest.raises(TeacherError, match="scores of 3 rows and says of 2 whether it knows them"):
        with_unknown((scores, np.array([True, False])), "f")


FUNCTION = """
import numpy as np

def say(batch):
    brightness = batch["image"].reshape(len(batch["image"]), -1).sum(1)
    return np.eye(10)[brightness % 10], brightness % 7 > 0
"""


def test_a_labelled_store_keeps_what_is_unknown_and_counts_it(digits, tmp_path):
    (tmp_path / "knows_some.py").write_text(FUNCTION)
    (segment,) = digits.of("test")
    about = (segment.name, segment.digest, "dense", digits.classes, segment.num_rows, 64)
    store = SoftTargetStore.create(tmp_path / "store", Spec("some", "d", *about))
    config = CallableTeacher(kind="callable", function="knows_some:say", output="probabilities")
    labeller = Labeller(
        TeacherSpec("some", config, None, (), tmp_path), [LabelTask(digits.folder, segment.name, store.folder)], "cpu"
    )
    for number in store.missing():
        labeller.label(0, number)
    store.seal()
    brightness = digits.inputs(segment)["image"].reshape(segment.num_rows, -1).sum(1)
    unknown = brightness % 7 == 0
    opened = SoftTargets.open(store.folder)
    assert np.array_equal(opened.said().isnan().all(1).numpy(), unknown) and unknown.sum() > 10
    assert opened.has_unknown and store.unknown() == (unknown.sum(), 10 * unknown.sum())
    assert not verify(store)
    (answered,) = answered_segments([store.folder], tmp_path / "nowhere")
    write_answers([answered], tmp_path / "said.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "said.parquet").to_pydict()
    assert [each is None for each in table["some.class"]] == unknown.tolist()
    assert [each["3"] is None for each in table["some.probabilities"]] == unknown.tolist()


@pytest.mark.parametrize(
    ("answer", "encoding"), [(answer, encoding) for answer, some in ENCODINGS.items() for encoding in some]
)
def test_every_encoding_keeps_what_is_unknown_by_the_same_bytes(answer, encoding, tmp_path):
    rng = np.random.default_rng(0)
    is_boxes = answer == "boxes"
    said = images(rng, 50, 4, 3)[0] if is_boxes else rng.standard_normal((50, 4)).astype(np.float32)
    said[7] = np.nan
    if answer not in ("class_axis", "boxes"):  # of one class of many, and of boxes, nothing is known of a row, or all
        said[9, 2] = np.nan
    negative = said.copy()
    negative[7] = np.frombuffer(np.uint32(0xFFC12345).tobytes(), np.float32)[0]  # not a number, of other bits
    about = ("s", "digest", encoding, ("a", "b", "c", "d"), 50, 50, answer)
    stores = [
        SoftTargetStore.create(tmp_path / str(n), Spec("t", "d", *about, max_boxes=3 * is_boxes)) for n in range(2)
    ]
    for store, values in zip(stores, (said, negative), strict=True):
        store.commit(0, np.arange(50, dtype=np.uint64), {store.spec.named[0]: values})
    assert stores[0].seal().digest == stores[1].seal().digest
    found = SoftTargets.open(stores[0].folder).said()
    assert np.array_equal(found.isnan().numpy(), np.isnan(said))
    record = stores[0].record(0)
    assert (record.unknown_rows, record.unknown_elements) == (1, int(np.isnan(said).sum()))
    assert Commit.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_record_of_a_shard_of_which_all_is_known_says_nothing_of_it(tmp_path):
    store = SoftTargetStore.create(tmp_path, Spec("t", "d", "s", "digest", "dense", ("a", "b"), 3, 3))
    record = store.commit(0, KEYS, {"logits": np.zeros((3, 2))})
    assert not [name for name in record.to_json() if "unknown" in name]
    assert not SoftTargets.open(tmp_path).has_unknown


# what a student compares itself with


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_soft_loss_over_known_classes_is_that_of_these_alone_and_pulls_at_no_other(temperature):
    generator = torch.Generator().manual_seed(0)
    student = (5 * torch.randn(8, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    target = 5 * torch.randn(8, 6, generator=generator, dtype=torch.float64)
    target[:, 4] = target[:3, 1] = torch.nan
    found = compared_over_known(lambda s, t: soft(s, t, temperature=temperature), student, target)
    for row in range(8):
        known = ~target[row].isnan()
        p, q = F.softmax(target[row, known] / temperature, -1), F.log_softmax(student[row, known] / temperature, -1)
        torch.testing.assert_close(found[row], temperature**2 * (p * (p.log() - q)).sum())
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert (gradient[target.isnan()] == 0).all() and (gradient[~target.isnan()] != 0).all()


def test_the_label_that_teachers_say_is_compared_over_the_classes_that_somebody_knows():
    student = torch.tensor([[1.0, 9.0, 2.0]], requires_grad=True)
    target = torch.tensor([[3.0, NAN, 4.0]])
    found = compared_over_known(teacher_label, student, target)
    torch.testing.assert_close(found, F.cross_entropy(student[:, [0, 2]], torch.tensor([1]), reduction="none"))
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert gradient[0, 1] == 0


@pytest.mark.parametrize("loss", [lambda s, t: soft(s, t, temperature=2.0), teacher_label])
def test_where_all_is_known_the_comparison_is_the_same_to_the_last_bit(loss):
    student, target = torch.randn(64, 10), torch.randn(64, 10)
    assert torch.equal(compared_over_known(loss, student, target), loss(student, target))


def column(run, name="target.0"):
    return SharedData().of([run], SESSION)[0].rows.columns.get(name)


def with_nan_rows(folder, digits, rows, **options):
    """A store as `make_store` makes it, with NaN in `rows`."""
    whole = SoftTargets.open(make_store(folder / "whole", digits, **options))
    said = whole.said().numpy().copy()
    said[rows] = np.nan
    store = SoftTargetStore.create(folder / "some", dataclasses.replace(whole.spec, teacher_digest="nan"))
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, whole.keys()[first : first + num], {"logits": said[first : first + num]})
    store.seal()
    return store.folder


@pytest.fixture(scope="module")
def unknown(digits):
    """bool by training row: of a third of them one teacher knows nothing."""
    return np.random.default_rng(5).random(digits.of("train")[0].num_rows) < 0.3


def weights_after(run, data):
    run.stage.mkdir(parents=True, exist_ok=True)
    left = Training(run, SESSION, data)
    left.train()
    return torch.cat([parameter.detach().flatten() for parameter in left.module.parameters()])


@pytest.mark.parametrize("rule", ["mean_probability", "mean_logits", "weighted"])
def test_rows_that_a_teacher_does_not_know_are_heard_as_if_it_were_not_there(rule, digits, unknown, tmp_path):
    some = source(with_nan_rows(tmp_path / "wide", digits, unknown), "wide")
    other = source(make_store(tmp_path / "deep", digits, name="deep", seed=1), "deep")
    term = SOFT | {"combine": rule} | ({"teacher_weights": {"wide": 2, "deep": 1}} if rule == "weighted" else {})
    run = make_run(tmp_path, digits, some, other, objective=[term])
    (data,) = SharedData().of([run], SESSION)
    found, mask = data.rows.columns["target.0"], torch.from_numpy(unknown)
    both = column(make_run(tmp_path, digits, source(tmp_path / "wide" / "whole"), other, objective=[term]))
    alone = SOFT | {"teachers": ["deep"], "combine": "mean_logits" if rule == "mean_logits" else None}
    without = column(make_run(tmp_path, digits, other, objective=[alone]))
    assert torch.equal(found[~mask], both[~mask])
    torch.testing.assert_close(found[mask], without[mask])
    assert "target.0.weight" not in data.rows.columns
    (every_step,) = SharedData(10_000).of([run], SESSION)
    assert "target.0" not in every_step.rows.columns
    once = weights_after(run, data)
    again = weights_after(
        dataclasses.replace(run, stage=tmp_path / "again", folder=tmp_path / "again" / "x"), every_step
    )
    torch.testing.assert_close(once, again, rtol=1e-5, atol=1e-6)


def test_a_row_that_no_teacher_knows_has_no_weight_in_what_listens_and_all_of_it_in_hard(digits, unknown, tmp_path):
    some = source(with_nan_rows(tmp_path, digits, unknown), "wide")
    run = make_run(tmp_path, digits, some, objective=[SOFT, HARD], batch_size=256)
    (data,) = SharedData().of([run], SESSION)
    weight = data.rows.columns["target.0.weight"]
    assert np.array_equal(weight.numpy() == 0, unknown) and (weight[torch.from_numpy(~unknown)] == 1).all()
    assert data.rows.columns["target.0"].isfinite().all()
    stepper = make_stepper(run, SESSION, data, Stepper).start()
    batch = next(iter(Batches(data.rows, run, SESSION).from_step(0)))
    logits = stepper.module(data.rows.inputs(batch, None)).detach()
    heard, labelled = batch["target.0.weight"] > 0, batch["has_label"] > 0
    (found_soft, found_hard) = stepper.advance(batch, 0)
    student, ready = F.log_softmax(logits[heard] / 2, -1), batch["target.0"][heard]
    torch.testing.assert_close(found_soft, 4 * F.kl_div(student, ready, reduction="batchmean", log_target=True))
    torch.testing.assert_close(found_hard, F.cross_entropy(logits[labelled], batch["label"][labelled]))


def unseen(logits, *, temperature, known, labels=None):
    """A rule of the user's: the mean; asked in every step. What is not known is 0 and finite."""
    from teachers.soft_targets.combine.class_scores import mean_probability

    assert logits.isfinite().all() and (logits[~known] == 0).all() and not known.all()
    return mean_probability(logits, temperature=temperature, known=known)


def nan_is_told(student, target, *, temperature):
    """A loss of the user's."""
    known = ~target.isnan()
    difference = torch.where(known, student - target.nan_to_num(), 0.0)
    assert known.any(-1).all()
    return difference.square().sum(-1) + 0 * known.sum(-1)


def test_a_rule_and_a_loss_of_the_users_are_told_what_is_unknown(digits, unknown, tmp_path):
    some = source(with_nan_rows(tmp_path, digits, unknown), "wide")
    mine = {"loss": "test_unknown:nan_is_told", "combine": "test_unknown:unseen"}
    (result,) = fit([make_run(tmp_path, digits, some, objective=[mine, HARD])], SESSION)
    assert result.steps == 40


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_of_several_classes_or_numbers_a_row_each_is_heard_from_those_who_know_it(task, tmp_path):
    rows = task_runs.prepared(tmp_path, task)
    stores = [task_runs.make_store(tmp_path / name, rows, name=name, seed=seed) for seed, name in enumerate(("a", "b"))]
    whole = SoftTargets.open(stores[0])
    said = whole.said().numpy().copy()
    said[::3, 0] = np.nan
    store = SoftTargetStore.create(tmp_path / "some", dataclasses.replace(whole.spec, teacher_digest="nan"))
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, whole.keys()[first : first + num], {store.spec.named[0]: said[first : first + num]})
    store.seal()
    assert store.unknown() == (0, len(said[::3]))
    some, other = column_of(rows, tmp_path, store.folder, stores[1]), column_of(rows, tmp_path, stores[1])
    both = column_of(rows, tmp_path, *stores)
    torch.testing.assert_close(some[::3, 0], other[::3, 0])
    torch.testing.assert_close(some[1::3], both[1::3])
    torch.testing.assert_close(some[::3, 1:], both[::3, 1:])


def column_of(rows, folder, *stores):
    heard = [source(store, str(number)) for number, store in enumerate(stores)]
    return column(make_run(folder, rows, *heard, objective=[SOFT]))


def test_an_estimator_learns_no_row_and_no_class_that_nobody_knows(digits, unknown, tmp_path):
    lacking = [name for name in digits.classes if name != "3"]
    store = with_nan_rows(tmp_path, digits, unknown, classes=lacking)
    run = make_run(tmp_path, digits, source(store, class_map={}), objective=[SOFT | {"temperature": 1.0}])
    learnt = taught(run, digits, 1e-3)
    assert np.array_equal(learnt.rows, np.flatnonzero(~unknown))
    said = SoftTargets.open(store).said()[torch.from_numpy(~unknown)].softmax(1).numpy()
    shares = learnt.weights / learnt.weights.sum(1, keepdims=True)
    number = digits.classes.index("3")
    assert (shares[:, number] == 0).all()
    np.testing.assert_allclose(np.delete(shares, number, 1), said, atol=1e-5)


class Saying:
    """A live teacher that knows nothing of some rows."""

    def __init__(self, transfer_set, store):
        self.said, self.keys = SoftTargets.open(store).said().numpy(), transfer_set.keys(transfer_set.of("train")[0])

    def ask(self, teachers, inputs, sample_key):
        return {name: self.said[np.searchsorted(self.keys, sample_key)] for name in teachers}

    def answers(self, asked):
        return asked


def test_a_live_teacher_that_does_not_know_a_row_is_heard_as_a_cached_one(digits, unknown, tmp_path):
    store = with_nan_rows(tmp_path, digits, unknown)
    cached = make_run(tmp_path / "cached", digits, source(store), name="cached")
    live = make_run(tmp_path / "live", digits, Source("wide", {}, live=Live(tuple(digits.classes))), name="live")
    fit([cached], SESSION)
    fit([live], PlainSession(live=Saying(digits, store)))
    said = [load_model(run.folder)(digits.inputs(digits.of("test")[0])) for run in (cached, live)]
    torch.testing.assert_close(said[0], said[1], rtol=1e-4, atol=1e-4)


# classes that nobody knows


def recall_of(run, digits, name):
    (segment,) = digits.of("test")
    labels = np.array(digits.classes)[digits.labels(segment)]
    said = np.array(digits.classes)[load_model(run.folder)(digits.inputs(segment)).argmax(-1).numpy()]
    return (said[labels == name] == name).mean()


def over_all_classes(student, target, *, temperature):
    """What `soft` would be if a class that nobody knows had probability 0."""
    return soft(student, target.nan_to_num(nan=-1e4), temperature=temperature)


def test_a_class_that_nobody_knows_is_not_unlearned(digits, tmp_path):
    lacking = [name for name in digits.classes if name != "3"]
    one = source(make_store(tmp_path / "store", digits, classes=lacking), class_map={})
    options = {"steps": 800, "batch_size": 64}
    taught = make_run(tmp_path, digits, one, objective=[SOFT, HARD], name="taught", **options)
    control = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, name="control", **options)
    naive = [SOFT | {"loss": "test_unknown:over_all_classes"}, HARD]
    unlearned = make_run(tmp_path, digits, one, objective=naive, name="unlearned", **options)
    fit([taught, control, unlearned], SESSION)
    recalls = {run.name.split("/")[0]: recall_of(run, digits, "3") for run in (taught, control, unlearned)}
    assert recalls["taught"] > recalls["control"] - 0.1 > recalls["unlearned"] + 0.2, recalls


def test_teachers_that_know_everything_give_the_target_and_the_student_of_before(digits, tmp_path):
    """Bit for bit, whether classes are compared over those that are known or not."""
    heard = source(make_store(tmp_path / "store", digits))
    plain = make_run(tmp_path, digits, heard, name="plain")
    renamed = make_run(tmp_path, digits, dataclasses.replace(heard, class_map={}), name="mapped")
    fit([plain, renamed], SESSION)
    assert outputs(plain)["model.safetensors"] == outputs(renamed)["model.safetensors"]
    data = SharedData().of([plain], SESSION)[0]
    assert data.rows.columns["target.0"].isfinite().all() and "target.0.weight" not in data.rows.columns
    assert data.rows.objective.terms[0].loss.func is soft_of_softened  # no mask where there is nothing to mask


# what is told


def partly(folder, digits, name, **options):
    """A source whose stores know nothing of every fifth row."""
    whole = make_source(folder / "whole", digits, name, **options)
    stores = {}
    for part, path in whole.stores.items():
        opened = SoftTargets.open(path)
        said = opened.said().numpy().copy()
        said[::5] = np.nan
        store = SoftTargetStore.create(folder / "some" / part, dataclasses.replace(opened.spec, teacher_digest="nan"))
        for number in range(store.num_shards):
            first, num = store.shard_rows(number)
            store.commit(number, opened.keys()[first : first + num], {"logits": said[first : first + num]})
        store.seal()
        stores[part] = store.folder
    return dataclasses.replace(whole, stores=stores), whole


def test_figures_of_a_teacher_count_unknown_rows_as_not_right_and_its_probabilities_over_the_others(digits, tmp_path):
    some, whole = partly(tmp_path, digits, "wide")
    found = evaluate_teachers(digits.folder, [some])
    (segment,) = digits.of("test")
    said, labels = SoftTargets.open(whole.stores[segment.name]).said(), torch.tensor(digits.labels(segment)).long()
    known = torch.arange(len(labels)) % 5 > 0
    teacher = found["teachers"]["wide"]
    assert teacher["accuracy"] == float(((said.argmax(1) == labels) & known).double().mean())
    assert teacher["nll"] == pytest.approx(float(F.cross_entropy(said[known], labels[known])), abs=1e-5)
    assert sum(each["count"] for each in teacher["reliability"]) == known.sum()
    rows = -(-segment.num_rows // 5)
    assert teacher["unknown"]["test"] == [rows, segment.num_rows] and set(teacher["unknown"]) == {"test", "validation"}
    assert f"knows nothing of {-(-digits.of('validation')[0].num_rows // 5):,} of" in next(
        about_unknown({"wide": teacher})
    )
    assert found["by_class"]["support"] == torch.bincount(labels, minlength=10).tolist()
    assert sum(found["by_class"]["said"]["wide"]) == known.sum()
    json.dumps(found, allow_nan=False)
    other = make_source(tmp_path, digits, "deep", seed=1)
    together = evaluate_teachers(digits.folder, [some, other])
    assert together["ensemble"]["accuracy"] > together["teachers"]["deep"]["accuracy"]
    json.dumps(together, allow_nan=False)


def test_a_teacher_is_judged_on_the_rows_that_it_knows(digits, tmp_path):
    some, _ = partly(tmp_path, digits, "wide", splits=("validation",))
    found = judge(digits.folder, [some], "validation")["teachers"]["wide"]
    assert found["rows"] == len(range(digits.of("validation")[0].num_rows)) - -(
        -digits.of("validation")[0].num_rows // 5
    )
    assert found["stands"] == "better"
    nothing, _ = partly(tmp_path / "x", digits, "none", splits=("validation",), classes=["3"], class_map={"3": None})
    assert judge(digits.folder, [nothing], "validation")["teachers"]["none"]["stands"] == "open"
