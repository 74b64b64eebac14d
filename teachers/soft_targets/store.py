"""The soft-target store: what one teacher says of one segment, in shards that are committed one by one.

Data first, proof last: a shard is published under a name made of its content, then its record, create-only. A shard
counts if and only if its record does, so a killed writer loses at most the shard in hand and two writers of one
shard are harmless. A seal is made of records: who wrote a shard has hashed it, and nobody else reads it for that.
Knows nothing of teachers, Ray or training.
"""

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import EnvironmentUnfit, StorageError, StoreError
from ..storage import manifest, mirror, seal
from ..storage.disk import is_unfit
from ..storage.manifest import Run, hash_file, in_threads
from ..storage.place import remote_of
from ..storage.room import MANIFEST
from ..storage.seal import Damage, Seal, inside
from .records import (
    COMMITS,
    Records,
    batch_of,
    commits_of,
    digest_of_records,
    drop_loose,
    loose_numbers,
    loose_record,
    loose_records,
    newer,
    overlapping,
    read_manifest,
    record_path,
    write_manifest,
)
from .schema import Commit, Spec, parse, spell
from .shard import build_shard

SPEC = "spec.json"
SHARDS = "shards"


class SoftTargetStore:
    """One store's folder. `create` and `open` are the ways in; the spec in hand decides what may lie there."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.folder = folder
        self.spec = spec
        self._gathered: tuple[tuple[int, int, int], pa.Table | Damage] | None = None

    @classmethod
    def create(cls, folder: Path, spec: Spec) -> Self:
        """Make the store, or open the one that is there. StoreError if that has another spec, or a damaged one."""
        for part in (SHARDS, COMMITS):
            (folder / part).mkdir(parents=True, exist_ok=True)
        mirror.refresh(folder / SPEC)
        if not (folder / SPEC).exists():
            seal.publish(folder / SPEC, spell(spec.to_json()))
        store = cls.open(folder)
        if store.spec != spec:
            raise StoreError(f"{folder}: holds {store.spec}, not {spec}; take another folder, stores are never mixed")
        return store

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises StoreError where there is no store, or one whose spec is damaged or of another format.

        Of a mirror it brings the records that the storage has at this moment.
        """
        path = folder / SPEC
        mirror.refresh(path)
        try:
            store = cls(folder, Spec.from_json(parse(path.read_bytes()), path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{folder}: not a soft-target store, there is no {SPEC} in it") from error
        except ValueError as error:
            raise StoreError(f"{path}: damaged ({error}); run the recipe again to repair the store") from error
        store.refresh()
        return store

    def refresh(self) -> None:
        """Of a mirror: the records that the storage has at this moment lie here, gathered or loose."""
        if remote_of(self.folder) is None:
            return
        try:
            is_gathered = manifest.bring(self.folder)
        except StoreError:  # a damaged one is told by who needs it
            is_gathered = (self.folder / seal.NAME).exists()
        if not is_gathered:
            mirror.refresh(self.folder / MANIFEST)
            mirror.pull(self.folder / COMMITS)

    @property
    def num_shards(self) -> int:
        return self.spec.num_shards

    def shard_rows(self, number: int) -> tuple[int, int]:
        """First row and number of rows of a shard."""
        return self.spec.shard_rows(number)

    def shard_file(self, number: int) -> Path:
        """The file that the record of a committed shard names. StoreError without a valid record."""
        record = self.record(number)
        path = inside(self.folder, record.path)
        mirror.bring(path, record.expected)
        return path

    def files(self) -> list[Path]:
        """Of all committed shards, in their order; those of a mirror come here, verified. StoreError for a damaged one."""
        found = {inside(self.folder, record.path): record.expected for record in commits_of(self.records().table)}
        mirror.bring_all(found)
        return [*found]

    def record(self, number: int) -> Commit:
        """The record of a shard. StoreError when there is none, or when it is not what this store would have written."""
        record = self.record_or_damage(number)
        if isinstance(record, Damage):
            raise StoreError(f"{self.folder}: {record}; run the recipe again to label or repair this shard")
        return record

    def record_or_damage(self, number: int) -> Commit | Damage:
        """The record of a shard, or what is wrong with it."""
        gathered = self.gathered()
        if gathered is None or not self.is_sealed:
            found = loose_record(self.folder, self.spec, number)
            if gathered is None or isinstance(found, Commit):
                return found
        if isinstance(gathered, Damage):
            return gathered
        at = int(np.searchsorted(gathered["shard"].to_numpy(), number))
        some = gathered.slice(at, 1) if at < len(gathered) and gathered["shard"][at].as_py() == number else None
        return next(commits_of(some)) if some is not None else Damage(record_path(number), manifest.NO_FILE, "a record")

    @property
    def is_sealed(self) -> bool:
        return (self.folder / seal.NAME).exists()

    def gathered(self) -> pa.Table | Damage | None:
        """The records in its manifest, what is wrong with that, or None without one."""
        try:
            state = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        which = state.st_mtime_ns, state.st_ino, state.st_size
        if self._gathered is None or self._gathered[0] != which:
            try:
                self._gathered = which, read_manifest(self.folder, self.spec)
            except StoreError as error:
                self._gathered = which, Damage(MANIFEST, f"a damaged manifest ({error})", "the records of the store")
        return self._gathered[1]

    def records(self) -> Records:
        """All that are valid, and what is wrong with the others."""
        gathered, was_sealed = self.gathered(), self.is_sealed
        if isinstance(gathered, pa.Table) and was_sealed:
            return Records(gathered, {})
        loose = loose_records(self.folder, self.spec)
        if self.is_sealed and not was_sealed:  # meanwhile, and the loose ones go
            return self.records()
        if isinstance(gathered, Damage):
            return Records(loose.table, {MANIFEST: gathered, **loose.damages})
        return loose if gathered is None else Records(newer(gathered, loose.table), loose.damages)

    def committed(self, known: Container[int]) -> list[Commit]:
        """The records of shards that are not `known`, ascending, as they are at this moment. StoreError for a damaged one."""
        self.refresh()
        if self.gathered() is not None:
            found = self.records()
        else:
            numbers = [number for number in loose_numbers(self.folder) if number not in known]
            found = loose_records(self.folder, self.spec, numbers)
            if self.is_sealed:  # meanwhile, and the loose ones go
                return self.committed(known)
        for damage in found.damages.values():
            raise StoreError(f"{self.folder}: {damage}; run the recipe again to label or repair this shard")
        return [record for record in commits_of(found.table) if record.shard not in known]

    def check(self, record: Commit) -> Path:
        """The file of a shard, once every byte of it is as its record says. Raises StoreError."""
        if damages := self._damages(record):
            raise StoreError(f"{self.folder}: {damages[0][1]}; run the recipe again to label or repair this shard")
        return inside(self.folder, record.path)

    def unknown(self) -> tuple[int, int]:
        """(rows of which the teacher knows nothing, classes or numbers that it does not know), of what is committed."""
        table = self.records().table
        return _sum(table, "unknown_rows"), _sum(table, "unknown_elements")

    def cut_off(self) -> int:
        """Texts of which the teacher read only the beginning, of what is committed."""
        return _sum(self.records().table, "cut_off")

    def num_bytes(self) -> int:
        """Of all shards that are committed."""
        return _sum(self.records().table, "bytes")

    def missing(self, *, hashes: bool = False, run: Run = in_threads) -> list[int]:
        """The shards without a valid record and a file of the recorded size (and of every recorded byte, on request, by `run`)."""
        return self._missing(self.records(), hashes=hashes, run=run)

    def _missing(self, records: Records, *, hashes: bool = False, run: Run = in_threads) -> list[int]:
        there = np.zeros(self.num_shards, bool)
        there[records.shards] = True
        damaged = manifest.damages_in(self.folder, records.table, hashes=hashes, run=run)
        there[records.shards[[at for at, _ in damaged]]] = False
        found: list[int] = np.flatnonzero(~there).tolist()
        return found

    def has(self, number: int) -> bool:
        """Whether a shard is committed and every byte of it is as its record says."""
        record = self.record_or_damage(number)
        return isinstance(record, Commit) and not self._damages(record)

    def _damages(self, record: Commit) -> manifest.Found:
        (part,) = manifest.parts_of(self.folder, pa.Table.from_batches([batch_of([record])]))
        return manifest.check(part)

    def commit(
        self, number: int, sample_key: np.ndarray, outputs: Mapping[str, np.ndarray], *, cut_off: int = 0
    ) -> Commit:
        """Encode, write and publish one shard; if it is committed already and whole, that record stays and is returned.

        `sample_key` u64 [rows], strictly ascending; `outputs` {"logits": float [rows, classes]}, raw logits or
        log-probabilities, or {"values": float [rows, numbers]}, and what else its spec names; NaN where the teacher knows
        nothing. `cut_off`: texts of which it read only the beginning. Raises TeacherError for values that are not finite otherwise, naming their keys, and StoreError for rows or
        classes that are not this shard's; EnvironmentUnfit for a full disk, StorageError for a silent storage.
        """
        if self.has(number):
            return self.record(number)
        record, payload = build_shard(self.spec, number, sample_key, outputs)
        record = replace(record, cut_off=cut_off)
        try:
            self._publish_shard(record, payload)
            return self._publish_record(record)
        except OSError as error:
            if isinstance(error, StorageError):  # it says itself what to do
                raise
            raise (EnvironmentUnfit if is_unfit(error) else StoreError)(
                f"{self.folder}: shard {number} ({len(payload):,} bytes) cannot be written ({error.strerror}); "
                f"what is committed stays: make room there, then run the recipe again"
            ) from error

    def note(self, record: Commit) -> None:
        """What a writer on another machine said that it has committed: its record need not be asked for."""
        mirror.keep(self.folder / record_path(record.shard), spell(record.to_json()))

    def seal(self) -> Seal:
        """Write the proof that the store is whole: its records gathered into a manifest, then the seal; then the loose ones go.

        No shard is read: who wrote it has hashed it. The digest is of the spec and each shard's first row, rows and xxh3_128, in
        order, whichever machine committed it. StoreError while shards are missing.
        """
        self.refresh()
        sealed, records = seal.read_seal(self.folder), self.records()
        if missing := self._missing(records):
            raise StoreError(f"{self.folder}: shards {missing[:10]} ({len(missing)} in all) are missing or damaged")
        if overlap := overlapping(records.table):
            raise StoreError(f"{self.folder}: the keys of shards {overlap[0]} and {overlap[0] + 1} overlap")
        digest = digest_of_records(self.spec, records.table)
        if sealed is None:
            write_manifest(self.folder, records.table)
            sealed = seal.write_seal(self.folder, [SPEC, MANIFEST], digest)
        if sealed.digest != digest:
            raise StoreError(
                f"{self.folder}: sealed as {sealed.digest[:12]} before its shards changed; repair the store"
            )
        if MANIFEST in {output.path for output in sealed.outputs}:
            drop_loose(self.folder)
        return sealed

    def _publish_shard(self, record: Commit, payload: pa.Buffer) -> None:
        path = inside(self.folder, record.path)
        if remote_of(path) is not None:  # its name is its content: written twice it is the same
            seal.replace(path, payload)
        elif not seal.publish(path, payload):
            if hash_file(path) == record.xxh3_128:
                path.touch()  # an orphan no more: `collect_garbage` must not find it old
            else:
                seal.replace(path, payload)

    def _publish_record(self, record: Commit) -> Commit:
        """Create the record; a valid one that was there first stays, and is returned."""
        path = self.folder / record_path(record.shard)
        payload = spell(record.to_json())
        if not seal.publish(path, payload):
            found = loose_record(self.folder, self.spec, record.shard)
            if isinstance(found, Damage) or self._damages(found):
                seal.replace(path, payload)
        return self.record(record.shard)


def _sum(table: pa.Table, name: str) -> int:
    return int(pc.sum(table[name], min_count=0).as_py())
