"""Which classes a source has, and what integers mean as its labels: by the recipe, the files' metadata, class folders.

Reads schemas, no rows. Knows nothing of inputs.
"""

from collections.abc import Sequence

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError, RecipeError
from ..sources import class_names
from ..sources.files import File
from ..transfer_set.class_names import in_order

SPLIT_WORDS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}

Named = Sequence[tuple[File, Sequence[str] | None]]
"""By file, what it says of its integers."""


def classes_of_source(
    config: TransferSetConfig, files: Sequence[File]
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """(classes, if they are known before a label is read; what integers mean, None: what each file says, or nothing).

    Raises RecipeError for `classes` that contradict the files, DataError for files that leave their integers open.
    """
    named: Named = class_names(files, config.labels[0]) if config.labels else []
    folders = config.source.kind == "image_folder"
    if folders:
        _check_folders(config, named)
    classes = config.classes if config.classes is not None else _of_files(named, folders=folders)
    if classes is None and config.label is None:
        raise RecipeError("transfer_set.classes: without a label column the classes must be named here")
    if classes is None:
        return None, None
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise RecipeError(f"transfer_set.classes: {twice[0]!r} is there twice")
    if not classes:
        raise RecipeError("transfer_set.classes: name at least one class")
    return tuple(classes), None if folders else _integers(config, named)


def _of_files(named: Named, *, folders: bool) -> list[str] | None:
    found = list(dict.fromkeys(name for _, names in named for name in names or ()))
    return (in_order(found) if folders else found) or None


def _integers(config: TransferSetConfig, named: Named) -> tuple[str, ...] | None:
    meant = {tuple(names): file for file, names in named if names is not None}
    if config.classes is not None:
        for names, file in meant.items():
            if len(meant) == 1 and len(names) == len(config.classes) and set(names).isdisjoint(config.classes):
                return tuple(config.classes)  # other names for the same integers
            _check_agree(config.classes, names, file)
    if len(meant) == 1:
        return next(iter(meant))
    if meant and (silent := [file for file, names in named if names is None]):
        raise DataError(
            f"{silent[0].title}: does not say what the integers of {config.label!r} mean, and the files that do differ; "
            f"write names instead of integers"
        )
    return None


def _check_agree(classes: Sequence[str], names: Sequence[str], file: File) -> None:
    for number, (ours, theirs) in enumerate(zip(classes, names, strict=False)):
        if ours != theirs:
            raise RecipeError(
                f"transfer_set.classes: label {number} is {ours!r} here and {theirs!r} in what {file.title} says itself; "
                f"leave `classes` out, or give all of its names in its order: {', '.join(names[:10])}"
            )


def _check_folders(config: TransferSetConfig, named: Named) -> None:
    """Raise RecipeError for folders that are no classes: of splits, or one that holds the class folders; for none at all."""
    if named and not any(names for _, names in named):
        raise RecipeError(
            f"transfer_set.source.path: there are no class folders in {named[0][0].title}; an image_folder holds one folder of "
            f"images per class, or say `label: null` and `classes` where nobody knows the labels"
        )
    for file, names in named:
        if config.classes is not None or not names:
            continue
        if len(names) > 1 and all(name.lower() in SPLIT_WORDS for name in names):
            raise RecipeError(
                f"transfer_set.source.path: the folders of {file.title} are splits, not classes ({', '.join(names)}); give "
                f"`split: {{files: {{{_split_files(names)}}}}}`, or name them under `classes` if they are meant"
            )
        if len(names) == 1:
            inner = file.path / names[0]
            below = [entry for entry in inner.iterdir() if not entry.name.startswith(".")]
            folders = sorted(entry.name for entry in below if entry.is_dir())
            if len(folders) > 1 and len(folders) == len(below):
                raise RecipeError(
                    f"transfer_set.source.path: the only folder of {file.title} is {names[0]}, which holds folders "
                    f"({', '.join(folders[:5])}); if these are the classes, give {str(inner)!r}; else name {names[0]!r} "
                    f"under `classes`"
                )


def _split_files(names: Sequence[str]) -> str:
    """What the recipe would say for folders of these names."""
    train = next((name for name in names if name.lower().startswith("train")), names[0])
    tests = [name for name in names if name.lower().startswith("test")]
    others = [name for name in names if name not in (train, *tests)]
    if not tests:
        return f"train: {train}, test: {others[0]}"
    return ", ".join([f"train: {train}", *(f"validation: {name}" for name in others[:1]), f"test: {tests[0]}"])
