"""`collegium review`: images without a label that detectors differ over most leave, with their boxes, for a person to look at."""

import csv
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from teachers.errors import RecipeError
from teachers.labelling.boxes_out import Wanted
from teachers.labelling.review import review
from teachers.soft_targets.combine.dispute import in_dispute
from teachers.soft_targets.reader import SoftTargets

from .test_boxes_out import an_out, answered, photos


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("out")
    return folder, an_out(folder, root, labelled=4)


def expected(out, prepared):
    """(id, boxes in dispute) of every image without a label that somebody knows, the most first."""
    found = []
    for segment in prepared.segments:
        said = [SoftTargets.open(out / "soft_targets" / f"{who}-{segment.name}").said() for who in ("near", "far")]
        unknown = torch.stack(said).isnan().all(2).all(0)
        for row, dispute in enumerate(in_dispute(said).tolist()):
            if not prepared.labelled(segment)[row] and not unknown[row]:
                found.append((prepared.ids(segment)[row].as_py(), dispute))
    return sorted(found, key=lambda each: -each[1])


def test_the_images_that_are_most_in_dispute_leave(out, root, tmp_path):
    folder, prepared = out
    written = review(answered(folder), tmp_path / "look", Wanted("coco", root=root), 5)
    assert written.images == 5
    with (tmp_path / "look" / "in_dispute.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [float(each["in_dispute"]) for each in listed] == pytest.approx([each for _, each in expected(folder, prepared)[:5]], abs=6e-4)  # fmt: skip
    assert len([*(tmp_path / "look" / "yolo" / "labels").rglob("*.txt")]) == 5
    assert len([path for path in (tmp_path / "look" / "yolo" / "images").rglob("*") if path.is_file()]) == 5
    documents = [json.loads(path.read_text()) for path in (tmp_path / "look" / "coco" / "annotations").glob("*.json")]
    assert sum(len(each["images"]) for each in documents) == 5


def test_an_image_with_a_label_is_not_looked_at_again(out, root, tmp_path):
    folder, prepared = out
    written = review(answered(folder), tmp_path / "look", Wanted("coco", root=root), 1000)
    document = json.loads((tmp_path / "look" / "coco" / "annotations" / "train.json").read_text())
    lines = [path.read_text().splitlines() for path in (tmp_path / "look" / "yolo" / "labels").rglob("*.txt")]
    assert len(document["annotations"]) == sum(map(len, lines)) == written.boxes > 0
    assert written.images == len(expected(folder, prepared)) < sum(each.num_rows for each in prepared.segments)


def test_the_command_tells_what_it_wrote(out, tmp_path):
    done = CliRunner().invoke(collegium, ["review", str(out[0]), str(tmp_path / "look"), "--images", "3"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("wrote 3 images with ")
    again = CliRunner().invoke(collegium, ["review", str(out[0]), str(tmp_path / "look")])
    assert isinstance(again.exception, RecipeError) and "is there already" in str(again.exception)


def test_what_cannot_be_looked_at_is_said_in_a_line(out, root, tmp_path):
    segments = answered(out[0])
    with pytest.raises(RecipeError, match="'near' alone differs from nobody"):
        review(segments, tmp_path / "look", Wanted("coco", teachers=["near"]), 3)
    with pytest.raises(RecipeError, match="no rule 'mean'"):
        review(segments, tmp_path / "look", Wanted("coco", rule="mean"), 3)
    an_out(tmp_path / "labelled", root)
    with pytest.raises(RecipeError, match="every image here has a label"):
        review(answered(tmp_path / "labelled"), tmp_path / "look", Wanted("coco"), 3)
    assert not [*tmp_path.glob("look*")] and not [*tmp_path.glob(".draft*")]


def test_a_class_that_a_teacher_was_not_asked_for_is_in_no_dispute():
    said = [torch.tensor([[0.1, 0.1, 0.4, 0.4, 0.8, 1.0]]), torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, -1.0]])]
    assert in_dispute(said).tolist() == pytest.approx([0.4])
    assert in_dispute(said, torch.tensor([[True, True], [True, False]])).tolist() == pytest.approx([0.0], abs=1e-6)
    assert np.isclose(in_dispute(said[:1]).item(), 0.0, atol=1e-6)
