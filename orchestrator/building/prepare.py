"""How the transfer set is prepared. Reuse is decided elsewhere."""

import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from teachers.config.transfer_set import TransferSetConfig
from teachers.storage.seal import Seal, write_seal
from teachers.transfer_set.transfer_set import SPLITS

from ..reporting.beside import about_beside
from ..stages import keys
from ..stages.stages import Built
from ..tracking.shown import data_set
from .context import Context, Facts

log = logging.getLogger("collegium")


def prepare(context: Context) -> Built:
    from teachers.preparing.look import digests_beside, source_digest
    from teachers.preparing.prepare import prepare as prepare_transfer_set
    from teachers.transfer_set.transfer_set import TransferSet

    config = context.recipe.transfer_set
    stage = keys.prepare_stage(context.recipe, source_digest(config), digests_beside(config))

    def build(folder: Path) -> tuple[Seal, Facts]:
        earlier = context.stages.earlier(stage)
        start = time.monotonic()
        context.cluster.join_meanwhile()
        transfer_set = prepare_transfer_set(
            config,
            folder,
            earlier=Path(earlier["folder"]) if earlier else None,
            run=map if _is_small(config) else partial(context.cluster.map, user_path=context.user_path),
        )
        rows = sum(segment.num_rows for segment in transfer_set.segments)
        if line := dropped(transfer_set.report):
            log.warning("%s", line)
        for line in about_beside(transfer_set.report):
            log.info("%s", line)
        return write_seal(folder, transfer_set.files()), _speed(rows, time.monotonic() - start)

    built = context.stages.build(stage, build)
    context.tracker.learns_from(data_set(config, TransferSet.open(built.folder), built.digest))
    return built


def dropped(report: Mapping[str, Any]) -> str:
    """In one line, that rows could not be used and are gone; nothing where all could."""
    if not (bad := report["bad_rows"]):
        return ""
    kept = sum(report["rows"][split] for split in SPLITS)
    return (
        f"{bad:,} of {bad + kept:,} rows could not be used and were dropped (on_bad_row: skip), the first: "
        f"{report['first_bad_rows'][0]}"
    )


def _is_small(config: TransferSetConfig) -> bool:
    """Whether it is read in one piece: that is done here before a worker of the cluster has started."""
    from teachers.preparing.prepare import CHUNK_ROWS
    from teachers.sources import chunks_of, files_of

    return config.source.kind != "import" and config.extra is None and len(chunks_of(files_of(config), CHUNK_ROWS)) == 1


def _speed(rows: int, seconds: float) -> Facts:
    return {"rows": rows, "rows_per_s": round(rows / max(seconds, 1e-9), 1)}
