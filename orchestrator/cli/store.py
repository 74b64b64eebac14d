"""`collegium store`: looking at, checking, cleaning and exporting soft-target stores."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from teachers.errors import StoreError
from teachers.storage.place import spoken

from .options import with_copies, with_json, with_least_score, with_rule_of_boxes, with_whose_boxes
from .out import Out
from .store_diff import diff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from teachers.storage.lease import Doubt

with_path = click.argument("path", type=Out(exists=True))


@click.group()
def store() -> None:
    """List, verify, compare, clean and export soft-target stores. PATH is an OUT, or one store's folder (a copy too)."""


store.add_command(diff)


@store.command("ls")
@with_path
@with_json
def list_stores(path: Path, as_json: bool) -> None:
    """List stores: teacher, segment, rows, shards, bytes, sealed or not, and what layers gave besides the answer."""
    from teachers.soft_targets.listing import describe, find_stores

    found = [describe(folder) for folder in find_stores(path)]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"{'teacher':<16} {'segment':<14} {'encoding':<9} {'rows':>9} {'shards':>9} {'MiB':>9}  state")
    for it in found:
        shards = f"{it['shards_done']}/{it['shards']}"
        click.echo(
            f"{it['teacher']:<16} {it['segment']:<14} {it['encoding']:<9} {it['rows']:>9,} {shards:>9} "
            f"{it['bytes'] / 2**20:>9.2f}  {'sealed' if it['sealed'] else 'unfinished'}"
            + "".join(f"  + {name} {shape}" for name, shape in it["outputs"].items())
        )


@store.command()
@with_path
@with_json
def verify(path: Path, as_json: bool) -> None:
    """Check every byte against its record; exit code 1 when something is damaged."""
    from teachers.soft_targets.listing import find_stores
    from teachers.soft_targets.store import SoftTargetStore
    from teachers.soft_targets.upkeep import verify as damages_of
    from teachers.storage import mirror
    from teachers.storage.anew import apart

    damages: dict[str, list[str]] = {}
    with apart(path) as read:  # what the storage has, not what this machine remembers of it
        for folder in find_stores(read):
            try:
                verified = damages_of(SoftTargetStore.open(folder), kept=False)
                for damage in verified:
                    mirror.mark(path / folder.relative_to(read) / damage.path)
                damages[spoken(folder)] = [str(damage) for damage in verified]
            except StoreError as error:
                damages[spoken(folder)] = [str(error)]
    if as_json:
        click.echo(json.dumps(damages, indent=1))
    else:
        for name, found in damages.items():
            click.echo(f"{'damaged' if found else 'whole':<8} {name}")
            for line in found:
                click.echo(f"         {line}")
    if any(damages.values()):
        click.echo("the next `collegium run` repairs what is damaged", err=True)
        sys.exit(1)


@store.command()
@with_path
@click.option("--grace", default=24.0, show_default=True, help="Hours that a file without a record is left alone.")
def gc(path: Path, grace: float) -> None:
    """Remove drafts, and shards that no record names."""
    from teachers.soft_targets.listing import find_stores
    from teachers.soft_targets.store import SoftTargetStore
    from teachers.soft_targets.upkeep import collect_garbage

    from ..stages.locks import folder_lock

    removed: list[Path] = []
    for folder in find_stores(path):
        with folder_lock(folder, f"store {folder.name}") as doubt:
            _check(folder, doubt)
            removed += collect_garbage(SoftTargetStore.open(folder), grace * 3600, partial(remove, folder, doubt))
    for file in removed:
        click.echo(f"removed {file}")
    click.echo(f"{len(removed)} files removed")


def _check(folder: Path, doubt: "Doubt") -> None:
    if reason := doubt():
        raise StoreError(f"{folder}: nothing more is removed: {reason}")


def remove(folder: Path, doubt: "Doubt", paths: "Sequence[Path]") -> None:
    """Files of a store, while nobody else can be at work there."""
    from teachers.storage import mirror

    _check(folder, doubt)
    mirror.remove_all(paths)


@store.command()
@with_path
@click.option(
    "--parquet",
    "target",
    type=click.Path(path_type=Path),
    help="FILE.parquet with all rows of the newest transfer set, or a folder: a file for each segment.",
)
@click.option("--coco", type=click.Path(path_type=Path), help="FOLDER for boxes as COCO's JSON, with their images.")
@click.option(
    "--yolo", type=click.Path(path_type=Path), help="FOLDER for boxes as YOLO's text files, with their images."
)
@with_whose_boxes
@with_rule_of_boxes
@with_least_score
@with_copies
def export(path: Path, target: Path | None, coco: Path | None, yolo: Path | None, **boxes: Any) -> None:
    """Write what teachers said: a table with id, split and label of each row for everyone else (--parquet), or boxes with their
    images for a trainer (--coco, --yolo)."""
    if [target, coco, yolo].count(None) != 2:
        raise click.UsageError("say what to write: --parquet, --coco or --yolo, one of them")
    if target is None:
        from .boxes_out import write_boxes

        folder, kind = (coco, "coco") if coco is not None else (yolo, "yolo")
        assert folder is not None
        write_boxes(path, folder, kind, **boxes)
        return
    from teachers.soft_targets.listing import find_stores
    from teachers.transfer_set.answers import answered_segments, of_newest, write_answers

    folders = find_stores(path)
    out = path.absolute().parents[1] if folders == [path] else path
    segments = [*answered_segments(folders, out / "prepared")]
    for store in sorted({store.folder for each in segments if each.rows is None for store in each.stores.values()}):
        click.echo(f"{store}: its rows are not in {out / 'prepared'}; id, split and label are left out", err=True)
    if target.suffix == ".parquet":
        click.echo(f"wrote {write_answers(of_newest(segments), target):,} rows to {target}")
        return
    for each in segments:
        file = target / f"{each.name}-{each.digest[:12]}.parquet"
        click.echo(f"wrote {write_answers([each], file):,} rows to {file}")
