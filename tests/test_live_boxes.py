"""Detectors that are asked while a student trains: their boxes, and what their layers give, of the images as they are augmented."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file

from students.config.hints import Hint
from students.data.boxes import Moves
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.models import tiny_detector
from students.runs.run import Live, Run
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.outputs import NamedOutput
from teachers.config.preprocess import Preprocess
from teachers.config.published import HuggingFaceTeacher, OnnxTeacher
from teachers.config.teacher import CallableTeacher, ModuleTeacher
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.models.detectors.images import images_of
from teachers.models.folder import load_model
from teachers.soft_targets.schema import Output, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.boxes import BOX, CLASS, SCORE, boxes_of
from teachers.transfer_set.transfer_set import TransferSet
from tests import shapes
from tests.detector_folders import save_detector
from tests.test_box_training import HARD, PSEUDO, detector_run, one_thread, views  # noqa: F401
from tests.test_detectors_onnx import graph
from tests.test_live import Here
from tests.training_runs import source

OUTPUTS = {"eight": (24, 6, 8), "head": (24, 6, 8), "vector": (24,)}
"""Of images of 48 x 64 pixels, by a detector of width 8."""
LAYERS = {
    "eight": NamedOutput(layer="eight"),
    "head": NamedOutput(layer="head"),
    "vector": NamedOutput(layer="head", pool="mean"),
}
HINTS = TypeAdapter(list[Hint])
EACH: dict[str, dict[str, Any]] = {
    "hint": {"output": "eight", "layer": "eight"},
    "hint of another width": {"loss": "hint", "output": "eight", "layer": "stem", "projector": "conv1x1"},
    "attention": {"output": "eight", "layer": "eight"},
    "channel_wise": {"output": "head", "layer": "head"},
    "similarity": {"output": "head", "layer": "head"},
    "relation": {"output": "head", "layer": "head"},
    "correlation": {"output": "head", "layer": "head"},
    "review": {"output": ["eight", "head"], "layer": ["eight", "head"], "width": 8},
    "linear_embedding": {"output": "eight", "layer": "eight"},
    "contrastive": {"output": "vector", "layer": "head", "dim": 8, "negatives": 8},
}


def blind(batch: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"boxes": [], "scores": [], "classes": []} for _ in batch["image"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> TransferSet:
    return shapes.prepared(tmp_path_factory.mktemp("shapes"), shapes.table(60, without_label=6), labelled=24)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: Any) -> dict[str, TeacherSpec]:
    """A network whose weights say something, and two that look at pixels."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    network = tiny_detector(8, num_classes=2, input_shape=(3, shapes.HEIGHT, shapes.WIDTH))
    with torch.no_grad():
        for each in (network.scores, network.boxes):
            each.weight.normal_(std=0.5)
        network.scores.bias.fill_(-1.0)
    save_file(network.state_dict(), folder / "network.safetensors")
    module = ModuleTeacher(
        kind="module",
        model="students.models:tiny_detector",
        arguments={"width": 8},
        weights=str(folder / "network.safetensors"),
        preprocess=Preprocess(normalise="auto"),
        outputs=LAYERS,
    )
    specs = {"network": TeacherSpec("network", module, None, (), folder)}
    for name in ("bright", "blind"):
        where = "test_box_ways" if name == "bright" else "test_live_boxes"
        config = CallableTeacher(kind="callable", function=f"tests.{where}:{name}", output="boxes", version="1")
        specs[name] = TeacherSpec(name, config, None, (), folder)
    return specs


