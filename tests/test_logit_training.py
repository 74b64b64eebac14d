"""Losses of logits at work in the engine, and what a recipe is refused that cannot have one of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from students.config.combining import Combining
from students.config.estimator import EstimatorStudent
from students.config.student import StudentConfig
from students.config.task_terms import task_problems
from students.config.terms import SoftTerm, Term, labels_alone
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.objective.losses.classification import LOSSES
from students.objective.losses.known import compared_over_known
from students.runs.run import Live, Source
from students.runs.session import PlainSession
from students.training.steps import Stepper
from students.training.train import make_stepper
from teachers.errors import RecipeError
from teachers.soft_targets.reader import SoftTargets
from tests.cohort_runs import cohort_config, make_cohort
from tests.rank_runs import on_ranks
from tests.test_recipe import DIGITS, complaint
from tests.test_unknown import with_nan_rows
from tests.training_runs import HARD, SOFT, make_run, make_store, outputs, source

SESSION = PlainSession()
TERM = TypeAdapter(Term)
LISTENING = ["reverse_kl", "jensen_shannon", "logit_mse", "dkd", "dist", "logit_standardized"]


def term(loss, **options):
    return {"loss": loss, "weight": 0.9, **options}


def first_step(run, session=SESSION):
    """(stepper, batch, logits) before its first step."""
    (data,) = SharedData().of([run], session)
    stepper = make_stepper(run, session, data, Stepper).start()
    batch = next(iter(Batches(data.rows, run, session).from_step(0)))
    return stepper, batch, stepper.module(data.rows.inputs(batch, None)).detach()


# what is compared


@pytest.mark.parametrize("loss", [*LISTENING, "label_smoothing_teacher"])
def test_a_student_learns_by_each_loss(loss, digits, tmp_path):
    heard = source(make_store(tmp_path / "store", digits))
    options = (
        {"unlabelled": "teacher_label"} if loss == "dkd" else {}
    )  # the labelled rows alone are two or three a batch
    objective = [term(loss, **options), SOFT | {"weight": 0.1}, HARD]
    run = make_run(tmp_path, digits, heard, objective=objective, steps=300)
    (result,) = fit([run], SESSION)
    assert result.validation["accuracy"] > 0.6


@pytest.mark.parametrize("loss", ["reverse_kl", "jensen_shannon", "logit_mse", "dist", "logit_standardized"])
def test_a_term_is_the_mean_of_its_loss_over_the_rows(loss, digits, tmp_path):
    run = make_run(tmp_path, digits, source(make_store(tmp_path / "store", digits)), objective=[term(loss), HARD])
    stepper, batch, logits = first_step(run)
    told = {"centre": True} if loss == "logit_mse" else {"temperature": run.objective[0].temperature}
    expected = LOSSES[loss](logits, batch["target.0"], **{"temperature": 1.0} | told).mean()
    torch.testing.assert_close(stepper.advance(batch, 0)[0], expected)


def test_dkd_is_the_mean_over_the_labelled_rows_that_somebody_knows(digits, tmp_path):
    unknown = np.random.default_rng(5).random(digits.of("train")[0].num_rows) < 0.3
    some = source(with_nan_rows(tmp_path, digits, unknown))
    run = make_run(tmp_path, digits, some, objective=[term("dkd", beta=2.0), HARD], batch_size=512)
    stepper, batch, logits = first_step(run)
    there = (batch["has_label"] > 0) & (batch["target.0.weight"] > 0)
    assert 0 < there.sum() < (batch["has_label"] > 0).sum()
    values = LOSSES["dkd"](
        logits[there], batch["target.0"][there], temperature=4.0, labels=batch["label"][there], beta=2.0
    )
    torch.testing.assert_close(stepper.advance(batch, 0)[0], values.mean())


def test_where_the_recipe_says_so_what_teachers_say_stands_for_a_label_that_is_not_there(digits, tmp_path):
    heard = source(make_store(tmp_path / "store", digits))
    run = make_run(tmp_path, digits, heard, objective=[term("dkd", unlabelled="teacher_label"), HARD], batch_size=128)
    stepper, batch, logits = first_step(run)
    labels = torch.where(batch["has_label"] > 0, batch["label"], batch["target.0"].argmax(-1))
    expected = LOSSES["dkd"](logits, batch["target.0"], temperature=4.0, labels=labels).mean()
    torch.testing.assert_close(stepper.advance(batch, 0)[0], expected)


def test_rows_are_compared_within_a_part_of_the_batch_and_those_that_nobody_knows_take_no_part(digits, tmp_path):
    unknown = np.random.default_rng(5).random(digits.of("train")[0].num_rows) < 0.3
    some = source(with_nan_rows(tmp_path, digits, unknown))
    run = make_run(tmp_path, digits, some, objective=[term("dist"), HARD], batch_size=64, accumulate=4)
    stepper, batch, logits = first_step(run)
    weight = batch["target.0.weight"]
    assert 0 < (weight == 0).sum() < 64
    total = sum(
        LOSSES["dist"](logits[part][heard], batch["target.0"][part][heard], temperature=4.0).sum()
        for part in torch.arange(64).split(16)
        for heard in [weight[part] > 0]
    )
    torch.testing.assert_close(stepper.advance(batch, 0)[0], total / (weight > 0).sum())


@pytest.mark.slow
def test_two_workers_train_the_same_student_by_dkd_and_compare_rows_within_each(digits, tmp_path):
    heard = source(make_store(tmp_path / "store", digits))
    of = {"steps": 20, "batch_size": 64}
    pairs = {}
    for loss in ("dkd", "dist"):
        one = make_run(tmp_path / f"{loss}-1", digits, heard, objective=[term(loss), HARD], accumulate=2, **of)
        two = make_run(tmp_path / f"{loss}-2", digits, heard, objective=[term(loss), HARD], workers=2, **of)
        pairs[loss] = (one, two)
    fit([one for one, _ in pairs.values()], SESSION)
    on_ranks(tmp_path / "ranks", [two for _, two in pairs.values()], world=2)
    for loss, (one, two) in pairs.items():  # a part of two is what a worker of two has
        said = [weights_of(run) for run in (one, two)]
        torch.testing.assert_close(*said, rtol=1e-4, atol=1e-5, msg=loss)


def weights_of(run):
    from safetensors.torch import load_file

    return torch.cat([value.flatten() for value in load_file(run.folder / "model.safetensors").values()])


def compares_labels(student, target, *, temperature, labels):
    """A loss of the user's that wants labels too."""
    assert (labels >= 0).all() and labels.shape == student.shape[:1]
    return (student - target).square().mean(-1) + torch.nn.functional.cross_entropy(student, labels, reduction="none")


