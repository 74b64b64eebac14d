"""Several classes a row, and numbers, learnt by the engine: what a step is, what it does not depend on, whom it follows."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from scipy.special import expit
from sklearn.metrics import average_precision_score, log_loss, root_mean_squared_error

from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.measuring.ensemble import save_ensemble
from students.objective.class_weights import class_weights
from students.runs.best import delivered
from students.runs.run import Live
from students.runs.session import PlainSession
from students.tasks.figure import LOOKS
from students.training.train import Training
from teachers.errors import RecipeError, StoreError
from teachers.models.folder import load_model
from teachers.models.modules import build_module
from teachers.users_code.imports import use_user_path
from tests.cohort_runs import EXACT, cohort_config, in_turn, make_cohort
from tests.rank_runs import on_ranks
from tests.task_runs import LABELS, make_store, prepared, said_by_a_teacher
from tests.training_runs import make_run, outputs, source

SESSION = PlainSession()
SOFT, HARD = {"loss": "soft", "weight": 0.5}, {"loss": "hard", "weight": 0.5}
TASKS = ["multilabel", "regression"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return {task: prepared(tmp_path_factory.mktemp(task), task, labelled=200) for task in TASKS}


@pytest.fixture(scope="module")
def stores(sets, tmp_path_factory):
    """Of two teachers of each task."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        task: [
            make_store(folder / f"{task}-{name}", sets[task], name=name, seed=seed)
            for seed, name in enumerate(("wide", "deep"))
        ]
        for task in TASKS
    }


def heard(stores, task):
    return [source(store, name) for store, name in zip(stores[task], ("wide", "deep"), strict=True)]


def trained(run, session=SESSION):
    (result,) = fit([run], session)
    return result


def weights(run):
    return safetensors.torch.load_file(run.folder / "model.safetensors")


def farthest(one, other):
    pairs = weights(one), weights(other)
    return max(float((pairs[0][name] - pairs[1][name]).abs().max()) for name in pairs[0])


def first_step(run, session=SESSION):
    """(terms, batch, what the network says) of the first step, before anything is learnt."""
    run.stage.mkdir(parents=True, exist_ok=True)
    fresh = Training(run, session, SharedData().of([run], session)[0])
    batch = next(iter(fresh.batches()))
    said = fresh.stepper.module(fresh.data.rows.inputs(batch, None)).detach()
    return fresh.stepper.advance(batch, 0), batch, said


def usable(transfer_set, split):
    (segment,) = transfer_set.of(split)
    labels = transfer_set.usable_labels(segment)
    known = ~np.isnan(labels) if labels.dtype.kind == "f" else labels >= 0
    return segment, labels, known


# what comes of a run


def test_a_student_of_several_classes_is_judged_as_scikit_learn_judges_it(sets, stores, tmp_path):
    run = make_run(tmp_path, sets["multilabel"], *heard(stores, "multilabel"), objective=[SOFT, HARD], steps=200)
    result = trained(run)
    segment, labels, known = usable(sets["multilabel"], "validation")
    said = load_model(run.folder)(sets["multilabel"].inputs(segment)).double().numpy()
    columns = [(labels[known[:, c], c], said[known[:, c], c]) for c in range(3)]
    expected = {
        "macro_average_precision": np.mean([average_precision_score(*each) for each in columns]),
        "nll": log_loss(np.concatenate([y for y, _ in columns]), expit(np.concatenate([s for _, s in columns]))),
    }
    assert result.validation == pytest.approx(expected, abs=1e-6)
    assert result.validation["macro_average_precision"] > 0.9


