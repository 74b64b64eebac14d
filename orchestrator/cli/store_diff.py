"""`collegium store diff`: how two stores about the same rows differ."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from teachers.errors import StoreError
from teachers.storage.place import spoken

from .options import with_json
from .out import Out

if TYPE_CHECKING:
    from teachers.soft_targets.difference import Difference


@click.command("diff")
@click.argument("first", type=Out(exists=True))
@click.argument("second", type=Out(exists=True))
@click.option(
    "--rows",
    default=10,
    show_default=True,
    type=click.IntRange(0, 10_000),
    help="How many of the rows that differ most are told.",
)
@with_json
def diff(first: Path, second: Path, rows: int, as_json: bool) -> None:
    """How two stores about the same rows differ: how often they agree, the KL divergence between them (of numbers the RMSE), and the rows
    that differ most. FIRST and SECOND are stores, of one OUT or two: a teacher before and after it changed, its float32 and
    its int8, two teachers."""
    from teachers.soft_targets.difference import difference

    folders = _store_of(first), _store_of(second)
    found = difference(*folders, most=rows)
    ids = _ids(folders[0], [row.place for row in found.most])
    document = {
        **asdict(found),
        "most": [{"id": name, **asdict(row)} for name, row in zip(ids, found.most, strict=True)],
    }
    if as_json:
        click.echo(json.dumps({"first": str(folders[0]), "second": str(folders[1]), **document}, indent=1))
        return
    for line in _lines(found, ids):
        click.echo(line)


def _store_of(path: Path) -> Path:
    from teachers.soft_targets.listing import find_stores

    found = find_stores(path)
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found[:5])
        raise StoreError(f"{spoken(path)} holds {len(found)} stores; name one of their folders: {names}")
    return found[0]


def _ids(store: Path, places: list[int]) -> list[str | None]:
    """What rows are called, where the transfer set lies beside the store."""
    from teachers.transfer_set.answers import answered_segments

    (segment,) = answered_segments([store], store.absolute().parents[1] / "prepared")
    if segment.rows is None or not places:
        return [None] * len(places)
    transfer_set, rows = segment.rows
    found: list[str | None] = transfer_set.ids(rows).take(places).to_pylist()
    return found


def _lines(found: "Difference", ids: list[str | None]) -> Iterator[str]:
    unknown = f"; of {found.unknown:,} more one of them knows nothing" if found.unknown else ""
    yield f"{found.rows:,} rows compared{unknown}"
    if found.agreement is not None:
        yield f"agreement  {100 * found.agreement:.2f} %"
    if found.kl is not None and found.kl_back is not None:
        yield f"KL         {found.kl:.6f} nats (first to second), {found.kl_back:.6f} (second to first)"
    for name, value in (found.rmse or {}).items():
        yield f"RMSE       {value:.6g} of {name}"
    if found.most:
        yield "rows that differ most:"
        for called, row in zip(ids, found.most, strict=True):
            yield f"  {row.distance:<12.6g} {called or row.sample_key}: {row.said[0]} | {row.said[1]}"
