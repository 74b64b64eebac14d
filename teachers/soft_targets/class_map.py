"""A teacher's classes and the transfer set's: which is which, by name. Imports no torch: a run asks it before any work."""

from collections.abc import Mapping, Sequence

from ..errors import RecipeError


def mapped(
    teacher_classes: Sequence[str], classes: Sequence[str], class_map: Mapping[str, str | None] | None
) -> dict[str, str | None]:
    """What each of a teacher's classes is in the transfer set; None: it takes no part.

    `class_map` renames or drops (None) some; without it the names must be the same, in any order. Raises RecipeError for a
    class that is mapped nowhere, or two that are mapped to the same.
    """
    renamed = {name: (class_map or {}).get(name, name) for name in teacher_classes}
    targets = [name for name in renamed.values() if name is not None]
    if strange := sorted(set(class_map or {}) - set(renamed)):
        raise RecipeError(f"class_map names {strange}, which the teacher does not have; it has {_some(renamed)}")
    if unmapped := [name for name in targets if name not in classes]:
        raise RecipeError(
            f"the teacher's classes {_some(unmapped)} are not in the transfer set, which has {_some(classes)}; "
            f"map each in `class_map` to one of them, or to null"
        )
    if twice := sorted({name for name in targets if targets.count(name) > 1}):
        raise RecipeError(f"several of the teacher's classes are mapped to {twice}; map all but one to null")
    if class_map is None and (left_out := [name for name in classes if name not in targets]):
        raise RecipeError(
            f"the teacher does not know the classes {_some(left_out)}; "
            f"`class_map: {{}}` says that this is meant, and it then takes no part in them"
        )
    return renamed


def _some(names: Sequence[str] | Mapping[str, str | None]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
