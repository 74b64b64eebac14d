"""Views of training rows: labelled one by one, seen by turns, and the same pixels on both sides."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe, public
from orchestrator.recipe.shipped import recipes
from orchestrator.recipe.viewing import views_of_columns
from orchestrator.reporting.fairness import about_augmentation
from orchestrator.stages import keys
from orchestrator.stages.trainings import training_stages
from students.data.batches import Batches
from students.data.inputs import INPUT, KEY, VIEW
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.teacher import CallableTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import CollegiumError, RecipeError
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.preparing.prepare import prepare
from teachers.soft_targets.records import record_path
from teachers.soft_targets.schema import Spec, spell
from teachers.soft_targets.store import SoftTargetStore
from teachers.storage.seal import publish
from teachers.transfer_set.columns import Column
from teachers.transfer_set.transfer_set import TransferSet
from teachers.transfer_set.viewing import Viewing
from teachers.users_code.imports import use_user_path
from tests.training_runs import HARD, SOFT, make_run, outputs

VIEWS = Viewing(3, ("flip", "pad_and_crop", "test_viewing:brightened"), seed=5)
SESSION = PlainSession()
pytestmark = pytest.mark.usefixtures("one_thread", "own_module")


@pytest.fixture(scope="module")
def own_module() -> None:
    use_user_path(Path(__file__).parent)


def brightened(images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """By up to 7 of 255, the same for all pixels of an image."""
    return images + (seeds & 7).to(images.dtype)[:, None, None, None]


def reshaped(images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    return images[:, 1:]


def dark(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """A teacher that knows nothing but pixels, whose logits tell exactly what it has seen."""
    return inputs["image"].reshape(len(inputs["image"]), -1)[:, 20:30].astype(np.float32)


@pytest.fixture(scope="module")
def rows(digits: TransferSet) -> TransferSet:
    return digits.viewing(VIEWS)


def labelled(folder: Path, rows: TransferSet, views: Viewing | None = VIEWS) -> Source:
    """By the engine's own labeller, shards of 100 rows."""
    rows = rows.viewing(views)
    config = CallableTeacher(kind="callable", function="test_viewing:dark", version="1", output="logits")
    tasks = []
    for segment in rows.in_views():
        about = (segment.name, segment.digest, "dense", tuple(rows.classes), segment.num_rows, 100)
        tasks.append(LabelTask(rows.folder, segment.name, folder / segment.name, views))
        SoftTargetStore.create(folder / segment.name, Spec("dark", "digest", *about))
    labeller = Labeller(TeacherSpec("dark", config, None, (), Path(__file__).parent), tasks, "cpu")
    for number, task in enumerate(labeller.tasks):
        for shard in range(task.store.num_shards):
            labeller.label(number, shard)
        task.store.seal()
    return Source("dark", {Path(task.store).name: task.store for task in tasks})


