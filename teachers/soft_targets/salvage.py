"""Records made anew from the shards themselves, where a manifest is damaged: no label is lost with it.

A shard's name holds half of its hash, so that a whole one is known. What only the record knew is gone: of how many texts the end was
cut off.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import crc32c
import pyarrow as pa
import torch

from ..rows.rows import map_columns
from ..storage import mirror
from ..storage.manifest import hash_file
from ..storage.seal import inside
from .records import SCHEMA, batch_of, number_of
from .schema import KEY, Commit, Spec, shard_path

FLOOR = 1e-3
"""Of probabilities that are not looked at."""


def salvaged(folder: Path, spec: Spec, names: Sequence[str]) -> pa.Table:
    """Of SCHEMA: the records of those files `names` in `shards/` that are whole, and the only ones of their shard."""
    by_number: dict[int, list[str]] = {}
    for name in names:
        by_number.setdefault(number_of(name), []).append(name)
    alone = [found[0] for number, found in sorted(by_number.items()) if len(found) == 1 and number < spec.num_shards]
    return pa.Table.from_batches([batch_of(_records(folder, spec, alone))], SCHEMA)


def _records(folder: Path, spec: Spec, names: Sequence[str]) -> Iterator[Commit]:
    for name in names:
        path, number = inside(folder, f"shards/{name}"), number_of(name)
        mirror.bring(path)
        xxh3_128 = hash_file(path)
        if shard_path(number, xxh3_128) == f"shards/{name}":
            yield record_of(spec, number, path, xxh3_128)


def record_of(spec: Spec, number: int, path: Path, xxh3_128: str) -> Commit:
    """Of a whole shard."""
    first_row, num_rows = spec.shard_rows(number)
    columns, answer = map_columns(path), spec.answered
    fields = {name.rpartition(".")[2]: torch.from_numpy(columns[name].copy()) for name in answer.fields}
    unknown = answer.encodes.decode(fields, answer.width, FLOOR).isnan()
    content = path.read_bytes()
    return Commit(
        shard=number,
        first_row=first_row,
        num_rows=num_rows,
        bytes=len(content),
        path=shard_path(number, xxh3_128),
        xxh3_128=xxh3_128,
        crc32c=crc32c.crc32c(content),
        min_key=int(columns[KEY][0]),
        max_key=int(columns[KEY][-1]),
        unknown_rows=int(unknown.all(1).sum()),
        unknown_elements=int(unknown.sum()),
    )
