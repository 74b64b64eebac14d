"""Images that stay encoded: what is read of them is what would have been prepared, in any order, by anybody."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from teachers.errors import DataError, RecipeError, StoreError
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.preparing.sample import as_transfer_set, sample, sample_prepared
from teachers.rows.epoch import EpochReader
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from .test_sources import config, encoded, hugging_face

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
