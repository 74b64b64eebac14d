"""Derived columns: made once for all who make the same of text, found by content, the same as when they are made anew."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teachers.config.preprocess import Preprocess
from teachers.config.transfer_set import TransferSetConfig
from teachers.models.preprocess import Preprocessor
from teachers.models.text import TextTransform
from teachers.preparing.prepare import prepare
from teachers.storage.seal import write_seal
from teachers.transfer_set import derived
from teachers.transfer_set.derived import DerivedSegment, Deriving, derive_part, finish, missing_parts
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from tests.text_files import encoder

CONFIGS: dict[str, dict[str, Any]] = {
    "ngrams": {"ngrams": {"max_length": 32}},
    "tokenizer": {"tokenizer": {"path": str(encoder()), "max_length": 6}},
    "encoder": {"encoder": {"path": str(encoder()), "max_length": 16}},
}


def written(path: Path, rows: int = 300) -> Path:
    words = ["please", "book", "a table", "what is", "the weather", "in rome", "music", ""]
    texts = [" ".join(words[(row * step) % 8] for step in (1, 3, 5, 7)[: row % 5]) for row in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            json.dumps({"text": text, "n": row / 7, "label": "uv"[row % 2]}) + "\n" for row, text in enumerate(texts)
        )
    )
    return path


def prepared(out: Path, rows: int = 300, inputs: Any = ({"column": "text", "as": "text"}, "n")) -> TransferSet:
    source = {"kind": "jsonl", "path": str(written(out / "rows.jsonl", rows))}
    config = TransferSetConfig.model_validate({"source": source, "inputs": list(inputs), "label": "label"})
    return prepare(config, out / "prepared" / "transfer_set-0")


def text_of(name: str, data: TransferSet) -> TextTransform:
    text = Preprocessor(Preprocess.model_validate(CONFIGS[name]), data.columns).text
    assert text is not None
    return text


def made(data: TransferSet, text: TextTransform) -> None:
    for segment in data.segments:
        folder = data.beside(derived.FOLDER) / f"{text.kind}-{segment.name}"
        folder.mkdir(parents=True)
        told = Deriving(data.folder, segment.name, text, folder)
        for part in missing_parts(told, segment.num_rows):
            assert derive_part((told, part)) == part[1]
        write_seal(folder, finish(told, segment))


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_kept_is_what_is_made_on_the_fly_bit_for_bit(name: str, tmp_path: Path) -> None:
    data = prepared(tmp_path)
    text = text_of(name, data)
    anew = {s.name: data.deriving(text).inputs(s) for s in data.segments}
    raw = {s.name: text.derive([data.inputs(s)["text"]]) for s in data.segments}
    made(data, text)
    for segment in data.segments:
        kept = data.deriving(text).inputs(segment)
        assert set(kept) == {"features", *(output.name for output in text.outputs)}
        assert same(kept, anew[segment.name])
        assert same({output.name: kept[output.name] for output in text.outputs}, raw[segment.name])
        found = DerivedSegment.find(data, segment, text)
        assert found is not None and found.num_rows == segment.num_rows
    train = data.of("train")[0]
    assert same(data.deriving(text).inputs(train, 7, 40), {n: v[7:47] for n, v in anew["train-0"].items()})
    rows = MergedSplit(data.deriving(text), "train").inputs()
    assert same({column: each.owned().numpy() for column, each in rows.items()}, anew["train-0"])


def test_rows_of_many_parts_are_read_as_one(tmp_path: Path) -> None:
    data = prepared(tmp_path, 24_000)
    text = text_of("ngrams", data)
    segment = data.of("train")[0]
    anew = data.deriving(text).inputs(segment)
    folder = data.beside(derived.FOLDER) / "ngrams"
    told = Deriving(data.folder, segment.name, text, folder)
    parts = missing_parts(told, segment.num_rows)
    assert len(parts) == 3 and sum(rows for _, rows in parts) == segment.num_rows
    for part in parts[1:]:
        derive_part((told, part))
    assert missing_parts(told, segment.num_rows) == parts[:1], "what an earlier attempt has finished is not made again"
    derive_part((told, parts[0]))
    write_seal(folder, finish(told, segment))
    for first, num in ((0, segment.num_rows), (8190, 10), (8192, 8192), (9000, 1), (5, 0)):
        kept = data.deriving(text).inputs(segment, first, num)
        assert same(kept, {name: values[first : first + num] for name, values in anew.items()})
    some = np.flatnonzero(np.arange(segment.num_rows) % 7 == 3)
    assert same(data.deriving(text).chosen(segment, some), {name: values[some] for name, values in anew.items()})


def test_another_content_is_not_taken_for_it(tmp_path: Path) -> None:
    data = prepared(tmp_path / "a")
    made(data, text_of("ngrams", data))
    others = [
        Preprocessor(Preprocess.model_validate({"ngrams": {"max_length": 32, **change}}), data.columns).text
        for change in ({"buckets": 99}, {"lowercase": False}, {"words": [1]}, {"max_length": 31})
    ]
    for text in others:
        assert text is not None
        assert DerivedSegment.find(data, data.segments[0], text) is None
    more = prepared(tmp_path / "a" / "grown", 320)
    assert DerivedSegment.find(more, more.segments[0], text_of("ngrams", more)) is None


def test_texts_that_are_cut_off_are_counted(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    text = text_of("tokenizer", data)
    made(data, text)
    lines = [json.loads(line)["text"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    too_long = sum(2 + len(line.split()) > 6 for line in lines)
    found = [DerivedSegment.find(data, segment, text) for segment in data.segments]
    assert sum(each.num_cut for each in found if each) == too_long > 0
