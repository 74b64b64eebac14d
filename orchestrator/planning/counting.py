"""What `plan` knows of rows and classes before anything is prepared: by reading every row's label, where that is quick or asked for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from teachers.config.transfer_set import TransferSetConfig
from teachers.preparing.count import Counted, count, count_prepared
from teachers.preparing.look import Look
from teachers.sources import files_of
from teachers.transfer_set.transfer_set import SPLITS, TransferSet

QUICK_BYTES = 64 << 20
"""Of a source whose labels are read without `--check`."""
FEW_ROWS = 10
"""Of a class, by which nothing can be chosen or judged."""
NAMED = 3


def known(config: TransferSetConfig, seen: Look, prepared: Path | None, *, thorough: bool) -> Counted | None:
    """What the rows of each split are; None where reading them would take long, or was not asked for.

    Raises DataError for what `prepare` would end with.
    """
    if prepared is not None:
        return count_prepared(TransferSet.open(prepared))
    wanted = thorough and not _is_elsewhere(config)
    return count(config, seen) if wanted or _is_quick(config) else None


def _is_elsewhere(config: TransferSetConfig) -> bool:
    """Whether the rows come over a connection, where reading all of them is the work itself."""
    return config.source.kind == "import" and config.source.version is not None


def _is_quick(config: TransferSetConfig) -> bool:
    if config.source.kind in ("sklearn", "image_folder"):
        return True
    if config.source.kind == "import":  # code of the user's, which may fetch
        return False
    paths = [file.path for file in files_of(config)]
    files = [each for path in paths for each in (path.glob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files) <= QUICK_BYTES


def with_counts(seen: Look, counted: Counted | None) -> Look:
    """The look at a source, with what counting has found."""
    if counted is None:
        return seen
    rows = sum(counted.rows.values())
    size = rows * seen.row_bytes
    return replace(seen, classes=counted.classes, num_rows=rows, rows_by_split=counted.rows, num_bytes=size)


def count_notes(config: TransferSetConfig, counted: Counted | None, *, thorough: bool) -> Iterator[str]:
    """Classes that cannot be learnt, chosen by or judged; or that nobody knows yet."""
    if counted is None:
        how = "`--check` counts them"
        if thorough:
            how = "they come from elsewhere" if _is_elsewhere(config) else "the source has too many to count before"
        yield f"classes and rows of each class are known after `prepare`: {how}"
        return
    if config.label is None:
        return
    in_split = {split: counted.of_class(split) for split in SPLITS}
    for name in counted.classes:
        if not in_split["train"][name]:
            elsewhere = ", ".join(f"{in_split[split][name]} {split}" for split in SPLITS[1:] if in_split[split][name])
            where = f"{elsewhere} rows are" if elsewhere else "no row is"
            yield f"class {name!r}: no labelled training row, so nobody learns it from labels; {where} of it"
    lonely = [name for name, rows in in_split["train"].items() if rows == 1]
    if lonely:
        yield f"one labelled training row is all there is of {_some(lonely)}"
    few = [name for name, rows in in_split["validation"].items() if 0 < rows < FEW_ROWS]
    none = [name for name, rows in in_split["validation"].items() if not rows and in_split["train"][name]]
    total = counted.num_labelled["validation"]
    if few or none:
        parts = [f"under {FEW_ROWS} of {_some(few)}"] * bool(few) + [f"none of {_some(none)}"] * bool(none)
        yield (
            f"{total:,} labelled validation rows choose weights, seeds and settings and judge teachers: "
            f"{', '.join(parts)}; a larger `split.validation` tells more"
        )
    untested = [name for name, rows in in_split["test"].items() if not rows]
    if untested:
        yield f"no test row is of {_some(untested)}, so nothing is known of how well they are told apart"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more classes" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
