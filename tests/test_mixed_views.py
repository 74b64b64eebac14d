"""Views in which rows are mixed: the same pixels for who labels and who learns, a partner that stays, and labels of two rows."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta
from torch.nn.utils import parameters_to_vector

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import recipes
from orchestrator.recipe.viewing import mixed_view_notes, views_of_columns
from orchestrator.stages import keys
from students.data.batches import Batches
from students.data.inputs import KEY, OTHER, VIEW
from students.data.shared import Data, SharedData
from students.fitting.fit import fit
from students.objective.units import OWN_SHARE, usable_labels
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError
from teachers.preparing.prepare import prepare
from teachers.transfer_set.columns import Column
from teachers.transfer_set.mixup import WHOLE, blended
from teachers.transfer_set.transfer_set import Part, TransferSet
from teachers.transfer_set.viewing import Viewing
from teachers.users_code.imports import use_user_path
from tests.test_viewing import labelled, recipe, viewed
from tests.training_runs import HARD, SOFT

MIXED = Viewing(3, ("flip", "pad_and_crop", "mixup", "test_viewing:brightened"), seed=5, alpha=0.7)
SESSION = PlainSession()
pytestmark = pytest.mark.usefixtures("one_thread", "own_module")


@pytest.fixture(scope="module")
def own_module() -> None:
    use_user_path(Path(__file__).parent)


@pytest.fixture(scope="module")
def rows(digits: TransferSet) -> TransferSet:
    return digits.viewing(MIXED)


@pytest.fixture(scope="module")
def dark_store(rows: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Of a teacher whose logits are pixels."""
    return labelled(tmp_path_factory.mktemp("dark"), rows, MIXED)


