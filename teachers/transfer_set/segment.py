"""Immutable rows of one split under one view: what a segment is, and what names its content. Knows nothing of files' formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ..storage.seal import digest_of

if TYPE_CHECKING:
    from .columns import Column

SplitName = Literal["train", "validation", "test", "teachers"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
EVERY: tuple[SplitName, ...] = get_args(SplitName)  # `teachers`: see `own_rows`
VIEW = ".view-"
"""In the name of a segment, between that of its rows and the number of its view."""


@dataclass(frozen=True)
class Part:
    """One file of a segment's inputs. `xxh3_128` is of its content (keys, then each column), not of the file around it."""

    path: str
    first_row: int
    num_rows: int
    bytes: int
    xxh3_128: str


@dataclass(frozen=True)
class Segment:
    """Rows of one split under one view; `digest` covers keys and inputs, not labels."""

    name: str
    split: SplitName
    view: int
    num_rows: int
    digest: str
    parts: tuple[Part, ...]

    @property
    def kind(self) -> str:
        """Its split, of rows of the source; of rows beside these `extra` or `munge`."""
        return self.base.rpartition("-")[0]

    @property
    def base(self) -> str:
        """The name of the segment of the same rows as they are."""
        return self.name.partition(VIEW)[0]

    @property
    def rows_path(self) -> str:
        return f"segments/{self.base}/rows.arrow"


def segment_digest(columns: "Sequence[Column]", view: int, parts: Sequence[Part]) -> str:
    """What a segment's rows are: keys and inputs. Not their labels, and not how the segment is called."""
    contents = [[part.first_row, part.num_rows, part.xxh3_128] for part in parts]
    return digest_of({"view": view, "columns": [column.content for column in columns], "parts": contents})
