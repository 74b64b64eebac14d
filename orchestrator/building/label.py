"""How a teacher's labels are built: one stage a segment, one set of actors for all that is missing."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from teachers.config.endpoint import EndpointTeacher
from teachers.config.outputs import NetworkTeacher
from teachers.config.predictions import PredictionsTeacher
from teachers.config.teacher import TeacherConfig
from teachers.process.log_lines import working_on
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import Damage, Seal, digest_of
from teachers.transfer_set.folds import PARTS, WHOLE
from teachers.transfer_set.own_rows import shared
from teachers.users_code.calls import within

from ..cluster.capacity import wait_for_room_s
from ..cluster.gangs import Gang
from ..recipe.model import is_trained_here
from ..reporting.cautions import cut_off
from ..stages import keys
from ..stages.stages import Built, Stage
from .context import Context, Facts, Taught
from .turns import Turns, build_in_turn

if TYPE_CHECKING:
    from teachers.soft_targets.schema import Spec
    from teachers.transfer_set.transfer_set import TransferSet

log = logging.getLogger(__name__)


def network_folder(config: TeacherConfig, trained: Path | None) -> Path | None:
    """The model folder of a teacher that is one network, for workers whose working directory is another."""
    if config.kind == "checkpoint":
        return Path(config.path).resolve()
    if config.kind != "module" or trained is None or config.train is None or config.train.folds is None:
        return trained if config.kind == "module" else None
    return trained / PARTS / WHOLE if config.train.refit else None


def label(
    context: Context,
    turns: Turns,
    name: str,
    config: TeacherConfig,
    weights: str,
    trained: Path | None,
    prepared: Built,
) -> Taught:
    """Ask one teacher about every segment; its actors start once, in their turn, and only when something is missing.

    A live teacher is asked about what the training does not see, which evaluation compares with. `weights`: digest of what the teacher is; `trained`: the folder of what was trained here, or None.
    """
    from teachers.transfer_set.transfer_set import TransferSet

    transfer_set = TransferSet.open(prepared.folder).viewing(keys.viewing_of(context.recipe))
    asked = Asked(name, config, weights, trained, transfer_set, context)
    stages, live = label_stages(name, config, weights, transfer_set)
    parts = {context.stages.folder(stage): part for part, stage in stages.items()}
    how = partial(_label, context, asked, parts), partial(_repair, asked, parts)
    replicas = partial(asked.replicas, list(stages.values()))
    built = build_in_turn(turns, f"label/{name}", replicas, context.stages, list(stages.values()), *how)
    network = network_folder(config, trained)
    labels = {part: _told(built[stage], config) for part, stage in stages.items()}
    for line in cut_off([each.record() for each in labels.values()]):
        log.warning("%s", line)
    outputs = asked.outputs_in([each.folder for each in labels.values()])
    return Taught(name, config, labels, network, trained, asked.classes() if live else (), live, outputs)


def check_outputs(context: Context, prepared: Built) -> None:
    """Raise RecipeError for layers that are not there in networks that are to be trained: before they are."""
    from teachers.transfer_set.transfer_set import TransferSet

    transfer_set = TransferSet.open(prepared.folder)
    for name, config in context.recipe.teachers.items():
        if is_trained_here(config) and isinstance(config, NetworkTeacher) and config.outputs:
            stage = keys.train_teacher_stage(context.recipe, name, prepared.digest)
            if not (context.stages.folder(stage) / SEAL).exists():
                log.debug("teacher %s gives %s", name, Asked(name, config, "", None, transfer_set, context).outputs)


def _told(built: Built, config: TeacherConfig) -> Built:
    """With what its store says of texts that a tokenizer of its own cut off, whether it was filled now or long ago."""
    from teachers.soft_targets.store import SoftTargetStore

    if config.kind != "huggingface":
        return built
    store = SoftTargetStore.open(built.folder)
    return replace(built, facts={**built.facts, "cut_off": store.cut_off(), "texts": store.spec.num_rows})


@dataclass(frozen=True)
class Asked:
    """One teacher and the rows that it is asked about."""

    name: str
    config: TeacherConfig
    weights: str
    trained: Path | None
    transfer_set: "TransferSet"
    context: Context

    @cached_property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """What it gives besides its answer, by name: the shape of a row. Of who has some, a task with its room makes its network."""
        if not isinstance(self.config, NetworkTeacher) or not self.config.outputs:
            return {}
        from teachers.models.adapters import absolute

        rows, context = self.transfer_set, self.context
        about = absolute(self.config), rows.columns, rows.space, context.recipe.trusted(), self.trained
        with within(f"teachers.{self.name}"), working_on(stage=f"label/{self.name}"):
            found: dict[str, tuple[int, ...]] = context.cluster.call(
                "teachers.models.skeleton:output_shapes",
                *about,
                resources=self.config.resources,
                user_path=context.user_path,
            )
        return found

    def outputs_in(self, stores: Sequence[Path]) -> dict[str, tuple[int, ...]]:
        """The same, as a store of what it said has it."""
        from teachers.soft_targets.store import SoftTargetStore

        if not stores or not getattr(self.config, "outputs", None):
            return self.outputs
        return {name: output.shape for name, output in SoftTargetStore.open(stores[0]).spec.layers.items()}

    def classes(self) -> tuple[str, ...]:
        """What the teacher scores, in its order."""
        from teachers.models.adapters import teacher_classes
        from teachers.soft_targets.class_map import mapped, resolved

        with within(f"teachers.{self.name}"):
            space = self.transfer_set.space
            classes = teacher_classes(self.config, space, self.trained)
            mapped(classes, space.names, resolved(self.config.class_map), space.answer)
        return classes

    def replicas(self, stages: Sequence[Stage]) -> Gang:
        """No more than there are shards to label; of answers that lie in files none."""
        if self.config.kind == "predictions":
            return []
        num = self.config.replicas
        if num > 1:
            missing = (stage for stage in stages if not self.context.stages.is_there(stage))
            num = min(num, sum(self.spec(stage.part).num_shards for stage in missing))
        return [("replicas", num, self.config.resources)]

    def spec(self, part: str) -> "Spec":
        """Of the store of one segment."""
        from teachers.labelling.specs import spec_of
        from teachers.soft_targets.schema import Output

        outputs = tuple(Output.of_layer(name, tuple(shape)) for name, shape in self.outputs.items())
        segment, space = self.transfer_set.segment(part), self.transfer_set.space
        return spec_of(self.name, self.weights, segment, space, self.classes(), self.config.encoding, outputs)


def label_stages(
    name: str, config: TeacherConfig, weights: str, transfer_set: "TransferSet"
) -> tuple[dict[str, Stage], dict[str, str]]:
    """By segment: the stages to build, and the keys of those that a live teacher spares."""
    statistics = digest_of([[column.name, list(column.mean), list(column.std)] for column in transfer_set.columns])
    lacking = [
        [column.name, list(column.mean), *([count > 0 for count in each] for each in (column.missing, column.unknown))]
        for column in transfer_set.columns
        if column.can_lack and column.kind != "text"  # which is read as it is
    ]
    lacks = digest_of(lacking) if lacking else None
    classes, answer = list(transfer_set.classes), transfer_set.space.answer
    stages, live, room = {}, {}, transfer_set.space.max_boxes
    for segment in shared(transfer_set):
        rows = segment.name, segment.digest
        stage = keys.label_stage(config, name, rows, weights, classes, statistics, answer, lacks, room)
        if config.mode == "live" and segment.split == "train":
            live[segment.name] = stage.key
        else:
            stages[segment.name] = stage
    return stages, live


def _label(
    context: Context, asked: Asked, parts: Mapping[Path, str], folders: Mapping[Stage, Path]
) -> dict[Stage, tuple[Seal, Facts]]:
    """`parts`: of the stages that are built and of those that were before."""
    from teachers.labelling.endpoint import told_of
    from teachers.labelling.label import Progress
    from teachers.labelling.label import label as ask
    from teachers.labelling.predictions import fill
    from teachers.labelling.shard import LabelTask, TeacherSpec
    from teachers.soft_targets.store import SoftTargetStore
    from teachers.storage.manifest import in_threads

    if asks := asked.config.kind != "predictions":
        context.cluster.join()
        context.journal.on(context.cluster.nodes)
    title = f"label/{asked.name}"
    stores = {stage: SoftTargetStore.create(folder, asked.spec(stage.part)) for stage, folder in folders.items()}
    data = asked.transfer_set
    tasks = [LabelTask(data.folder, stage.part, folder, data.viewed) for stage, folder in folders.items()]
    done: dict[Path, int] = {}
    total = sum(store.spec.num_rows for store in stores.values())

    def advance(now: Progress) -> None:
        done[now.store] = now.rows
        context.journal.work(title, replicas=now.num_replicas, ready=now.num_ready)
        context.watch.advance(title, sum(done.values()), total, f"{now.rows_per_s:,.0f} rows/s")

    if asks:
        resources = asked.config.resources
        context.journal.work(title, replicas=asked.config.replicas, ready=0)
        context.journal.work(title, cpus=resources.cpus, gpus=context.cluster.gpus(resources))
    beside = tuple(folder for folder in parts if folder not in folders.values())
    given = asked.trained, context.recipe.trusted(), context.user_path, beside
    teacher = TeacherSpec(asked.name, asked.config, *given)
    with working_on(stage=title):
        if isinstance(asked.config, PredictionsTeacher):
            report = fill(asked.name, asked.config, tasks, context.recipe.transfer_set, advance)
        else:
            run = context.cluster.checks(context.user_path) or in_threads
            report = ask(teacher, tasks, progress=advance, wait_s=wait_for_room_s(), run=run)
    facts = {
        "rows_per_s": round(report.rows_per_s, 1),
        "actor_start_s": round(report.start_s, 3),
        "num_retries": report.num_retries,
        **(told_of(asked.config, [*parts]) if isinstance(asked.config, EndpointTeacher) else {}),
    }
    context.tracker.log(title, {"rows_per_s": report.rows_per_s})
    unknown = {stage: store.unknown()[0] for stage, store in stores.items()}
    if rows := sum(unknown.values()):
        log.warning("teacher %s knows nothing of %s of %s rows", asked.name, f"{rows:,}", f"{total:,}")
    share = {stage: report.stores.get(folder, 0) for stage, folder in folders.items()}
    told = {stage: {"rows": rows, "bytes": stores[stage].num_bytes()} for stage, rows in share.items()}
    seconds = {stage: report.seconds * rows / max(report.rows, 1) for stage, rows in share.items()}
    return {
        stage: (store.seal(), {**told[stage], "unknown_rows": unknown[stage], **facts, "seconds": seconds[stage]})
        for stage, store in stores.items()
    }


def _repair(asked: Asked, parts: Mapping[Path, str], folder: Path, away: Path, damages: list[Damage]) -> None:
    """Only the damaged shards are labelled again."""
    from teachers.soft_targets.store import SoftTargetStore
    from teachers.soft_targets.upkeep import repair

    repair(SoftTargetStore(folder, asked.spec(parts[folder])), away, damages)