def test_a_student_of_numbers_says_them_in_the_units_of_the_label(sets, stores, tmp_path):
    rows = sets["regression"]
    run = make_run(tmp_path, rows, *heard(stores, "regression"), objective=[SOFT, HARD], steps=200)
    result = trained(run)
    segment, labels, known = usable(rows, "validation")
    said = load_model(run.folder)(rows.inputs(segment)).numpy()
    off = [
        root_mean_squared_error(labels[known[:, c], c], said[known[:, c], c]) / rows.space.scale[c] for c in range(2)
    ]
    assert result.validation["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(off))), rel=1e-4)
    assert max(off) < 0.3 and abs(said[:, 0].mean() - 250_000) < 3 * rows.space.scale[0]


@pytest.mark.parametrize("task", TASKS)
def test_the_best_seed_is_the_one_that_a_look_says(task, sets, stores, tmp_path):
    runs = [make_run(tmp_path, sets[task], *heard(stores, task), objective=[SOFT], seed=seed) for seed in (0, 1, 2)]
    results = fit(runs, SESSION)
    assert all(set(result.validation) == set(LOOKS[task]) for result in results)
    first = [result.validation[LOOKS[task][0]] for result in results]
    best = max(first) if task == "multilabel" else min(first)
    assert delivered({run.seed: run.folder for run in runs}) == first.index(best)
    (runs[0].folder / "config.json").unlink()
    with pytest.raises(StoreError, match=r"there is no config\.json"):
        delivered({run.seed: run.folder for run in runs})


# a step


def test_a_step_of_several_classes_is_a_sum_over_what_is_known(sets, stores, tmp_path):
    objective = [SOFT | {"temperature": 3.0}, HARD | {"label_smoothing": 0.1}]
    run = make_run(tmp_path, sets["multilabel"], *heard(stores, "multilabel"), objective=objective, batch_size=256)
    (soft, hard), batch, said = first_step(run)
    usable, known = batch["has_label"] > 0, ~batch["label"].isnan()
    assert 0 < usable.sum() < 256 and set(batch["label"][known].tolist()) == {0.0, 1.0}
    counts = usable[:, None] & known
    smoothed = batch["label"] * 0.9 + 0.05
    expected = F.binary_cross_entropy_with_logits(said[counts], smoothed[counts], reduction="sum") / usable.sum()
    torch.testing.assert_close(hard, expected)
    p, q = torch.sigmoid(batch["target.0"] / 3), torch.sigmoid(said / 3)
    each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(soft, 9 * each.sum(1).mean(), rtol=1e-4, atol=1e-5)


def test_a_step_of_numbers_compares_standardised_ones(sets, stores, tmp_path):
    objective = [SOFT | {"distance": "huber", "delta": 0.5}, HARD]
    rows = sets["regression"]
    run = make_run(tmp_path, rows, *heard(stores, "regression"), objective=objective, batch_size=256)
    (soft, hard), batch, said = first_step(run)
    usable, known = batch["has_label"] > 0, ~batch["label"].isnan()
    off = torch.where(known, (said - batch["label"]).square(), 0).sum(1) / known.sum(1).clamp_min(1)
    torch.testing.assert_close(hard, off[usable].mean())
    torch.testing.assert_close(soft, F.huber_loss(said, batch["target.0"], delta=0.5))
    (segment,) = rows.of("train")
    labels = rows.usable_labels(segment)
    assert np.allclose(rows.space.mean, np.nanmean(labels, 0)) and np.allclose(rows.space.scale, np.nanstd(labels, 0))
    teachers = np.mean([said_by_a_teacher(rows, segment, seed=seed) for seed in (0, 1)], axis=0)
    column = SharedData().of([run], SESSION)[0].rows.columns["target.0"]
    np.testing.assert_allclose(column, (teachers - rows.space.mean) / rows.space.scale, atol=2e-3)


@pytest.mark.parametrize("task", TASKS)
def test_what_nobody_knows_of_a_row_is_compared_with_nothing(task, sets, tmp_path):
    """A teacher that knows one class, or number, alone; and one that knows none."""
    rows, (only, *others) = sets[task], LABELS[task]
    one = source(make_store(tmp_path / "one", rows, order=[only]), "wide", class_map={only: only})
    (soft,), batch, said = first_step(make_run(tmp_path, rows, one, objective=[SOFT], batch_size=64))
    target = batch["target.0"]
    assert target[:, 0].isfinite().all() and target[:, 1:].isnan().all()
    alone = F.mse_loss(said[:, 0], target[:, 0])
    if task == "multilabel":
        p, q = torch.sigmoid(target[:, 0] / 2), torch.sigmoid(said[:, 0] / 2)
        alone = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(soft, alone, rtol=1e-4, atol=1e-5)
    nobody = source(make_store(tmp_path / "all", rows), "nobody", class_map=dict.fromkeys(LABELS[task]))
    plain = make_run(tmp_path / "plain", rows, one, objective=[SOFT | {"teachers": ["wide"]}])
    two = [SOFT | {"teachers": ["wide"]}, SOFT | {"teachers": ["nobody"]}]
    silent = make_run(tmp_path / "silent", rows, one, nobody, objective=two)
    fit([plain, silent], SESSION)
    assert farthest(plain, silent) == 0 and others


def own_loss(student, target, *, temperature):
    return torch.nan_to_num(student - target).abs().mean(-1)


def own_rule(said, *, temperature, known, labels=None):
    """What the first says; labels come in the units of what is said."""
    assert labels.shape == said.shape[1:] and labels.isnan().any()
    if said.abs().nanmean() > 100:
        assert labels.nan_to_num().abs().max() > 1000
    weights = torch.zeros(said.shape[:2])
    weights[0] = 1
    return said[0], weights


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_and_a_rule_of_the_users_get_what_ours_get(task, sets, stores, tmp_path):
    mine = {"loss": "test_task_training:own_loss", "combine": "test_task_training:own_rule"}
    run = make_run(tmp_path, sets[task], *heard(stores, task), objective=[mine], batch_size=64)
    (found,), batch, said = first_step(run)
    first = SOFT | {"teachers": ["wide"], "weight": 1}
    _, same, _ = first_step(
        make_run(tmp_path / "first", sets[task], *heard(stores, task), objective=[first], batch_size=64)
    )
    assert torch.equal(batch["label"].nan_to_num(), same["label"].nan_to_num())
    torch.testing.assert_close(found, (said - same["target.0"]).abs().mean())


# what a student does not depend on


@pytest.mark.parametrize("factor", [8.0, 1000.0])
def test_labels_in_another_unit_give_the_same_student_with_scaled_values(factor, tmp_path):
    runs = []
    for scale in (1.0, factor):
        rows = prepared(tmp_path / f"rows-{scale}", "regression", factor=scale, labelled=200)
        store = make_store(tmp_path / f"store-{scale}", rows, factor=scale)
        runs.append((rows, make_run(tmp_path / f"run-{scale}", rows, source(store), objective=[SOFT, HARD])))
        trained(runs[-1][1])
    (rows, one), (_, other) = runs
    assert farthest(one, other) < 1e-5
    if factor == 8:  # exact in binary
        assert outputs(one)["model.safetensors"] == outputs(other)["model.safetensors"]
    inputs = rows.inputs(rows.of("test")[0])
    said = [load_model(run.folder)(inputs).numpy() for run in (one, other)]
    np.testing.assert_allclose(said[1], factor * said[0], rtol=1e-5, atol=1e-4 * factor)


def test_several_ranks_train_and_judge_what_one_does(sets, stores, tmp_path):
    pairs = []
    for task in TASKS:
        options = {"objective": [SOFT, HARD], "steps": 40, "evaluate_every": 10}
        one, two = (make_run(tmp_path / task / n, sets[task], *heard(stores, task), **options) for n in ("1", "2"))
        trained(one)
        pairs.append((one, two))
    on_ranks(tmp_path / "ranks", [two for _, two in pairs], world=2)
    for one, two in pairs:
        assert farthest(one, two) < 1e-5
        looks = [json.loads((run.folder / "result.json").read_text())["validation"] for run in (one, two)]
        assert looks[0] == pytest.approx(looks[1], rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_a_teachers_own_order_of_names_does_not_matter(task, sets, tmp_path):
    runs = []
    for order in (LABELS[task], LABELS[task][::-1]):
        store = make_store(tmp_path / order[0], sets[task], order=order)
        runs.append(make_run(tmp_path / f"run-{order[0]}", sets[task], source(store), objective=[SOFT]))
    fit(runs, SESSION)
    assert farthest(*runs) == 0


class Saying:
    """Answers for a live teacher what its store would say."""

    def __init__(self, transfer_set, task):
        (segment,) = transfer_set.of("train")
        self.said = said_by_a_teacher(transfer_set, segment)
        self.keys = transfer_set.keys(segment)

    def ask(self, teachers, inputs, sample_key):
        return {name: self.said[np.searchsorted(self.keys, sample_key)] for name in teachers}

    def answers(self, asked):
        return asked


@pytest.mark.parametrize("task", TASKS)
def test_a_live_teacher_is_heard_as_a_cached_one(task, sets, stores, tmp_path):
    cached = make_run(tmp_path / "cached", sets[task], source(stores[task][0]), objective=[SOFT, HARD])
    live = source(None, live=Live(tuple(LABELS[task])))
    asking = make_run(tmp_path / "live", sets[task], live, objective=[SOFT, HARD])
    kept, _, _ = first_step(cached)
    asked, _, _ = first_step(asking, PlainSession(live=Saying(sets[task], task)))
    torch.testing.assert_close(asked, kept, rtol=2e-3, atol=1e-4)  # a store keeps float16 of logits


# weights


def test_balanced_weights_of_several_classes_give_both_sides_of_each_the_same_sum():
    labels = np.random.default_rng(0).choice([-1, 0, 1], (500, 3), p=[0.1, 0.7, 0.2]).astype(np.int8)
    labels[:, 2] = np.minimum(labels[:, 2], 0)  # nobody has it
    found = class_weights("balanced", labels, ["a", "b", "c"], "students.small").numpy()
    for column in (0, 1):
        assert found[column] * (labels[:, column] == 1).sum() == pytest.approx((labels[:, column] == 0).sum())
    assert found[2] == 1


def test_class_weights_of_several_classes_are_of_those_that_hold(sets, tmp_path):
    rows = sets["multilabel"]
    run = make_run(tmp_path, rows, objective=[{"loss": "hard"}], labelled_only=True, class_weights={"rare": 5.0})
    (found,), batch, said = first_step(run)
    known = ~batch["label"].isnan()
    weight = torch.where((batch["label"] == 1) & (torch.arange(3) == 2), 5.0, 1.0)
    each = F.binary_cross_entropy_with_logits(said[known], batch["label"][known], weight[known], reduction="sum")
    torch.testing.assert_close(found, each / len(said))


def test_inverse_variance_weighs_teachers_by_their_errors_on_validation(sets, tmp_path):
    rows, heard = sets["regression"], []
    errors = []
    segment, labels, known = usable(rows, "validation")
    for name, noise in (("wide", 0.2), ("deep", 0.8)):
        options = {"name": name, "noise": noise, "seed": 3}
        train, validation = (
            make_store(tmp_path / f"{name}-{split}", rows, split=split, **options) for split in ("train", "validation")
        )
        kept = source(train, name)
        heard.append(dataclasses.replace(kept, stores={**kept.stores, segment.name: validation}))
        off = (said_by_a_teacher(rows, segment, seed=3, noise=noise) - labels) / np.array(rows.space.scale)
        errors.append(np.square(off[known]).mean())
    run = make_run(tmp_path, rows, *heard, objective=[SOFT | {"combine": "inverse_variance"}], batch_size=64)
    column = SharedData().of([run], SESSION)[0].rows.columns["target.0"]
    (train,) = rows.of("train")
    said = [said_by_a_teacher(rows, train, seed=3, noise=noise) for noise in (0.2, 0.8)]
    shares = (1 / np.array(errors)) / (1 / np.array(errors)).sum()
    expected = np.tensordot(shares, np.stack(said).astype(np.float64), 1)
    np.testing.assert_allclose(column, (expected - rows.space.mean) / rows.space.scale, atol=2e-3)
    unheard = make_run(
        tmp_path / "x",
        rows,
        source(heard[0].stores["train-0"]),
        objective=run.objective[:1] and [SOFT | {"combine": "inverse_variance"}],
    )
    with pytest.raises(StoreError, match=r"no store for segment 'validation-0'; label it first"):
        first_step(unheard)


# cohorts


def last(**train):
    return {"train": {"evaluate_every": 10_000, "schedule": "constant", "weight_decay": 0.01} | train}


def by_hand(run, loss_of, steps=20):
    """The members of `run` trained by a loop of plain torch."""
    use_user_path(run.members[0].user_path)
    data = SharedData().of(run.members, SESSION)
    modules = []
    for member, own in zip(run.members, data, strict=True):
        torch.manual_seed(member.draw_seed)
        width, shape = own.transfer_set.space.width, own.preprocessor.input_shape
        modules.append(build_module(member.model, member.arguments, num_classes=width, input_shape=shape).train())
    optimizers = [torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.01) for module in modules]
    stream = Batches(data[0].rows, run.members[0], SESSION).from_step(0)
    for _ in range(steps):
        batch = next(stream)
        said = [module(data[0].rows.inputs(batch, None)) for module in modules]
        counts = (batch["has_label"] > 0)[:, None] & ~batch["label"].isnan()
        losses = [loss_of(said, batch["label"].double(), counts, member) for member in range(len(modules))]
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
        for optimizer in optimizers:
            optimizer.step()
    return [module.state_dict() for module in modules]


def mutual_of_classes(said, labels, counts, member):
    own, others = said[member], [each.detach() for number, each in enumerate(said) if number != member]
    rows = counts.any(1).sum().clamp_min(1)
    hard = F.binary_cross_entropy_with_logits(own[counts], labels[counts], reduction="sum") / rows
    pulls = [
        F.binary_cross_entropy_with_logits(own, p, reduction="sum") - F.binary_cross_entropy(p, p, reduction="sum")
        for p in (other.sigmoid() for other in others)
    ]
    return hard + sum(pulls) / len(pulls) / len(own)


def mutual_of_numbers(said, labels, counts, member):
    own, others = said[member], [each.detach() for number, each in enumerate(said) if number != member]
    off = torch.where(counts, (own - torch.nan_to_num(labels)).square(), 0).sum(1) / counts.sum(1).clamp_min(1)
    rows = counts.any(1).sum().clamp_min(1)
    return off.sum() / rows + sum(F.mse_loss(own, other) for other in others) / len(others)


@pytest.mark.parametrize("task", TASKS)
def test_mutual_learning_is_a_loop_of_plain_torch(task, sets, tmp_path):
    run = make_cohort(tmp_path, sets[task], cohort_config("mutual", dict.fromkeys("abc", EXACT), **last()))
    in_turn(run)
    expected = by_hand(run, mutual_of_classes if task == "multilabel" else mutual_of_numbers)
    for member, reference in zip(run.members, expected, strict=True):
        for name, value in weights(member).items():
            assert (value - reference[name]).abs().max() < 1e-7, name


MLP = {"model": "students.models:mlp", "arguments": {"hidden": 8}}
METHODS = {
    "mutual": {},
    "kdcl": {"target": "general"},
    "one": {},
    "group_leader": {},
    "codistillation": {"exchange_every": 5, "burn_in": 5},
    "online_teacher": {},
    "feature_exchange": {},
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_members_that_say_other_than_one_class(method, task, sets, stores, tmp_path):
    members = {name: dict(MLP) for name in ("abc" if method == "group_leader" else "ab")}
    if method == "online_teacher":
        members = {"a": MLP | {"role": "student"}, "b": MLP | {"role": "deep_teacher"}}
    if method == "feature_exchange":
        members = {name: MLP | {"layers": ["2"]} for name in "ab"}
    options = METHODS[method] | {"teachers": ["wide"], "train": {"steps": 60, "evaluate_every": 20}}
    config = cohort_config(method, members, **options)
    run = make_cohort(tmp_path, sets[task], config, sources=(source(stores[task][0]),))
    results = in_turn(run)
    assert [set(result.validation) for result in results] == [set(LOOKS[task])] * len(members)
    points = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, key = LOOKS[task][0], "agreement" if task == "multilabel" else "squared_distance"
    curves = {point["key"] for point in points}
    assert {f"validation.{first}", f"cohort.{key}", f"cohort.ensemble_{first}", "train.hard"} <= curves


def test_a_network_that_says_too_little_is_told_what_the_task_needs(sets, tmp_path):
    for task, told in (
        ("multilabel", "a logit for each row and class"),
        ("regression", "a number for each row and column"),
    ):
        run = make_run(tmp_path / task, sets[task], objective=[{"loss": "hard"}], labelled_only=True)
        run = dataclasses.replace(run, arguments={"hidden": 4, "num_classes": 9})
        with pytest.raises(
            RecipeError, match=rf"gives \[32, 9\] for 32 rows, expected \[32, {len(LABELS[task])}\]: {told}"
        ):
            trained(run)


@pytest.mark.parametrize("task", TASKS)
def test_an_ensemble_says_the_mean_of_its_members(task, sets, tmp_path):
    runs = [make_run(tmp_path, sets[task], objective=[HARD], labelled_only=True, seed=seed) for seed in (0, 1, 2)]
    fit(runs, SESSION)
    save_ensemble(tmp_path / "together", [run.folder for run in runs])
    inputs = sets[task].inputs(sets[task].of("test")[0])
    said = [load_model(run.folder)(inputs).numpy() for run in runs]
    together = load_model(tmp_path / "together")(inputs).numpy()
    if task == "multilabel":
        np.testing.assert_allclose(expit(together), np.mean([expit(each) for each in said], 0), atol=1e-5)
    else:
        np.testing.assert_allclose(together, np.mean(said, 0), rtol=1e-5)
