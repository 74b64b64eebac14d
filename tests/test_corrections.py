"""What `collegium review` wrote comes back as labels: they win for their rows, and nothing that a teacher has said is asked again."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from orchestrator.recipe.model import Recipe
from orchestrator.stages import keys
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.labelling.boxes_out import Wanted
from teachers.labelling.review import review
from teachers.preparing.count import count, count_prepared
from teachers.preparing.look import digests_beside, look, source_digest
from teachers.preparing.prepare import prepare
from teachers.tasks.boxes import CLASS, labels_of

from .test_boxes_out import SPLITS, an_out, answered, photos


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("out")
    return folder, an_out(folder, root, labelled=4)


def config(root, **changes):
    given = {"source": {"kind": "coco", "path": str(root)}, "inputs": "image", "label": "boxes", "task": "detection"}
    given |= {"image_size": 32, "max_boxes": 8, "split": SPLITS, "labelled": 4}
    return TransferSetConfig.model_validate(given | changes)


@pytest.fixture
def looked_at(out, root, tmp_path):
    """Five images for a person, of whom the first is then told to hold one square in its middle."""
    folder = tmp_path / "look"
    review(answered(out[0]), folder, Wanted("coco", root=root), 5)
    document = json.loads((folder / "coco" / "annotations" / "train.json").read_text())
    first = document["images"][0]
    square = next(each["id"] for each in document["categories"] if each["name"] == "square")
    kept = [each for each in document["annotations"] if each["image_id"] != first["id"]]
    box = [first["width"] / 4, first["height"] / 4, first["width"] / 2, first["height"] / 2]
    kept.append({"id": 10_000, "image_id": first["id"], "category_id": square, "bbox": box})
    (folder / "coco" / "annotations" / "train.json").write_text(json.dumps(document | {"annotations": kept}))
    return folder, document, int(first["sample_key"])


def rows(transfer_set):
    """By key: the label, and whether it may be used."""
    return {
        key: (label, usable)
        for s in transfer_set.segments
        for key, label, usable in zip(
            transfer_set.keys(s).tolist(), transfer_set.labels(s), transfer_set.labelled(s), strict=True
        )
    }


def of_coco(folder):
    return {"kind": "coco", "path": str(folder / "coco"), "annotations": "annotations/train.json"}


def test_corrected_labels_win_for_their_images_and_every_other_row_stays(out, root, looked_at, tmp_path):
    before, (folder, document, key) = out[1], looked_at
    given = config(root, corrections=of_coco(folder))
    after = prepare(given, tmp_path / "after", earlier=before.folder)
    told = {int(each["sample_key"]) for each in document["images"]}
    assert len(told) == 5 and after.report["corrected"] == {"train": 5}
    old, new = rows(before), rows(after)
    assert all(new[each][1] for each in told) and not any(old[each][1] for each in told)
    for each in set(old) - told:
        np.testing.assert_array_equal(old[each][0], new[each][0])
        assert old[each][1] == new[each][1]
    boxes = labels_of(new[key][0][None])[0]
    (box,) = boxes[boxes[:, CLASS] >= 0]
    np.testing.assert_allclose(box[:4], [0.25, 0.25, 0.75, 0.75], atol=1e-6)
    assert after.space.names[int(box[CLASS])] == "square"
    assert after.num_labelled == before.num_labelled + 5
    assert count(given, look(given)) == count_prepared(after)


def test_what_teachers_said_is_not_asked_again(out, root, looked_at, tmp_path):
    """Stores are keyed by segments, which hold inputs alone."""
    after = prepare(config(root, corrections=of_coco(looked_at[0])), tmp_path / "after")
    assert after.segments == out[1].segments
    teacher = {"kind": "callable", "function": "tests.shapes:said_of_labels", "output": "boxes"}
    students = {
        "small": {"model": "students.models:tiny_detector", "teachers": ["one"], "objective": [{"loss": "pseudo"}]}
    }
    recipes = [
        Recipe.model_validate(
            {"format": 1, "name": "photos", "task": "detection", "teachers": {"one": teacher}, "students": students}
            | {"transfer_set": each.model_dump(mode="json")}
        )
        for each in (config(root), config(root, corrections=of_coco(looked_at[0])))
    ]
    prepared = [
        keys.prepare_stage(each, source_digest(each.transfer_set), digests_beside(each.transfer_set))
        for each in recipes
    ]
    assert prepared[0].key != prepared[1].key and [*prepared[0].inputs] == ["source"]
    assert "corrections" not in prepared[0].config and "path" not in prepared[1].config["corrections"]


def test_labels_of_yolo_come_back_too_and_an_empty_file_says_that_nothing_is_there(root, looked_at, tmp_path):
    folder, document, key = looked_at
    name = next(each["file_name"] for each in document["images"] if int(each["sample_key"]) == key)
    text = folder / "yolo" / name.replace("images/", "labels/").replace(".png", ".txt")
    text.write_text("")
    given = {"kind": "yolo", "path": str(folder / "yolo")}
    after = prepare(config(root, corrections=given), tmp_path / "after")
    label, usable = rows(after)[key]
    assert usable and (labels_of(label[None])[..., CLASS] < 0).all()
    text.write_text("1 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=rf"corrections: 1 cannot be used; mend them\n.*{text.name}, line 2: class 7"):
        prepare(config(root, corrections=given, on_bad_row="skip"), tmp_path / "wrong")


def test_labels_of_no_row_and_of_the_same_row_twice_are_refused_by_name(root, looked_at, tmp_path):
    folder, document, _ = looked_at
    about = folder / "coco" / "annotations" / "train.json"
    images = document["images"]
    (folder / "coco" / "images" / "train" / "strange.png").write_bytes(
        (folder / "coco" / images[0]["file_name"]).read_bytes()
    )
    strange = {**images[0], "id": 99, "file_name": "images/train/strange.png"}
    about.write_text(json.dumps(document | {"images": [*images, strange]}))
    with pytest.raises(
        DataError, match=r"corrections: 'images/train/strange.png#0' is the label of none of the 24 rows"
    ):
        prepare(config(root, corrections=of_coco(folder)), tmp_path / "none")
    twice = f"images/train/again-{int(images[0]['sample_key']):016x}.png"
    (folder / "coco" / twice).write_bytes((folder / "coco" / images[0]["file_name"]).read_bytes())
    about.write_text(json.dumps(document | {"images": [*images, {**images[0], "id": 99, "file_name": twice}]}))
    with pytest.raises(DataError, match="are labels of one row; leave one out"):
        prepare(config(root, corrections=of_coco(folder)), tmp_path / "twice")
    with pytest.raises(RecipeError, match=r"transfer_set\.corrections"):
        prepare(config(root, corrections={"kind": "yolo", "path": str(tmp_path / "nowhere")}), tmp_path / "nothing")


def test_a_table_is_corrected_by_its_ids(tmp_path):
    table = pa.table({"uid": [f"{at / 2}" for at in range(80)], "a": np.arange(80.0), "y": ["no", "yes"] * 40})
    pa.csv.write_csv(table, tmp_path / "rows.csv")
    pa.csv.write_csv(pa.table({"uid": ["3.0", "3.5"], "y": ["yes", "yes"]}), tmp_path / "better.csv")
    about = {"source": {"kind": "csv", "path": str(tmp_path / "rows.csv")}, "inputs": ["a"], "label": "y", "id": "uid"}
    better = {"corrections": {"kind": "csv", "path": str(tmp_path / "better.csv")}}
    before, after = (
        prepare(TransferSetConfig.model_validate(about | more), tmp_path / str(len(more))) for more in ({}, better)
    )
    changed = [
        name
        for s in before.segments
        for name, old, new in zip(
            before.ids(s).to_pylist(), before.labels(s), after.labels(after.segment(s.name)), strict=True
        )
        if old != new
    ]
    assert changed == ["3.0"] and sum(after.report["corrected"].values()) == 2
    pa.csv.write_csv(pa.table({"uid": ["3.0"], "y": ["perhaps"]}), tmp_path / "better.csv")
    with pytest.raises(DataError, match=r"better.csv#0.*perhaps"):
        prepare(TransferSetConfig.model_validate(about | better), tmp_path / "wrong")