def test_a_loss_of_the_users_with_a_parameter_for_labels_is_given_them_and_takes_labelled_rows(digits, tmp_path):
    heard = source(make_store(tmp_path / "store", digits))
    mine = {"loss": "test_logit_training:compares_labels", "temperature": 1.0}
    stepper, batch, logits = first_step(make_run(tmp_path, digits, heard, objective=[mine, HARD], batch_size=128))
    there = batch["has_label"] > 0
    expected = compares_labels(logits[there], batch["target.0"][there], temperature=1.0, labels=batch["label"][there])
    torch.testing.assert_close(stepper.advance(batch, 0)[0], expected.mean())


# classes that nobody knows


@pytest.mark.parametrize("loss", LISTENING)
def test_a_class_that_nobody_knows_gets_no_gradient_from_who_listens(loss, digits, tmp_path):
    lacking = [name for name in digits.classes if name != "3"]
    one = source(make_store(tmp_path / "store", digits, classes=lacking), class_map={})
    options = {"standardise": True} if loss in ("reverse_kl", "jensen_shannon", "dkd", "logit_mse") else {}
    run = make_run(tmp_path, digits, one, objective=[term(loss, **options), HARD], batch_size=128)
    stepper, batch, logits = first_step(run)
    objective = stepper.objective
    logits.requires_grad_()
    (value, _) = objective.sums(logits, objective.ask(batch))
    value.backward()
    number = digits.classes.index("3")
    assert (logits.grad[:, number] == 0).all() and logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0
    assert objective.terms[0].loss.func is compared_over_known


# the spread of targets


