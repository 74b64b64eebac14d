"""Rows mixed two by two: images, what stores keep, what live teachers say, labels; and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy.stats import beta, kstest
from torch import Tensor

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.stages.trainings import training_stages
from students.data.batches import labelled_share
from students.data.draws import Views
from students.data.mixes import Mixing, cutmix, mixup, quantiles, rectangles
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.objective.losses.classification import hard, soft
from students.objective.mixed import mixed, sum_of_pairs, swapped
from students.objective.targets import Asked
from students.runs.run import Run
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.teacher import ModuleTeacher
from teachers.config.training import Mix, TrainConfig
from teachers.errors import RecipeError
from teachers.labelling.shard import TeacherSpec
from teachers.transfer_set.transfer_set import TransferSet
from tests.rank_runs import on_ranks
from tests.test_live import Here, live, network, stored
from tests.training_runs import HARD, SOFT, WithASpareHead, make_run, make_store, outputs, source

MIXUP, CUTMIX = {"kind": "mixup"}, {"kind": "cutmix"}


def views(rows: int, step: int = 0, seed: int = 0, first: int = 0) -> Views:
    return Views(seed, step, torch.arange(first, first + rows), [slice(0, rows)], 0, torch.Generator())


def images(rows: int = 16, edge: int = 8) -> Tensor:
    return torch.randint(0, 256, (rows, edge, edge, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def mixing(kind: str = "mixup", by_labels: bool = False, **more: Any) -> Mixing:
    found = Mixing.of(Mix.model_validate({"kind": kind, **more}), {"image": (8, 8, 1)}, by_labels=by_labels)
    assert found is not None
    return found


def test_mixup_is_the_weighted_mean_of_a_pair() -> None:
    rows, how, at = images(), mixing(), views(16)
    own = how.own({}, at)
    found = how.inputs({"image": rows}, {}, at)["image"]
    other = rows.float().reshape(8, 2, 8, 8, 1).flip(1).reshape(16, 8, 8, 1)
    torch.testing.assert_close(found, own[:, None, None, None] * rows.float() + (1 - own)[:, None, None, None] * other)
    assert torch.equal(own[::2], own[1::2]) and len(own.unique()) == 8


def test_cutmix_takes_each_pixel_from_one_of_a_pair_as_much_as_its_share_says() -> None:
    rows, how, at = images(), mixing("cutmix"), views(16)
    own = how.own({}, at)
    found = how.inputs({"image": rows}, {}, at)["image"]
    here, there = found == rows.float(), found == swapped(rows.float())
    assert (here | there).all()
    left = (~there | here).float().mean((1, 2, 3))
    assert (left - own).abs().max() < 0.1  # equal pixels are of both
    inside = rectangles(torch.full((2000,), 0.75), torch.arange(2000), 8, 8)
    assert (inside.float().mean((1, 2)) <= 0.25).all() and inside[:, 4, 4].float().mean() == pytest.approx(
        0.25, abs=0.05
    )


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    how = mixing(alpha=alpha)
    own = torch.cat([how.own({}, views(64, step))[::2] for step in range(60)]).numpy()
    assert kstest(own, beta(alpha, alpha).cdf).pvalue > 1e-3
    assert quantiles(alpha).diff().min() >= 0


def test_what_is_not_mixed_is_what_it_was() -> None:
    rows = images(64)
    for kind in ("mixup", "cutmix"):
        how = mixing(kind, share=0.5)
        own, found = how.own({}, views(64)), how.inputs({"image": rows}, {}, views(64))["image"]
        stays = own == 1
        assert 8 < int(stays.sum()) < 56 and torch.equal(found[stays], rows.float()[stays])
    for blend in (mixup, cutmix):
        assert torch.equal(blend(rows, torch.ones(64), torch.zeros(64, dtype=torch.int64)), rows.float())


def test_a_pair_with_one_label_stays_as_it_is_where_a_term_compares_with_labels() -> None:
    has = torch.tensor([1.0, 0, 1, 1, 0, 0, 0, 1])
    own = mixing(by_labels=True).own({"has_label": has}, views(8))
    assert (own == 1).tolist() == [True, True, False, False, False, False, True, True]
    assert (mixing().own({"has_label": has}, views(8)) < 1).all()


def test_a_draw_is_of_seed_step_and_place_alone() -> None:
    how = mixing()
    whole = how.own({}, views(16, 3))
    assert torch.equal(how.own({}, views(8, 3, first=8)), whole[8:])
    for other in (views(16, 4), views(16, 3, seed=1)):
        assert not torch.equal(how.own({}, other), whole)


LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
STUDENT = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
OWN = torch.tensor([0.3, 0.3, 0.8, 0.8, 1.0, 1.0], dtype=torch.float64)


def gradient(value: Tensor, student: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(value, student)
    return found


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_beside_two_targets_has_the_gradient_of_the_mix_of_probabilities(temperature: float) -> None:
    """The oracle: torch's KL with the mixed probabilities, which differ by what the student has no part in."""
    student = STUDENT.clone().requires_grad_()
    beside = sum_of_pairs(lambda t, w, y: soft(student, t, temperature=temperature), Asked(LOGITS, None), OWN)
    said = (LOGITS / temperature).softmax(-1)
    target = OWN[:, None] * said + (1 - OWN)[:, None] * swapped(said)
    whole = temperature**2 * F.kl_div((student / temperature).log_softmax(-1), target, reduction="sum")
    torch.testing.assert_close(gradient(beside, student), gradient(whole, student), rtol=1e-9, atol=1e-12)


