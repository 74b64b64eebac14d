"""Detectors that learn boxes, in this process: augmentation that boxes follow, thresholds, averages of weights, predictions."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from students.config.moves import FOLLOWED
from students.config.terms import PseudoTerm
from students.data.augment import AUGMENTS, augmentation
from students.data.batches import labelled_share
from students.data.boxes import MOVES, Moves, moved, of_fours
from students.data.draws import Views
from students.data.mosaic import drawn, mosaic
from students.data.zoom import GREY, windows
from students.delivering.predict import predict_file
from students.fitting.fit import fit
from students.fitting.rehearsal import rehearse
from students.measuring.evaluate import evaluate_student
from students.measuring.labelled import Labelled, ask
from students.models import tiny_detector
from students.objective.combination import combination_of
from students.objective.keeping import keeping
from students.runs.session import PlainSession
from students.tasks.average_precision import BoxesMeter
from teachers.config.training import TrainConfig
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.tasks.boxes import BOX, CLASS, LABEL, boxes_of, labels_of
from teachers.transfer_set.views import draw
from tests import shapes
from tests.training_runs import make_run, source

PSEUDO, HARD = {"loss": "pseudo", "keep_above": 0.3}, {"loss": "hard"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shapes.prepared(tmp_path_factory.mktemp("shapes"), shapes.table(60, without_label=6), labelled=24)


@pytest.fixture(scope="module")
def stores(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    sure = {
        segment: shapes.make_store(folder / f"sure-{segment}", data, split=segment.partition("-")[0], score=0.9)
        for segment in ("train-0", "validation-0", "test-0")
    }
    return {"wide": sure}


def detector_run(folder, data, *sources, objective=(PSEUDO, HARD), width=4, **train):
    how = {"steps": 6, "batch_size": 8, "learning_rate": 3e-3} | train
    run = make_run(folder, data, *sources, objective=objective, model="students.models:tiny_detector", **how)
    return replace(run, arguments={"width": width})


def taught_by(stores, name="wide", **options):
    return replace(source(None, name), stores=stores[name], **options)


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 64), (50, 37)])
def test_a_tiny_detector_takes_images_of_any_size(height, width):
    network = tiny_detector(4, num_classes=3, input_shape=(3, 64, 64)).eval()
    given = network(torch.rand(2, 3, height, width))
    cells = -(-height // 8) * -(-width // 8)
    assert given.shape == (2, cells, 9)
    points = given[0, :, 4:6]
    assert points.min() > 0 and points.max() < 1 and len(points.unique(dim=0)) == cells
    assert (given[..., 2:4] > given[..., :2]).all()


@pytest.mark.parametrize(("width", "millions"), [(16, 0.2), (35, 0.9)])
def test_its_sizes_are_those_that_its_page_tells(width, millions):
    network = tiny_detector(width, num_classes=3, input_shape=(3, 64, 64))
    assert sum(each.numel() for each in network.parameters()) == pytest.approx(1e6 * millions, rel=0.06)


def test_a_tiny_detector_learns_eight_images_by_heart(tmp_path):
    numbers = np.random.default_rng(4)
    found = [shapes.picture(numbers) for _ in range(8)]
    images = torch.from_numpy(np.stack([pixels for pixels, _ in found])).permute(0, 3, 1, 2).float() / 128 - 1
    labels = torch.zeros(8, shapes.MOST, len(LABEL))
    labels[..., CLASS], labels[..., 6], labels[..., 7] = -1, shapes.HEIGHT, shapes.WIDTH
    size = np.array([shapes.WIDTH, shapes.HEIGHT] * 2)
    for row, (_, boxes) in enumerate(found):
        for place, box in enumerate(boxes):
            corners = np.array([box[name] for name in ("x1", "y1", "x2", "y2")]) / size
            labels[row, place, :6] = torch.tensor([*corners, 1, shapes.KINDS.index(box["class"])])
    from students.objective.losses.detection import hard
    from teachers.tasks.places import said_of_places
    from teachers.tasks.space import Space

    torch.manual_seed(0)
    network = tiny_detector(8, num_classes=2, input_shape=(3, 48, 64))
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, 220)
    for _ in range(220):
        optimizer.zero_grad()
        hard(network(images), labels.flatten(1)).mean().backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        said = said_of_places(network(images), shapes.MOST)
    meter = BoxesMeter(Space("detection", shapes.KINDS, max_boxes=shapes.MOST))
    meter.update(said, labels.flatten(1))
    assert meter.figures()["ap"] > 0.9


# ---------------------------------------------------------------- augmentation


def views(rows, step=3):
    return Views(11, step, torch.arange(rows), [slice(0, rows)], 0, torch.Generator())


def seeds(rows, augments):
    return [*Moves(augments, 0).drawn(views(rows)).values()]


def marked(rows=6, height=60, width=80):
    """Images that are bright in one box of their own, and these boxes as labels."""
    numbers = np.random.default_rng(1)
    images = np.full((rows, height, width, 3), GREY, np.uint8)
    labels = torch.zeros(rows, 2, len(LABEL))
    labels[..., CLASS] = -1
    for row in range(rows):
        x1, y1 = int(numbers.integers(5, 40)), int(numbers.integers(5, 30))
        x2, y2 = x1 + int(numbers.integers(12, 30)), y1 + int(numbers.integers(12, 25))
        images[row, y1:y2, x1:x2] = 250
        labels[row, 0] = torch.tensor([x1 / width, y1 / height, x2 / width, y2 / height, 1, 0, height, width])
    return torch.from_numpy(images), labels.flatten(1)


@pytest.mark.parametrize("names", [["flip"], ["zoom"], ["zoom", "flip"], ["colour", "flip", "zoom"]], ids="-".join)
def test_boxes_stay_around_what_they_are_of(names):
    images, labels = marked()
    augment = augmentation([name for name in names if name != "colour"])
    assert augment is not None
    shown = augment(images, views(6)) if "colour" not in names else None
    if shown is None:  # the light is another, the places are the same
        shown = augmentation(names)(images, views(6))
    found = labels_of(moved(labels, names, seeds(6, names), 2).numpy())
    height, width = images.shape[1:3]
    some = 0
    for row, box in zip(shown.float(), found[:, 0], strict=True):
        if box[CLASS] < 0:
            continue
        some += 1
        grey = row.mean(-1)
        bright = (grey > grey.median() + 60).numpy()
        y, x = np.nonzero(bright)
        seen = [x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height]
        np.testing.assert_allclose(box[:4], seen, atol=2.1 / 60)
    assert some >= 3


def test_what_is_said_moves_as_labels_do():
    _, labels = marked()
    said = torch.from_numpy(shapes.said_of_labels(labels.numpy()))
    one, other = (moved(each, ["zoom", "flip"], seeds(6, ["zoom", "flip"]), 2) for each in (labels, said))
    one, other = labels_of(one.numpy()), boxes_of(other.numpy())
    np.testing.assert_array_equal(one[..., :4], other[..., :4])
    np.testing.assert_array_equal(one[..., CLASS], other[..., CLASS])


def test_unknown_rows_stay_unknown_and_a_box_that_leaves_is_gone():
    _, labels = marked()
    labels[2] = torch.nan
    found = moved(labels, ["zoom"], seeds(6, ["zoom"]), 2)
    assert found[2].isnan().all() and not found[:2].isnan().any()
    corner = torch.zeros(64, 1, len(BOX))
    corner[..., :4] = torch.tensor([0.0, 0.0, 0.05, 0.05])
    gone = boxes_of(moved(corner.flatten(1), ["zoom"], seeds(64, ["zoom"]), 1).numpy())[:, 0, CLASS] < 0
    assert 0 < gone.sum() < 64


def test_a_window_lies_in_the_image_or_around_it():
    left, top, width, height = windows(torch.arange(500))
    for start, edge in ((left, width), (top, height)):
        inside = edge <= 1
        assert ((start >= 0) & (start + edge <= 1 + 1e-6))[inside].all()
        assert ((start <= 0) & (start + edge >= 1 - 1e-6))[~inside].all()
        assert inside.any() and (~inside).any()


@pytest.mark.parametrize("names", [["mosaic"], ["flip", "mosaic"], ["mosaic", "flip"]], ids="-".join)
def test_in_a_mosaic_boxes_stay_around_what_they_are_of(names):
    """Each image is bright in one box, by as much as its place in its four says: so every bright spot has its image's box."""
    images, labels = marked(32)
    levels = torch.tensor([160, 190, 220, 250], dtype=torch.uint8)[torch.arange(32) % 4][:, None, None, None]
    images, labels = torch.where(images == 250, levels, images), labels.clone()
    labels.reshape(32, 2, len(LABEL))[:, 0, CLASS] = torch.arange(32) % 4
    shown = augmentation(names)(images, views(32))
    found = labels_of(moved(labels, names, seeds(32, names), 2).numpy())
    assert found.shape == (32, 8, len(LABEL))
    several = 0
    for row, boxes in zip(shown.mean(-1), found, strict=True):
        boxes = boxes[boxes[:, CLASS] >= 0]
        several += len(boxes) > 1
        for box in boxes:
            x1, y1, x2, y2 = (box[:4] * [80, 60, 80, 60]).round().astype(int).tolist()
            middle = row[(y1 + y2) // 2, (x1 + x2) // 2]
            assert float(middle) == pytest.approx(160 + 30 * box[CLASS], abs=3)
            outside = row.clone()
            outside[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = GREY
            row = outside
        assert float((row > 150).float().mean()) < 0.04  # what is left are slivers of boxes of which too little is seen
    assert several > 8


def test_rows_of_a_mosaic_count_as_the_least_of_their_images_and_others_as_before():
    weight = torch.ones(32)
    weight[5] = 0
    is_there = drawn(torch.arange(32))[0]
    found = of_fours(weight, torch.arange(32))
    assert torch.equal(
        found == 0, torch.tensor([row // 4 == 1 and (bool(is_there[row]) or row == 5) for row in range(32)])
    )


def test_empty_places_of_a_mosaic_are_behind_the_others_and_a_row_that_stays_has_its_own_boxes():
    _, labels = marked(16)
    found = torch.from_numpy(labels_of(moved(labels, ["mosaic"], seeds(16, ["mosaic"]), 2).numpy()))
    there = found[..., CLASS] >= 0
    assert not there[:, 4:].any() and there.sum(1).max() > 2
    stays = ~drawn(draw(views(16).seeds(0), 0))[0]
    assert 0 < stays.sum() < 16
    assert torch.equal(found[stays][:, 0], labels.reshape(16, 2, -1)[stays][:, 0])


def test_a_batch_in_which_no_row_is_a_mosaic_stays_as_it_is():
    images, _ = marked(4)
    seeds = next(each for each in torch.arange(400).reshape(-1, 4) if not drawn(each)[0].any())
    assert torch.equal(mosaic(images, seeds), images.float())


def test_groups_of_a_batch_hold_whole_mosaics():
    train = TrainConfig.model_validate({"batch_size": 32, "labelled_fraction": 0.3, "augment": ["mosaic", "flip"]})
    assert labelled_share(train, 1) == 8 and labelled_share(train, 4) == 16
    with pytest.raises(RecipeError, match="two groups of four of rows or more"):
        labelled_share(train, 8)
    with pytest.raises(
        ValidationError, match=r"not divisible by 4 \* workers \* accumulate = 8, and a `mosaic` is of four rows"
    ):
        TrainConfig.model_validate({"batch_size": 12, "accumulate": 2, "augment": "mosaic"})


def test_what_boxes_can_follow_is_what_a_recipe_may_name():
    assert set(FOLLOWED) == {*MOVES, "mosaic"} <= set(AUGMENTS)


# ---------------------------------------------------------------- training


def test_a_student_of_boxes_is_trained_delivered_and_judged(data, stores, tmp_path):
    run = detector_run(
        tmp_path, data, taught_by(stores), ema=0.9, augment=["mosaic", "flip", "zoom", "colour"], steps=8
    )
    (result,) = fit([run], PlainSession())
    assert result.validation is not None and set(result.validation) == {"ap", "ap50"}
    model = load_model(run.folder)
    rows = Labelled.of(data, "test")
    said = ask(model, rows)
    assert said.shape == (len(rows.labels), shapes.MOST * len(BOX))
    document = evaluate_student(data.folder, [taught_by(stores)], {0: run.folder}, {0: run.folder}, 0)
    (figures,) = document["student"]["runs"]
    assert set(figures["thresholds"]) == set(shapes.KINDS) and 0 <= figures["ap50"] <= 1
    assert document["ensemble"]["ap"] == pytest.approx(1) and document["gain"]["mean"] == 0
    assert document["by_class"]["support"] == [
        int((labels_of(rows.labels.numpy())[..., CLASS] == number).sum()) for number in range(2)
    ]
    json.dumps(document, allow_nan=False)


def test_a_plan_tries_a_batch_of_boxes(data, stores, tmp_path):
    assert rehearse(detector_run(tmp_path, data, taught_by(stores)), "cpu").idle == []


def test_rows_without_a_label_learn_from_teachers_alone(data, stores, tmp_path):
    run = detector_run(tmp_path, data, taught_by(stores), objective=(HARD,))
    whole, alone = (fit([replace(run, folder=tmp_path / name, stage=tmp_path / name, labelled_only=only)], PlainSession())[0] for name, only in (("whole", False), ("alone", True)))  # fmt: skip
    assert whole.validation and alone.validation


@pytest.mark.parametrize("keep", [{"disc": 0.5}, "auto"])
def test_each_class_has_the_threshold_that_is_said_or_found(data, stores, keep):
    term = PseudoTerm(loss="pseudo", keep_above=keep)
    sources = [taught_by(stores)]
    found = keeping(term, 0, combination_of(term, sources, 0, "detection"), sources, data).keep_above
    assert found[0] == 0.5 and found[1] == 0.3 if keep != "auto" else len(found) == 2
    if keep == "auto":
        scores = shapes.scores_of(shapes.said_of_labels(data.labels(data.of("validation")[0])))
        assert all(0.1 <= each < 0.9 for each in found) and max(found) <= scores[scores > 0].min()


def test_a_class_that_nobody_knows_has_no_threshold(data, stores):
    term, sources = PseudoTerm(loss="pseudo", keep_above={"ring": 0.5}), [taught_by(stores)]
    with pytest.raises(RecipeError, match=r"objective.3.keep_above names 'ring', and the classes are disc, square"):
        keeping(term, 3, combination_of(term, sources, 3, "detection"), sources, data)


def test_a_network_that_gives_something_else_is_told(data, stores, tmp_path):
    run = make_run(tmp_path, data, taught_by(stores), objective=(PSEUDO, HARD), steps=2)
    with pytest.raises(
        RecipeError, match=r"gives \[32, 2\] for 32 rows, expected \[32, places, 8\]: of each place a box"
    ):
        fit([run], PlainSession())


def test_an_average_of_weights_is_what_is_delivered(data, stores, tmp_path):
    plain, smooth = (
        detector_run(tmp_path / str(ema), data, taught_by(stores), ema=ema, steps=3) for ema in (None, 0.999)
    )
    fit([plain], PlainSession()), fit([smooth], PlainSession())
    assert "ema" not in plain.train.model_dump() and smooth.train.model_dump()["ema"] == 0.999
    first, second = (load_model(run.folder).module.state_dict() for run in (plain, smooth))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_predictions_are_in_pixels_of_the_image(data, stores, tmp_path):
    run = detector_run(tmp_path, data, taught_by(stores), steps=4)
    fit([run], PlainSession())
    (run.folder / "metrics.json").write_text(json.dumps({"thresholds": {"disc": 0.01, "square": 0.01}}))
    (tmp_path / "images").mkdir()
    numbers = np.random.default_rng(0)
    for name, factor in (("a", 1), ("b", 2)):
        pixels, _ = shapes.picture(numbers)
        Image.open(io.BytesIO(shapes.png(pixels))).resize((64 * factor, 48)).save(tmp_path / "images" / f"{name}.png")
    lines = []
    with pytest.raises(RecipeError, match="boxes are lists"):
        predict_file(run.folder, tmp_path / "images", tmp_path / "said.csv", write_line=lines.append, tell_bad=lines.append)  # fmt: skip
    same = pq.read_table(data.folder.parent / "rows.parquet")
    pq.write_table(same, tmp_path / "same.parquet")
    done = predict_file(run.folder, tmp_path / "same.parquet", tmp_path / "said.parquet", write_line=lines.append, tell_bad=lines.append)  # fmt: skip
    found = pq.read_table(tmp_path / "said.parquet").to_pylist()
    assert done.num_rows == len(found) == 60 and not done.num_bad
    assert any(row["boxes"] for row in found)
    for row in found:
        assert len(row["boxes"]) == len(row["classes"]) == len(row["scores"])
        for x1, y1, x2, y2 in row["boxes"]:
            assert 0 <= x1 < x2 <= shapes.WIDTH and 0 <= y1 < y2 <= shapes.HEIGHT
    widest = max(box[2] for row in found for box in row["boxes"])
    assert widest > 2  # pixels, not shares
