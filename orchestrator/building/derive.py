"""How derived columns are built: what is made of text, one stage a segment, shared by all who make the same of it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers.config.resources import Resources
from teachers.process.log_lines import working_on
from teachers.storage.seal import Seal, write_seal
from teachers.transfer_set.derived import DerivedSegment, Deriving, derive_part, finish, missing_parts
from teachers.transfer_set.transfer_set import TransferSet

from ..reporting.cautions import cut_off
from ..stages import keys
from ..stages.stages import Built, Stage
from ..stages.texts import texts_of
from .context import Context, Facts

if TYPE_CHECKING:
    from teachers.models.text import TextTransform

SMALL_ROWS = 50_000
"""Of which token ids and n-grams are made here, before a worker of the cluster has started."""

log = logging.getLogger("collegium")


def derive(context: Context, prepared: Built) -> list[Built]:
    """Everything that the recipe makes of text, before anybody trains, labels or is asked."""
    transfer_set, found = TransferSet.open(prepared.folder), list[Built]()
    for name, text in texts_of(context.recipe, text_columns(transfer_set)).items():
        stages = derive_stages(name, text, transfer_set)
        built = context.stages.build_together(stages, partial(_derive, context, name, transfer_set, text))
        told = [_told(built[stage], text) for stage in stages]
        for line in cut_off([each.record() for each in told]):
            log.warning("%s", line)
        found += told
    return found


def _told(built: Built, text: "TextTransform") -> Built:
    """With what the stage says of itself, whether it was built now or long ago."""
    found = DerivedSegment.at(built.folder)
    facts = {"rows": found.num_rows, "cut_off": found.num_cut, "max_length": text.max_length}
    return replace(built, facts={**built.facts, **facts})


def text_columns(transfer_set: TransferSet) -> list[str]:
    return [column.name for column in transfer_set.columns if column.kind == "text"]


def derive_stages(name: str, text: "TextTransform", transfer_set: TransferSet) -> list[Stage]:
    """One for each segment."""
    return [keys.derive_stage(name, text, (each.name, each.digest)) for each in transfer_set.segments]


def _derive(
    context: Context, name: str, transfer_set: TransferSet, text: "TextTransform", folders: Mapping[Stage, Path]
) -> dict[Stage, tuple[Seal, Facts]]:
    """All segments that are missing, part by part, as many side by side as there is room for."""
    start, title = time.monotonic(), f"derive/{name}"
    told = {
        stage: Deriving(transfer_set.folder.resolve(), stage.part, text, folder.resolve())
        for stage, folder in folders.items()
    }
    parts = [
        (each, part)
        for each in told.values()
        for part in missing_parts(each, transfer_set.segment(each.segment).num_rows)
    ]
    total, done = sum(num_rows for _, (_, num_rows) in parts), 0
    with working_on(stage=title):
        for num_rows in _run(context, text, total)(derive_part, parts):
            done += num_rows
            context.watch.advance(title, done, total, f"{done / max(time.monotonic() - start, 1e-9):,.0f} rows/s")
    seconds, found = time.monotonic() - start, dict[Stage, tuple[Seal, Facts]]()
    for stage, folder in folders.items():
        segment = transfer_set.segment(stage.part)
        share = segment.num_rows / sum(transfer_set.segment(each.part).num_rows for each in folders)
        found[stage] = (write_seal(folder, finish(told[stage], segment)), {"seconds": seconds * share})
    return found


def _run(context: Context, text: "TextTransform", rows: int) -> Any:
    """`map`, here or on the cluster: an encoder asks for a GPU where there is one."""
    if text.kind != "encoder" and rows <= SMALL_ROWS:
        return map
    resources = Resources() if text.kind == "encoder" else Resources(gpus=0)
    return partial(context.cluster.map, user_path=context.user_path, resources=resources)
