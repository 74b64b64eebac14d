"""What keeps a store right: every byte of it checked, what is damaged moved away, what nobody names removed."""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import StoreError
from ..storage import manifest, mirror, seal
from ..storage.manifest import NO_FILE, Run, in_threads
from ..storage.place import remote_of
from ..storage.room import MANIFEST
from ..storage.seal import Damage, read_seal
from .records import (
    COMMITS,
    Records,
    digest_of_records,
    drop_loose,
    loose_numbers,
    newer,
    number_of,
    record_path,
    spell_manifest,
    write_manifest,
)
from .salvage import salvaged
from .schema import spell
from .store import SHARDS, SPEC, SoftTargetStore

SHARD = re.compile(r"\d{6,}-[0-9a-f]{16}\.arrow")
AT_ONCE = 1000
"""Files that are removed after one question whether they may be."""


def verify(store: SoftTargetStore, *, run: Run = in_threads, kept: bool = True) -> list[Damage]:
    """What is not as it was written, every byte of the spec, the records, their shards and the seal considered; shards by `run`.

    A shard that is not committed yet is no damage, unless the store is sealed. `kept`: see `manifest.Part`.
    """
    records = store.records()
    found = [*_spec_damage(store), *records.damages.values(), *_gathered_damage(store), *_unrecorded(store, records)]
    damaged = manifest.damages_in(store.folder, records.table, hashes=True, run=run, kept=kept)
    found += [damage for _, damage in damaged]
    return found or list(_seal_damage(store, records))


def _spec_damage(store: SoftTargetStore) -> Iterator[Damage]:
    path = store.folder / SPEC
    if not path.is_file():
        yield Damage(SPEC, NO_FILE, "the spec of the store")
    elif path.read_bytes() != spell(store.spec.to_json()):
        yield Damage(SPEC, "other bytes", "the spec of the store")


def _gathered_damage(store: SoftTargetStore) -> Iterator[Damage]:
    """Of a manifest whose records are right: whether all of its bytes are."""
    if isinstance(table := store.gathered(), pa.Table):
        with TemporaryFile() as right:
            spell_manifest(table, right)
            right.seek(0)
            if hashlib.file_digest(right, "sha256").hexdigest() != seal.sha256_file(store.folder / MANIFEST):
                yield Damage(MANIFEST, "other bytes", "the records of the store")


def _unrecorded(store: SoftTargetStore, records: Records) -> Iterator[Damage]:
    """Shards of a sealed store without a record."""
    if not store.is_sealed or MANIFEST in records.damages or len(records.table) == store.num_shards:
        return
    if len(records.table) == 0 and not records.damages:
        yield Damage(MANIFEST, NO_FILE, "the records of the store")
        return
    for number in sorted({*range(store.num_shards)} - {*records.shards.tolist()}):
        if (path := record_path(number)) not in records.damages:
            yield Damage(path, NO_FILE, f"the record of shard {number}")


def _seal_damage(store: SoftTargetStore, records: Records) -> Iterator[Damage]:
    """Of a store whose spec, records and shards are proven: whatever the seal says otherwise is the seal's fault."""
    try:
        sealed = read_seal(store.folder)
    except StoreError as error:
        yield Damage(seal.NAME, f"an unreadable seal ({error})", "the seal of the store")
        return
    if sealed is None:
        return
    listed = [SPEC, MANIFEST]
    if not (store.folder / MANIFEST).exists():  # as seals were before there were manifests
        listed = [SPEC, *map(record_path, records.shards.tolist()), *records.table["path"].to_pylist()]
    expected = seal.Seal(seal.list_outputs(store.folder, listed), digest_of_records(store.spec, records.table))
    if (store.folder / seal.NAME).read_bytes() != seal.spell(expected):
        yield Damage(seal.NAME, f"a seal of {sealed.digest}", f"the seal of what is here, {expected.digest}")


