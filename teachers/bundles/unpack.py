"""From a bundle to files that a recipe reads as predictions. Nothing is written before its bytes are proven.

A file is copied and the copy is hashed, so nobody can change it between the proof and its use.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config.any_teacher import OutputKind
from ..config.task import ANSWER_OF
from ..errors import StoreError
from ..soft_targets.schema import KEY
from ..storage.seal import drafted
from .columns import CLASS, CLASSES, LARGEST, PROBABILITIES, SCORES, columns_of, dense_probabilities, writing
from .manifest import Manifest, Voice, check_file, verify


@dataclass(frozen=True)
class Imported:
    """One teacher of a recipe: what stands under its name."""

    name: str
    path: Path
    scores: str
    output: OutputKind | str
    missing: float
    """Share of its rows of which it says nothing."""

    @property
    def lines(self) -> list[str]:
        """Of the recipe."""
        named: dict[str, str | float] = {"kind": "predictions", "path": str(self.path), "sample_key": KEY}
        named |= {"scores": self.scores, "output": self.output}
        if self.missing:  # rounded up: as many are allowed, and at most a thousandth more
            named["max_missing"] = min(math.ceil(self.missing * 1000) / 1000, 0.999)
        return [f"  {self.name}:", *(f"    {key}: {json.dumps(value)}" for key, value in named.items())]


def import_bundle(bundle: Path, folder: Path, key: Path) -> tuple[Manifest, list[Imported]]:
    """Write `NAME.arrow` of each voice of a bundle into `folder`, over an earlier one of its name.

    `key`: the sender's public key. Raises StoreError for a bundle that is not what was signed.
    """
    manifest = verify(bundle, key)
    folder.mkdir(parents=True, exist_ok=True)
    return manifest, [_import(bundle / voice.file, folder / voice.file, voice, manifest) for voice in manifest.voices]


def _import(source: Path, target: Path, voice: Voice, manifest: Manifest) -> Imported:
    with drafted(target) as draft:
        shutil.copyfile(source, draft)
        check_file(draft, voice)
        missing = _check_columns(draft, source, voice, manifest)
        if voice.keeps == "top_k":
            expanded = draft.with_name(f"{draft.name}-dense")
            try:
                _expand(draft, expanded, voice, manifest)
                expanded.replace(draft)
            finally:
                expanded.unlink(missing_ok=True)
    scores = CLASS if voice.keeps == "labels" else SCORES
    return Imported(voice.name, target, scores, voice.output, missing)


def _check_columns(path: Path, path_in_bundle: Path, voice: Voice, manifest: Manifest) -> float:
    """The share of rows that are unknown. Raises StoreError for a file with other columns or rows than its manifest says."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
            found, num_rows, unknown = file.schema, 0, 0
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                batch.validate(full=True)
                num_rows, unknown = num_rows + batch.num_rows, unknown + batch.column(1).null_count
    except (pa.ArrowException, OSError, IndexError) as error:
        raise StoreError(
            f"{path_in_bundle}: signed, and no Arrow that can be read ({str(error).splitlines()[0]})"
        ) from error
    kind = found.field(LARGEST).type if LARGEST in found.names else None
    count = kind.list_size if kind is not None and pa.types.is_fixed_size_list(kind) else 0
    expected, _ = columns_of(voice.keeps, ANSWER_OF[manifest.task], voice.names, count)
    named = (found.metadata or {}).get(CLASSES.encode()) == expected.metadata[CLASSES.encode()]
    if not (named and found.equals(expected) and count < len(voice.names)) or num_rows != voice.rows:
        raise StoreError(
            f"{path_in_bundle}: {num_rows:,} rows of {', '.join(found.names)}; its manifest has {voice.rows:,} rows of "
            f"{', '.join(expected.names)} and {len(voice.names)} names; it was made otherwise, ask its sender"
        )
    return unknown / max(voice.rows, 1)


def _expand(path: Path, target: Path, voice: Voice, manifest: Manifest) -> None:
    width = len(voice.names)
    schema = pa.schema([pa.field(KEY, pa.uint64(), nullable=False), pa.field(SCORES, pa.list_(pa.float32(), width))])
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        schema = schema.with_metadata(file.schema.metadata)
        with writing(target, schema) as writer:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                known = np.asarray(batch.column(1).is_valid())
                if not np.array_equal(known, np.asarray(batch.column(2).is_valid())):
                    raise StoreError(f"{path.name}: {LARGEST} and {PROBABILITIES} lack different rows; ask its sender")
                largest, probabilities = (_matrix(batch.column(at)) for at in (1, 2))
                if len(largest) and int(largest.max()) >= width:
                    raise StoreError(
                        f"{path.name}: {LARGEST} has class {int(largest.max())}, of {width}; ask its sender"
                    )
                dense = np.zeros((len(known), width), np.float32)
                dense[known] = dense_probabilities(largest, probabilities, width)
                lists = pa.FixedSizeListArray.from_arrays(pa.array(dense.ravel()), width, mask=pa.array(~known))
                writer.write_batch(pa.record_batch([batch.column(0), lists], schema=schema))


def _matrix(column: pa.Array) -> np.ndarray:
    """The rows that are not null."""
    there = column.filter(pc.is_valid(column))
    return there.flatten().to_numpy(zero_copy_only=False).reshape(len(there), column.type.list_size)  # type: ignore[no-any-return]
