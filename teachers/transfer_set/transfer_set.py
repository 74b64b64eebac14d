"""The prepared transfer set: immutable segments of rows, in Arrow, in the order of their keys.

Knows nothing of where the rows came from (`prepare` does), of teachers or of students.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ..errors import RecipeError, StoreError
from ..storage import mirror
from ..storage.seal import NAME as SEAL
from ..storage.seal import check_format, digest_of, local
from ..tasks.labels import has_label, in_classes, usable
from ..tasks.space import Space
from .arrow_columns import as_numpy, label_values, opened
from .columns import INPUT, Column, inputs_of, seen_otherwise
from .derived import DerivedColumns, Derives
from .images import Resize
from .segment import EVERY as EVERY
from .segment import SPLITS as SPLITS
from .segment import Part as Part
from .segment import Segment as Segment
from .segment import SplitName as SplitName
from .segment import segment_digest as segment_digest
from .viewing import Viewing

if TYPE_CHECKING:
    from ..rows.rows import Rows

Columns = dict[str, NDArray[Any]]
FORMAT, FORMATS = 5, {"text": 6, "encoded": 7}
"""A program that knows no text, or no encoded images, has to refuse a set that holds some, and no other."""
NAME = "transfer_set.json"
NOT_KEPT = ("folder", "places", "derived", "beside_part", "viewed")
"""Of a set, what its manifest does not say: how it is looked at."""


@dataclass(frozen=True)
class TransferSet:
    """A prepared folder. `open` reads the manifest only; arrays are mapped when they are asked for.

    `space`: what its labels are made of; `num_labelled` counts training rows whose label may be used.
    """

    folder: Path
    columns: tuple[Column, ...]
    space: Space
    segments: tuple[Segment, ...]
    num_labelled: int
    report: dict[str, Any]
    made_of: tuple[dict[str, Any], ...] = ()
    """How each column is made of the source's: `InputPlan.document()`, what later rows are read by."""
    places: tuple[int, ...] | None = None
    """Of `of_classes`: where each prepared name stands among `classes`, -1: nowhere. None: as it was prepared."""
    derived: DerivedColumns | None = None
    """Of `deriving`: what stands in place of text columns."""
    beside_part: tuple[int, int] | None = None
    """Of `without_part`: (number, of how many) whose validation labels may not be used."""
    viewed: Viewing | None = None
    """Of `viewing`: in which views training rows are seen."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or of the numbers."""
        return self.space.names

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises StoreError for a manifest that is missing, unreadable or of another format."""
        mirror.refresh(folder / SEAL)
        path = local(folder, NAME)
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{path}: no such file; this folder holds no prepared transfer set") from None
        except ValueError as error:
            raise StoreError(f"{path}: not readable as JSON ({error}); remove the folder and prepare again") from error
        found = document.get("format") if isinstance(document, dict) else None
        check_format(document, next((known for known in FORMATS.values() if known == found), FORMAT), path)
        try:
            return cls(
                folder,
                tuple(Column.of_document(column) for column in document["columns"]),
                Space.from_document(document["space"]),
                tuple(
                    Segment(**s | {"parts": tuple(Part(**part) for part in s["parts"])}) for s in document["segments"]
                ),
                document["num_labelled"],
                document["report"],
                tuple(document["made_of"]),
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path}: not a transfer set ({error!r}); remove the folder and prepare again") from error

    def manifest(self) -> bytes:
        """What `open` reads back."""
        document = {name: value for name, value in vars(self).items() if name not in NOT_KEPT}
        columns, segments = [column.document() for column in self.columns], [asdict(each) for each in self.segments]
        document |= {"columns": columns, "segments": segments, "space": self.space.document()}
        written = max(FORMATS.get("encoded" if c.encoded else c.kind, FORMAT) for c in self.columns)
        return json.dumps({"format": written, **document}, indent=1, allow_nan=False).encode()

    def files(self) -> list[str]:
        """Every file of the set, relative to its folder: what a seal lists."""
        parts = [part.path for segment in self.segments for part in segment.parts]
        return sorted([NAME, *parts, *(segment.rows_path for segment in self.segments)])

    def of(self, split: SplitName) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.split == split)

    def segment(self, name: str) -> Segment:
        if found := [segment for segment in self.in_views() if segment.name == name]:
            return found[0]
        raise StoreError(f"{self.folder}: no segment {name!r}; it has {', '.join(s.name for s in self.in_views())}")

    def in_views(self) -> tuple[Segment, ...]:
        """All segments, those of training rows in every view."""
        views = self.viewed
        return self.segments if views is None else tuple(each for one in self.segments for each in views.of(one))

    def of_classes(self, names: Sequence[str]) -> Self:
        """The same rows for who learns these classes (or numbers) only, in this order; a row of another class has no label.

        Raises RecipeError for a name that is no class of this set, or one that is given twice.
        """
        if strange := [name for name in names if name not in self.classes]:
            raise RecipeError(
                f"classes: {strange} are not in the transfer set, which has {', '.join(self.classes)}; who is trained "
                f"here learns classes of the transfer set"
            )
        if len(set(names)) != len(names):
            raise RecipeError(f"classes: {list(names)} names one twice")
        places = tuple(names.index(name) if name in names else -1 for name in self.classes)
        mine = replace(self, space=self.space.of_names(names), places=places)
        num_labelled = sum(int(mine.labelled(segment).sum()) for segment in self.of("train"))
        return replace(mine, num_labelled=num_labelled)

    def without_part(self, number: int, of: int) -> Self:
        """The same rows, for who has not seen the validation labels of one of `of` parts, to which groups belong as a whole."""
        return replace(self, beside_part=(number, of))

    def viewing(self, views: Viewing | None) -> Self:
        """The same rows, training rows in several views; None: as they are."""
        return replace(self, viewed=views)

    def deriving(self, text: Derives | None) -> Self:
        """The same rows with what `text` makes of text columns in place of these; None: as they are."""
        return self if text is None else replace(self, derived=DerivedColumns(replace(self, derived=None), text))

    def seen(self, sees: Mapping[str, Resize]) -> Self:
        """The same rows for who reads encoded images so, by column; another column stays as it is."""
        columns, made_of = seen_otherwise(self.columns, self.made_of, sees)
        return replace(self, columns=columns, made_of=made_of)

    def beside(self, name: str) -> Path:
        """A folder of the OUT that this one lies in."""
        return self.folder.parent.parent / name

    def judged_on(self) -> str:
        """Digest of all that figures of two students must share to be compared: rows and labels that are not trained on."""
        judges = [segment for split in ("validation", "test") for segment in self.of(split)]
        rows = [
            [segment.split, segment.digest, xxhash.xxh3_128_hexdigest(self.labels(segment).tobytes())]
            for segment in judges
        ]
        return digest_of([self.space.document(), rows])

    def keys(self, segment: Segment, first_row: int = 0, num_rows: int | None = None) -> NDArray[np.uint64]:
        """`sample_key`, ascending, u64 [rows]; mapped where the rows lie in one part."""
        return as_numpy(self._rows(segment, "sample_key", first_row, num_rows))

    def labels(self, segment: Segment) -> NDArray[Any]:
        """As `teachers.tasks.labels` has them: of one class of many i32 [rows], the index into `classes`, -1 without one."""
        labels = label_values(self._rows(segment, "label"))
        if self.places is None:
            return labels
        return in_classes(labels, self.places, len(self.classes), self.space.task)

    def labelled(self, segment: Segment) -> NDArray[np.bool_]:
        """Whose label may be used, bool [rows]."""
        labelled = as_numpy(self._rows(segment, "labelled"))
        if self.beside_part is not None and segment.split == "validation":
            number, of = self.beside_part
            labelled = labelled & (self.groups(segment) % of != number)
        return labelled if self.places is None else labelled & has_label(self.labels(segment))

    def groups(self, segment: Segment) -> NDArray[np.uint64]:
        """The key of each row's group, which is its own where the split has no `group_by`, u64 [rows]."""
        return as_numpy(self._rows(segment, "group"))

    def usable_labels(self, segment: Segment) -> NDArray[Any]:
        """As `labels`, none where the label may not be used."""
        return usable(self.labels(segment), self.labelled(segment))

    def content(self, segment: Segment) -> NDArray[np.uint64]:
        """A hash of each row's inputs as the source has them, u64 [rows]; of a set with categories only."""
        return as_numpy(self._rows(segment, "content"))

    def ids(self, segment: Segment, first_row: int = 0, num_rows: int | None = None) -> pa.StringArray:
        return self._rows(segment, "id", first_row, num_rows)

    def inputs(
        self, segment: Segment, first_row: int = 0, num_rows: int | None = None, *, as_stored: bool = False
    ) -> Columns:
        """{column: [rows, *shape]}; read-only and mapped where the rows lie in one part, but for text. Derived columns stand in
        place of the text that they are made of. `as_stored`: encoded images are `bytes` [rows]."""
        stop = segment.num_rows if num_rows is None else first_row + num_rows
        if not 0 <= first_row <= stop <= segment.num_rows:
            raise IndexError(f"rows {first_row} to {stop} of {segment.name}, which has {segment.num_rows}")
        columns = self._stored_columns()
        pieces = [
            inputs_of(
                self._part(part)[max(first_row - part.first_row, 0) : stop - part.first_row],
                columns,
                as_stored=as_stored,
            )
            for part in segment.parts
            if part.first_row < stop and part.first_row + part.num_rows > first_row
        ]
        found = pieces[0] if len(pieces) == 1 else {}
        if len(pieces) != 1:
            empty = {column.name: np.empty((0, *column.shape), column.dtype) for column in columns}
            found = {name: np.concatenate([empty[name], *(piece[name] for piece in pieces)]) for name in empty}
        if self.viewed is not None and segment.view:
            found = self.viewed.inputs(self, segment, np.arange(first_row, stop), found)
        return found if self.derived is None else found | self.derived.inputs(segment, first_row, stop - first_row)

    def chosen(self, segment: Segment, rows: NDArray[Any]) -> Columns:
        """{column: [len(rows), *shape]}, copied, of the rows with these numbers, ascending; no other is read."""
        found = self.as_they_are(segment, rows)
        if self.viewed is not None and segment.view:
            found = self.viewed.inputs(self, segment, rows, found)
        return found if self.derived is None else found | self.derived.chosen(segment, rows)

    def as_they_are(self, segment: Segment, rows: NDArray[Any]) -> Columns:
        """`chosen` of the rows as they are, without what is derived."""
        columns = self._stored_columns()
        starts = [*(part.first_row for part in segment.parts), segment.num_rows]
        bounds = np.searchsorted(rows, starts).tolist()
        pieces = [
            inputs_of(self._part(part), columns, rows[begin:end] - part.first_row)
            for part, (begin, end) in zip(segment.parts, pairwise(bounds), strict=True)
            if begin < end
        ]
        empty = {column.name: np.empty((0, *column.shape), column.dtype) for column in columns}
        return {name: np.concatenate([empty[name], *(piece[name] for piece in pieces)]) for name in empty}

    def input_rows(self, segment: Segment) -> "dict[str, Rows]":
        """The parts of every column of a fixed width as the reader takes them, mapped; text has none, derived columns have.
        Encoded images are decoded when they are copied."""
        from ..rows.rows import Rows  # imports torch, which preparing does without
        from .encoded_rows import EncodedRows

        columns = [column for column in self.columns if not column.varies]
        batches = [self._part(part) for part in segment.parts]
        parts = [inputs_of(batch, columns) for batch in batches]
        found = {column.name: Rows([part[column.name] for part in parts]) for column in columns}
        encoded = [column for column in self.columns if column.encoded]
        for each in encoded:
            found[each.name] = EncodedRows([held.column(INPUT + each.name) for held in batches], each)
        return found if self.derived is None else found | self.derived.rows(segment)

    def _stored_columns(self) -> list[Column]:
        """Those in place of which nothing derived stands."""
        derived = () if self.derived is None else self.derived.text.names
        return [column for column in self.columns if column.name not in derived]

    def _part(self, part: Part) -> pa.RecordBatch:
        batch = opened(local(self.folder, part.path)).get_batch(0)
        if batch.num_rows != part.num_rows:
            raise StoreError(f"{self.folder / part.path}: {batch.num_rows} rows, its record says {part.num_rows}")
        return batch

    def _rows(self, segment: Segment, name: str, first_row: int = 0, num_rows: int | None = None) -> Any:
        column = opened(local(self.folder, segment.rows_path)).read_all().column(name).slice(first_row, num_rows)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
