"""Names of images and of rows that mean the same, whatever folders and endings they are written with. Knows nothing of files."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

POSITION = re.compile(r"#\d+$")
"""At the end of an id that is a file and the row in it."""


class Names:
    """Names of images or of rows, found by one that means the same: the same path, or the end of it as far as both have folders,
    whatever comes behind the last dot; else the only one whose file is called so."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by_stem: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        self._count = 0
        for name in names:
            self.add(name)

    def __len__(self) -> int:
        return self._count

    def add(self, name: str) -> None:
        parts = _parts_of(name)
        self._by_stem.setdefault(parts[-1], []).append((self._count, parts))
        self._count += 1

    def like(self, name: str) -> list[int]:
        """Which names mean the same, by their places."""
        fitting, called_so = self.both(name)
        return fitting or (called_so if len(called_so) == 1 else [])

    def both(self, name: str) -> tuple[list[int], list[int]]:
        """(names that end alike, by their places; those of files that are called so)."""
        own = _parts_of(name)
        called_so = self._by_stem.get(own[-1], [])
        return [at for at, parts in called_so if _end_alike(parts, own)], [at for at, _ in called_so]


def _parts_of(name: str) -> tuple[str, ...]:
    """Folders and file, without what comes behind its last dot, or behind the `#` of a row in a file."""
    path = PurePosixPath(POSITION.sub("", name.replace("\\", "/")))
    return tuple(part for part in (*path.parts[:-1], path.stem) if part not in ("/", "."))


def _end_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    shared = min(len(one), len(other))
    return one[len(one) - shared :] == other[len(other) - shared :]
