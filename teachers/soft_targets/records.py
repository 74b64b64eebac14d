"""The records of a store as one table: loose files while it grows, its manifest once it is sealed.

Of a store that is not sealed (any more) a manifest may hold the records of what was whole when it was written; loose ones beside it
are newer. Knows nothing of the bytes of a shard.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ..errors import StoreError
from ..storage import manifest, mirror, seal
from ..storage.manifest import NO_FILE
from ..storage.room import MANIFEST
from ..storage.seal import Damage, canonical_json
from .schema import Commit, Spec, parse, shard_path

COMMITS = "commits"
RECORD = re.compile(r"\d{6,}\.json")
BATCH_ROWS = 1 << 13
"""Of a manifest; of so many records there are objects at once."""
FORMAT = "1"
FORMAT_KEY, DIGEST_KEY = b"collegium.format", b"collegium.digest"
INTEGERS = (
    "shard",
    "first_row",
    "rows",
    "bytes",
    "crc32c",
    "min_key",
    "max_key",
    "unknown_rows",
    "unknown_elements",
    "cut_off",
)
TYPES = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(("min_key", "max_key"), pa.uint64())
SCHEMA = pa.schema({**TYPES, "path": pa.string(), "xxh3_128": pa.string()})


@dataclass(frozen=True)
class Records:
    """`table`: of SCHEMA, the valid records by shard, ascending; `damages`: what is wrong with others, by the path of the file."""

    table: pa.Table
    damages: dict[str, Damage]

    @property
    def shards(self) -> np.ndarray:
        """i64 [records]"""
        found: np.ndarray = self.table["shard"].to_numpy()
        return found


def record_path(number: int) -> str:
    return f"{COMMITS}/{number:06d}.json"


def number_of(path: str) -> int:
    """Of the shard that a file is of, or its record, by its name."""
    return int(re.split("[-.]", path.rpartition("/")[2], maxsplit=1)[0])


def loose_numbers(folder: Path) -> list[int]:
    """The shards of which a record lies loose in the folder of a store, ascending."""
    try:
        with os.scandir(folder / COMMITS) as entries:
            names = [entry.name for entry in entries if RECORD.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    return sorted(number for name in names if record_path(number := int(name[:-5])).endswith(f"/{name}"))


def loose_record(folder: Path, spec: Spec, number: int) -> Commit | Damage:
    """The record of a shard from its own file, or what is wrong with that."""
    path, rows = record_path(number), spec.shard_rows(number)
    expected = f"the record of shard {number}, rows {rows}"
    try:
        with open(f"{folder}/{path}", "rb") as file:  # of a million: a Path for each takes as long as reading it
            document = parse(file.read())
        record = Commit.from_json(document)
        rightly = (number, *rows, shard_path(number, record.xxh3_128))
    except FileNotFoundError:
        return Damage(path, NO_FILE, expected)
    except (KeyError, TypeError, ValueError) as error:
        return Damage(path, f"a damaged record ({error})", expected)
    if (record.shard, record.first_row, record.num_rows, record.path) != rightly or record.to_json() != document:
        return Damage(path, f"a record of {document}", expected)
    return record


def loose_records(folder: Path, spec: Spec, numbers: Sequence[int] | None = None) -> Records:
    """Those of the shards `numbers`, by default all, that lie loose."""
    numbers = [each for each in (loose_numbers(folder) if numbers is None else numbers) if each < spec.num_shards]
    batches, damages = [], dict[str, Damage]()
    for first in range(0, len(numbers), BATCH_ROWS):
        found = [loose_record(folder, spec, number) for number in numbers[first : first + BATCH_ROWS]]
        batches.append(batch_of(record for record in found if isinstance(record, Commit)))
        damages |= {damage.path: damage for damage in found if isinstance(damage, Damage)}
    return Records(pa.Table.from_batches(batches, SCHEMA), damages)


def drop_loose(folder: Path) -> None:
    """Records that a sealed manifest holds need not lie loose."""
    mirror.remove_all(folder / record_path(number) for number in loose_numbers(folder))


def batch_of(commits: Iterable[Commit]) -> pa.RecordBatch:
    """A row for each, of SCHEMA."""
    rows = [{**vars(commit), "rows": commit.num_rows} for commit in commits]
    return pa.RecordBatch.from_arrays(
        [pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA], schema=SCHEMA
    )


def commits_of(table: pa.Table) -> Iterator[Commit]:
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        for row in batch.to_pylist():
            yield Commit(num_rows=row.pop("rows"), **row)


def newer(gathered: pa.Table, loose: pa.Table) -> pa.Table:
    """Of both, where both have a shard the loose record."""
    kept = gathered.filter(pc.invert(pc.is_in(gathered["shard"], value_set=loose["shard"].combine_chunks())))
    return pa.concat_tables([kept, loose]).sort_by("shard") if len(kept) else loose


def write_manifest(folder: Path, table: pa.Table) -> None:
    """In one step, over the one that is there."""
    path = folder / MANIFEST
    with seal.drafted(path) as draft:
        with draft.open("xb") as file:
            spell_manifest(table, file)
            file.flush()
            os.fsync(file.fileno())
        mirror.put(path, draft)


def spell_manifest(table: pa.Table, sink: BinaryIO) -> None:
    """The one spelling of a manifest on disk."""
    schema = SCHEMA.with_metadata({FORMAT_KEY: FORMAT, DIGEST_KEY: _content(table)})
    with pa.ipc.new_file(sink, schema) as writer:
        for first in range(0, len(table), BATCH_ROWS):
            (batch,) = table.slice(first, BATCH_ROWS).combine_chunks().to_batches()
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def read_manifest(folder: Path, spec: Spec) -> pa.Table:
    """The records in a manifest that lies here, mapped. Raises FileNotFoundError, or StoreError for a damaged or foreign one."""
    path = folder / MANIFEST
    table = manifest.mapped(path)
    about = table.schema.metadata or {}
    if (found := about.get(FORMAT_KEY, b"").decode(errors="replace")) != FORMAT:
        cure = (
            "update Collegium" if found.isdigit() and int(found) > int(FORMAT) else "run the recipe again to repair it"
        )
        raise StoreError(f"{path}: format {found or 'unknown'}, this program reads {FORMAT}; {cure}")
    if table.schema != SCHEMA or about.get(DIGEST_KEY) != _content(table).encode():
        raise StoreError(f"{path}: its records do not agree with the digest in it; run the recipe again to repair it")
    if not _is_of(table, spec):
        raise StoreError(
            f"{path}: holds records of another store than {spec.teacher}/{spec.segment}; run the recipe again"
        )
    return table.replace_schema_metadata(None)


def _content(table: pa.Table) -> str:
    """Of everything in it, in whatever pieces it lies."""
    hashed = xxhash.xxh3_128()
    for name in SCHEMA.names:
        for chunk in table[name].chunks:
            is_text = pa.types.is_string(chunk.type)
            hashed.update(
                "".join(f"{text}\n" for text in chunk.to_pylist()).encode() if is_text else chunk.to_numpy().data
            )
    return hashed.hexdigest()


def _is_of(table: pa.Table, spec: Spec) -> bool:
    """Whether these may be records of shards of this store, each once, by shard; files are named as their content says."""
    shard, first, rows = (table[name].to_numpy() for name in ("shard", "first_row", "rows"))
    names = pc.binary_join_element_wise(
        "shards/", pc.utf8_lpad(table["shard"].cast(pa.string()), 6, "0"), "-",
        pc.utf8_slice_codeunits(table["xxh3_128"], 0, 16), ".arrow", "",
    )  # fmt: skip
    right = (
        (shard[:1] >= 0).all() and (np.diff(shard) > 0).all() and (shard[-1:] < spec.num_shards).all(),
        (first == shard * spec.rows_per_shard).all(),
        (rows == np.minimum(spec.rows_per_shard, spec.num_rows - first)).all(),
        pc.all(pc.match_substring_regex(table["xxh3_128"], "^[0-9a-f]{32}$"), min_count=0).as_py(),
        pc.all(pc.equal(table["path"], names), min_count=0).as_py(),
    )
    return all(right)


def digest_of_records(spec: Spec, table: pa.Table) -> str:
    """Of a store's content: its spec and each shard's first row, rows and xxh3_128, in order; `digest_of` of them, a piece at a time."""
    hashed, first = hashlib.sha256(b'{"shards":['), True
    for batch in table.select(["first_row", "rows", "xxh3_128"]).to_batches(max_chunksize=BATCH_ROWS):
        columns = [column.to_pylist() for column in batch.columns]
        text = ",".join(f'[{row},{rows},"{digest}"]' for row, rows, digest in zip(*columns, strict=True))
        hashed.update((text if first else f",{text}").encode() if text else b"")
        first = first and not text
    hashed.update(b'],"spec":' + canonical_json(spec.identity()) + b"}")
    return hashed.hexdigest()


def overlapping(table: pa.Table) -> Sequence[int]:
    """The shards whose last key is not below the first of the next one."""
    ends, begins = table["max_key"].to_numpy()[:-1], table["min_key"].to_numpy()[1:]
    found: list[int] = table["shard"].to_numpy()[:-1][ends >= begins].tolist()
    return found