@pytest.fixture(scope="module")
def dark_store(rows: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return labelled(tmp_path_factory.mktemp("dark"), rows)


def viewed(folder: Path, rows: TransferSet, *sources: Source, **options: Any) -> Run:
    run = replace(make_run(folder, rows, *sources, **options), views=rows.viewed)
    run.stage.mkdir(parents=True, exist_ok=True)
    return run


def test_training_rows_have_a_segment_for_each_view_and_view_0_is_the_one_without_views(
    digits: TransferSet, rows: TransferSet
) -> None:
    names = [segment.name for segment in rows.in_views()]
    assert names == ["train-0", "train-0.view-1", "train-0.view-2", "validation-0", "test-0"]
    assert rows.segments == digits.segments and rows.segment("train-0") == digits.segment("train-0")
    found = {rows.segment(name).digest for name in names}
    other = [replace(VIEWS, seed=6), replace(VIEWS, transform=("flip",)), replace(VIEWS, code="1a")]
    found |= {segment.digest for viewing in other for segment in digits.viewing(viewing).in_views() if segment.view}
    assert len(found) == 5 + 6
    assert rows.segment("train-0.view-2").kind == "train"


def test_a_view_is_the_same_alone_and_among_others(rows: TransferSet) -> None:
    segment = rows.segment("train-0.view-2")
    whole = rows.inputs(segment)["image"]
    for first, num in [(0, 1), (17, 40), (segment.num_rows - 3, 3)]:
        assert np.array_equal(rows.inputs(segment, first, num)["image"], whole[first : first + num])
    some = np.array([3, 50, 51, 900])
    assert np.array_equal(rows.chosen(segment, some)["image"], whole[some])
    plain, other = (rows.inputs(rows.segment(name))["image"] for name in ("train-0", "train-0.view-1"))
    for one, another in [(plain, whole), (plain, other), (other, whole)]:
        assert (one != another).reshape(len(one), -1).any(1).mean() > 0.8
    assert whole.dtype == plain.dtype == np.uint8


def test_who_learns_sees_the_very_pixels_that_were_labelled_epoch_by_epoch(
    rows: TransferSet, dark_store: Source, tmp_path: Path
) -> None:
    """The teacher's logits are pixels, so the soft target of each row of each batch tells what the teacher saw."""
    run = viewed(tmp_path, rows, dark_store, objective=[SOFT, HARD], batch_size=64)
    (data,) = SharedData().of([run], SESSION)
    batches = Batches(data.rows, run, SESSION)
    steps = batches.readers[0][0].num_batches
    assert data.rows.canonical is not None
    of_segments = [rows.inputs(segment)["image"] for segment in rows.in_views() if segment.split == "train"]
    of_keys = rows.keys(rows.segment("train-0"))
    seen = []
    for _step, batch in zip(range(4 * steps), batches.from_step(0), strict=False):
        (view,) = batch[VIEW].unique().tolist()
        seen.append(view)
        pixels = data.rows.canonical(batch, None)["image"].numpy()
        places = np.searchsorted(of_keys, batch[KEY].numpy().view(np.uint64))
        assert np.array_equal(pixels, of_segments[view][places])
        said = torch.from_numpy(pixels.reshape(len(pixels), -1)[:, 20:30].astype(np.float32))
        ready = batch["target.0"]  # for its loss
        torch.testing.assert_close(ready.exp(), (said / 2).softmax(-1), atol=2e-3, rtol=0)
    assert seen == [0] * steps + [1] * steps + [2] * steps + [0] * steps
    later = next(iter(batches.from_step(2 * steps + 3)))
    assert later[VIEW].unique().tolist() == [2]


def test_who_follows_sees_the_very_pixels_that_were_labelled_in_the_views_that_are(
    rows: TransferSet, dark_store: Source, tmp_path: Path
) -> None:
    stores = {}
    for name, folder in dark_store.stores.items():
        whole = SoftTargetStore.open(folder)
        stores[name] = SoftTargetStore.create(tmp_path / name, whole.spec).folder
        for number in range({"train-0": whole.num_shards, "train-0.view-2": 2}.get(name, 0)):
            record = whole.record(number)
            shutil.copy(whole.shard_file(number), stores[name] / record.path)
            publish(stores[name] / record_path(number), spell(record.to_json()))
    run = replace(viewed(tmp_path, rows, replace(dark_store, stores=stores), steps=400), follow=True)
    training, seen = Training(run, SESSION, SharedData().of([run], SESSION)[0]), list[int]()
    assert training.data.rows.canonical is not None
    for _step, batch in zip(range(60), training.batches(), strict=False):
        seen += batch[VIEW].unique().tolist()
        pixels = training.data.rows.canonical(batch, None)["image"].numpy()
        expected = torch.from_numpy(pixels.reshape(len(pixels), -1)[:, 20:30].astype(np.float32)).softmax(-1)
        torch.testing.assert_close(batch["target.0"].softmax(-1), expected, atol=2e-3, rtol=0)
    first = rows.segment("train-0").num_rows // 32
    assert seen[: first + 6] == [0] * first + [2] * 6 and {*seen} == {0, 2}


@pytest.mark.parametrize("memory_bytes", [30_000, 600_000, 10**8])
def test_neither_memory_nor_a_stop_changes_the_student(
    rows: TransferSet, dark_store: Source, tmp_path: Path, memory_bytes: int
) -> None:
    """From files, window by window, and from memory; and with a rule that is asked in every step."""
    run = viewed(tmp_path / "a", rows, dark_store, steps=90, shuffle_window=300)
    whole = Training(run, SESSION, SharedData(memory_bytes).of([run], SESSION)[0])
    whole.train()
    found = torch.cat([p.detach().flatten() for p in whole.module.parameters()])
    at_once = Training(run, SESSION, SharedData(10**8).of([run], SESSION)[0])
    at_once.train()
    expected = torch.cat([p.detach().flatten() for p in at_once.module.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_control_sees_the_same_views_by_labels_alone(rows: TransferSet, tmp_path: Path) -> None:
    run = viewed(tmp_path, rows, objective=[HARD], labelled_only=True, batch_size=50)
    (data,) = SharedData().of([run], SESSION)
    taken = [batch for batch, _ in zip(Batches(data.rows, run, SESSION).from_step(0), range(8), strict=False)]
    assert [batch[VIEW].unique().tolist() for batch in taken] == [[0], [0], [1], [1], [2], [2], [0], [0]]
    assert data.rows.canonical is not None
    whole = rows.inputs(rows.segment("train-0.view-1"))["image"]
    of_keys = rows.keys(rows.segment("train-0"))
    places = np.searchsorted(of_keys, taken[2][KEY].numpy().view(np.uint64))
    assert np.array_equal(data.rows.canonical(taken[2], None)["image"].numpy(), whole[places])
    assert not np.array_equal(taken[2][INPUT + "image"].numpy(), whole[places])


def test_parts_of_a_batch_have_epochs_of_their_own(rows: TransferSet, dark_store: Source, tmp_path: Path) -> None:
    """100 labelled rows, of which half a batch is drawn, are through sooner than the others."""
    run = viewed(tmp_path, rows, dark_store, batch_size=100, labelled_fraction=0.5)
    (data,) = SharedData().of([run], SESSION)
    batch = [b for b, _ in zip(Batches(data.rows, run, SESSION).from_step(0), range(3), strict=False)][-1]
    has_label = batch["has_label"] > 0
    assert batch[VIEW][has_label].unique().tolist() == [1] and batch[VIEW][~has_label].unique().tolist() == [0]
    fit([run], SESSION)


def test_a_set_that_grew_has_the_views_of_one_made_at_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (300, 8, 8, 1), np.uint8), np.arange(300) % 10
    found: dict[str, TransferSet] = {}
    for name, number, earlier in [("first", 200, None), ("grown", 300, "first"), ("whole", 300, None)]:
        np.savez(
            tmp_path / "rows.npz",
            image=images[:number],
            label=labels[:number],
            name=np.array([f"r{n}" for n in range(number)]),
        )
        source = {"kind": "numpy", "path": str(tmp_path / "rows.npz")}
        config = TransferSetConfig.model_validate(
            {"source": source, "inputs": "image", "label": "label", "id": "name", "split": {"stratify": False}}
        )
        before = None if earlier is None else tmp_path / earlier
        found[name] = prepare(config, tmp_path / name, earlier=before).viewing(VIEWS)
    assert len(found["grown"].of("train")) == 2 and len(found["whole"].of("train")) == 1
    sources = {name: labelled(tmp_path / f"of-{name}", found[name]) for name in ("grown", "whole")}
    first = found["first"].segment("train-0.view-2")
    assert found["grown"].segment("train-0.view-2").digest == first.digest  # nothing of it is labelled again
    for name in ("grown", "whole"):
        fit([viewed(tmp_path / f"run-{name}", found[name], sources[name], steps=60)], SESSION)
    runs = [viewed(tmp_path / f"run-{name}", found[name], sources[name], steps=60) for name in ("grown", "whole")]
    weights = [outputs(run)["model.safetensors"] for run in runs]
    assert weights[0] == weights[1]


def recipe(*overrides: str, **transfer_set: Any) -> Recipe:
    overrides = ("students.small.control=true", *overrides)
    document = load_recipe(recipes()["digits"], list(overrides)).model_dump(mode="json", exclude_defaults=True)
    document["transfer_set"] |= transfer_set
    return Recipe.from_dict(document)


def test_views_change_what_is_learnt_and_nothing_that_is_prepared_or_trained_before() -> None:
    plain, other = recipe(), recipe(views=4, transform="flip")
    assert keys.prepare_stage(plain, "s").key == keys.prepare_stage(other, "s").key
    assert keys.train_teacher_stage(plain, "wide", "p").key == keys.train_teacher_stage(other, "wide", "p").key
    labels = dict.fromkeys(("wide", "deep", "trees"), "a")
    before, after = (training_stages(each, "small", "p", labels) for each in (plain, other))
    for training in before:
        assert before[training].key != after[training].key
        assert "views" not in before[training].config
    seeded = training_stages(recipe(views=4, transform="flip", view_seed=1), "small", "p", labels)
    assert not {stage.key for stage in after.values()} & {stage.key for stage in seeded.values()}


REFUSED: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"views": 1, "transform": "flip"}, (), "view 0 is the row itself, so 1 changes nothing"),
    ({"views": 4}, (), "views need a `transform`"),
    ({"transform": "flip"}, (), "transform makes `views`, and there are none"),
    ({"views": 4, "transform": "affine"}, (), "affine"),
    ({"views": 4, "transform": ["flip", "turn"]}, (), "turn"),
    ({"views": -1, "transform": "flip"}, (), "views"),
    ({"views": 4, "transform": "flip", "decode": "on_read", "image_size": 8}, (), "each model sees its own"),
    ({"views": 4, "transform": "flip"}, ("students.small.train.augment=flip",), "students.small.train.augment: the student would see other pixels"),
    ({"views": 4, "transform": "flip"}, ("students.small.train.mix={kind: mixup}",), "students.small.train.mix: the student would see"),
    ({"views": 4, "transform": "flip"}, ("students.small.control={augment: affine}",), "students.small.control.augment: the control sees"),
    ({"views": 4, "transform": "flip"}, ("teachers.wide.mode=live",), "teachers.wide.mode: a live teacher is asked about whatever"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "overrides", "told"), REFUSED)
