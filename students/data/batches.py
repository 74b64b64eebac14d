"""From a run to the batches that it trains on: which rows, in which order.

The order of rows is a function of (seed, epoch, window) alone: any step is reached directly, by any number of ranks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from teachers.config.training import TrainConfig
from teachers.errors import RecipeError
from teachers.rows.epoch import EpochReader
from teachers.rows.rows import Among, Consecutive, Rows, chosen

from ..objective.targets import Column
from ..runs.run import Run
from ..runs.session import Session
from .balance import by_class
from .draws import PLACE, equal_parts
from .inputs import VIEW
from .rows import TrainingRows, check_that_there_are_rows

Held = Column | Among


class Batches:
    """This rank's share of an endless stream of global batches, from any step on."""

    def __init__(self, rows: TrainingRows, run: Run, session: Session, there: np.ndarray | None = None) -> None:
        """`there`: bool `[rows]`, those that may be drawn; None: all."""
        groups = draws_of(rows, run, session.world, there)
        self.parts = run.train.accumulate
        self.places = places([size for _, size in groups], self.parts, session).to(session.device)
        columns: Mapping[str, Held] = rows.columns
        memory = rows.division.reader
        if rows.partners is not None:
            columns, memory = rows.partners.beside(rows.columns, memory, session.device)
        self.readers = [readers_of(rows, columns, memory, run, session, *group) for group in groups]

    def of_epoch(self, epoch: int, start: int) -> Iterator[dict[str, Tensor]]:
        """The batches from batch `start` of an epoch on."""
        return self._joined([endless(readers, epoch * readers[0].num_batches + start) for readers in self.readers])

    def from_step(self, step: int) -> Iterator[dict[str, Tensor]]:
        """The batches of step `step` (counted from 0) and all after it."""
        return self._joined([endless(readers, step) for readers in self.readers])

    def _joined(self, streams: Sequence[Iterator[dict[str, Tensor]]]) -> Iterator[dict[str, Tensor]]:
        for first, *others in zip(*streams, strict=True):
            batch = first
            if others:
                groups = [first, *others]
                batch = {name: in_parts([group[name] for group in groups], self.parts) for name in first}
            batch[PLACE] = self.places
            yield batch


def in_parts(groups: Sequence[Tensor], parts: int) -> Tensor:
    """The rows of all groups, in `parts` equal parts that have as many of each group: as many workers would see."""
    slices = [equal_parts(len(group), parts) for group in groups]
    return torch.cat([group[of[part]] for part in range(parts) for group, of in zip(groups, slices, strict=True)])


def share_of(index: np.ndarray | None, num_rows: int) -> int:
    """How many of the rows are drawn by `index`, which may name one more than once."""
    return num_rows if index is None else min(len(index), num_rows)