def test_standardised_logit_mse_divides_by_the_spread_of_centred_targets_over_the_training_rows(digits, tmp_path):
    store = make_store(tmp_path / "store", digits)
    run = make_run(tmp_path, digits, source(store), objective=[term("logit_mse", standardise=True), HARD])
    said = SoftTargets.open(store).said().double().numpy()
    spread = (said - said.mean(1, keepdims=True)).std(0)
    stepper, batch, logits = first_step(run)
    np.testing.assert_allclose(stepper.objective.terms[0].loss.scale.numpy(), spread, rtol=1e-5)
    target = batch["target.0"]
    difference = (logits - logits.mean(-1, keepdim=True)) - (target - target.mean(-1, keepdim=True))
    expected = 0.5 * (difference / torch.from_numpy(spread).float()).square().sum(-1).mean()
    torch.testing.assert_close(stepper.advance(batch, 0)[0], expected)
    (every_step,) = SharedData(10_000).of([run], SESSION)
    assert "target.0" not in every_step.rows.columns
    assert torch.equal(every_step.rows.objective.terms[0].loss.scale, stepper.objective.terms[0].loss.scale)


def test_the_spread_of_a_class_is_that_of_the_rows_that_know_it(digits, tmp_path):
    unknown = np.random.default_rng(5).random(digits.of("train")[0].num_rows) < 0.3
    lacking = [name for name in digits.classes if name != "3"]
    store = with_nan_rows(tmp_path, digits, unknown, classes=lacking)
    run = make_run(tmp_path, digits, source(store, class_map={}), objective=[term("logit_mse", standardise=True), HARD])
    said = SoftTargets.open(store).said().double().numpy()[~unknown]
    spread = np.insert((said - said.mean(1, keepdims=True)).std(0), digits.classes.index("3"), 1.0)
    found = SharedData().of([run], SESSION)[0].rows.objective.terms[0].loss.args[0].scale
    np.testing.assert_allclose(found.numpy(), spread, rtol=1e-5)


def test_the_spread_of_what_is_asked_batch_by_batch_is_refused(digits, tmp_path):
    live = Source("wide", {}, live=Live(tuple(digits.classes)))
    for heard, options in (
        (live, {}),
        (source(make_store(tmp_path / "s", digits)), {"combine": "training_runs:own_mean"}),
    ):
        run = make_run(tmp_path, digits, heard, objective=[term("logit_mse", standardise=True, **options), HARD])
        with pytest.raises(
            RecipeError, match=r"objective\.0\.standardise: divides by the spread of targets .* remove it"
        ):
            SharedData().of([run], SESSION)


# what stays what it was


def test_a_soft_term_that_standardises_nothing_is_written_as_before():
    written = TERM.validate_python({"loss": "soft"}).model_dump(mode="json")
    assert "standardise" not in written and set(written) == set(SoftTerm.model_fields) - {
        "standardise",
        *Combining.model_fields,
    }
    asked = TERM.validate_python({"loss": "soft", "standardise": True})
    assert asked.model_dump(mode="json")["standardise"] is True
    assert TERM.validate_python(asked.model_dump(mode="json")) == asked


def test_standardised_soft_and_its_own_name_train_the_same_student(digits, tmp_path):
    heard = source(make_store(tmp_path / "store", digits))
    one = make_run(tmp_path / "1", digits, heard, objective=[term("soft", standardise=True), HARD])
    two = make_run(tmp_path / "2", digits, heard, objective=[term("logit_standardized"), HARD])
    fit([one, two], SESSION)
    assert outputs(one)["model.safetensors"] == outputs(two)["model.safetensors"]


# what a recipe may ask


def student(*objective):
    document = {"model": "students.models:mlp", "arguments": {"hidden": 8}, "teachers": ["a"]}
    return StudentConfig.model_validate(document | {"objective": [*objective, HARD]})


DEFAULTS = {
    "reverse_kl": {"temperature": 2.0},
    "jensen_shannon": {"temperature": 2.0, "beta": 0.5},
    "logit_mse": {"temperature": 1.0, "combine": "mean_logits", "centre": True, "standardise": False},
    "dkd": {"temperature": 4.0, "alpha": 1.0, "beta": 8.0, "unlabelled": "leave_out"},
    "dist": {"temperature": 4.0, "beta": 1.0, "gamma": 1.0},
    "logit_standardized": {"temperature": 2.0},
    "label_smoothing_teacher": {"temperature": 20.0, "correct": 0.99},
}