@pytest.fixture(scope="module")
def stored(data: TransferSet, teachers: dict[str, TeacherSpec], tmp_path_factory: Any) -> dict[str, Any]:
    """The same as sources that are cached."""
    folder, found = tmp_path_factory.mktemp("stores"), {}
    for name, spec in teachers.items():
        stores = {}
        for segment in (*data.of("train"), *data.of("validation")):
            more = tuple(Output.of_layer(each, OUTPUTS[each]) for each in OUTPUTS) if name == "network" else ()
            about = segment.name, segment.digest, "dense", data.space.names, segment.num_rows, 64, "boxes", more
            store = SoftTargetStore.create(folder / f"{name}-{segment.name}", Spec(name, name, *about, shapes.MOST))
            labeller = Labeller(spec, [LabelTask(data.folder, segment.name, store.folder)], "cpu")
            for number in range(store.num_shards):
                labeller.label(0, number)
            store.seal()
            stores[segment.name] = store.folder
        found[name] = replace(source(None, name), stores=stores, outputs=OUTPUTS if name == "network" else {})
    return found


@pytest.fixture(scope="module")
def asked(data: TransferSet, stored: dict[str, Any]) -> dict[str, Any]:
    """The same as sources that are asked live."""
    return {name: replace(each, stores={}, live=Live(data.space.names, 2)) for name, each in stored.items()}


@pytest.fixture
def session(data: TransferSet, teachers: dict[str, TeacherSpec]) -> PlainSession:
    return PlainSession(live=Here([*teachers.values()], data))


def steps_of(run: Run, session: PlainSession, number: int = 1) -> torch.Tensor:
    """The terms of the first steps."""
    run.stage.mkdir(parents=True, exist_ok=True)
    trained = Training(run, session, SharedData().of([run], session)[0])
    batches = trained.batches()
    return torch.stack([trained.stepper.advance(next(batches), step) for step in range(number)])


def targets_of(run: Run, session: PlainSession) -> np.ndarray:
    """What the first term compares the first batch with, `[rows, N, 6]`."""
    trained = Training(run, session, SharedData().of([run], session)[0])
    return boxes_of(trained.stepper.begin(next(trained.batches()), 0).asked[0].target.numpy())


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize("combine", ["wbf", "nms"])
def test_where_nothing_is_augmented_live_boxes_are_the_stored_ones(data, stored, asked, session, tmp_path, combine):
    mixes = {
        "cached": [stored["network"], stored["bright"]],
        "live": [asked["network"], asked["bright"]],
        "mixed": [asked["network"], stored["bright"]],
    }
    objective = ({**PSEUDO, "combine": combine}, HARD)
    runs = {name: detector_run(tmp_path / name, data, *each, objective=objective) for name, each in mixes.items()}
    losses = {name: steps_of(run, session, 4) for name, run in runs.items()}
    for name in ("live", "mixed"):
        torch.testing.assert_close(losses[name], losses["cached"], rtol=1e-2, atol=1e-3)
    alone = (detector_run(tmp_path / "alone", data, each["bright"], objective=objective) for each in (stored, asked))
    cached, live = (targets_of(run, session) for run in alone)
    assert (cached[..., CLASS] >= 0).sum() > 10
    np.testing.assert_allclose(live, cached, atol=1e-3)  # a store keeps float16


def test_boxes_of_who_finds_the_same_in_a_mirrored_image_are_the_stored_ones_moved(data, stored, asked, session, tmp_path):  # fmt: skip
    runs = [
        detector_run(tmp_path / name, data, each["bright"], objective=(PSEUDO, HARD), augment="flip")
        for name, each in (("cached", stored), ("live", asked))
    ]
    cached, live = (targets_of(run, session) for run in runs)
    for one, other in zip(cached, live, strict=True):  # scores go by the order in which they are found
        boxes = [np.round(each[each[:, CLASS] >= 0][:, [0, 1, 2, 3, CLASS]], 2) for each in (one, other)]
        np.testing.assert_allclose(*(each[np.lexsort(each.T)] for each in boxes), atol=0.011)
    plain = targets_of(detector_run(tmp_path / "plain", data, stored["bright"]), session)
    assert np.abs(cached[..., 0] - plain[..., 0]).max() > 0.1


