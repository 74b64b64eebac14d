"""What the command line takes as OUT: a folder, or a URI of an object store, of which the mirror here is worked in."""

from pathlib import Path
from typing import Any

import click

from teachers.storage.place import is_uri, place, remote_of


class Out(click.ParamType[Path]):
    """Gives the folder to work in. `exists`: it must hold something, of which what is small is brought here."""

    name = "path"

    def __init__(self, *, exists: bool = False) -> None:
        self.exists = exists

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not is_uri(value):
            checked = click.Path(path_type=Path, exists=self.exists, file_okay=False)
            found: Path = checked.convert(value, param, ctx)
            return place(value) if "://" in str(value) else found
        folder = place(value)
        if self.exists:
            from teachers.storage import anew, mirror  # heavy, as all that moves bytes

            anew.check(folder, writes=False)
            if next(mirror.listed(folder), None) is None:
                self.fail(f"{value} holds nothing.", param, ctx)
            mirror.pull(folder)
        return folder


def for_smoke(out: Path) -> Path:
    """An OUT of its own beside `out`; of a whole bucket inside it, since what is beside it is another bucket."""
    remote = remote_of(out)
    return out / "smoke" if remote is not None and not remote.key else out.with_name(f"{out.name}-smoke")


def brought(path: Path) -> Path:
    """`path` with everything that lies below it in the storage: for what reads all of it."""
    if remote_of(path) is not None:
        from teachers.storage import mirror

        mirror.pull_all(path)
    return path