def repair(store: SoftTargetStore, quarantine: Path, damages: Sequence[Damage]) -> list[int]:
    """Move what is damaged, with the files of the same shard, into a new folder in `quarantine`; the other records stay.

    The seal goes first, so no kill leaves a sealed store with parts missing. Where the manifest is damaged the records are
    made anew from the shards. Returns the shards to label again: with the same bytes the store gets the same digest. Needs
    the caller's lock, as nothing else here does but `collect_garbage`.
    """
    if not damages:
        return []
    store.refresh()
    folder, aside = store.folder, quarantine / f"{store.folder.name}-{uuid4().hex[:8]}"
    by_path = {damage.path for damage in damages}
    numbers = {number_of(path) for path in by_path - {SPEC, seal.NAME, MANIFEST}}
    gathered = store.gathered()
    if isinstance(gathered, pa.Table) and store.is_sealed:
        drop_loose(folder)  # left by a seal that was killed behind its proof, or by a writer that came late
    elif MANIFEST in by_path:
        gathered = newer(salvaged(folder, store.spec, _names(store)), store.records().table)
    if MANIFEST in by_path:  # while the seal still says that it is damaged
        write_manifest(folder, gathered)
    for name in (seal.NAME, *(by_path & {SPEC})):
        mirror.move(folder / name, aside / name)
    if isinstance(gathered, pa.Table) and numbers:
        write_manifest(folder, gathered.filter(pc.invert(pc.is_in(gathered["shard"], value_set=pa.array([*numbers])))))
    shards = [name for name in _names(store) if number_of(name) in numbers]
    for name in [*map(record_path, numbers), *(f"{SHARDS}/{name}" for name in shards)]:
        mirror.move(folder / name, aside / name)
    seal.publish(folder / SPEC, spell(store.spec.to_json()))
    return sorted(numbers) if MANIFEST not in by_path else store.missing()


def collect_garbage(
    store: SoftTargetStore, grace_s: float, remove: Callable[[Sequence[Path]], None] = mirror.remove_all
) -> list[Path]:
    """Remove drafts, shards that no record names, and loose records of a sealed store, if older than `grace_s`. Returns them.

    Needs the caller's lock.
    """
    wanted, in_doubt = _named(store)
    if in_doubt is None:
        return []
    orphans = [name for name in _names(store) if f"{SHARDS}/{name}" not in wanted and number_of(name) not in in_doubt]
    if orphans and remote_of(store.folder) is not None:  # their records may have been written anew, and of one size
        mirror.refresh_all({store.folder / record_path(number_of(name)) for name in orphans})
        wanted, in_doubt = _named(store)
        orphans = [name for name in orphans if in_doubt is not None and f"{SHARDS}/{name}" not in wanted]
    drafts = (path for part in (".", SHARDS, COMMITS) for path in (store.folder / part).glob(".draft-*"))
    is_gathered = store.is_sealed and isinstance(store.gathered(), pa.Table)
    loose = (store.folder / record_path(n) for n in (loose_numbers(store.folder) if is_gathered else ()))
    there = dict(mirror.listed(store.folder / SHARDS)) if orphans else {}
    written = {name: there[name].time for name in orphans if name in there}
    paths = sorted([*(store.folder / SHARDS / name for name in orphans), *drafts, *loose])
    removed, old = list[Path](), (path for path in paths if _age_s(path, written.get(path.name)) > grace_s)
    while some := list(islice(old, AT_ONCE)):
        remove(some)
        removed += some
    return removed


def _named(store: SoftTargetStore) -> tuple[set[str], set[int] | None]:
    """(shards that records name; those of damaged records, whose shard may be all that is left. None: it may be any)."""
    records = store.records()
    wanted = set(records.table["path"].to_pylist())
    if MANIFEST in records.damages or (store.is_sealed and len(wanted) < store.num_shards):
        return wanted, None
    return wanted, {number_of(path) for path in records.damages}


def _age_s(path: Path, written: float | None) -> float:
    """`written`: by the clock of the storage. -inf of what is gone."""
    try:
        return time.time() - (path.stat().st_mtime if written is None else written)
    except FileNotFoundError:  # its writer was quicker
        return float("-inf")


def _names(store: SoftTargetStore) -> list[str]:
    """Every file of a shard, of a record or not, ascending."""
    folder = store.folder / SHARDS
    names: Iterable[str] = (name for name, _ in manifest.entries(folder))
    if remote_of(folder) is not None:
        names = {*names, *(path.name for path in folder.glob("*.arrow"))}
    return sorted((name for name in names if SHARD.fullmatch(name)), key=lambda name: (number_of(name), name))