@pytest.mark.parametrize("loss", DEFAULTS)
def test_a_term_has_the_papers_defaults_and_no_parameter_of_another(loss):
    found = TERM.validate_python({"loss": loss})
    assert {name: getattr(found, name) for name in DEFAULTS[loss]} == DEFAULTS[loss] and found.weight == 1
    with pytest.raises(ValidationError):
        TERM.validate_python({"loss": loss, "delta": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "jensen_shannon", "beta": 0},
        {"loss": "jensen_shannon", "beta": 1},
        {"loss": "dkd", "alpha": -1},
        {"loss": "dist", "gamma": -1},
        {"loss": "label_smoothing_teacher", "correct": 0.3},
        {"loss": "dkd", "unlabelled": "guess"},
    ],
)
def test_a_setting_out_of_its_bounds_is_refused(wrong):
    with pytest.raises(ValidationError):
        TERM.validate_python(wrong)


def told(task, config):
    return [(".".join(map(str, path)), message) for path, message in task_problems(task, config)]


@pytest.mark.parametrize("loss", DEFAULTS)
def test_numbers_have_none_of_these_losses(loss):
    ((where, message),) = told("regression", student({"loss": loss}, {"loss": "soft"}))
    assert where == "objective.0.loss" and "the task regression has hard, soft, mean_teacher, or" in message


@pytest.mark.parametrize("loss", ["dkd", "dist", "logit_standardized"])
def test_losses_of_one_class_of_many_are_refused_of_several(loss):
    ((where, message),) = told("multilabel", student({"loss": loss}))
    assert where == "objective.0.loss" and "reverse_kl, jensen_shannon, logit_mse, label_smoothing_teacher" in message


@pytest.mark.parametrize("wrong", [{"loss": "soft", "standardise": True}, {"loss": "logit_mse", "centre": False}])
def test_logits_of_several_classes_a_row_are_not_centred_nor_standardised_in_a_row(wrong):
    ((where, message),) = told("multilabel", student(wrong))
    assert where.startswith("objective.0.") and "in the task multilabel" in message
    assert not told("multilabel", student({"loss": "logit_mse", "standardise": True}))


def test_a_virtual_teacher_needs_no_other_and_is_none_to_the_control():
    document = {"model": "students.models:mlp", "teachers": ["a"]}
    found = StudentConfig.model_validate(document | {"objective": [{"loss": "label_smoothing_teacher"}, HARD]})
    assert [each.loss for each in labels_alone(found.objective)] == ["hard"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"loss": "dkd"},
            r"objective.0.loss: an estimator learns copies of rows, not by the loss 'dkd'; it takes soft,",
        ),
        ({"loss": "label_smoothing_teacher"}, r"not by the loss 'label_smoothing_teacher'"),
        (
            {"loss": "soft", "standardise": True, "temperature": 1.0},
            r"objective.0.standardise: an estimator learns what",
        ),
    ],
)
def test_an_estimator_refuses_what_it_cannot_learn_in_one_line(wrong, message):
    document = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier", "teachers": ["a"]}
    with pytest.raises(ValidationError, match=message):
        EstimatorStudent.model_validate(document | {"objective": [wrong, {"loss": "soft", "temperature": 1.0}]})


SOFT_LINE = "{loss: soft, combine: mean_probability, temperature: 2.0, weight: 0.9}"


def with_loss(text, line):
    assert SOFT_LINE in text
    return text.replace(SOFT_LINE, line)


def without_labels(text):
    text = text.replace("  label: digit\n", "  label: null\n").replace("  labelled: 100\n", "")
    text = text.replace("control: {augment: affine}", "control: false")
    return text.replace(
        "    train: {steps: 600, augment: affine}\n", "    weights: w.safetensors\n    preprocess: {normalise: null}\n"
    )


@pytest.mark.parametrize("loss", ["dkd", "label_smoothing_teacher"])
def test_a_loss_that_compares_with_labels_is_refused_where_there_are_none(loss, tmp_path):
    told = complaint(tmp_path, without_labels(with_loss(DIGITS, f"{{loss: {loss}}}")))
    line = next(each for each in told.splitlines() if "objective.0" in each)
    assert f"students.small.objective.0.loss: {loss!r} compares with labels: `transfer_set.label` is null" in line


def test_a_loss_that_asks_teachers_where_there_is_no_label_is_not_refused(tmp_path):
    told = complaint(tmp_path, without_labels(with_loss(DIGITS, "{loss: dkd, unlabelled: teacher_label}")))
    assert "objective" not in told


