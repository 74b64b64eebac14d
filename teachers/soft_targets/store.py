"""The soft-target store: what one teacher says of one segment, in shards that are committed one by one.

Data first, proof last: a shard is published under a name made of its content, then its record, create-only. A shard
counts if and only if its record does, so a killed writer loses at most the shard in hand and two writers of one
shard are harmless. Knows nothing of teachers, Ray or training.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Self
from uuid import uuid4

import numpy as np
import pyarrow as pa

from ..errors import EnvironmentUnfit, StorageError, StoreError
from ..storage import mirror, seal
from ..storage.disk import is_unfit
from ..storage.place import remote_of
from ..storage.seal import Damage, Seal, digest_of, inside
from .schema import Commit, Spec, parse, shard_path, spell
from .shard import build_shard, hash_file

SPEC = "spec.json"
NO_FILE = "no file"
SHARD = re.compile(r"\d{6}-[0-9a-f]{16}\.arrow")


class SoftTargetStore:
    """One store's folder. `create` and `open` are the ways in; the spec in hand decides what may lie there."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.folder = folder
        self.spec = spec

    @classmethod
    def create(cls, folder: Path, spec: Spec) -> Self:
        """Make the store, or open the one that is there. StoreError if that has another spec, or a damaged one."""
        for part in ("shards", "commits"):
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
        mirror.refresh_all([path, folder / seal.NAME])
        mirror.pull(folder / "commits")
        try:
            return cls(folder, Spec.from_json(parse(path.read_bytes()), path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{folder}: not a soft-target store, there is no {SPEC} in it") from error
        except ValueError as error:
            raise StoreError(f"{path}: damaged ({error}); run the recipe again to repair the store") from error

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

    def record(self, number: int) -> Commit:
        """The record of a shard. StoreError when there is none, or when it is not what this store would have written."""
        record = self.record_or_damage(number)
        if isinstance(record, Damage):
            raise StoreError(f"{self.folder}: {record}; run the recipe again to label or repair this shard")
        return record

    def unknown(self) -> tuple[int, int]:
        """(rows of which the teacher knows nothing, classes or numbers that it does not know), of what is committed."""
        records = [found for n in range(self.num_shards) if isinstance(found := self.record_or_damage(n), Commit)]
        return sum(each.unknown_rows for each in records), sum(each.unknown_elements for each in records)

    def cut_off(self) -> int:
        """Texts of which the teacher read only the beginning, of what is committed."""
        records = (self.record_or_damage(number) for number in range(self.num_shards))
        return sum(each.cut_off for each in records if isinstance(each, Commit))

    def missing(self, *, hashes: bool = False) -> list[int]:
        """The shards without a valid record and a file of the recorded size (and hash, on request)."""
        with self._brought(range(self.num_shards), hashes=hashes):
            return [number for number in range(self.num_shards) if self._damage(number, hashes=hashes)]

    def has(self, number: int) -> bool:
        """Whether a shard is committed and every byte of it is as its record says."""
        return not self._damage(number, hashes=True)

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

    def seal(self) -> Seal:
        """Write the proof that the store is whole. StoreError while shards are missing or damaged.

        The digest is of the spec and each shard's first row, rows and xxh3_128, in order, whichever machine committed it.
        """
        mirror.pull(self.folder / "commits")
        if missing := self.missing(hashes=True):
            raise StoreError(f"{self.folder}: shards {missing[:10]} ({len(missing)} in all) are missing or damaged")
        records = [self.record(number) for number in range(self.num_shards)]
        for before, after in pairwise(records):
            if before.max_key >= after.min_key:
                raise StoreError(f"{self.folder}: the keys of shards {before.shard} and {after.shard} overlap")
        sealed = seal.write_seal(self.folder, self._outputs(records), self._digest(records))
        if sealed.digest != self._digest(records):
            raise StoreError(
                f"{self.folder}: sealed as {sealed.digest[:12]} before its shards changed; repair the store"
            )
        return sealed

    def verify(self) -> list[Damage]:
        """What is not as it was written, every byte of the spec, the records, their shards and the seal considered.

        A shard that is not committed yet is no damage, unless the store is sealed.
        """
        sealed = (self.folder / seal.NAME).exists()
        found = list(self._spec_damage())
        with self._brought(range(self.num_shards), hashes=True):
            for number in range(self.num_shards):
                if sealed or (self.folder / record_path(number)).exists():
                    found += filter(None, [self._damage(number, hashes=True)])
            return found or list(self._seal_damage())

    def repair(self, quarantine: Path) -> list[int]:
        """Move what `verify` finds, with the files of the same shard, into a new folder in `quarantine`.

        The seal goes first, so no kill leaves a sealed store with parts missing. Returns the shards to label again:
        with the same bytes the store gets the same digest. Needs the caller's lock, as nothing else here does but
        `collect_garbage`.
        """
        damages = self.verify()
        if not damages:
            return []
        aside = quarantine / f"{self.folder.name}-{uuid4().hex[:8]}"
        numbers = sorted({int(Path(d.path).name[:6]) for d in damages if d.path not in (SPEC, seal.NAME)})
        named = [seal.NAME, *(d.path for d in damages if d.path == SPEC), *(record_path(n) for n in numbers)]
        shards = [path for path in self._shards() if int(path.name[:6]) in numbers]
        for path in [*(self.folder / name for name in named), *shards]:
            mirror.move(path, aside / path.relative_to(self.folder))
        seal.publish(self.folder / SPEC, spell(self.spec.to_json()))
        return numbers

    def collect_garbage(self, grace_s: float, remove: Callable[[Path], None] = mirror.remove) -> list[Path]:
        """Remove drafts and shards that no record names, if older than `grace_s`. Returns them. Needs the caller's lock."""
        mirror.refresh_all([self.folder / record_path(number) for number in range(self.num_shards)])
        records = {number: self.record_or_damage(number) for number in range(self.num_shards)}
        wanted = {record.path for record in records.values() if isinstance(record, Commit)}
        in_doubt = {f"{n:06d}" for n, r in records.items() if isinstance(r, Damage) and r.found != NO_FILE}
        orphans = [p for p in self._shards() if f"shards/{p.name}" not in wanted and p.name[:6] not in in_doubt]
        drafts = [path for part in (".", "shards", "commits") for path in (self.folder / part).glob(".draft-*")]
        there = mirror.entries(self.folder / "shards")
        removed = []
        for path in sorted(orphans + drafts):
            with suppress(FileNotFoundError):  # its writer was quicker
                written = there[path.name].time if path.name in there else path.stat().st_mtime
                if time.time() - written > grace_s:
                    remove(path)
                    removed.append(path)
        return removed

    def _shards(self) -> list[Path]:
        """Every file of a shard, of a record or not."""
        folder = self.folder / "shards"
        return sorted({*folder.glob("*.arrow"), *(folder / n for n in mirror.entries(folder) if SHARD.fullmatch(n))})

    def _brought(self, numbers: Iterable[int], *, hashes: bool) -> AbstractContextManager[object]:
        """Of a mirror: the shards that valid records name lie here. What is damaged in the storage does not come."""
        mirrored = numbers if remote_of(self.folder) is not None else ()
        records = [found for n in mirrored if isinstance(found := self.record_or_damage(n), Commit)]
        return mirror.brought({inside(self.folder, r.path): r.expected for r in records}, hashes=hashes)

    def record_or_damage(self, number: int) -> Commit | Damage:
        """The record of a shard, or what is wrong with it."""
        path = record_path(number)
        expected = f"the record of shard {number}, rows {self.shard_rows(number)}"
        try:
            document = parse((self.folder / path).read_bytes())
            record = Commit.from_json(document)
            rightly = (number, *self.shard_rows(number), shard_path(number, record.xxh3_128))
        except FileNotFoundError:
            return Damage(path, NO_FILE, expected)
        except (KeyError, TypeError, ValueError) as error:
            return Damage(path, f"a damaged record ({error})", expected)
        if (record.shard, record.first_row, record.num_rows, record.path) != rightly or record.to_json() != document:
            return Damage(path, f"a record of {document}", expected)
        return record

    def _damage(self, number: int, *, hashes: bool) -> Damage | None:
        """What is wrong with a shard or its record: sizes always, the hash on request."""
        record = self.record_or_damage(number)
        if isinstance(record, Damage):
            return record
        path = inside(self.folder, record.path)
        if not path.is_file():
            return Damage(record.path, NO_FILE, f"{record.bytes} bytes")
        if (size := path.stat().st_size) != record.bytes:
            return Damage(record.path, f"{size} bytes", f"{record.bytes} bytes")
        if hashes and (found := hash_file(path)) != record.xxh3_128:
            return Damage(record.path, f"xxh3_128 {found[:16]}", record.xxh3_128[:16])
        return None

    def _spec_damage(self) -> Iterator[Damage]:
        path = self.folder / SPEC
        if not path.is_file():
            yield Damage(SPEC, NO_FILE, "the spec of the store")
        elif path.read_bytes() != spell(self.spec.to_json()):
            yield Damage(SPEC, "other bytes", "the spec of the store")

    def _seal_damage(self) -> Iterator[Damage]:
        """Of a store whose spec, records and shards are proven: whatever the seal says otherwise is the seal's fault."""
        try:
            sealed = seal.read_seal(self.folder)
        except StoreError as error:
            yield Damage(seal.NAME, f"an unreadable seal ({error})", "the seal of the store")
            return
        if sealed is None:
            return
        records = [self.record(number) for number in range(self.num_shards)]
        expected = seal.Seal(seal.list_outputs(self.folder, self._outputs(records)), self._digest(records))
        if (self.folder / seal.NAME).read_bytes() != seal.spell(expected):
            yield Damage(seal.NAME, f"a seal of {sealed.digest}", f"the seal of what is here, {expected.digest}")

    def _outputs(self, records: list[Commit]) -> list[str]:
        return [SPEC, *(record_path(record.shard) for record in records), *(record.path for record in records)]

    def _digest(self, records: list[Commit]) -> str:
        shards = [[record.first_row, record.num_rows, record.xxh3_128] for record in records]
        return digest_of({"spec": self.spec.identity(), "shards": shards})

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
            with self._brought([record.shard], hashes=True):
                whole = not self._damage(record.shard, hashes=True)
            if not whole:
                seal.replace(path, payload)
        return self.record(record.shard)


def record_path(number: int) -> str:
    return f"commits/{number:06d}.json"