@pytest.mark.parametrize("augment", [["flip"], ["mosaic", "flip", "zoom"]])
def test_a_live_detector_that_sees_nothing_leaves_stored_boxes_where_they_move_to(data, stored, asked, session, tmp_path, augment):  # fmt: skip
    """Its answer has room for fewer boxes than four images hold."""
    objective = ({**PSEUDO, "combine": "nms", "iou": 0.99}, HARD)
    alone, beside = (
        detector_run(tmp_path / str(len(each)), data, *each, objective=objective, augment=augment)
        for each in ([stored["bright"]], [stored["bright"], asked["blind"]])
    )
    one, other = (targets_of(run, session) for run in (alone, beside))
    assert one.shape == other.shape and (one[..., CLASS] >= 0).sum() > 5
    for mine, theirs in zip(one, other, strict=True):
        each = [found[found[:, CLASS] >= 0] for found in (mine, theirs)]
        np.testing.assert_allclose(*(found[np.lexsort(found.T)] for found in each), atol=1e-6)


def test_an_image_of_four_of_which_one_is_unknown_is_unknown_where_somebody_is_asked_live():
    moves = Moves(["mosaic"], 2)
    batch = moves.drawn(views(8))
    said = torch.zeros(8, 2, len(BOX))
    said[:, 0] = torch.tensor([0.2, 0.2, 0.8, 0.8, 0.9, 1.0])
    said[:, 1, CLASS] = -1
    said = said.flatten(1)
    said[5] = torch.nan
    found = moves.as_seen(said, batch, False)
    unknown, alone = found.isnan().any(1), (found.reshape(8, -1, len(BOX))[..., CLASS] >= 0).sum(1) == 1
    assert found.isnan().all(1).equal(unknown) and not unknown[:4].any() and unknown[5]
    assert (unknown | alone)[4:].all() and moves.as_seen(said, batch, True).shape == found.shape


def test_a_class_that_a_live_detector_does_not_look_for_is_not_missed_there(data, stored, asked, session, tmp_path):
    squares = replace(asked["blind"], live=Live(("square",), 2), class_map={})
    run = detector_run(tmp_path, data, stored["bright"], squares, objective=(PSEUDO, HARD))
    found, whole = targets_of(run, session), targets_of(detector_run(tmp_path, data, stored["bright"]), session)
    for number, share in enumerate((1.0, 0.5)):  # discs, squares
        scores = [np.sort(each[each[..., CLASS] == number][:, SCORE]) for each in (found, whole)]
        np.testing.assert_allclose(scores[0], share * scores[1], atol=1e-3)


def test_a_student_of_live_detectors_is_trained_on_images_of_four(data, asked, session, tmp_path):
    augment = ["mosaic", "flip", "zoom", "colour"]
    run = detector_run(tmp_path, data, asked["network"], asked["bright"], augment=augment)
    (result,) = fit([run], session)
    assert result.validation is not None and load_model(run.folder)
    shown = session.live.asked[0]["image"]
    assert shown.dtype == np.float32 and shown.shape[1:] == (shapes.HEIGHT, shapes.WIDTH, 3)


def test_a_detector_from_elsewhere_is_given_bytes_of_augmented_images():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    given = images_of(pixels.astype(np.float32) + 0.3)
    assert all(each.dtype == np.uint8 for each in given) and np.array_equal(np.stack(given), pixels)
    assert np.stack(images_of(np.full((1, 2, 2, 3), 256.0, np.float32))).max() == 255


# ---------------------------------------------------------------- layers


def hinted(run: Run, *hints: dict[str, Any]) -> Run:
    return replace(run, hints=tuple(HINTS.validate_python([{"teacher": "network", **hint} for hint in hints])))


def hint_of(case: str) -> dict[str, Any]:
    return {"loss": case, **EACH[case]}


