"""Images that stay encoded: what is read of them is what would have been prepared, in any order, by anybody."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from orchestrator.recipe.model import Recipe
from students.delivering.source import rows_of
from students.fitting.fit import fit
from students.measuring.labelled import Labelled, ask
from students.runs.session import PlainSession
from teachers.config.preprocess import Preprocess
from teachers.config.teacher import CheckpointTeacher
from teachers.errors import DataError, RecipeError, StoreError
from teachers.models.adapters import load_teacher
from teachers.models.folder import load_model
from teachers.models.preprocess import Preprocessor
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.preparing.sample import as_transfer_set, sample, sample_prepared
from teachers.rows.epoch import EpochReader
from teachers.transfer_set.images import Resize
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from .test_sources import config, encoded, hugging_face
from .training_runs import make_run, make_store, source

ROWS = 48
SIZED = {"image_size": 12}


def photos(rows: int = ROWS, first: int = 0) -> list[bytes]:
    """JPEG and PNG of many sizes, some turned by their EXIF data."""
    found = []
    for row in range(first, first + rows):
        random = np.random.default_rng(row)
        height, width = random.integers(8, 60, 2)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = row % 8 + 1
        found.append(encoded(pixels, "PNG", exif=exif) if row % 3 else encoded(pixels, "JPEG", exif=exif, quality=90))
    return found


def table(path: Path, payloads: list[bytes]) -> Path:
    images = [{"bytes": payload, "path": None} for payload in payloads]
    pq.write_table(
        hugging_face(images, [row % 3 for row in range(len(images))], ["a", "b", "c"]), path, row_group_size=9
    )
    return path


def both(tmp_path: Path, payloads: list[bytes] | None = None, **changes) -> tuple[TransferSet, TransferSet]:
    """(decoded when it is prepared, decoded when it is read) of the same rows."""
    tmp_path.mkdir(exist_ok=True)
    path = table(tmp_path / "data.parquet", photos() if payloads is None else payloads)
    return tuple(
        prepare(config("parquet", path, decode=decode, **SIZED | changes), tmp_path / decode, chunk_rows=10)
        for decode in ("at_prepare", "on_read")
    )


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
def test_pixels_are_those_that_would_have_been_prepared(tmp_path, fit, resample):
    prepared, kept = both(tmp_path, fit=fit, resample=resample)
    assert kept.columns[0].encoded and not prepared.columns[0].encoded
    assert kept.columns[0].mean == prepared.columns[0].mean and kept.columns[0].std == prepared.columns[0].std
    for mine, theirs in zip(kept.segments, prepared.segments, strict=True):
        assert kept.ids(mine) == prepared.ids(theirs)
        found = kept.inputs(mine)["image"]
        assert found.dtype == np.uint8 and np.array_equal(found, prepared.inputs(theirs)["image"])
        rows = np.arange(0, mine.num_rows, 2)
        assert np.array_equal(kept.chosen(mine, rows)["image"], found[rows])
        assert np.array_equal(kept.inputs(mine, 1, 2)["image"], found[1:3])
    assert TransferSet.open(kept.folder) == kept


def test_what_lies_on_the_disk_is_what_came(tmp_path):
    payloads = photos()
    _, kept = both(tmp_path, payloads)
    stored = [row for segment in kept.segments for row in kept.inputs(segment, as_stored=True)["image"]]
    assert sorted(stored) == sorted(payloads)
    assert json.loads((kept.folder / "transfer_set.json").read_bytes())["format"] == 7


@pytest.mark.parametrize("memory", [2**30, 20_000])
def test_epochs_have_the_same_batches_from_memory_and_from_files(tmp_path, memory):
    prepared, kept = both(tmp_path)
    batches = []
    for found in (prepared, kept):
        columns = MergedSplit(found, "train").inputs()
        reader = EpochReader(columns, batch_size=8, seed=3, window=16, memory_bytes=memory, device="cpu")
        batches.append([batch["image"] for epoch in range(2) for batch in reader.batches(epoch)])
    assert len(batches[0]) == len(batches[1]) > 4
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_a_set_that_grew_is_read_in_the_order_of_keys(tmp_path):
    path = table(tmp_path / "data.parquet", photos(30))
    given = config("parquet", path, decode="on_read", id="key", **SIZED)
    grown = {}
    for rows in (30, ROWS):
        images = [{"bytes": payload, "path": None} for payload in photos(rows)]
        whole = hugging_face(images, [row % 3 for row in range(rows)], ["a", "b", "c"])
        pq.write_table(whole.append_column("key", [[f"row {row}" for row in range(rows)]]), path)
        grown[rows] = prepare(given, tmp_path / f"{rows}", earlier=tmp_path / "30" if rows == ROWS else None)
    at_once = prepare(given, tmp_path / "once")
    assert len(grown[ROWS].of("train")) == 2 and len(at_once.of("train")) == 1
    assert grown[ROWS].columns == at_once.columns
    mine, theirs = (MergedSplit(found, "train") for found in (grown[ROWS], at_once))
    ours, expected = mine.inputs()["image"], theirs.inputs()["image"]
    assert torch.equal(ours.owned(), expected.owned())
    rows = np.array([0, 3, 4, 9])
    out = torch.empty(4, *ours.shape, dtype=ours.dtype)
    ours.gather(rows, out)
    assert torch.equal(out, expected.owned()[torch.from_numpy(rows)])
    assert np.array_equal(mine.chosen(rows)["image"], out.numpy())


def test_the_outcome_does_not_depend_on_how_it_is_cut(tmp_path):
    path = table(tmp_path / "data.parquet", photos())
    given = config("parquet", path, decode="on_read", **SIZED)
    digests = {
        tuple(segment.digest for segment in prepare(given, tmp_path / f"{rows}", chunk_rows=rows).segments)
        for rows in (5, 100)
    }
    assert len(digests) == 1


def test_a_plan_counts_what_files_take_not_what_they_become(tmp_path):
    payloads = photos()
    seen = look(config("parquet", table(tmp_path / "data.parquet", payloads), decode="on_read", image_size=640))
    assert seen.num_bytes == ROWS * seen.row_bytes and seen.row_bytes == sum(map(len, payloads)) // ROWS


def test_another_size_is_another_set_to_whoever_labels_it(tmp_path):
    path = table(tmp_path / "data.parquet", photos())
    digests = {
        prepare(config("parquet", path, decode="on_read", **SIZED | change), tmp_path / f"{number}").segments[0].digest
        for number, change in enumerate(({}, {"image_size": 13}, {"fit": "pad"}, {"resample": "box"}))
    }
    assert len(digests) == 4


def test_a_file_that_cannot_be_decoded_is_found_when_it_is_prepared(tmp_path):
    payloads = photos()
    payloads[7] = payloads[7][: len(payloads[7]) // 2]
    payloads[8] = b"nothing"
    path = table(tmp_path / "data.parquet", payloads)
    with pytest.raises(DataError, match=r"data\.parquet#7: image: cannot be decoded"):
        prepare(config("parquet", path, decode="on_read", **SIZED), tmp_path / "out")
    kept = prepare(config("parquet", path, decode="on_read", on_bad_row="skip", **SIZED), tmp_path / "skip")
    assert sum(segment.num_rows for segment in kept.segments) == ROWS - 2


def test_colour_that_comes_late_makes_all_of_it_colour(tmp_path):
    random = np.random.default_rng(0)
    grey = [encoded(random.integers(0, 256, (9, 9), dtype=np.uint8)) for _ in range(200)]
    prepared, kept = both(tmp_path, [*grey, encoded(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)), *grey])
    assert kept.columns[0].shape == prepared.columns[0].shape == (12, 12, 3)
    for mine, theirs in zip(kept.segments, prepared.segments, strict=True):
        assert np.array_equal(kept.inputs(mine)["image"], prepared.inputs(theirs)["image"])


def test_rows_for_a_try_are_those_of_the_set(tmp_path):
    given = config("parquet", table(tmp_path / "data.parquet", photos()), decode="on_read", **SIZED)
    seen, kept = look(given), prepare(given, tmp_path / "out")
    for number, few in enumerate((sample(given, seen, ("a", "b", "c"), 6), sample_prepared(kept, 6))):
        made = as_transfer_set(few, tmp_path / f"few {number}")
        pixels = made.inputs(made.of("train")[0])["image"]
        assert pixels.shape == (6, 12, 12, 3) and np.array_equal(pixels, few.seen["image"])


def test_on_read_is_of_files_and_has_a_size(tmp_path):
    path = table(tmp_path / "data.parquet", photos())
    with pytest.raises(ValueError, match="`decode: on_read` needs `image_size`"):
        config("parquet", path, decode="on_read")
    digits = config("", None, label="digit", source={"kind": "sklearn", "name": "digits"}, decode="on_read", **SIZED)
    with pytest.raises(RecipeError, match=r"transfer_set\.decode: `on_read` is of images in files"):
        look(digits)


def test_bytes_that_were_changed_on_the_disk_are_told(tmp_path):
    _, kept = both(tmp_path)
    segment = kept.of("train")[0]
    part = kept.folder / segment.parts[0].path
    stored = kept.inputs(segment, as_stored=True)["image"][0]
    held = bytearray(part.read_bytes())
    at = held.find(stored)
    held[at : at + len(stored)] = bytes(len(stored))
    part.unlink()
    part.write_bytes(held)
    with pytest.raises(StoreError, match="could be decoded when it was prepared"):
        TransferSet.open(kept.folder).inputs(segment)


def test_a_recipe_that_does_not_say_it_has_the_keys_of_before():
    given = config("", None, label="digit", source={"kind": "sklearn", "name": "digits"})
    assert "decode" not in given.model_dump(mode="json")


# ---- each network at a size of its own --------------------------------------------------------------------------------


def trained(folder: Path, transfer_set: TransferSet, **preprocess):
    """A student's folder."""
    store = make_store(folder / "store", transfer_set)
    run = make_run(folder, transfer_set, source(store), steps=12, batch_size=8)
    run = replace(run, preprocess=Preprocess(**preprocess))
    fit([run], PlainSession("cpu"))
    return run


