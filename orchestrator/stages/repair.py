"""What is damaged in a stage's folder is moved away, so that just that is built again."""

from pathlib import Path

from teachers.storage import mirror
from teachers.storage.lease import NAME as LEASE
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import Damage


def move_damaged_parts(folder: Path, away: Path, damages: list[Damage]) -> None:
    """Move the innermost sealed folder around each damaged file to `away`, and remove the seals above it."""
    for damage in damages:
        part = (folder / damage.path).parent
        while part != folder and not (part / SEAL).exists():
            part = part.parent
        if part == folder:
            _move_all(folder, away)
            return
        if not part.exists():  # moved already: several of its files were damaged
            continue
        for above in (each for each in part.parents if each == folder or folder in each.parents):
            mirror.remove(above / SEAL)
        mirror.move(part, away / part.relative_to(folder).as_posix().replace("/", "_"))


def _move_all(folder: Path, away: Path) -> None:
    mirror.remove(folder / SEAL)
    names = {entry.name for entry in folder.iterdir()} | {name.split("/")[0] for name in mirror.entries(folder)}
    for name in sorted(names - {".lock", LEASE, "STAGE.json"}):
        mirror.move(folder / name, away / name)
