"""Whose row of a file is whose: one pass over predictions, each row looked up by its key, and what does not fit named.

Memory holds the keys and one batch. Knows nothing of stores.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..config.any_teacher import OutputKind
from ..config.transfer_set import TransferSetConfig
from ..errors import TeacherError
from ..models.checked import check_scores
from ..models.predictions import Predictions, Said
from ..models.scores import to_logits
from ..models.teacher import LoadedTeacher
from ..preparing.labels import names_in
from ..preparing.splits import sample_keys
from ..preparing.tasks import LABELS
from ..sources import chunks_of, files_of, positions_of, read
from ..tasks.labels import is_known
from ..tasks.space import Space
from ..transfer_set.hashes import Keys

BATCH_BYTES = 32 << 20
"""Of scores that are read at once."""
MOST_ROWS = 65_536
NAMED = 5


@dataclass
class Rows:
    """Rows that are looked for: `keys` ascend, `name_of` says the id of one. `labels`, as `teachers.tasks.labels` has them, and
    `said` f32 [rows, C] may be missing: then nothing is compared, or kept. `seen`: of which something is said."""

    keys: Keys
    name_of: Callable[[int], str]
    labels: NDArray[Any] | None = None
    said: NDArray[np.float32] | None = None
    met: NDArray[np.bool_] = field(init=False)
    """That are in the file, if only as unknown."""
    seen: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.met, self.seen = np.zeros(len(self.keys), bool), np.zeros(len(self.keys), bool)


@dataclass(frozen=True)
class Found:
    """How the file and the rows fit: rows of which nothing is said (and the first of them), rows of the file that are nobody's."""

    num_rows: int
    num_missing: int
    first_missing: Sequence[str]
    num_strange: int