def test_a_misspelt_loss_is_told_the_nearest(tmp_path):
    told = complaint(tmp_path, with_loss(DIGITS, "{loss: logit_standardised}"))
    assert "did you mean logit_standardized?" in told
    assert "did you mean unlabelled?" in complaint(tmp_path, with_loss(DIGITS, "{loss: dkd, unlabeled: leave_out}"))


@pytest.mark.parametrize("loss", LISTENING)
def test_a_store_that_keeps_the_class_only_is_refused(loss, tmp_path):
    text = with_loss(DIGITS, f"{{loss: {loss}}}").replace("arguments: {n_estimators: 300}", "encoding: label")
    assert "objective.0.loss: teacher 'trees' keeps only labels; use `loss: teacher_label`" in complaint(tmp_path, text)


def test_the_spread_of_what_is_made_in_every_step_is_refused_before_anything_is_read(tmp_path):
    live = with_loss(DIGITS, "{loss: logit_mse, standardise: true}").replace("replicas: 2", "mode: live", 1)
    told = complaint(tmp_path, live)
    assert (
        "objective.0.standardise: divides by the spread of targets over all training rows, and teacher 'wide' is"
        in told
    )
    mine = with_loss(DIGITS, "{loss: logit_mse, standardise: true, combine: 'mine:rule'}")
    assert "`mine:rule` is asked in every step; remove it" in complaint(tmp_path, mine)
    for more, told in (
        ("combine: gradient", "`gradient` is asked in every step; remove it"),
        ("level: losses", "`level: losses` has a target of each teacher; remove it"),
        ("drop: 1", "`drop` leaves out other teachers in every step; remove it"),
    ):
        assert told in complaint(tmp_path, with_loss(DIGITS, f"{{loss: logit_mse, standardise: true, {more}}}"))


UNLABELLED = """
format: 1
name: none
transfer_set: {source: {kind: parquet, path: ROWS}, inputs: [x], label: y, classes: [a, b]}
teachers: {t: {kind: callable, function: "said_here:says", version: "1", output: logits}}
students:
  small:
    model: "students.models:mlp"
    teachers: [t]
    control: false
    objective: [TERM, {loss: soft}]
"""


SAYS = """
import numpy as np

def says(batch):
    return np.zeros((len(batch["x"]), 2))
"""


def test_that_no_row_has_a_label_is_told_by_plan(tmp_path):
    rows = {"x": pa.array(np.arange(60.0)), "y": pa.array([None] * 60, pa.string())}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")

    def planned(term):
        text = UNLABELLED.replace("ROWS", str(tmp_path / "rows.parquet")).replace("TERM", term)
        (tmp_path / "r.yaml").write_text(text)
        return plan(load_recipe(tmp_path / "r.yaml"), tmp_path / "out", user_path=tmp_path)

    (tmp_path / "said_here.py").write_text(SAYS)
    told = r"students\.small\.objective\.0\.loss: 'dkd' compares with labels, and no training row has one that may be used; give "
    with pytest.raises(RecipeError, match=told + r"labels, or say `unlabelled: teacher_label`"):
        planned("{loss: dkd}")
    assert planned("{loss: dkd, unlabelled: teacher_label}").stages


def test_plan_tells_of_a_loss_that_hears_teachers_of_the_few_labelled_rows_alone(tmp_path):
    def notes(term):
        (tmp_path / "r.yaml").write_text(with_loss(DIGITS, term))
        return [note for note in plan(load_recipe(tmp_path / "r.yaml"), tmp_path / "out").notes if "dkd" in note]

    (told,) = notes("{loss: dkd}")
    assert (
        told.startswith("students.small.objective.0: `dkd` compares with labels, so of 1,") and "100 labelled" in told
    )
    assert not notes("{loss: dkd, unlabelled: teacher_label}")


# cohorts


@pytest.mark.parametrize("loss", [*LISTENING, "label_smoothing_teacher"])
def test_frozen_teachers_of_a_cohort_are_heard_by_each_loss(loss, digits, tmp_path):
    heard = source(make_store(tmp_path / "store", digits))
    objective = [term(loss), {"loss": "soft"}, {"loss": "hard"}, {"loss": "peer"}]
    config = cohort_config(teachers=["wide"], objective=objective, workers_per_member=None)
    results = fit([make_cohort(tmp_path, digits, config, sources=(heard,))], SESSION)
    assert config.objective[0].loss == loss and [result.steps for result in results] == [20, 20]