def places(sizes: Sequence[int], parts: int, session: Session) -> Tensor:
    """Where this rank's rows stand in a global batch, i64 `[rows]`; `sizes`: rows of the groups that it is drawn from."""
    whole = in_parts(
        [torch.arange(size) + sum(sizes[:number]) for number, size in enumerate(sizes)], parts * session.world
    )
    return whole[session.rank * len(whole) // session.world :][: len(whole) // session.world]


def readers_of(
    rows: TrainingRows,
    columns: Mapping[str, Held],
    memory: int,
    run: Run,
    session: Session,
    index: np.ndarray | None,
    batch_size: int,
) -> list[EpochReader]:
    """A reader for each view of the rows `index` (None: all), which draw in one order. What is the same in all views is held once."""
    num_rows = len(rows.labelled)
    memory = memory * share_of(index, num_rows) // num_rows
    per_view = {name for name, column in columns.items() if length(column) != num_rows}
    shared = {name: some(column, index) for name, column in columns.items() if name not in per_view}
    if rows.views > 1:
        mapped = {name: column for name, column in shared.items() if isinstance(column, Rows)}
        if (taken := sum(column.nbytes for column in mapped.values())) <= memory // 2:
            shared |= {name: column.owned() for name, column in mapped.items()}
            memory -= taken
        shared = {
            name: column if isinstance(column, Rows) else column.to(session.device) for name, column in shared.items()
        }
    return [
        EpochReader(
            {name: some(in_view(column, view, num_rows), index) if name in per_view else shared[name] for name, column in columns.items()},
            batch_size=batch_size,
            seed=run.seed,
            window=run.train.shuffle_window,
            memory_bytes=memory // rows.views,
            device=session.device,
            rank=session.rank,
            world=session.world,
        )
        for view in range(rows.views)
    ]  # fmt: skip


def length(column: Held) -> int:
    return column.num_rows if isinstance(column, Rows) else len(column)


def in_view(column: Held, view: int, num_rows: int) -> Held:
    """Of `[views * num_rows]` the rows of one view."""
    first = view * num_rows
    return Consecutive(column, first, num_rows) if isinstance(column, Rows) else column[first : first + num_rows]


def some(column: Held, index: np.ndarray | None) -> Held:
    """`chosen`, also of a column that lies among others."""
    if isinstance(column, Among):
        return column if index is None else column[torch.from_numpy(index)]
    return chosen(column, index)


def endless(readers: Sequence[EpochReader], step: int) -> Iterator[dict[str, Tensor]]:
    """Batches from step `step` on, the rows in the next view with every epoch; each a dict of its own."""
    epoch, start = divmod(step, readers[0].num_batches)
    while True:
        view = epoch % len(readers)
        for batch in readers[view].batches(epoch, start):
            if len(readers) > 1:
                batch[VIEW] = torch.full((len(batch["label"]),), view, device=batch["label"].device)
            yield batch
        epoch, start = epoch + 1, 0


def draws_of(
    rows: TrainingRows, run: Run, world: int, there: np.ndarray | None = None
) -> list[tuple[np.ndarray | None, int]]:
    """`draws` of the rows of a training; with `balanced` a labelled row may come several times."""
    groups = draws(rows.labelled, run, world, there)
    if run.train.balanced is None:
        return groups
    label = rows.columns["label"]
    assert isinstance(label, Tensor)
    labels = np.where(rows.labelled, label.numpy(), -1)
    everything = np.arange(len(labels))
    return [(by_class(everything if index is None else index, labels), size) for index, size in groups]


def draws(
    labelled: np.ndarray, run: Run, world: int, there: np.ndarray | None = None
) -> list[tuple[np.ndarray | None, int]]:
    """From which rows (None: all) how many rows of each global batch are drawn. `there`: bool `[rows]`, of no others."""
    train = run.train
    number, of = run.membership.share_of_rows
    mine = there if of == 1 else np.arange(len(labelled)) % of == number
    everything = None if labelled.all() else np.flatnonzero(labelled)
    groups: list[tuple[np.ndarray | None, int]]
    if run.labelled_only:
        groups = [(everything, train.batch_size)]
    elif train.labelled_fraction is None or everything is None:
        groups = [(None, train.batch_size)]
    else:
        share = labelled_share(train, world)
        groups = [(everything, share), (np.flatnonzero(~labelled), train.batch_size - share)]
    if mine is not None:
        groups = [(np.flatnonzero(mine) if index is None else index[mine[index]], size) for index, size in groups]
    return [(enough(index, len(labelled), batch_size, run), batch_size) for index, batch_size in groups]


def labelled_share(train: TrainConfig, world: int) -> int:
    """Labelled rows of a global batch: the same number in every part of it, at least one and not all."""
    assert train.labelled_fraction is not None
    parts = world * train.accumulate
    if train.batch_size < 2 * parts:
        raise RecipeError(
            "train.labelled_fraction needs two rows or more in each of the `workers * accumulate` parts of a batch; raise "
            "batch_size"
        )
    per_part = train.batch_size // parts
    if (each := train.rows_together) > 1:  # all rows of a group are labelled, or none is
        if per_part < 2 * each:
            what = "`mix` needs two pairs" if each == 2 else "`mosaic` needs two groups of four"
            raise RecipeError(
                f"train.labelled_fraction beside {what} of rows or more in each of the `workers * accumulate` parts of a "
                f"batch; raise batch_size"
            )
        return each * parts * min(max(round(train.labelled_fraction * per_part / each), 1), per_part // each - 1)
    return parts * min(max(round(train.labelled_fraction * per_part), 1), per_part - 1)


def enough(index: np.ndarray | None, num_rows: int, batch_size: int, run: Run) -> np.ndarray | None:
    """`index`, as often as it takes to fill a batch. Raises DataError without a row."""
    found = num_rows if index is None else len(index)
    check_that_there_are_rows(found, run)
    if found >= batch_size:
        return index
    return np.tile(np.arange(num_rows) if index is None else index, math.ceil(batch_size / found))