@pytest.mark.parametrize("memory", [None, 1e-5])
def test_a_student_is_the_same_whenever_its_images_are_decoded(tmp_path, memory):
    prepared, kept = both(tmp_path)
    runs = []
    for number, found in enumerate((prepared, kept)):
        folder = tmp_path / f"run {number}"
        run = make_run(
            folder, found, source(make_store(folder / "store", found)), steps=12, batch_size=8, memory_gib=memory
        )
        fit([run], PlainSession("cpu"))
        runs.append((run.folder / "model.safetensors").read_bytes())
    assert runs[0] == runs[1]


def test_a_size_of_its_own_is_as_if_all_had_been_prepared_so(tmp_path):
    prepared, kept = both(tmp_path, image_size=9, fit="pad")[0], both(tmp_path / "kept")[1]
    sees = {"image": Resize(9, "pad")}
    for mine, theirs in zip(kept.segments, prepared.segments, strict=True):
        assert np.array_equal(kept.seen(sees).inputs(mine)["image"], prepared.inputs(theirs)["image"])
    plain = trained(tmp_path / "a", prepared, normalise=None)
    own = trained(tmp_path / "b", kept, normalise=None, image_size=9, fit="pad")
    assert (plain.folder / "model.safetensors").read_bytes() == (own.folder / "model.safetensors").read_bytes()


