"""A teacher's classes and the transfer set's: which is which, by name. Imports no torch: a run asks it before any work.

A map has a line for each class that is called otherwise, and two words of its own: `file`, a CSV with further lines, and
`others`, what becomes of classes that no line names and that the transfer set does not have.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.task import AnswerName
from ..errors import RecipeError

FILE, OTHERS = "file", "others"
Lines = Mapping[str, str | None]
ClassMap = Mapping[str, str | Lines | None]
"""As in a recipe; with the content of its `file` in place of the name: `resolved`."""


def resolved(class_map: Lines | None) -> ClassMap | None:
    """The map with what its file says: all that decides which class is which. Raises RecipeError for a file that does not."""
    path = file_of(class_map)
    return class_map if class_map is None or path is None else {**class_map, FILE: read_lines(Path(path))}


def file_of(class_map: Lines | None) -> str | None:
    """The file of further lines; None where the map names none: a class may be called so, too."""
    path = (class_map or {}).get(FILE)
    return path if path is not None and path.endswith(".csv") else None


def read_lines(path: Path) -> dict[str, str | None]:
    """A CSV whose lines are a teacher's class and the transfer set's; nothing in its place: it takes no part."""
    try:
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"class_map: {path} cannot be read as a CSV in UTF-8 ({getattr(error, 'strerror', None) or error})"
        ) from error
    found: dict[str, str | None] = {}
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != 2:
            raise RecipeError(
                f"class_map: {path}, line {number} has {len(row)} columns, expected two: a teacher's class, and the "
                f"transfer set's (or nothing, for one that takes no part)"
            )
        name, target = (cell.strip() for cell in row)
        if name in found and found[name] != (target or None):
            raise RecipeError(
                f"class_map: {path}, line {number} maps {name!r} to {target!r}, and a line before otherwise"
            )
        found[name] = target or None
    return found


def mapped(
    teacher_classes: Sequence[str],
    classes: Sequence[str],
    class_map: ClassMap | None,
    answer: AnswerName = "class_axis",
) -> dict[str, str | None]:
    """What each of a teacher's classes is in the transfer set; None: it takes no part.

    A line of the map counts first, then one of its file, as far as it leads to a class that there is, then the name itself,
    then `others`. Without a map the names must be the same, in any order. Several classes of one class of many may be mapped to
    one. Raises RecipeError, with names, for what leads nowhere.
    """
    lines: dict[str, Any] = dict(class_map or {})
    of_file: Lines = lines.pop(FILE) if isinstance(lines.get(FILE), Mapping) else {}
    has_others = OTHERS in lines and OTHERS not in teacher_classes
    others: str | None = lines.pop(OTHERS) if has_others else None
    if strange := sorted(set(lines) - set(teacher_classes)):
        raise RecipeError(
            f"class_map names {strange}, which the teacher does not have; it has {_some(teacher_classes)}"
        )
    known = {*classes, None}
    own = {name: name for name in teacher_classes if name in known or not has_others}
    meant: dict[str, str | None] = {**own, **{name: ours for name, ours in of_file.items() if ours in known}, **lines}
    found = {name: meant.get(name, others) for name in teacher_classes}
    if unmapped := sorted({name for name in (*found.values(), others) if name is not None and name not in known}):
        raise RecipeError(
            f"the teacher's classes {_some(unmapped)} are not in the transfer set, which has {_some(classes)}; "
            f"map each in `class_map` to one of them, or to null, or say `others: null` in it"
        )
    counts = Counter(name for name in found.values() if name is not None)
    if answer not in ("class_axis", "boxes") and (twice := sorted(name for name, count in counts.items() if count > 1)):
        raise RecipeError(
            f"several of the teacher's names are mapped to {twice}, and only probabilities of one class of many add up; map "
            f"all but one to null"
        )
    if class_map is None and (left_out := [name for name in classes if name not in counts]):
        raise RecipeError(
            f"the teacher does not know the classes {_some(left_out)}; "
            f"`class_map: {{}}` says that this is meant, and it then takes no part in them"
        )
    return found


def _some(names: Sequence[str]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