def test_hard_beside_two_labels_is_cross_entropy_with_the_mixed_label() -> None:
    labels = torch.tensor([0, 3, 1, 1, 4, 2])
    target = OWN[:, None] * F.one_hot(labels, 5) + (1 - OWN)[:, None] * swapped(F.one_hot(labels, 5))
    value = sum_of_pairs(lambda t, w, y: hard(STUDENT, t, label_smoothing=0.1), Asked(labels, None), OWN)
    oracle = F.cross_entropy(STUDENT, target.double(), label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(value, oracle)


def test_logit_mse_beside_two_targets_has_the_gradient_of_the_mix_of_logits() -> None:
    student = STUDENT.clone().requires_grad_()
    mean = OWN[:, None] * LOGITS + (1 - OWN)[:, None] * swapped(LOGITS)
    beside = sum_of_pairs(lambda t, w, y: 0.5 * (student - t).square().sum(-1), Asked(LOGITS, None), OWN)
    torch.testing.assert_close(gradient(beside, student), gradient(0.5 * (student - mean).square().sum(), student))


def test_a_mixed_row_counts_where_both_are_known() -> None:
    weight = torch.tensor([1.0, 0, 1, 1, 0, 1], dtype=torch.float64)
    (found, other) = mixed([Asked(LOGITS, weight), Asked(LOGITS, weight)], [True], OWN)
    assert found.weight is not None and found.weight.tolist() == [0, 0, 1, 1, 0, 1]
    assert other.own is None and other.weight is weight
    value = sum_of_pairs(lambda t, w, y: torch.ones(6, dtype=torch.float64), found, OWN)
    assert float(value) == 3


@pytest.fixture(scope="module")
def store(digits: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "wide", digits)


def weights(run: Run) -> dict[str, Any]:
    return load_file(run.folder / "model.safetensors")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mix", [MIXUP, CUTMIX])
def test_a_training_that_mixes_is_resumed_exactly_and_differs_from_one_that_does_not(
    digits: TransferSet, store: Path, tmp_path: Path, mix: dict[str, Any]
) -> None:
    session = PlainSession("cpu")
    runs = {
        name: make_run(tmp_path / name, digits, source(store), labelled_fraction=0.5, steps=12, **more)
        for name, more in {"whole": {"mix": mix}, "again": {"mix": mix}, "plain": {}}.items()
    }
    fit([runs["whole"]], session)
    fit([runs["plain"]], session)
    (data,) = SharedData().of([runs["again"]], session)
    first = Training(runs["again"], session, data)
    for batch, _ in zip(first.batches(), range(5), strict=False):
        first.advance(batch)
    first.save()
    fit([runs["again"]], session)
    assert outputs(runs["again"]) == outputs(runs["whole"]) != outputs(runs["plain"])


@pytest.mark.usefixtures("one_thread")
def test_two_ranks_take_the_steps_of_one(digits: TransferSet, store: Path, tmp_path: Path) -> None:
    cases = {
        "mixup": ({}, {}, {"mix": MIXUP}),
        "cutmix": ({"accumulate": 2}, {"accumulate": 1}, {"mix": {**CUTMIX, "share": 0.7}, "augment": "affine"}),
        "two groups": ({"accumulate": 2}, {"accumulate": 1}, {"mix": MIXUP, "labelled_fraction": 0.3}),
    }
    pairs = []
    for name, (alone, shared, more) in cases.items():
        options = {"learning_rate": 1e-3, "steps": 15, **more}
        one = make_run(tmp_path / name / "one", digits, source(store), **options | alone)
        two = make_run(tmp_path / name / "two", digits, source(store), **options | shared)
        fit([one], PlainSession("cpu"))
        pairs.append((name, one, two))
    on_ranks(tmp_path / "ranks", [two for _, _, two in pairs], world=2)
    for name, one, two in pairs:
        there = weights(two)
        assert max((each - there[key]).abs().max() for key, each in weights(one).items()) < 1e-6, name


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return network(tmp_path_factory.mktemp("teacher"), "wide", 0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mix", [MIXUP, CUTMIX])
def test_a_live_teacher_is_asked_about_the_mixed_rows(
    digits: TransferSet, teacher: Any, tmp_path: Path, mix: dict[str, Any]
) -> None:
    """Function matching (Beyer et al., 2022): the target is what it says of what the student sees."""
    here = Here([teacher], digits)
    run = make_run(tmp_path, digits, live(teacher, digits), objective=[SOFT], mix=mix, augment="flip")
    run.stage.mkdir(parents=True, exist_ok=True)
    training = Training(run, PlainSession(live=here), SharedData().of([run], PlainSession("cpu"))[0])
    batches = training.batches()
    for step, batch in zip(range(3), batches, strict=False):
        work = training.stepper.begin(batch, step)
        assert torch.equal(training.data.preprocessor(here.asked[step]), work.inputs)
        assert work.asked[0].own is None
        assert (training.stepper.rows.mixing.own(batch, training.stepper.views(batch, step)) < 1).any()
        said = here.teachers["wide"].ask(here.asked[step], batch["sample_key"].numpy().view("u8"))
        torch.testing.assert_close(batch["wide.said"], torch.from_numpy(said))


@pytest.mark.usefixtures("one_thread")
def test_of_an_affine_teacher_stored_logits_mix_as_it_would_say_live(digits: TransferSet, tmp_path: Path) -> None:
    """Its logits of a mixed image are the mix of its logits, which `logit_mse` beside both has the gradient of."""
    torch.manual_seed(0)
    linear = WithASpareHead(10, (1, 8, 8))
    save_file(linear.state_dict(), tmp_path / "linear.safetensors")
    model, path = "tests.training_runs:WithASpareHead", str(tmp_path / "linear.safetensors")
    config = ModuleTeacher(kind="module", model=model, weights=path, preprocess=Preprocess(normalise="auto"))
    spec, found = TeacherSpec("wide", config, None, (), tmp_path), {}
    for name, where in {"cached": stored(spec, digits, tmp_path), "live": live(spec, digits)}.items():
        run = make_run(tmp_path / name, digits, where, objective=[{"loss": "logit_mse"}], mix=MIXUP, steps=30)
        fit([run], PlainSession(live=Here([spec], digits)))
        found[name] = weights(run)
    assert max((each - found["live"][key]).abs().max() for key, each in found["cached"].items()) < 2e-3


@pytest.mark.usefixtures("one_thread")
def test_the_control_mixes_rows_and_labels(digits: TransferSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, digits, objective=[HARD | {"weight": 1}], labelled_only=True, mix=MIXUP)
    run.stage.mkdir(parents=True, exist_ok=True)
    training = Training(run, PlainSession("cpu"), SharedData().of([run], PlainSession("cpu"))[0])
    batch = next(training.batches())
    work = training.stepper.begin(batch, 0)
    own = training.stepper.rows.mixing.own(batch, training.stepper.views(batch, 0))
    assert (own < 1).all()
    student, heard = training.stepper.answer(work, 0)
    loss = training.stepper.loss(work, 0, student, heard)
    target = own[:, None] * F.one_hot(batch["label"], 10) + (1 - own)[:, None] * F.one_hot(swapped(batch["label"]), 10)
    torch.testing.assert_close(loss, F.cross_entropy(student, target))


def test_groups_of_a_batch_hold_whole_pairs() -> None:
    train = TrainConfig.model_validate({"batch_size": 32, "labelled_fraction": 0.3, "mix": MIXUP})
    assert labelled_share(train, 1) % 2 == 0 and labelled_share(train, 4) % 8 == 0
    assert labelled_share(train.model_copy(update={"mix": None}), 1) == 10
    with pytest.raises(RecipeError, match="two pairs of rows"):
        labelled_share(train, 16)
    with pytest.raises(ValidationError, match=r"divisible by 2 \* workers \* accumulate = 6"):
        TrainConfig.model_validate({"batch_size": 33, "accumulate": 3, "mix": MIXUP})
    for wrong in ({"kind": "blend"}, {"kind": "mixup", "alpha": 0}, {"kind": "mixup", "share": 1.5}, {}):
        with pytest.raises(ValidationError):
            Mix.model_validate(wrong)


def test_what_is_no_image_is_not_mixed() -> None:
    mix = Mix(kind="mixup")
    with pytest.raises(RecipeError, match=r"mixes images, and 'features' is none.*munge"):
        Mixing.of(mix, {"features": (4,)}, by_labels=False)
    with pytest.raises(RecipeError, match="of several sizes"):
        Mixing.of(mix, {"a": (8, 8, 1), "b": (4, 4, 1)}, by_labels=False)
    with pytest.raises(RecipeError, match="keep their size"):
        mixing().inputs({"image": torch.zeros(4, 6, 6, 1)}, {}, views(4))


def digits_recipe(**changes: Any) -> dict[str, Any]:
    document = load_recipe(find("digits"), []).model_dump(mode="json", exclude_defaults=True)
    document["students"]["small"]["train"]["mix"] = MIXUP
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = document
        for parent in parents:
            at = at[int(parent)] if parent.isdigit() else at[parent]
        at[last] = value
    return document


TEACHERS = "students__small__objective"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({TEACHERS: [{"loss": "dkd"}]}, "objective.0.loss: 'dkd' compares with the one label of a row"),
        ({TEACHERS: [{"loss": "reverse_kl"}]}, "objective.0.loss: 'reverse_kl' beside two targets is not what it is"),
        ({TEACHERS: [{"loss": "dist"}, HARD]}, "'dist' beside two targets"),
        ({TEACHERS: [SOFT, {"loss": "ps_kd"}]}, "objective.1.loss: 'ps_kd' compares with the one label"),
        ({TEACHERS: [{"loss": "soft", "combine": "gradient"}]}, "combined by what the student says"),
        ({TEACHERS: [{"loss": "soft", "drop": 1}]}, "anew in every step"),
        ({TEACHERS: [{"loss": "training_runs:own_loss"}]}, "beside two targets"),
    ],
)
def test_losses_for_which_nothing_is_exact_are_refused_with_the_recipe(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.from_dict(digits_recipe(**changes))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_live_teachers_take_what_needs_no_label_and_no_stored_word() -> None:
    both = {f"teachers__{name}__mode": "live" for name in ("wide", "deep", "trees")}
    Recipe.from_dict(digits_recipe(**both, **{TEACHERS: [{"loss": "reverse_kl"}, HARD]}))
    with pytest.raises(RecipeError, match="'deep' is cached, so it speaks of whole rows, and 'wide' is live"):
        Recipe.from_dict(digits_recipe(teachers__wide__mode="live"))
    with pytest.raises(RecipeError, match="`combine: correctness` goes by one row"):
        Recipe.from_dict(digits_recipe(**both, **{TEACHERS: [{"loss": "soft", "combine": "correctness"}]}))


def test_keys_stay_where_nothing_is_mixed_and_name_it_where_it_is() -> None:
    plain, mixed_too = load_recipe(find("digits"), []), Recipe.from_dict(digits_recipe())
    for kind in ("student", "control"):
        one, other = (
            training_stages(each, "small", "p", dict.fromkeys(("wide", "deep", "trees"), "a"))
            for each in (plain, mixed_too)
        )
        documents = [next(stage for (k, _), stage in each.items() if k == kind).config for each in (one, other)]
        assert "mix" not in documents[0]["train"] and documents[1]["train"]["mix"]["kind"] == "mixup"