def test_a_model_folder_knows_at_which_size_it_sees(tmp_path):
    kept = both(tmp_path)[1]
    run = trained(tmp_path / "run", kept, image_size=9, fit="crop")
    model = load_model(run.folder)
    assert model.preprocessor.sees == {"image": Resize(9, "crop")}
    (segment,) = kept.of("test")
    said = model(kept.seen(model.preprocessor.sees).inputs(segment))
    assert torch.equal(ask(model, Labelled.of(kept, "test")), said)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for row, payload in enumerate(kept.inputs(segment, as_stored=True)["image"]):
        kind = "png" if payload.startswith(b"\x89PNG") else "jpg"
        (photographs / f"{row:02}.{kind}").write_bytes(payload)
    (rows,) = rows_of(photographs, model.config)
    assert not rows.bad and torch.equal(model(rows.inputs), said)


def test_a_teacher_labels_at_the_size_it_was_made_for(tmp_path):
    smaller = both(tmp_path, image_size=9)[1]
    run = trained(tmp_path / "run", smaller)
    kept = both(tmp_path / "other", image_size=16)[1]
    told = {"trained": None, "trust": (), "device": "cpu", "user_path": tmp_path}
    asked = CheckpointTeacher(kind="checkpoint", path=str(run.folder))
    teacher = load_teacher(asked, columns=kept.columns, space=kept.space, **told)
    (segment,) = kept.of("train")
    assert teacher.sees["image"].edge == 9
    said = teacher(kept.seen(teacher.sees).inputs(segment))
    assert torch.equal(said, load_model(run.folder)(smaller.inputs(smaller.of("train")[0])))


def test_a_size_of_its_own_needs_images_that_stay_encoded(tmp_path):
    prepared, kept = both(tmp_path)
    with pytest.raises(
        RecipeError, match=r"preprocess\.image_size: .* stored at 12 x 12; say `transfer_set\.decode: on_read`"
    ):
        Preprocessor(Preprocess(image_size=9), prepared.columns)
    with pytest.raises(ValueError, match="`fit` is of `image_size`"):
        Preprocess(fit="pad")
    assert Preprocessor(Preprocess(image_size=9), kept.columns).input_shape == (3, 9, 9)
    assert "image_size" not in Preprocess().model_dump()


def recipe(**changes):
    teacher = {"kind": "module", "model": "students.models:cnn", "train": {"epochs": 1}}
    given = {
        "format": 1,
        "name": "x",
        "transfer_set": {
            "source": {"kind": "image_folder", "path": "photos"},
            "inputs": "image",
            "label": "label",
            "image_size": 32,
            "decode": "on_read",
        },
        "teachers": {"wide": teacher},
        "students": {"small": {"model": "students.models:cnn", "teachers": ["wide"], "preprocess": {"image_size": 16}}},
    }
    for path, value in changes.items():
        *way, last = path.split("__")
        at = given
        for key in way:
            at = at[key]
        at[last] = value
    return Recipe.model_validate(given)


def test_a_recipe_says_sizes_that_can_be():
    assert not recipe().problems()
    where = ("students", "small", "preprocess")
    ((place, told),) = recipe(transfer_set__decode="at_prepare").problems()
    assert place == (*where, "image_size") and told.startswith("is of images that stay encoded; say")
    live = {"kind": "module", "model": "students.models:cnn", "weights": "w.safetensors", "mode": "live"}
    problems = dict(recipe(teachers__wide=live | {"preprocess": {"normalise": None}}).problems())
    assert problems[*where, "image_size"].startswith("'wide' answers live, about images as a student sees them")
    problems = dict(recipe(task="detection", students__small__preprocess={"image_size": 16, "fit": "pad"}).problems())
    assert problems[*where, "fit"].startswith("`pad` moves boxes within their image")
