"""What the builders of all stages share: the run's context, a teacher's labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.lfme_term import LfmeTerm
from students.config.task_terms import JUDGING
from students.config.terms import AUTO
from teachers.config.teacher import TeacherConfig
from teachers.soft_targets.combine.context import takes_context
from teachers.storage.seal import digest_of
from teachers.transfer_set.viewing import Viewing
from teachers.users_code.imports import UserPath, load

from ..cluster.cluster import Cluster
from ..recipe.model import Learner, Recipe
from ..recipe.tasks import labels_out_of_fold
from ..stages import keys
from ..stages.stages import Built, Stage, Stages
from ..stages.trainings import views_of_learner
from ..tracking.tracker import Tracker
from ..watching.journal import Journal
from ..watching.progress import Watch

if TYPE_CHECKING:
    from students.runs.run import Live, Source

Facts = Mapping[str, Any]


@dataclass
class Context:
    """What every builder needs."""

    recipe: Recipe
    stages: Stages
    cluster: Cluster
    watch: Watch
    tracker: Tracker
    journal: Journal
    user_path: UserPath


@dataclass
class Taught:
    """A teacher's labels: one built stage per segment, by the segment's name."""

    name: str
    config: TeacherConfig
    labels: dict[str, Built] = field(default_factory=dict)
    network: Path | None = None
    """Its model folder, where it has one."""
    trained: Path | None = None
    """The folder of what was trained here."""
    classes: tuple[str, ...] = ()
    """What it scores, in its order; of a live teacher."""
    live: dict[str, str] = field(default_factory=dict)
    """By train segment of a live teacher, the key that its labels would have: all that decides what it says."""
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """What it gives besides its answer, by name: the shape of a row."""

    def digests(self, segments: Sequence[str]) -> str:
        return digest_of([[s, self.live[s] if s in self.live else self.labels[s].digest] for s in sorted(segments)])

    def store(self, segment: str) -> Path:
        return self.labels[segment].folder

    @property
    def weights(self) -> str:
        """The digest of what it is."""
        return next(iter(self.labels.values())).stage.inputs["teacher weights"]


@dataclass(frozen=True)
class Begun:
    """A teacher whose labels have begun to come: as `Taught`, for who follows it."""

    name: str
    config: TeacherConfig
    stages: Mapping[str, Stage]
    """By segment."""
    stores: Mapping[str, Path]
    network: Path | None
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    live: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def digests(self, segments: Sequence[str]) -> str:
        """Of all that decides what it will have said."""
        return digest_of([[segment, self.stages[segment].key] for segment in sorted(segments)])

    def store(self, segment: str) -> Path:
        return self.stores[segment]

    @property
    def weights(self) -> str:
        return next(iter(self.stages.values())).inputs["teacher weights"]


def sources(
    recipe: Recipe, config: Learner | None, taught: Mapping[str, Taught | Begun], segments: Sequence[str]
) -> tuple["Source", ...]:
    """A student's teachers (or all of the recipe's), as those who read their labels need them."""
    return sources_of(recipe, config.teachers if config is not None else list(recipe.teachers), taught, segments)


def sources_of(
    recipe: Recipe, names: Sequence[str], taught: Mapping[str, Taught | Begun], segments: Sequence[str]
) -> tuple["Source", ...]:
    """The labels of some of those who teach."""
    from students.runs.run import Source

    return tuple(
        Source(
            name=name,
            stores={s: taught[name].store(s) for s in segments if s not in taught[name].live},
            live=_live(taught[name], segments),
            network=taught[name].network,
            out_of_fold=name in recipe.teachers and labels_out_of_fold(recipe.teachers[name]),
            outputs=taught[name].outputs,
            layers=getattr(taught[name].config, "outputs", {}),
            **keys.hearing(recipe, name),
        )
        for name in names
    )


def networks_read(config: Learner, taught: Mapping[str, Taught | Begun]) -> dict[str, str]:
    """By teacher the digest of its network, where a student's training takes more of it than what it says."""
    return {name: taught[name].weights for name in getattr(config, "reads_networks_of", ())}


def _live(taught: Taught | Begun, segments: Sequence[str]) -> "Live | None":
    from students.runs.run import Live

    return Live(taught.classes, taught.config.prefetch) if any(s in taught.live for s in segments) else None


def segments_heard(recipe: Recipe, prepared: Built, learner: Learner, rules: Iterable[Any] = ()) -> list[str]:
    """Whose labels decide what somebody learns: those of training rows, and of validation where a rule judges teachers,
    experts are paced, one of them is calibrated, or thresholds of boxes are chosen.

    `rules`: by which a search may combine them instead.
    """
    own = [getattr(term, "combine", None) for term in learner.objective]
    judges = getattr(learner, "energy", None) is not None
    judges |= any(rule in JUDGING or asks_of_teachers(rule) for rule in (*rules, *own))
    judges |= any(isinstance(term, LfmeTerm) for term in learner.objective)
    judges |= any(recipe.teachers[name].calibrate for name in learner.teachers if name in recipe.teachers)
    judges |= any(getattr(term, "keep_above", None) == AUTO for term in learner.objective)
    views = views_of_learner(recipe, learner)
    return segments_of(prepared, "train", *(("validation",) if judges else ()), views=views)


def asks_of_teachers(rule: object) -> bool:
    """Whether a rule of the user's takes a context, which tells it what teachers are worth on validation."""
    return isinstance(rule, str) and ":" in rule and takes_context(load(rule))


def segments_judged(recipe: Recipe, prepared: Built, learner: Learner) -> list[str]:
    """Whose labels decide the figures of somebody who learns: validation and test, and training rows where a teacher is
    calibrated by these."""
    from teachers.transfer_set.transfer_set import TransferSet

    calibrated = any(recipe.teachers[name].calibrate for name in learner.teachers if name in recipe.teachers)
    by_training = getattr(learner, "energy", None) is not None  # how many of these it leaves out is told
    by_training |= calibrated and not TransferSet.open(prepared.folder).report["labelled"]["validation"]
    return segments_of(prepared, *(("train",) if by_training else ()), "validation", "test")


def segments_of(prepared: Built, *splits: str, views: Viewing | None = None) -> list[str]:
    from teachers.transfer_set.transfer_set import TransferSet

    transfer_set = TransferSet.open(prepared.folder).viewing(views)
    return [segment.name for segment in transfer_set.in_views() if segment.split in splits]