@pytest.mark.parametrize("case", EACH)
def test_a_hint_has_the_same_loss_from_a_store_and_live(data, stored, asked, session, tmp_path, case):
    found = []
    for name, each in (("cached", stored), ("live", asked)):
        run = hinted(detector_run(tmp_path / name, data, each["network"]), hint_of(case))
        found.append(steps_of(run, session))
    torch.testing.assert_close(found[0], found[1], rtol=2e-3, atol=1e-3)
    assert found[1][0, -1] > 0


@pytest.mark.parametrize("augment", [None, ["mosaic", "flip", "zoom", "colour"]])
def test_a_student_that_is_its_teacher_has_no_hint_loss_on_the_same_view(data, asked, session, tmp_path, augment):
    hints = [hint_of(case) for case in ("hint", "attention", "channel_wise", "similarity", "relation", "correlation")]
    run = hinted(detector_run(tmp_path, data, asked["network"], width=8, augment=augment), *hints)
    trained = Training(run, session, SharedData().of([run], session)[0])
    stepper, batch = trained.stepper, next(trained.batches())
    other = of_hints(stepper, batch)
    stepper.module.load_state_dict(session.live.teachers["network"].teacher.network.state_dict())
    same = of_hints(stepper, batch)
    assert (other > 0).all() and (same.abs() < 1e-3 * other).all()


def of_hints(stepper: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    stepper.whole.eval()  # as its teacher answers: without statistics of the batch
    work = stepper.begin(batch, 0)
    with torch.no_grad():
        found: torch.Tensor = stepper.sums(work, 0, *stepper.answer(work, 0))[2:]
    return found


# ---------------------------------------------------------------- from elsewhere


def folder_of(place: Path) -> HuggingFaceTeacher:
    save_detector(place / "d_fine", "d_fine")
    named = {"maps": NamedOutput(layer="model.encoder.fpn_blocks.0")}
    return HuggingFaceTeacher(kind="huggingface", path=str(place / "d_fine"), outputs=named)


def graph_of(place: Path) -> OnnxTeacher:
    boxes = np.array([[[0.1, 0.1, 0.4, 0.4, 0.9, 0], [0.5, 0.5, 0.9, 0.9, 0.4, 1]]])
    told = {"decode": "raw", "classes": ["cat", "dog"], "preprocess": {"normalise": None}}
    path = graph(place / "m.onnx", {"boxes": boxes}, size=shapes.HEIGHT)
    return OnnxTeacher.model_validate({"kind": "onnx", "path": str(path), **told})


@pytest.mark.parametrize("made", [folder_of, graph_of])
def test_a_detector_from_elsewhere_answers_about_augmented_images(data, tmp_path, made):
    config = made(tmp_path)
    here = Here([TeacherSpec("other", config, None, (), tmp_path)], data)
    names = here.teachers["other"].teacher.classes
    about = {"class_map": {"cat": "disc", "dog": "square", "others": None}, "live": Live(names, 1)}
    columns = {"maps": (16, 2, 2)} if config.outputs else {}
    teacher = replace(source(None, "other"), stores={}, outputs=columns, **about)
    run = detector_run(tmp_path / "run", data, teacher, augment=["flip", "zoom", "colour"])
    if columns:
        hint = {"loss": "hint", "teacher": "other", "output": "maps", "layer": "thirty_two"}
        run = replace(run, hints=tuple(HINTS.validate_python([hint])))
    losses = steps_of(run, PlainSession(live=here), 2)
    assert losses.isfinite().all() and (losses[:, 0] > 0).all() and (losses[:, -1] > 0).all()
    (images, *_) = (each["image"] for each in here.asked)
    assert images.dtype == np.float32
    as_bytes = {"image": images.round().clip(0, 255).astype(np.uint8)}
    keys = np.arange(len(images), dtype=np.uint64)
    both = [here.teachers["other"].ask(each, keys) for each in ({"image": images}, as_bytes)]
    np.testing.assert_array_equal(*both)
    assert (boxes_of(both[0])[..., CLASS] >= 0).any()
