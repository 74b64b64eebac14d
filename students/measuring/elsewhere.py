"""A graph that was trained elsewhere, judged as teachers are, on the rows by which a run was judged. What it says is kept nowhere.

Knows nothing of recipes or of runs.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from teachers.config.published import OnnxTeacher
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.labelling.specs import spec_of
from teachers.models.adapters import teacher_classes
from teachers.models.published_files import content_of
from teachers.soft_targets.class_map import mapped, resolved
from teachers.soft_targets.store import SoftTargetStore
from teachers.storage.seal import digest_of
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import within

from ..runs.run import Source
from .by_row import RowByRow, row_by_row
from .hearing import hear
from .judged import figures_of
from .labelled import Labelled
from .thresholds import thresholds_of_teachers


@dataclass(frozen=True)
class FromElsewhere:
    """`figures` of the labelled test rows, thresholds chosen on validation rows; `by_row`: how good each answer is, as one seed."""

    figures: dict[str, Any]
    by_row: RowByRow
    rows: int


def judge_elsewhere(config: OnnxTeacher, name: str, transfer_set: Path) -> FromElsewhere:
    """Ask the graph about all validation and test rows. Raises RecipeError for one that does not take or give what `config` says, or
    of other classes; DataError where no test row has a label."""
    data = TransferSet.open(transfer_set)
    rows = Labelled.of(data, "test").require("test")
    class_map = resolved(config.class_map)
    with within(f"teachers.{name}"):
        mapped(teacher_classes(config, data.space, None), data.space.names, class_map, data.space.answer)
    with TemporaryDirectory(prefix="elsewhere-") as scratch:
        stores = _asked(config, name, data, Path(scratch))
        source = Source(name, stores, class_map, config.probability_floor, calibrate=config.calibrate)
        chosen = thresholds_of_teachers(data, [source])
        voice = hear(rows, [source]).voice(name, chosen.get(name))
        return FromElsewhere(figures_of(rows, voice), row_by_row(rows, {0: voice}), len(rows.labels))


def _asked(config: OnnxTeacher, name: str, data: TransferSet, folder: Path) -> dict[str, Path]:
    """By segment the store of what it says, under `folder`."""
    classes, digest = teacher_classes(config, data.space, None), digest_of(content_of(config))
    stores = {each.name: folder / each.name for each in (*data.of("validation"), *data.of("test"))}
    for segment, store in stores.items():
        SoftTargetStore.create(store, spec_of(name, digest, data.segment(segment), data.space, classes))
    tasks = [LabelTask(data.folder, segment, store) for segment, store in stores.items()]
    labeller = Labeller(TeacherSpec(name, config, None, (), Path()), tasks, "cpu")
    for number, task in enumerate(labeller.tasks):
        for shard in range(task.store.num_shards):
            labeller.label(number, shard)
        task.store.seal()
    return stores