@dataclass(frozen=True)
class Joining:
    """A file, and how the transfer set was made that it is about."""

    predictions: Predictions
    made: TransferSetConfig

    @property
    def space(self) -> Space:
        return self.predictions.space

    def read_into(self, rows: Sequence[Rows]) -> Found:
        """One pass over the file. Raises TeacherError for ids that stand there twice or are missing, another number of rows (by
        row number), scores that are none, and labels that are not the transfer set's."""
        order = self._source_keys() if self.predictions.config.by_row_number else None
        first = num_strange = 0
        for said in self.predictions.read(min(max(BATCH_BYTES // (4 * len(self.predictions.classes)), 1), MOST_ROWS)):
            stop = first + len(said.positions)
            if order is not None and stop <= len(order):
                num_strange += self._put(said, order[first:stop], rows)
            elif order is None:
                num_strange += self._put(said, self._keys(said), rows)
            first = stop
        if order is not None and first != len(order):
            raise TeacherError(
                f"{self.path} has {first:,} rows, the source of the transfer set {len(order):,}; by row number both have the same "
                f"rows in the same order: name the column of their ids, `id: NAME`"
            )
        missing = [each.name_of(int(row)) for each in rows for row in np.flatnonzero(~each.seen)[:NAMED]]
        num_missing = sum(int((~each.seen).sum()) for each in rows)
        return Found(sum(len(each.keys) for each in rows), num_missing, missing[:NAMED], num_strange)

    @property
    def path(self) -> str:
        return self.predictions.config.path

    def _source_keys(self) -> Keys:
        """The key of every row of the source, in the order in which it is read."""
        return np.concatenate([np.zeros(0, np.uint64), *source_keys(self.made, by_row_number=True)])

    def _keys(self, said: Said) -> Keys:
        config = self.predictions.config
        if config.sample_key is not None:
            return _own_keys(said, config.sample_key)
        name = str(config.id)
        ids = names_in(name, said.data.column(name))
        if ids.null_count:
            at = int(np.flatnonzero(np.asarray(ids.is_null()))[0])
            raise TeacherError(f"{said.positions[at]}: {name!r} (the id) is missing, so nobody knows whose row this is")
        return sample_keys(ids, self.made.key_salt)

    def _put(self, said: Said, keys: Keys, rows: Sequence[Rows]) -> int:
        """Keep what is said of these rows of the file; how many of them are nobody's."""
        logits, is_said = self._logits(said)
        num_strange = len(keys)
        for each in rows:
            at = np.minimum(np.searchsorted(each.keys, keys), max(len(each.keys) - 1, 0))
            mine = np.flatnonzero(each.keys[at] == keys) if len(each.keys) else np.zeros(0, np.int64)
            places = at[mine]
            num_strange -= len(mine)
            self._check_once(said, each, mine, places)
            if each.labels is not None:
                self._compare_labels(said, each, mine, places)
            each.met[places] = True
            each.seen[places] = is_said[mine]
            if each.said is not None:
                each.said[places] = logits[mine]
        return num_strange

    def _check_once(self, said: Said, rows: Rows, mine: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        is_first = np.zeros(len(places), bool)
        is_first[np.unique(places, return_index=True)[1]] = True
        if (twice := np.flatnonzero(rows.met[places] | ~is_first)).size:
            raise TeacherError(
                f"{self.path}: of {twice.size} rows here something is said twice, and nobody knows which counts; the first: "
                f"{rows.name_of(int(places[twice[0]]))!r} ({said.positions[mine[twice[0]]]}); leave one of them out"
            )

    def _logits(self, said: Said) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(f32 [rows, C]; of which rows something is said)."""
        config, answer = self.predictions.config, self.space.answer
        output: OutputKind = "probabilities" if config.output == "classes" or config.indices else config.output
        scores = torch.from_numpy(said.scores)
        teacher = LoadedTeacher(self.predictions.classes, output, lambda batch: scores, answer)
        checked = check_scores(scores, teacher, config.path, np.array(said.positions, object), called="rows")
        is_said = np.asarray(np.isfinite(said.scores).any(1))
        return to_logits(checked, output, config.probability_floor, answer).numpy(), is_said

    def _compare_labels(self, said: Said, rows: Rows, mine: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Raise TeacherError, with the first of them, for rows whose label is another one in the file."""
        name, bad = str(self.predictions.config.label), dict[int, str]()
        theirs = self._labels(name, said, bad)[mine]
        if wrong := sorted(set(bad) & set(mine.tolist())):
            raise TeacherError(f"{said.positions[wrong[0]]}: {name!r}: {bad[wrong[0]]}")
        assert rows.labels is not None
        ours = rows.labels[places]
        differ = is_known(theirs) & is_known(ours) & ~np.isclose(theirs, ours)
        if (others := np.flatnonzero(differ.reshape(len(mine), -1).any(1))).size:
            first = [f"{rows.name_of(int(places[at]))!r} ({said.positions[mine[at]]})" for at in others[:NAMED]]
            raise TeacherError(
                f"{self.path}: {name!r} is another label than the transfer set's in {others.size} of {len(mine)} rows, the first: "
                f"{', '.join(first)}; these are not the rows that they are taken for"
            )

    def _labels(self, name: str, said: Said, bad: dict[int, str]) -> NDArray[Any]:
        reader = LABELS[self.space.task]
        read_as = self.made.model_copy(update={"label": name})
        return reader.read(read_as, self.space.names, None, said.data, bad).labels


def _own_keys(said: Said, name: str) -> Keys:
    """Keys that the file has itself. Raises TeacherError for a column of something else."""
    column = said.data.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        found = f"{column.null_count} rows without one" if column.null_count else str(column.type)
        raise TeacherError(
            f"{said.positions[0]}: {name!r} (the row's key): {found}; whole numbers are expected, as `collegium store export` writes "
            f"them: for names of rows say `id: {name}`"
        )
    keys: Keys = column.to_numpy(zero_copy_only=False).astype(np.uint64)
    return keys


def source_keys(made: TransferSetConfig, *, by_row_number: bool) -> Iterator[Keys]:
    """The keys of a source's rows, in the order in which it is read, without those of rows that cannot be read: by row number
    raises TeacherError for them."""
    column = made.id or made.input_names[0]
    for chunk in chunks_of(files_of(made), MOST_ROWS):
        if made.id is None and (positions := positions_of(chunk)) is not None:
            yield sample_keys(positions, made.key_salt)
            continue
        for batch in read(chunk, [column], MOST_ROWS):
            if batch.bad and by_row_number:
                raise TeacherError(
                    f"{batch.bad[0][0]}: {batch.bad[0][1]}; where rows cannot be read none can be told by its number"
                )
            if not batch.positions:  # of bad rows alone, without columns
                continue
            ids = batch.positions if made.id is None else names_in(made.id, batch.data.column(0)).fill_null("")
            yield sample_keys(ids, made.key_salt)


def check_missing(found: Found, predictions: Predictions) -> None:
    """Raise TeacherError for more rows of which nothing is said than the recipe allows."""
    config = predictions.config
    if found.num_missing > config.max_missing * found.num_rows:
        about = (
            f"{config.id!r} what"
            if config.id
            else f"{config.sample_key!r} made with the same `transfer_set.key_salt`, of what"
        )
        whose = f"is {about} `transfer_set.id` names? " if not config.by_row_number and found.num_strange else ""
        raise TeacherError(
            f"{config.path} says nothing of {found.num_missing:,} of {found.num_rows:,} rows of the transfer set, and max_missing is "
            f"{config.max_missing:g}; the first: {', '.join(map(repr, found.first_missing))}. {found.num_strange:,} of its rows are "
            f"none of these: {whose}A higher `max_missing` leaves them unknown"
        )