def test_what_has_no_views_is_refused_in_one_line(given: dict[str, Any], overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(*overrides, **given)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_inputs_without_images_or_with_text_have_no_views() -> None:
    made = recipe(views=4, transform="flip")
    image, numbers = Column("image", "image", (8, 8, 1), (0.0,), (1.0,)), Column("x", "number", (3,), (0.0,), (1.0,))
    text = Column("note", "text", (), (), ())
    assert not [*views_of_columns(made, [image, numbers])]
    assert "the inputs have none" in next(iter(views_of_columns(made, [numbers])))
    assert "'note' is text" in next(iter(views_of_columns(made, [image, text])))
    assert not [*views_of_columns(recipe(), [text])]


def test_a_transform_of_the_users_that_gives_another_shape_is_told_with_both(digits: TransferSet) -> None:
    wrong = digits.viewing(Viewing(2, ("test_viewing:reshaped",)))
    with pytest.raises(
        CollegiumError,
        match=r"transfer_set\.transform: test_viewing:reshaped .*uint8 \[\d+, 7, 8, 1\].*\[\d+, 8, 8, 1\]",
    ):
        wrong.inputs(wrong.segment("train-0.view-1"))


def test_the_report_says_in_which_views_rows_were_seen_and_gives_no_advice_that_is_refused() -> None:
    document = public(recipe(views=4, transform=["flip", "pad_and_crop"]))
    seen, augmented, lacks = about_augmentation(document)
    assert seen.startswith("Students and their controls saw training rows in 4 views (flip, then pad_and_crop)")
    assert "as they are" not in augmented and "affine" in augmented
    assert "the control of small saw the rows in 4 views" in lacks and "control: {augment" not in lacks
