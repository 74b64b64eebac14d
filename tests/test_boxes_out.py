"""`collegium store export --coco | --yolo`: what detectors said leaves as files, and the sources of these kinds read the same boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image, ImageOps

from orchestrator.cli.main import collegium
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError
from teachers.labelling.box_files import usable
from teachers.labelling.boxes_out import Wanted, export_boxes
from teachers.preparing.prepare import prepare
from teachers.soft_targets.combine.rules import COMBINE
from teachers.soft_targets.listing import find_stores
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.sources import chunks_of, files_of, read
from teachers.storage.seal import write_seal
from teachers.tasks.boxes import CLASS, SCORE, boxes_of
from teachers.transfer_set.answers import Answered, answered_segments, of_newest
from teachers.transfer_set.transfer_set import TransferSet

from .shapes import many, said_of_labels

SPLITS = {"train": 0.5, "validation": 0.2, "test": 0.3}
ROWS = 24


def photos(root: Path) -> Path:
    """COCO with images of two folders that are called alike, of which some are turned."""
    table, images, annotations = many(ROWS, seed=2), [], []
    for row, (image, boxes) in enumerate(zip(table["image"].to_pylist(), table["boxes"].to_pylist(), strict=True)):
        path = root / "photos" / f"{row % 2}" / f"{row // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image["bytes"])
        if row == 8:
            exif = Image.Exif()
            exif[0x0112] = 6
            turned = Image.open(path)
            turned.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
        images.append({"id": row, "file_name": f"photos/{row % 2}/{row // 2}.png", "width": 64, "height": 48})
        annotations += [
            {
                "id": 100 * row + at,
                "image_id": row,
                "category_id": ("disc", "square").index(box["class"]),
                "bbox": [box["x1"], box["y1"], box["x2"] - box["x1"], box["y2"] - box["y1"]],
            }
            for at, box in enumerate(boxes)
        ]
    categories = [{"id": number, "name": name} for number, name in enumerate(("disc", "square"))]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "all.json").write_text(json.dumps(document))
    return root


def a_store(out: Path, of: TransferSet, segment, teacher: str, said: np.ndarray, names=None) -> None:
    space = of.space
    about = (
        segment.name,
        segment.digest,
        "dense",
        names or space.names,
        segment.num_rows,
        5,
        "boxes",
        (),
        space.max_boxes,
    )
    store = SoftTargetStore.create(out / "soft_targets" / f"{teacher}-{segment.name}", Spec(teacher, teacher, *about))
    for number in range(store.num_shards):
        first, rows = store.shard_rows(number)
        store.commit(number, of.keys(segment)[first : first + rows], {"boxes": said[first : first + rows]})
    store.seal()


def an_out(out: Path, root: Path, **changes) -> TransferSet:
    """With what two teachers said of every row but the first of each segment, which nobody knows."""
    given = {
        "source": {"kind": "coco", "path": str(root)},
        "inputs": "image",
        "label": "boxes",
        "task": "detection",
        "image_size": 32,
        "max_boxes": 8,
        "split": SPLITS,
    }
    folder = out / "prepared" / "transfer_set-1"
    folder.mkdir(parents=True)
    prepared = prepare(TransferSetConfig.model_validate(given | changes), folder)
    write_seal(folder, prepared.files())
    for segment in prepared.segments:
        labels = prepared.labels(segment)
        for seed, teacher in enumerate(("near", "far")):
            said = said_of_labels(labels, score=0.9 - 0.4 * seed, shift=0.1 * seed, seed=seed, forget=0.2)
            said[0] = np.nan
            a_store(out, prepared, segment, teacher, said)
    return prepared


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("out")
    return folder, an_out(folder, root)


def answered(out: Path) -> list[Answered]:
    return of_newest([*answered_segments(find_stores(out), out / "prepared")])


def read_back(kind: str, folder: Path, split: str) -> dict[str, list[tuple]]:
    """By image: class and corners in 0 to 1, as the source of this kind reads them."""
    own = {"validation": "val"} if kind == "yolo" else {}
    files = {each: own.get(each, each) for each in ("train", "validation", "test")}
    files = {each: f"annotations/{name}.json" if kind == "coco" else name for each, name in files.items()}
    given = {
        "source": {"kind": kind, "path": str(folder)},
        "inputs": "image",
        "label": "boxes",
        "split": {"files": files},
    }
    found = {}
    for file in files_of(TransferSetConfig.model_validate(given)):
        for chunk in chunks_of([file], 7) if file.split == split else []:
            for batch in read(chunk, ["file", "boxes"], 7):
                assert not batch.bad
                for row in batch.data.to_pylist():
                    width, height = Image.open(folder / row["file"]).size
                    found[Path(row["file"]).name] = [
                        (box["class"], box["x1"] / width, box["y1"] / height, box["x2"] / width, box["y2"] / height)
                        for box in row["boxes"]
                    ]
    return found


def together(out: Path, of: TransferSet, split: str, rule: str = "wbf") -> dict[str, np.ndarray]:
    """By id, what both teachers say together."""
    (segment,) = of.of(split)
    said = torch.stack(
        [SoftTargets.open(out / "soft_targets" / f"{name}-{segment.name}").said() for name in ("far", "near")]
    )
    known = ~said.isnan()
    target, _ = COMBINE["boxes"][rule](said.nan_to_num(0.0), temperature=1.0, known=known)
    rows = zip(of.ids(segment).to_pylist(), boxes_of(target.numpy()), known.any(0).any(1).tolist(), strict=True)
    return {name.partition("#")[0]: boxes for name, boxes, is_known in rows if is_known}


def file_of(of: TransferSet, split: str, name: str) -> str:
    """What an image is called there: two folders have images of one name."""
    (segment,) = of.of(split)
    place = of.ids(segment).to_pylist().index(f"{name}#0")
    return f"{Path(name).stem}-{of.keys(segment)[place]:016x}.png"


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_the_sources_of_these_kinds_read_back_the_same_boxes(out, root, tmp_path, kind):
    folder, of = out
    written = export_boxes(answered(folder), tmp_path / "labels", Wanted(kind, keep_above=0.4, root=root))
    assert written.unknown == 3 and written.images == ROWS - 3 and not written.as_prepared
    num_boxes = 0
    for split in SPLITS:
        found, expected = read_back(kind, tmp_path / "labels", split), together(folder, of, split)
        assert len(found) == len(expected)
        for name, boxes in expected.items():
            kept = [box for box in usable(boxes) if box[SCORE] >= 0.4]
            mine = sorted(found[file_of(of, split, name)])
            theirs = sorted((of.classes[int(box[CLASS])], *box[:SCORE].tolist()) for box in kept)
            assert [each[0] for each in mine] == [each[0] for each in theirs]
            assert np.allclose([each[1:] for each in mine], [each[1:] for each in theirs], atol=1e-9)
            num_boxes += len(kept)
    assert written.boxes == num_boxes > 10


def test_images_are_those_of_the_source_and_upright(out, root, tmp_path):
    folder, of = out
    export_boxes(answered(folder), tmp_path / "linked", Wanted("yolo", root=root))
    export_boxes(answered(folder), tmp_path / "copied", Wanted("yolo", root=root, copies=True))
    turned = 0
    for split in SPLITS:
        (segment,) = of.of(split)
        for name in of.ids(segment).to_pylist()[1:]:
            source = root / name.removesuffix("#0")
            linked, copied = (
                tmp_path / each / "images" / split / file_of(of, split, name.removesuffix("#0"))
                for each in ("linked", "copied")
            )
            if name == "photos/0/4.png#0":  # the one that EXIF turns
                turned += 1
                assert Image.open(linked).size == (64, 48) and not Image.open(linked).getexif()
                assert np.array_equal(
                    np.asarray(Image.open(linked)), np.asarray(ImageOps.exif_transpose(Image.open(source)))
                )
            else:
                assert linked.samefile(source) and not copied.samefile(source)
                assert copied.read_bytes() == source.read_bytes()
    assert turned == 1


def test_scores_and_each_teacher_s_boxes_lie_beside_the_labels(out, root, tmp_path):
    folder, of = out
    for kind in ("coco", "yolo"):
        export_boxes(answered(folder), tmp_path / kind, Wanted(kind, root=root))
    (segment,) = of.of("train")
    said = SoftTargets.open(folder / "soft_targets" / f"far-{segment.name}").said().numpy()
    document = json.loads((tmp_path / "coco/said/far/train.json").read_text())
    by_image = {each["id"]: [] for each in document["images"]}
    for each in document["annotations"]:
        by_image[each["image_id"]].append(each)
    assert len(by_image) == segment.num_rows - 1
    for image, boxes in zip(document["images"], boxes_of(said)[1:], strict=True):
        boxes = usable(boxes)
        assert np.allclose([each["score"] for each in by_image[image["id"]]], boxes[:, SCORE], atol=1e-5)
        text = tmp_path / "yolo/said/far/train" / Path(image["file_name"]).with_suffix(".txt").name
        lines = [list(map(float, line.split())) for line in text.read_text().splitlines()]
        assert np.allclose([line[5] for line in lines], boxes[:, SCORE], atol=1e-5)
        assert [int(line[0]) for line in lines] == boxes[:, CLASS].tolist()
    assert (tmp_path / "yolo/said/together").is_dir() and (tmp_path / "coco/said/near/test.json").is_file()


@pytest.mark.parametrize("decode", ["at_prepare", "on_read"])
def test_without_the_source_images_are_what_was_prepared(root, tmp_path, decode):
    of = an_out(tmp_path / "out", root, decode=decode)
    written = export_boxes(answered(tmp_path / "out"), tmp_path / "labels", Wanted("coco"))
    (segment,) = of.of("test")
    (name, *_) = of.ids(segment).to_pylist()[1:]
    found = Image.open(tmp_path / "labels/images/test" / file_of(of, "test", name.removesuffix("#0")))
    if decode == "on_read":  # as it came
        assert not written.as_prepared and found.size == (64, 48)
    else:
        assert written.as_prepared == ROWS - 3 and found.size == (32, 32)
        assert np.array_equal(np.asarray(found), of.inputs(segment)["image"][1])
    assert all(len(read_back("coco", tmp_path / "labels", split)) == of.of(split)[0].num_rows - 1 for split in SPLITS)


def test_what_other_programs_ask_of_data_yaml(out, root, tmp_path):
    export_boxes(answered(out[0]), tmp_path / "labels", Wanted("yolo", root=root))
    document = yaml.safe_load((tmp_path / "labels/data.yaml").read_text())
    assert document == {
        "train": "images/train",
        "val": "images/validation",
        "test": "images/test",
        "names": {0: "disc", 1: "square"},
    }
    images = {path.stem for path in (tmp_path / "labels/images/train").iterdir()}
    assert images == {path.stem for path in (tmp_path / "labels/labels/train").iterdir()}


def test_what_is_no_box_to_who_reads_it_is_left_out():
    boxes = np.array(
        [
            [0.1, 0.1, 0.5, 0.5, 0.4, 0],
            [-0.2, 0.1, 0.5, 1.2, 0.9, 0],
            [0.3, 0.3, 0.3, 0.6, 0.8, 0],
            [0.1, 0.1, 0.5, 0.5, 0.6, 0],
            [0.1, 0.1, 0.5, 0.5, 0.3, 1],
            [0.0, 0.0, 0.0, 0.0, 0.0, -1],
        ],
        np.float32,
    )
    assert np.allclose(
        usable(boxes),
        [[0, 0.1, 0.5, 1, 0.9, 0], [0.1, 0.1, 0.5, 0.5, 0.6, 0], [0.1, 0.1, 0.5, 0.5, 0.3, 1]],
    )


def ask(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(collegium, ["store", "export", *map(str, arguments)])
    return done.exit_code, done.output + str(done.exception or "")


def test_the_command_tells_what_it_wrote_and_what_it_left_out(out, tmp_path):
    code, told = ask(out[0], "--yolo", tmp_path / "labels", "--keep-above", "0.5", "--teachers", "near")
    assert code == 0 and "images with" in told and "a score of 0.5 or more" in told
    assert "3 images that no teacher knows are left out" in told and "written as they were prepared" in told
    assert sorted(path.name for path in (tmp_path / "labels/said").iterdir()) == ["near", "together"]
    code, told = ask(out[0], "--yolo", tmp_path / "labels")
    assert code and "is there already" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say what to write"),
        (["--coco", "a", "--yolo", "b"], "say what to write"),
        (["--coco", "a", "--teachers", "nobody"], "nobody called 'nobody' has labelled here; there are"),
        (["--coco", "a", "--combine", "vote"], "no rule 'vote'; there are wbf"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_line(out, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, found = ask(out[0], *arguments)
    assert code and told in found and not (tmp_path / "a").exists()


def test_stores_that_hold_no_boxes_are_refused(tmp_path):
    given = {"source": {"kind": "sklearn", "name": "iris"}, "inputs": "features", "label": "target"}
    folder = tmp_path / "prepared" / "transfer_set-1"
    folder.mkdir(parents=True)
    prepared = prepare(TransferSetConfig.model_validate(given), folder)
    write_seal(folder, prepared.files())
    (segment,) = prepared.of("test")
    spec = Spec("wide", "d", segment.name, segment.digest, "dense", prepared.classes, segment.num_rows, 500)
    store = SoftTargetStore.create(tmp_path / "soft_targets" / "wide-1", spec)
    store.commit(0, prepared.keys(segment), {"logits": np.zeros((segment.num_rows, 3), np.float32)})
    store.seal()
    with pytest.raises(RecipeError, match="boxes are what `task: detection` has; these stores are of `classification`"):
        export_boxes(answered(tmp_path), tmp_path / "labels", Wanted("coco"))
