"""Rows without labels from a source of their own, beside those of the transfer set's.

They are training rows, whatever their keys, and nothing is read of a label that they may have. Knows nothing of how rows are
written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config.transfer_set import SplitConfig, TransferSetConfig
from ..errors import DataError, RecipeError
from ..sources import BadRows, chunks_of, files_of, schema_of, some_rows
from ..sources.files import Chunk, File, column_problem
from .canonical import InputPlan, decode
from .shuffle import Reading

BESIDE = "extra/"
"""Before the position of such a row: a file of the source may be called like one of these."""
NOT_READ = ("",)
"""Names of a space of which nothing is read."""


def extra_of(config: TransferSetConfig) -> TransferSetConfig:
    """What is said of these rows: as of all others, but without labels or splits."""
    assert config.extra is not None
    nothing = {"extra": None, "munge": None, "label": None, "labelled": None}
    return config.model_copy(update={"source": config.extra, "split": SplitConfig(), **nothing})


def extra_files(config: TransferSetConfig) -> list[File]:
    """Of `transfer_set.extra`; none where there is none. Raises RecipeError for what is not there."""
    if config.extra is None:
        return []
    try:
        return files_of(extra_of(config))
    except RecipeError as error:
        raise RecipeError(str(error).replace("transfer_set.source", "transfer_set.extra")) from None


def reading_extra(told: Reading) -> Reading:
    """What those who read these rows are told."""
    return replace(told, config=extra_of(told.config), classes=NOT_READ, integers=None, last_key=None, beside=BESIDE)


@dataclass(frozen=True)
class LookAtExtra:
    """`num_rows`: None where only reading tells; `labels`: columns of the label that are there all the same."""

    num_rows: int | None
    bad: BadRows
    labels: tuple[str, ...]


def look_at_extra(config: TransferSetConfig, plans: Sequence[InputPlan], chunk_rows: int, rows: int) -> LookAtExtra:
    """Raises RecipeError for columns that are not there, and where none of the rows that are looked at fits."""
    files = extra_files(config)
    names = [name for plan in plans for name in plan.sources]
    if config.id is not None:
        names.append(config.id)
    there = schema_of(files).names
    if there and (told := column_problem(there, list(dict.fromkeys(names)))):
        raise RecipeError(f"transfer_set.extra: {told}; its input columns are those of the source")
    try:
        sample, positions, bad = some_rows(files, list(dict.fromkeys(names)), rows)
    except DataError as error:
        raise DataError(f"transfer_set.extra: {error}") from None
    _, wrong = decode(sample, plans, files[0].root)
    if wrong and len(wrong) == sample.num_rows:
        raise RecipeError(
            f"transfer_set.extra: none of the {len(wrong)} rows that were looked at fits the source's; {positions[0]}: {wrong[0]}"
        )
    bad = [(BESIDE + position, reason) for position, reason in bad]
    bad += [(BESIDE + positions[row], reason) for row, reason in wrong.items()]
    return LookAtExtra(rows_in(chunks_of(files, chunk_rows)), bad, tuple(n for n in config.labels if n in there))


def rows_in(chunks: Sequence[Chunk]) -> int | None:
    """None where only reading tells."""
    counts = [chunk.num_rows for chunk in chunks]
    return None if None in counts else sum(count or 0 for count in counts)
