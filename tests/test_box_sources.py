"""COCO, VOC and YOLO: the same boxes whichever file says them, upright ones; what is no box is a bad row that names its place."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing.look import source_digest
from teachers.preparing.prepare import prepare
from teachers.sources import chunks_of, class_names, files_of, positions_of, read, schema_of
from teachers.transfer_set.images import decode_image

BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd" / "BCCD"
SIZES = {"a": (40, 30), "b": (64, 48), "c": (20, 20)}
BOXES = {
    "a": [("cat", 4.0, 3.0, 20.0, 15.0), ("dog", 10.0, 10.0, 40.0, 30.0)],
    "b": [("dog", 0.0, 0.0, 64.0, 48.0)],
    "c": [],
}
NAMES = ["cat", "dog", "eel"]
KINDS = ["coco", "voc", "yolo"]


def photo(path: Path, size: tuple[int, int], orientation: int = 1, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.default_rng([seed, *size]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif if orientation != 1 else None)


def config(kind: str, path: Path, **changes) -> TransferSetConfig:
    source = {"kind": kind, "path": str(path)} | changes.pop("source", {})
    given = {"source": source, "inputs": "image", "label": "boxes", "image_size": 8}
    return TransferSetConfig.model_validate(given | changes)


def rows(given: TransferSetConfig, columns: list[str] | None = None) -> tuple[list[dict], dict[str, str]]:
    """(rows of the source, why others are bad by where they stand)."""
    found, bad = [], {}
    for chunk in chunks_of(files_of(given), 2):
        for batch in read(chunk, columns or ["image", "boxes", "file", "folder"], 2):
            found += batch.data.to_pylist()
            bad |= dict(batch.bad)
    return found, bad


def boxes_of(row: dict) -> list[tuple] | None:
    if row["boxes"] is None:
        return None
    return [(each["class"], each["x1"], each["y1"], each["x2"], each["y2"]) for each in row["boxes"]]


def by_stem(found: list[dict]) -> dict[str, list[tuple] | None]:
    return {Path(row["file"]).stem: boxes_of(row) for row in found}


def coco_document(boxes=BOXES, sizes=SIZES) -> dict:
    """With ids in an order of their own."""
    images = [
        {"id": 7 * at + 3, "file_name": f"{name}.png", "width": size[0], "height": size[1]}
        for at, (name, size) in enumerate(sizes.items())
    ]
    annotations = [
        {
            "id": 100 * image + at,
            "image_id": 7 * image + 3,
            "category_id": 10 + NAMES.index(name),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": 0,
            "segmentation": [[1, 2, 3, 4, 5, 6]],
        }
        for image, of_image in enumerate(boxes.values())
        for at, (name, x1, y1, x2, y2) in enumerate(of_image)
    ]
    categories = [{"id": 10 + at, "name": name} for at, name in reversed(list(enumerate(NAMES)))]
    return {"images": images, "annotations": annotations[::-1], "categories": categories}


def coco(root: Path, document: dict | None = None, at: str = "annotations.json") -> Path:
    document = coco_document() if document is None else document
    (root / at).parent.mkdir(parents=True, exist_ok=True)
    (root / at).write_text(json.dumps(document))
    for name, size in SIZES.items():
        photo(root / f"{name}.png", size)
    return root


def xml(name: str, boxes=BOXES, sizes=SIZES, extra: str = "") -> str:
    width, height = sizes[name]
    objects = "".join(
        f"<object>\n<name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1:g}</xmin><ymin>{y1:g}</ymin>"
        f"<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox><part><name>tail</name><bndbox><xmin>1</xmin></bndbox></part></object>\n"
        for label, x1, y1, x2, y2 in boxes[name]
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>elsewhere.jpg</filename>{size}\n{objects}{extra}</annotation>\n"


def voc(root: Path, texts: dict[str, str] | None = None) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for name, size in SIZES.items():
        photo(root / "JPEGImages" / f"{name}.png", size)
        (root / "Annotations" / f"{name}.xml").write_text((texts or {}).get(name, xml(name)))
    return root


def lines(name: str) -> str:
    width, height = SIZES[name]
    return "".join(
        f"{NAMES.index(label)} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} {(x2 - x1) / width!r} {(y2 - y1) / height!r}\n"
        for label, x1, y1, x2, y2 in BOXES[name]
    )


def yolo(root: Path, texts: dict[str, str] | None = None, **document) -> Path:
    (root / "labels/train").mkdir(parents=True)
    for name, size in SIZES.items():
        photo(root / f"images/train/{name}.png", size)
        if text := (texts or {}).get(name, lines(name)):
            (root / f"labels/train/{name}.txt").write_text(text)
    (root / "data.yaml").write_text(yaml.safe_dump({"names": NAMES, "train": "images/train"} | document))
    return root


WRITE = {"coco": coco, "voc": voc, "yolo": yolo}


# ---- the same boxes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_says_the_same_boxes(tmp_path, kind):
    given = config(kind, WRITE[kind](tmp_path / "data"))
    found, bad = rows(given)
    assert not bad and len(found) == 3
    for name, expected in BOXES.items():
        mine = by_stem(found)[name]
        assert [each[0] for each in sorted(mine)] == [each[0] for each in sorted(expected)]
        assert np.allclose([each[1:] for each in sorted(mine)], [each[1:] for each in sorted(expected)], atol=1e-9)
    places = [place for chunk in chunks_of(files_of(given), 2) for place in positions_of(chunk)]
    assert places == [f"{row['file']}#0" for row in found]
    assert [row["image"] == {"bytes": None, "path": row["file"]} for row in found] == [True] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_images_become_rows_like_those_of_a_folder(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    seed = {"coco": 6, "voc": 2, "yolo": 1}[kind]  # by which each of three rows is in a split of its own
    split = {"validation": 0.3, "test": 0.3, "seed": seed}
    given = config(kind, root, label=None, classes=NAMES, id="file", split=split)
    prepared = prepare(given, tmp_path / "out", chunk_rows=2)
    for segment in prepared.segments:
        for name, pixels in zip(prepared.ids(segment).to_pylist(), prepared.inputs(segment)["image"], strict=True):
            shown = Image.open(root / name).resize((8, 8), Image.Resampling.BILINEAR)
            assert np.array_equal(pixels, np.asarray(shown))


def test_classes_are_known_where_the_files_say_them(tmp_path):
    for kind, expected in (("coco", NAMES), ("yolo", NAMES), ("voc", None)):
        files = files_of(config(kind, WRITE[kind](tmp_path / kind)))
        assert [names for _, names in class_names(files, "boxes")] == [expected]


@pytest.mark.skipif(not BCCD.is_dir(), reason="needs the folder of shared data")
def test_blood_cells_are_read_as_another_reader_of_xml_reads_them():
    given = config("voc", BCCD, split={"files": {"train": "train", "validation": "val", "test": "test"}})
    assert [file.split for file in files_of(given)] == ["train", "validation", "test"]
    found, bad = rows(given)
    assert len(found) == 362 and sorted(bad) == [
        "JPEGImages/BloodImage_00338.jpg#0",
        "JPEGImages/BloodImage_00343.jpg#0",
    ]
    assert bad["JPEGImages/BloodImage_00343.jpg#0"].startswith("Annotations/BloodImage_00343.xml, line ")
    assert "181, 329, 181, 329 has no area" in bad["JPEGImages/BloodImage_00343.jpg#0"]
    for row in found:
        tree = ElementTree.parse(BCCD / "Annotations" / (Path(row["file"]).stem + ".xml"))
        expected = [
            (each.findtext("name"), *(float(each.findtext(f"bndbox/{at}")) for at in ("xmin", "ymin", "xmax", "ymax")))
            for each in tree.iter("object")
        ]
        assert boxes_of(row) == expected


# ---- which way is up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("of", ["stored", "shown"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_box_lies_on_the_same_pixels_of_the_upright_image(tmp_path, kind, of, orientation):
    stored = np.zeros((30, 40, 3), np.uint8)
    stored[4:12, 6:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(stored).save(sink, "PNG", exif=exif)
    upright = decode_image(sink.getvalue())
    seen = np.argwhere(upright[..., 0] == 255)
    (y1, x1), (y2, x2) = seen.min(0), seen.max(0) + 1
    height, width = (30, 40) if of == "stored" else upright.shape[:2]
    corners = (6.0, 4.0, 30.0, 12.0) if of == "stored" else tuple(map(float, (x1, y1, x2, y2)))
    boxes, sizes = {"a": [("cat", *corners)]}, {"a": (width, height)}
    root, tells = tmp_path / "data", {} if orientation in (1, 5, 6, 7, 8) and kind != "yolo" else {"orientation": of}
    if kind == "coco":
        path = root / "a.png"
        coco(root, coco_document(boxes, sizes))
    elif kind == "voc":
        path = root / "JPEGImages/a.png"
        voc(root, {"a": xml("a", boxes, sizes)})
    else:
        path = root / "images/train/a.png"
        a, b, c, d = corners
        yolo(root, {"a": f"0 {(a + c) / 2 / width} {(b + d) / 2 / height} {(c - a) / width} {(d - b) / height}"})
    path.write_bytes(sink.getvalue())
    found, bad = rows(config(kind, root, source=tells))
    assert not any("a.png" in place for place in bad)
    assert np.allclose(by_stem(found)["a"][0][1:], (x1, y1, x2, y2), atol=1e-4)


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_sizes_that_no_turn_explains_or_that_tell_nothing_are_asked_about(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    folder = root / ("JPEGImages" if kind == "voc" else ".")
    photo(folder / "a.png", (41, 30))
    photo(folder / "c.png", (20, 20), orientation=3)
    _, bad = rows(config(kind, root))
    told = {Path(place).stem: reason for place, reason in bad.items()}
    assert told["a"].startswith("its annotation is of 40 x 30 pixels, the image has 41 x 30")
    assert "(orientation 3)" in told["c"] and "`orientation: stored`" in told["c"]
    assert [*rows(config(kind, root, source={"orientation": "shown"}))[1]] == [next(iter(bad))]


# ---- what an image without boxes is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_looked_is_another_thing_than_nothing_there(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    if kind == "voc":
        (root / "Annotations/c.xml").unlink()
    said = {
        each: by_stem(rows(config(kind, root, source={"unannotated": each}))[0])["c"]
        for each in ("empty", "unlabelled")
    }
    assert said == {"empty": [], "unlabelled": None}
    by_default = by_stem(rows(config(kind, root))[0])["c"]
    assert by_default == (None if kind == "voc" else [])


def test_a_coco_file_without_annotations_has_no_labels(tmp_path):
    document = coco_document()
    del document["annotations"]
    assert set(by_stem(rows(config("coco", coco(tmp_path / "data", document)))[0]).values()) == {None}


def test_difficult_boxes_are_what_the_recipe_says(tmp_path):
    text = xml("a").replace("<difficult>0", "<difficult>1", 1)
    root = voc(tmp_path / "data", {"a": text})
    found = {
        each: [
            (box["class"], box["crowd"]) for box in rows(config("voc", root, source={"difficult": each}))[0][0]["boxes"]
        ]
        for each in ("ignore", "keep", "drop")
    }
    assert found == {
        "ignore": [("cat", True), ("dog", False)],
        "keep": [("cat", False), ("dog", False)],
        "drop": [("dog", False)],
    }


def test_a_region_of_many_is_no_single_box(tmp_path):
    document = coco_document()
    document["annotations"][0]["iscrowd"] = 1
    found, _ = rows(config("coco", coco(tmp_path / "data", document)))
    assert [box["crowd"] for row in found for box in row["boxes"]].count(True) == 1


def test_pixels_that_count_from_one_include_their_last(tmp_path):
    root = voc(tmp_path / "data", {"a": xml("a", {"a": [("cat", 1, 1, 40, 30)]})})
    assert by_stem(rows(config("voc", root, source={"first_pixel": 1}))[0])["a"] == [("cat", 0, 0, 40, 30)]


def test_a_polygon_of_yolo_counts_by_its_bounds(tmp_path):
    root = yolo(tmp_path / "data", {"a": "2 0.5 0.25 0.75 0.5 0.25 0.75\n"})
    assert by_stem(rows(config("yolo", root))[0])["a"] == [("eel", 10, 7.5, 30, 22.5)]


# ---- bad rows and their places ----------------------------------------------------------------------------------------

BAD_BOXES = {
    "no area": (4, 3, 4, 15),
    "outside": (4, 3, 42, 15),
    "before": (-1.5, 3, 20, 15),
    "backwards": (20, 3, 4, 15),
}


@pytest.mark.parametrize("wrong", BAD_BOXES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_box_is_named_with_its_place(tmp_path, kind, wrong):
    x1, y1, x2, y2 = BAD_BOXES[wrong]
    boxes = BOXES | {"a": [BOXES["a"][0], ("dog", x1, y1, x2, y2)]}
    root = tmp_path / "data"
    if kind == "coco":
        coco(root, coco_document(boxes))
    elif kind == "voc":
        voc(root, {"a": xml("a", boxes)})
    else:
        line = f"1 {(x1 + x2) / 2 / 40} {(y1 + y2) / 2 / 30} {(x2 - x1) / 40} {(y2 - y1) / 30}"
        yolo(root, {"a": lines("a").splitlines()[0] + "\n" + line})
    found, bad = rows(config(kind, root))
    ((place, reason),) = bad.items()
    assert sorted(by_stem(found)) == ["b", "c"] and place.endswith("a.png#0")
    named = {"coco": "annotation 1:", "voc": "Annotations/a.xml, line 5:", "yolo": "labels/train/a.txt, line 2:"}[kind]
    what = "reaches beyond the image, 40 x 30" if wrong in ("outside", "before") else "has no area"
    assert reason.startswith(named) and what in reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_cut_where_rounding_takes_it_over_the_edge(tmp_path, kind):
    boxes = BOXES | {"a": [("cat", -0.5, 3, 40.75, 15)]}
    root = tmp_path / "data"
    if kind == "yolo":
        yolo(root, {"a": f"0 {(-0.5 + 40.75) / 2 / 40} 0.3 {41.25 / 40} 0.4"})
    else:
        WRITE[kind](root, coco_document(boxes) if kind == "coco" else {"a": xml("a", boxes)})
    ((_, *corners),) = by_stem(rows(config(kind, root))[0])["a"]
    assert np.allclose(corners, (0, 3, 40, 15))


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_that_is_there_twice_names_both(tmp_path, kind):
    boxes = BOXES | {"a": [*BOXES["a"], BOXES["a"][0]]}
    root = tmp_path / "data"
    if kind == "yolo":
        yolo(root, {"a": lines("a") + lines("a").splitlines()[0]})
    else:
        WRITE[kind](root, coco_document(boxes) if kind == "coco" else {"a": xml("a", boxes)})
    ((place, reason),) = rows(config(kind, root))[1].items()
    assert place.endswith("a.png#0") and "the same box as" in reason
    assert ("annotation 2" in reason and "annotation 0" in reason) or ("line " in reason and reason.count("a.") == 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3 .5 .5 .1 .1", "class 3, and `names` has 0 to 2"),
        ("-1 .5 .5 .1 .1", "class -1"),
        ("0.5 .5 .5 .1 .1", "class 0.5"),
        ("0 .5 .5 .1", "4 numbers"),
        ("0 .5 .5 .1 .1 .9", "a score"),
        ("cat .5 .5 .1 .1", "expected `class x y width height`"),
        ("0 nan .5 .1 .1", "not finite"),
        ("0 .5 .5 .1 .1 .2 .3 .4", "8 numbers"),
    ],
)
def test_lines_of_yolo_that_are_no_boxes(tmp_path, line, reason):
    ((place, told),) = rows(config("yolo", yolo(tmp_path / "data", {"a": line})))[1].items()
    assert place == "images/train/a.png#0" and told.startswith("labels/train/a.txt, line 1: ") and reason in told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [1, 2, 3]}, "bbox is [1, 2, 3]"),
        ({"bbox": None}, "bbox is None"),
        ({"bbox": [1, 2, float("nan"), 3]}, "not finite"),
        ({"category_id": 99}, "category_id 99 is none of `categories`"),
        ({"category_id": [1]}, "category_id [1]"),
    ],
)
def test_annotations_of_coco_that_are_no_boxes(tmp_path, changes, reason):
    document = coco_document()
    document["annotations"][-1] |= changes  # the first of image a
    ((place, told),) = rows(config("coco", coco(tmp_path / "data", document)))[1].items()
    assert place == "a.png#0" and told.startswith("annotation 0: ") and reason in told


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (xml("a").replace("<xmin>4</xmin>", "", 1), "line 3: the object has no xmin"),
        (xml("a").replace("<xmin>4<", "<xmin>four<", 1), "line 3: the object has 'four', '3', '20', '15'"),
        (xml("a").replace("<name>cat<", "<name><", 1), "line 3: the object has no name"),
        ("<annotation>\n<object>", "line 2: no XML"),
        ("<html>\n</html>", "line 1: is <html>, expected <annotation>"),
        ('<!DOCTYPE a [<!ENTITY b "ha">\n<!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>', "declares an entity"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>', "declares an entity"),
    ],
)
def test_xml_that_is_no_annotation(tmp_path, text, reason):
    ((place, told),) = rows(config("voc", voc(tmp_path / "data", {"a": text})))[1].items()
    assert place == "JPEGImages/a.png#0" and told.startswith("Annotations/a.xml: ") and reason in told


def test_a_reason_is_one_line_and_says_how_many_more(tmp_path):
    boxes = BOXES | {"a": [("cat", 4, 3, 4, 15), ("cat", 5, 3, 5, 15), ("dog", 6, 3, 6, 15)]}
    (told,) = rows(config("coco", coco(tmp_path / "data", coco_document(boxes))))[1].values()
    assert told.endswith("has no area, and so 2 more") and "\n" not in told


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_image_is_a_bad_row(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    if kind == "yolo":
        (root / "train.txt").write_text("./images/train/a.png\n./images/train/gone.png\n")
        (root / "data.yaml").write_text(yaml.safe_dump({"names": NAMES, "train": "train.txt"}))
        place, reason = "images/train/gone.png#0", "the image 'images/train/gone.png' is missing"
    else:
        path = root / ("JPEGImages/b.png" if kind == "voc" else "b.png")
        path.unlink()
        place, reason = (
            ("Annotations/b.xml#0", "there is no image JPEGImages/b.*") if kind == "voc" else ("b.png#0", "is missing")
        )
    bad = rows(config(kind, root))[1]
    assert [*bad] == [place] and reason in bad[place]


def test_annotations_of_no_image_are_bad_rows_of_their_file(tmp_path):
    document = coco_document()
    document["annotations"].append({"id": 55, "image_id": 4, "category_id": 10, "bbox": [1, 1, 2, 2]})
    assert rows(config("coco", coco(tmp_path / "coco", document)))[1] == {
        "annotations.json#3": "annotation 55: image_id 4 is none of `images`"
    }
    root = yolo(tmp_path / "yolo")
    (root / "labels/train/z.txt").write_text("0 .5 .5 .1 .1")
    (root / "labels/train/classes.txt").write_text("cat\n")
    assert rows(config("yolo", root))[1] == {
        "labels/train/z.txt#0": "no image of this name, or none that is PNG, JPEG, GIF or WebP"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_links_that_leave_the_folder_are_bad_rows(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    outside = tmp_path / "outside.png"
    photo(outside, SIZES["a"])
    path = root / {"coco": "a.png", "voc": "JPEGImages/a.png", "yolo": "images/train/a.png"}[kind]
    path.unlink()
    path.symlink_to(outside)
    (told,) = rows(config(kind, root))[1].values()
    assert "leaves the source's folder" in told
    if kind != "coco":
        path.unlink()
        photo(path, SIZES["a"])
        notes = root / {"voc": "Annotations/a.xml", "yolo": "labels/train/a.txt"}[kind]
        notes.rename(tmp_path / "notes")
        notes.symlink_to(tmp_path / "notes")
        (told,) = rows(config(kind, root))[1].values()
        assert "leaves the source's folder" in told and notes.name in told


def test_names_in_files_that_leave_the_folder_are_bad_rows(tmp_path):
    photo(tmp_path / "outside.png", (40, 30))
    document = coco_document()
    document["images"][0]["file_name"] = "../outside.png"
    (told,) = rows(config("coco", coco(tmp_path / "coco", document)))[1].values()
    assert "leaves the source's folder" in told
    root = yolo(tmp_path / "yolo")
    (root / "list.txt").write_text(
        f"./images/train/a.png\n../outside.png\n{tmp_path}/outside.png\n{root}/images/train/b.png\n"
    )
    (root / "data.yaml").write_text(yaml.safe_dump({"names": NAMES, "train": "list.txt"}))
    found, bad = rows(config("yolo", root))
    assert [row["file"] for row in found] == ["images/train/a.png", "images/train/b.png"]
    assert len(bad) == 2 and all("leaves the source's folder" in told for told in bad.values())


def test_ten_thousand_boxes_of_an_image_are_read(tmp_path):
    random = np.random.default_rng(0)
    x1, y1 = random.uniform(0, 30, 10_000), random.uniform(0, 20, 10_000)
    boxes = BOXES | {"a": [("cat", x, y, x + 1, y + 1) for x, y in zip(x1.tolist(), y1.tolist(), strict=True)]}
    found, bad = rows(config("coco", coco(tmp_path / "data", coco_document(boxes))))
    assert not bad and len(by_stem(found)["a"]) == 10_000


# ---- files, folders, splits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_format_s_own_splits(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    if kind == "coco":
        whole = coco_document()
        for name, ids in (("train", [3, 10]), ("test", [17])):
            images = [each for each in whole["images"] if each["id"] in ids]
            notes = [each for each in whole["annotations"] if each["image_id"] in ids]
            (root / f"{name}.json").write_text(json.dumps(whole | {"images": images, "annotations": notes}))
        files = {"train": "train.json", "test": "test.json"}
    else:
        lists = root / ("ImageSets/Main" if kind == "voc" else ".")
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "train.txt").write_text("a 1\nb -1\n" if kind == "voc" else "images/train/a.png\nimages/train/b.png\n")
        (lists / "test.txt").write_text("c\n" if kind == "voc" else "images/train/c.png\n")
        if kind == "yolo":
            (root / "data.yaml").write_text(yaml.safe_dump({"names": NAMES, "train": ["train.txt"], "val": "test.txt"}))
        files = {"train": "train", "test": "val" if kind == "yolo" else "test"}
    found = files_of(config(kind, root, split={"files": files}))
    assert [file.split for file in found] == ["train", "test"]
    stems = {file.split: [Path(name).stem for chunk in chunks_of([file], 9) for name in chunk.units] for file in found}
    assert stems == {"train": ["a", "b"], "test": ["c"]}
    with pytest.raises(RecipeError, match=r"split\.files\.test"):
        files_of(config(kind, root, split={"files": files | {"test": "nowhere"}}))


def test_columns_of_cocos_images_group_rows(tmp_path):
    document = coco_document()
    for entry, video in zip(document["images"], (5, 5, 6), strict=True):
        entry |= {"video_id": video, "licence": {"not": "plain"}, "place": "lab" if video == 6 else 3}
    given = config("coco", coco(tmp_path / "data", document))
    schema = schema_of(files_of(given))
    assert schema.field("video_id").type == pa.int64() and schema.field("place").type == pa.string()
    assert "licence" not in schema.names
    found, _ = rows(given, ["file", "video_id", "place", "id"])
    assert [(row["video_id"], row["place"], row["id"]) for row in found] == [(5, "3", 3), (5, "3", 10), (6, "lab", 17)]
    split = {"group_by": "video_id", "validation": 0.01, "test": 0.4, "seed": 1}
    with pytest.raises(DataError):  # two groups cannot be three splits
        prepare(config("coco", tmp_path / "data", label=None, classes=NAMES, split=split), tmp_path / "out")


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_default.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("result.json", "images"),
    ],
)
def test_images_of_coco_are_found_where_programs_put_them(tmp_path, annotations, images):
    coco(tmp_path / "data" / images, at="x.json")
    (tmp_path / "data" / images / "x.json").unlink()
    (tmp_path / "data" / annotations).parent.mkdir(exist_ok=True)
    (tmp_path / "data" / annotations).write_text(json.dumps(coco_document()))
    found, bad = rows(config("coco", tmp_path / "data"))
    assert not bad and [row["file"] for row in found] == [f"{images}/{name}.png" for name in "abc"]
    assert {row["folder"] for row in found} == {images}


def test_a_json_file_by_itself_is_a_source(tmp_path):
    found, bad = rows(config("coco", coco(tmp_path / "data") / "annotations.json"))
    assert not bad and len(found) == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: [], "a JSON list, expected COCO's object"),
        (lambda found: found | {"categories": []}, "has annotations and no `categories`"),
        (
            lambda found: found | {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]},
            "'cat'.* is there twice",
        ),
        (lambda found: found | {"images": [{"id": 3}]}, "image 0 .* has no `file_name`"),
        (lambda found: found | {"images": found["images"] + found["images"][:1]}, "two images are the file 'a.png'"),
        (lambda found: found | {"images": [each | {"id": 3} for each in found["images"]]}, "two images have the id 3"),
        (lambda found: found | {"images": []}, "has no `images`"),
        (
            lambda found: (
                found | {"images": [each | {"file_name": f"x/{each['file_name']}"} for each in found["images"]]}
            ),
            r"'x/a\.png' is in none of the folders .*`transfer_set\.source\.images`",
        ),
    ],
)
def test_a_file_that_is_not_cocos_is_refused(tmp_path, change, told):
    given = config("coco", coco(tmp_path / "data", change(coco_document())))
    with pytest.raises(DataError, match=told):
        chunks_of(files_of(given), 9)


def test_a_damaged_json_file_is_refused(tmp_path):
    root = coco(tmp_path / "data")
    (root / "annotations.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"annotations\.json: cannot be read as coco"):
        chunks_of(files_of(config("coco", root)), 9)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"names": None}, "`names` is None"),
        ({"names": {1: "cat"}}, "one by each number from 0"),
        ({"train": "../elsewhere"}, "no '../elsewhere' inside"),
        ({"train": 5}, "`train` is 5"),
        ({"train": None}, "has none of train, val, test"),
    ],
)
def test_a_yaml_file_that_is_not_yolos_is_refused(tmp_path, document, told):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises((DataError, RecipeError), match=told):
        files_of(config("yolo", yolo(tmp_path / "data", **document)))


@pytest.mark.parametrize(
    "document",
    [{"path": "."}, {"path": "../datasets/data"}, {"train": "../images/train"}, {"names": dict(enumerate(NAMES))}],
)
def test_paths_of_yolo_are_found_as_programs_write_them(tmp_path, document):
    found, bad = rows(config("yolo", yolo(tmp_path / "data", **document)))
    assert not bad and len(found) == 3


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("coco", {"annotations": "x.json"}, "transfer_set.source.annotations"),
        ("coco", {"images": "../.."}, "transfer_set.source.images.*leaves"),
        ("voc", {"images": "photos"}, "transfer_set.source.images: no such"),
        ("voc", {"annotations": "JPEGImages/a.png"}, "transfer_set.source.annotations: .*is no folder"),
    ],
)
def test_folders_that_are_not_there_are_named_by_their_key(tmp_path, kind, change, told):
    with pytest.raises(RecipeError, match=told):
        files_of(config(kind, WRITE[kind](tmp_path / "data"), source=change))


def test_several_json_files_are_asked_about(tmp_path):
    root = coco(tmp_path / "data")
    (root / "captions.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"holds several JSON files \(annotations\.json, captions\.json\)"):
        files_of(config("coco", root))
    assert len(files_of(config("coco", root, source={"annotations": "annotations.json"}))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_minds_boxes_and_pixels_and_nothing_else(tmp_path, kind):
    root = WRITE[kind](tmp_path / "data")
    given = config(kind, root)
    before = source_digest(given)
    (root / "README.md").write_text("hello")
    (root / "other.bin").write_bytes(b"x")
    assert source_digest(given) == before
    notes = root / {"coco": "annotations.json", "voc": "Annotations/a.xml", "yolo": "labels/train/a.txt"}[kind]
    notes.write_text(notes.read_text() + "\n")
    changed = source_digest(given)
    assert changed != before
    photo(root / {"coco": "a.png", "voc": "JPEGImages/a.png", "yolo": "images/train/a.png"}[kind], SIZES["a"], seed=1)
    assert source_digest(given) not in (before, changed)
