"""Pieces of a set that is being prepared: what they are called, and that none is left behind."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.transfer_set import TransferSetConfig
from ..sources.files import Chunk, printable
from ..storage import mirror
from ..storage.seal import digest_of
from .budget import Budget
from .look import Look
from .stretches import Stretches

FORMAT = 2
"""Of pieces: those of a program that writes them otherwise are not read."""


def fingerprint(config: TransferSetConfig, seen: Look, stretches: Stretches, room: Budget) -> str:
    """Names the pieces, so that those of a killed call are used again only by the same one."""
    described = [[_described(chunk) for chunk in stretch] for stretch in (*stretches.source, *stretches.extra)]
    paths = sorted({chunk.file.path for chunk in stretches.chunks if chunk.file.root is not None})
    states = [[printable(str(path)), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    made_of = [seen.classes, seen.integers, [asdict(plan) for plan in seen.plans]]
    told = [FORMAT, room.bytes, config.task, config.model_dump(mode="json")]
    return digest_of([*told, described, states, made_of])[:12]


def _described(chunk: Chunk) -> list[Any]:
    units = (printable(str(unit)) for unit in chunk.units)
    return [chunk.file.title, chunk.file.split, chunk.first_row, chunk.num_rows, *units]


def tidy(folder: Path) -> None:
    """Remove the pieces, and the drafts of killed calls (not beside the manifest, where others seal the folder)."""
    for pieces in {*folder.glob(".pieces-*"), *(folder / name.split("/")[0] for name in mirror.entries(folder))}:
        if not pieces.name.startswith(".pieces-"):
            continue
        mirror.remove_folder(pieces)
    for draft in (folder / "segments").rglob(".draft-*"):
        draft.unlink(missing_ok=True)