@pytest.fixture(scope="module")
def all_labelled(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    source = {"kind": "sklearn", "name": "digits"}
    config = TransferSetConfig.model_validate({"source": source, "inputs": "image", "label": "digit"})
    return prepare(config, tmp_path_factory.mktemp("whole")).viewing(MIXED)


def pixels_of(rows: TransferSet, name: str) -> np.ndarray:
    return rows.inputs(rows.segment(name))["image"]


def data_of(run: Run, memory_bytes: int | None = None) -> Data:
    return SharedData(memory_bytes).of([run], SESSION)[0]


def test_a_view_is_the_weighted_mean_of_two_rows_each_moved_as_in_its_own_view_in_whole_numbers(
    rows: TransferSet,
) -> None:
    before = rows.viewing(replace(MIXED, transform=MIXED.transform[:2]))  # the same seeds, up to the mix
    for name in ("train-0.view-1", "train-0.view-2"):
        segment, moved = rows.segment(name), pixels_of(before, name).astype(np.float64)
        of_keys = rows.keys(segment)
        partners = MIXED.partners(segment, of_keys, np.arange(segment.num_rows))
        share = MIXED.shares(of_keys, segment.view).numpy().astype(np.float64)[:, None, None, None]
        mixed = np.floor(share * moved + (1 - share) * moved[partners] + 0.5)
        brighter = pixels_of(rows, name).astype(np.float64) - mixed  # by up to 7, the same for all pixels of an image
        assert set(np.unique(brighter)) <= {*range(8)} and (brighter == brighter[:, :1, :1]).all()
        assert 0.9 < len(set(partners.tolist())) / segment.num_rows / (1 - np.exp(-1)) < 1.1
    assert pixels_of(rows, "train-0").tobytes() == pixels_of(rows.viewing(None), "train-0").tobytes()


def test_shares_are_whole_parts_of_the_beta_distribution_and_means_never_leave_both_rows(rows: TransferSet) -> None:
    many = np.arange(20_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for alpha in (0.2, 1.0, 4.0):
        shares = replace(MIXED, alpha=alpha).shares(many, 1)
        assert torch.equal(shares * WHOLE, (shares * WHOLE).round())
        between = (np.arange(WHOLE) + 0.5) / WHOLE
        found = np.searchsorted(np.sort(shares.numpy()), between) / len(many)
        assert np.abs(found - beta(alpha, alpha).cdf(between)).max() < 1.9 / len(many) ** 0.5  # Kolmogorov's, at 1e-3
    images = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    assert torch.equal(blended(images, images, torch.arange(256) * 16), images)
    assert torch.equal(blended(images, images.flip(0), torch.full((256,), WHOLE)), images)


def test_a_partner_is_of_the_same_part_whoever_else_is_asked_about(rows: TransferSet) -> None:
    segment = rows.segment("train-0.view-1")
    parts = tuple(
        Part(f"{first}", first, num, 0, "") for first, num in [(0, 500), (500, 1), (501, segment.num_rows - 501)]
    )
    parted, of_keys, numbers = replace(segment, parts=parts), rows.keys(segment), np.arange(segment.num_rows)
    partners = MIXED.partners(parted, of_keys, numbers)
    assert partners[500] == 500 and partners[:500].max() < 500 and partners[501:].min() > 500
    some = np.array([3, 499, 500, 501, 900])
    assert MIXED.partners(parted, of_keys[some], some).tolist() == partners[some].tolist()
    whole = pixels_of(rows, segment.name)
    for first, num in [(0, 1), (17, 40), (segment.num_rows - 3, 3), (5, 0)]:
        assert np.array_equal(rows.inputs(segment, first, num)["image"], whole[first : first + num])
    assert np.array_equal(rows.chosen(segment, some)["image"], whole[some])


def test_another_process_makes_the_same_pixels(rows: TransferSet) -> None:
    script = """if True:
        import hashlib, sys
        from pathlib import Path
        from teachers.transfer_set.transfer_set import TransferSet
        from teachers.transfer_set.viewing import Viewing
        from teachers.users_code.imports import use_user_path
        use_user_path(Path(sys.argv[2]))
        rows = TransferSet.open(Path(sys.argv[1])).viewing(Viewing(3, tuple(sys.argv[3].split()), seed=5, alpha=0.7))
        segment, found = rows.segment("train-0.view-2"), hashlib.sha256()
        for first in range(0, segment.num_rows, 77):
            found.update(rows.inputs(segment, first, min(77, segment.num_rows - first))["image"].tobytes())
        print(found.hexdigest())"""
    asked = [sys.executable, "-c", script, str(rows.folder), str(Path(__file__).parent), " ".join(MIXED.transform)]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert told.stdout.strip() == hashlib.sha256(pixels_of(rows, "train-0.view-2").tobytes()).hexdigest()


class Second(PlainSession):
    """The second of two ranks, as far as batches go."""

    rank, world = 1, 2


@pytest.mark.parametrize("memory_bytes", [30_000, 10**8])
@pytest.mark.parametrize(
    ("batch_size", "session", "more"),
    [(64, SESSION, {}), (50, SESSION, {"labelled_fraction": 0.4}), (32, Second(), {"shuffle_window": 200})],
)
def test_who_learns_sees_the_very_pixels_that_were_labelled(
    rows: TransferSet, dark_store: Source, tmp_path: Path, memory_bytes: int, batch_size: int, session: PlainSession, more: dict[str, Any]
) -> None:  # fmt: skip
    run = viewed(tmp_path, rows, dark_store, objective=[SOFT, HARD], batch_size=batch_size, **more)
    data = data_of(run, memory_bytes)
    assert data.rows.canonical is not None
    of_segments = [pixels_of(rows, segment.name) for segment in rows.in_views() if segment.split == "train"]
    batches, seen = Batches(data.rows, run, session), set[int]()
    for step in range(0, 3 * max(readers[0].num_batches for readers in batches.readers), 5):
        batch = next(iter(batches.from_step(step)))
        pixels = data.rows.canonical(batch, None)["image"].numpy()
        places = np.searchsorted(rows.keys(rows.segment("train-0")), batch[KEY].numpy().view(np.uint64))
        views = batch[VIEW].tolist()
        assert np.array_equal(
            pixels, np.stack([of_segments[view][place] for view, place in zip(views, places, strict=True)])
        )
        expected = (torch.from_numpy(pixels.reshape(len(pixels), -1)[:, 20:30].astype(np.float32)) / 2).softmax(-1)
        said = data.rows.objective.ask(batch)[0].target
        held = "target.0" in data.rows.columns  # then it is made ready for its loss
        torch.testing.assert_close(said.exp() if held else (said / 2).softmax(-1), expected, atol=2e-3, rtol=0)
        seen |= {*views}
    assert seen == {0, 1, 2}


def test_who_follows_sees_them_too(rows: TransferSet, dark_store: Source, tmp_path: Path) -> None:
    run = replace(viewed(tmp_path, rows, dark_store, steps=200), follow=True)
    training, seen = Training(run, SESSION, data_of(run)), set[int]()
    assert training.data.rows.canonical is not None
    for step, batch in zip(range(100), training.batches(), strict=False):
        seen |= {*batch[VIEW].tolist()}
        if step % 9 == 0:
            pixels = training.data.rows.canonical(batch, None)["image"].numpy()
            expected = torch.from_numpy(pixels.reshape(len(pixels), -1)[:, 20:30].astype(np.float32)).softmax(-1)
            torch.testing.assert_close(batch["target.0"].softmax(-1), expected, atol=2e-3, rtol=0)
    assert seen == {0, 1, 2}


def test_neither_memory_nor_a_stop_changes_the_student(rows: TransferSet, dark_store: Source, tmp_path: Path) -> None:
    found = []
    for memory_bytes in (30_000, 10**8):
        run = viewed(tmp_path, rows, dark_store, steps=90, shuffle_window=300)
        training = Training(run, SESSION, data_of(run, memory_bytes))
        training.train()
        found.append(parameters_to_vector(training.module.parameters()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    stopped = Training(run, SESSION, training.data)
    for batch, _ in zip(stopped.batches(), range(50), strict=False):
        stopped.advance(batch)
    stopped.save()
    resumed = Training(run, SESSION, training.data)
    resumed.resume()
    assert resumed.progress.step == 50
    resumed.train()
    assert torch.equal(parameters_to_vector(resumed.module.parameters()), found[1])


def test_rows_that_are_added_change_no_view_of_those_that_are_there(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 248, (300, 8, 8, 1), np.uint8), np.arange(300) % 10
    found: dict[str, TransferSet] = {}
    for name, number, earlier in [("first", 200, None), ("grown", 300, "first")]:
        names = np.array([f"r{n}" for n in range(number)])
        np.savez(tmp_path / "rows.npz", image=images[:number], label=labels[:number], name=names)
        source = {"kind": "numpy", "path": str(tmp_path / "rows.npz")}
        asked = {"source": source, "inputs": "image", "label": "label", "id": "name", "split": {"stratify": False}}
        before = None if earlier is None else tmp_path / earlier
        found[name] = prepare(TransferSetConfig.model_validate(asked), tmp_path / name, earlier=before).viewing(MIXED)
    first, grown = found["first"], found["grown"]
    assert len(grown.of("train")) == 2
    for view in ("train-0.view-1", "train-0.view-2"):
        assert grown.segment(view).digest == first.segment(view).digest
        assert np.array_equal(pixels_of(grown, view), pixels_of(first, view))
    store = labelled(tmp_path / "said", grown, MIXED)
    run = viewed(tmp_path / "run", grown, store, objective=[SOFT, HARD])
    data = data_of(run)
    batch = [b for b, _ in zip(Batches(data.rows, run, SESSION).from_step(0), range(14), strict=False)][-1]
    assert batch[VIEW].unique().tolist() == [2] and data.rows.canonical is not None
    whole = {}
    for segment in grown.of("train"):
        of_view = f"{segment.name}.view-2"
        whole |= dict(zip(grown.keys(segment).tolist(), pixels_of(grown, of_view), strict=True))
    expected = np.stack([whole[key] for key in batch[KEY].numpy().view(np.uint64).tolist()])
    assert np.array_equal(data.rows.canonical(batch, None)["image"].numpy(), expected)
    fit([run], SESSION)


def mixed_label(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    own = batch[OWN_SHARE][:, None]
    return own * F.one_hot(batch["label"], 10) + (1 - own) * F.one_hot(batch[OTHER + "label"], 10)


@pytest.mark.parametrize("step", [0, 40])
def test_a_term_of_labels_is_beside_the_mix_of_both(all_labelled: TransferSet, tmp_path: Path, step: int) -> None:
    """View 0 at step 0, view 1 at step 40; the oracle is torch's cross-entropy with class weights."""
    weights = {"3": 4.0, "7": 0.5}
    run = viewed(tmp_path, all_labelled, objective=[{"loss": "hard", "weight": 1}], class_weights=weights, steps=99)
    training = Training(run, SESSION, data_of(run))
    batch = next(iter(Batches(training.data.rows, run, SESSION).from_step(step)))
    assert "has_label" not in batch
    work = training.stepper.begin(batch, step)
    student, heard = training.stepper.answer(work, 0)
    loss = training.stepper.loss(work, 0, student, heard)
    of_classes = torch.tensor([weights.get(name, 1.0) for name in all_labelled.classes])
    target = mixed_label(batch) * of_classes
    torch.testing.assert_close(loss, -(target * student.log_softmax(-1)).sum() / target.sum())
    assert (batch[OWN_SHARE] < 1).any() == (step > 0)


def test_a_row_counts_for_labels_where_both_have_one_and_no_rule_is_told_one_of_two(
    rows: TransferSet, dark_store: Source, tmp_path: Path
) -> None:
    run = viewed(tmp_path, rows, dark_store, objective=[SOFT, HARD], batch_size=600)
    data = data_of(run)
    first, second = (next(iter(Batches(data.rows, run, SESSION).from_step(step))) for step in (0, 2))
    has = dict(
        zip(rows.keys(rows.segment("train-0")).tolist(), rows.labelled(rows.segment("train-0")).tolist(), strict=True)
    )
    for batch in (first, second):
        pair = [[has[key] for key in batch[name].numpy().view(np.uint64).tolist()] for name in (KEY, OTHER + KEY)]
        assert batch["has_label"].tolist() == [float(a and b) for a, b in zip(*pair, strict=True)]
        hard = Training(run, SESSION, data).stepper.begin(batch, 0).asked[1]
        assert hard.weight is not None and hard.weight.tolist() == batch["has_label"].tolist()
    assert first["has_label"].sum() > 30 > second["has_label"].sum() > 0
    assert (usable_labels(first) >= 0).sum() == first["has_label"].sum() and (usable_labels(second) < 0).all()
    fit([run], SESSION)


def test_a_control_mixes_labelled_rows_with_labelled_rows_by_the_same_shares(rows: TransferSet, tmp_path: Path) -> None:
    run = viewed(tmp_path, rows, objective=[HARD], labelled_only=True, batch_size=50)
    data = data_of(run)
    taken = [batch for batch, _ in zip(Batches(data.rows, run, SESSION).from_step(0), range(6), strict=False)]
    segment = rows.segment("train-0")
    mine = {*rows.keys(segment)[rows.labelled(segment)].tolist()}
    for batch in taken:
        of_keys = batch[KEY].numpy().view(np.uint64)
        assert "has_label" not in batch and {*batch[OTHER + KEY].numpy().view(np.uint64).tolist()} <= mine
        (view,) = batch[VIEW].unique().tolist()
        assert torch.equal(batch[OWN_SHARE], MIXED.shares(of_keys, view))
    assert (taken[2][KEY] != taken[2][OTHER + KEY]).float().mean() > 0.9
    fit([run], SESSION)


def test_alpha_is_in_the_keys_of_what_is_mixed_and_in_no_other() -> None:
    plain, mixed, other = (
        recipe(views=4, transform=how, **more)
        for how, more in [("flip", {}), (["flip", "mixup"], {}), (["flip", "mixup"], {"mixup_alpha": 0.4})]
    )
    viewings = [keys.viewing_of(each) for each in (plain, mixed, other)]
    assert [None if each is None else each.document(1).get("alpha") for each in viewings] == [None, 1.0, 0.4]
    assert len({keys.prepare_stage(each, "s").key for each in (recipe(), plain, mixed, other)}) == 1
    assert "mixup_alpha" not in mixed.transfer_set.model_dump(mode="json")


VIEWS = {"views": 4, "transform": ["flip", "mixup"]}
OBJECTIVE = "students.small.objective={}"
REFUSED: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({**VIEWS, "mixup_alpha": 0}, (), "mixup_alpha"),
    ({**VIEWS, "mixup_alpha": -1.0}, (), "mixup_alpha"),
    ({**VIEWS, "transform": "flip", "mixup_alpha": 0.4}, (), "mixup_alpha is of `mixup`, which `transform` does not name"),
    ({**VIEWS, "transform": ["mixup", "flip", "mixup"]}, (), "names `mixup` twice"),
    ({"transform": "mixup"}, (), "transform makes `views`, and there are none"),
    ({**VIEWS, "transform": "cutmix"}, (), "cutmix"),
    ({}, ("students.small.train.augment=mixup",), "students.small.train.augment"),
    (VIEWS, (OBJECTIVE.format("[{loss: dkd}]"),), "students.small.objective.0.loss: 'dkd' compares with the one label of a row"),
    (VIEWS, (OBJECTIVE.format("[{loss: soft}, {loss: ps_kd}]"),), "objective.1.loss: 'ps_kd' compares"),
    (VIEWS, (OBJECTIVE.format("[{loss: soft, combine: correctness}]"),), "objective.0.combine: `combine: correctness` goes by one row"),
    (VIEWS, ("teachers.wide.outputs={features: {layer: '1'}}", "students.small.hints=[{teacher: wide, output: features, layer: '1', loss: contrastive}]"), "hints.0.loss: tells rows apart"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "overrides", "told"), REFUSED)
def test_what_makes_no_sense_of_two_rows_is_refused_in_one_line(
    given: dict[str, Any], overrides: tuple[str, ...], told: str
) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(*overrides, **given)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_cohorts_mix_but_for_targets_that_go_by_one_label() -> None:
    document = load_recipe(recipes()["peers"], []).model_dump(mode="json", exclude_defaults=True)
    document["transfer_set"] |= VIEWS
    document["cohorts"]["trio"] |= {"control": True}
    Recipe.from_dict(document)
    document["cohorts"]["trio"]["method"] = "kdcl"
    document["cohorts"]["trio"].pop("objective")
    with pytest.raises(RecipeError, match="'min_logit' goes by the one label of a row"):
        Recipe.from_dict(document)


def test_a_row_with_a_column_that_is_no_image_is_not_mixed_and_plans_tell_what_labels_count() -> None:
    made = recipe(**VIEWS)
    image, numbers = Column("image", "image", (8, 8, 1), (0.0,), (1.0,)), Column("x", "number", (3,), (0.0,), (1.0,))
    text = Column("note", "text", (), (), ())
    assert not [*views_of_columns(made, [image, replace(image, name="other")])]
    assert "column 'x' is none, so the row would be of two and of one" in next(
        iter(views_of_columns(made, [image, numbers]))
    )
    assert "the inputs have none" in next(iter(views_of_columns(made, [numbers])))
    assert "'note' is text" in next(iter(views_of_columns(made, [image, text])))
    (note,) = mixed_view_notes(made, 100, 1000)
    assert note.startswith("students.small.objective: in views that are mixed") and "about 10%" in note
    assert not [*mixed_view_notes(made, 1000, 1000)] and not [*mixed_view_notes(recipe(), 100, 1000)]
