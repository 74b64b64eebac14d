"""The stores that lie somewhere, and what each of them is. Knows nothing of what is in a shard."""

from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..storage.seal import read_seal
from .schema import Commit
from .store import SoftTargetStore


def describe(folder: Path) -> dict[str, Any]:
    """What `collegium store ls` says of one store. StoreError where there is none."""
    store = SoftTargetStore.open(folder)
    records = [store.record_or_damage(number) for number in range(store.num_shards)]
    done = [record for record in records if isinstance(record, Commit)]
    return {
        "folder": str(folder),
        "teacher": store.spec.teacher,
        "segment": store.spec.segment,
        "encoding": store.spec.encoding,
        "outputs": {name: list(output.shape) for name, output in store.spec.layers.items()},
        "rows": store.spec.num_rows,
        "shards": store.num_shards,
        "shards_done": len(done),
        "bytes": sum(record.bytes for record in done),
        "sealed": read_seal(folder) is not None,
    }


def find_stores(path: Path) -> list[Path]:
    """The folders of stores: `path` itself, or those in its `soft_targets/`. StoreError when there are none."""
    if (path / "commits").is_dir():
        return [path]
    found = sorted(commits.parent for commits in (path / "soft_targets").glob("*/commits"))
    if not found:
        raise StoreError(f"{path}: no soft-target store here and none in {path / 'soft_targets'}")
    return found
