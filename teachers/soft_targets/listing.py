"""The stores that lie somewhere, and what each of them is. Knows nothing of what is in a shard."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..errors import StoreError
from ..storage.seal import read_seal
from .records import COMMITS
from .store import SHARDS, SPEC, SoftTargetStore


def describe(folder: Path) -> dict[str, Any]:
    """What `collegium store ls` says of one store. StoreError where there is none."""
    store = SoftTargetStore.open(folder)
    done = store.records().table
    return {
        "folder": str(folder),
        "teacher": store.spec.teacher,
        "segment": store.spec.segment,
        "encoding": store.spec.encoding,
        "outputs": {name: list(output.shape) for name, output in store.spec.layers.items()},
        "rows": store.spec.num_rows,
        "shards": store.num_shards,
        "shards_done": len(done),
        "bytes": int(pc.sum(done["bytes"], min_count=0).as_py()),
        "sealed": read_seal(folder) is not None,
    }


def find_stores(path: Path) -> list[Path]:
    """The folders of stores: `path` itself, or those in its `soft_targets/`. StoreError when there are none."""
    if _is_store(path):
        return [path]
    found = sorted(folder for folder in (path / "soft_targets").glob("*") if _is_store(folder))
    if not found:
        raise StoreError(f"{path}: no soft-target store here and none in {path / 'soft_targets'}")
    return found


def _is_store(folder: Path) -> bool:
    """A damaged one too."""
    return any((folder / name).exists() for name in (SPEC, COMMITS, SHARDS))
