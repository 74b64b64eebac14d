"""Stages: pure functions whose outputs are named by a key of everything that decides them.

Knows nothing of what a stage does. `Stages.build` reuses a sealed stage, resumes an unsealed one, repairs a damaged one.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from teachers.errors import EnvironmentUnfit, StoreError
from teachers.process.log_lines import working_on
from teachers.storage import anew, mirror
from teachers.storage.checking import check_seal
from teachers.storage.disk import told_if_unfit
from teachers.storage.lease import Doubt
from teachers.storage.place import spoken
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import Damage, Seal, check_format, digest_of, publish, read_seal

from .locks import folder_lock
from .reasons import difference
from .repair import move_damaged_parts

if TYPE_CHECKING:
    from teachers.storage.manifest import Run

Kind = Literal["prepare", "derive", "train_teacher", "label", "judge", "distill", "evaluate", "export"]
FORMAT = 2
VERSIONS: dict[Kind, int] = {"prepare": 8, "derive": 1, "train_teacher": 5, "label": 4, "judge": 4, "distill": 7, "evaluate": 7, "export": 6}  # fmt: skip
"""Of the code of a stage: raised when the same inputs would give another output."""
FOLDERS: dict[Kind, str] = {
    "prepare": "prepared",
    "derive": "derived",
    "train_teacher": "teachers",
    "label": "soft_targets",
    "judge": "judgements",
    "distill": "students",
    "evaluate": "evaluations",
    "export": "models",
}

SHORT = 12
"""Hex digits of a key in a folder's name."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Stage:
    """One node of a run's graph. `part` tells stages of the same name apart: a teacher's segments, a student's trainings.

    Names are for people: neither `name` and `part`, nor what `called` says of inputs, takes part in the key.
    """

    kind: Kind
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    part: str = ""
    called: Mapping[str, str] = field(default_factory=dict)
    """By input, what it is called in this recipe: `labels of wide`."""

    @property
    def key(self) -> str:
        """SHA-256 of everything that decides the output, and nothing else."""
        return digest_of(self._decided_by())

    def _decided_by(self) -> dict[str, Any]:
        config, inputs = dict(self.config), dict(self.inputs)
        return {"kind": self.kind, "version": VERSIONS[self.kind], "config": config, "inputs": inputs}

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}" + (f"/{self.part}" if self.part else "")

    @property
    def folder(self) -> str:
        """Relative to OUT, where it is built; one that was built under another name lies elsewhere: `Stages.folder`."""
        return f"{FOLDERS[self.kind]}/{self.name}-{self.key[:SHORT]}"

    def document(self) -> dict[str, Any]:
        names = {"name": self.name, "part": self.part, "called": dict(self.called)}
        return {"format": FORMAT, **names, "key": self.key, **self._decided_by()}


@dataclass(frozen=True)
class Built:
    """A sealed stage: where it lies, what it contains, and what had to be done for it."""

    stage: Stage
    folder: Path
    seal: Seal
    reused: bool
    reason: str
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.seal.digest

    def shared(self, stage: Stage) -> "Built":
        """The same for another stage of its key."""
        told = f"shared with {self.stage.title}"
        return replace(self, stage=stage, reused=True, reason=told, seconds=0.0, facts={})

    def record(self) -> dict[str, Any]:
        """The entry of `report.json`."""
        part = {"part": self.stage.part} if self.stage.part else {}
        return {
            "stage": self.stage.kind,
            "name": self.stage.name,
            **part,
            "key": self.stage.key,
            "reused": self.reused,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            **self.facts,
        }


Seen = Callable[["Stage", Path, "Built | None"], None]
"""Is told of a stage and its folder, when it is being built (None) and when it is there."""
Builder = Callable[[Path], tuple[Seal, Mapping[str, Any]]]
"""Fills the stage's folder (which may hold an interrupted attempt), seals it, and returns facts for the report."""
GroupBuilder = Callable[[Mapping["Stage", Path]], Mapping["Stage", tuple[Seal, Mapping[str, Any]]]]
Repair = Callable[[Path, Path, list[Damage]], None]
"""(stage folder, quarantine folder, damages): moves what is damaged away."""


class Stages:
    """The stages under one OUT."""

    def __init__(self, out: Path, seen: Seen = lambda stage, folder, built: None) -> None:
        self.out = out
        self._seen = seen
        self._checked: dict[Path, Seal] = {}
        self._folders: dict[str, Path] = {}
        self._naming = Lock()
        self.checks: Run | None = None
        """Does what checks many files where they lie; None: this process does."""

    def open(self) -> None:
        """Make OUT; of an object store bring what is small of it. Raises EnvironmentUnfit when it cannot be written."""
        try:
            anew.check(self.out)
            anew.heed_marks(self.out, mirror.pull(self.out))
            for folder in (*FOLDERS.values(), "runs"):
                (self.out / folder).mkdir(parents=True, exist_ok=True)
            probe = self.out / f".probe-{os.getpid()}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise EnvironmentUnfit(
                f"--out {spoken(self.out)}: cannot be written ({error.strerror or error}); choose another folder"
            ) from None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is sealed, of which a run could reuse a stage."""
        return next((self.out / FOLDERS["prepare"]).glob(f"*/{SEAL}"), None) is None

    def folder(self, stage: Stage) -> Path:
        """Where a stage lies: the folder of its key, whatever it was called when it was built, else one of its own name."""
        with self._naming:
            if stage.key not in self._folders:
                there = (self.out / FOLDERS[stage.kind]).glob(f"*-{stage.key[:SHORT]}")
                own = self.out / stage.folder
                ranks = {each: ((each / SEAL).exists(), each == own, each.name) for each in there}
                self._folders[stage.key] = max(ranks, key=ranks.__getitem__, default=own)
            return self._folders[stage.key]

    def sealed(self, stage: Stage, *, hashes: bool = True) -> Seal | None:
        """The stage's seal if its outputs are what it says: sizes always, hashes once in this run. Raises StoreError."""
        folder = self.folder(stage)
        seal = read_seal(folder)
        if seal is None:
            return None
        if damages := check_seal(folder, seal, hashes=hashes and folder not in self._checked, run=self.checks):
            raise StoreError(f"{stage.title}: {damages[0]}")
        if hashes:
            self._checked[folder] = seal
        return seal

    def build(self, stage: Stage, builder: Builder, repair: Repair | None = None) -> Built:
        """Reuse, resume, repair or build one stage."""
        return self.build_together([stage], lambda folders: {stage: builder(folders[stage])}, repair)[stage]

    def build_together(
        self, stages: Sequence[Stage], builder: GroupBuilder, repair: Repair | None = None
    ) -> dict[Stage, Built]:
        """Reuse what is sealed; resume, repair or build the rest in one go (one trainer, one set of actors).

        Stages of one key are one, however often they are asked for: two students may share a control.
        """
        built = {stage: reused for stage in stages if (reused := self._reuse(stage, "unchanged")) is not None}
        left: dict[Path, Stage] = {}
        for stage in stages:
            if stage not in built:
                left.setdefault(self.folder(stage), stage)
        if left:
            built |= self._build({left[folder]: folder for folder in sorted(left)}, builder, repair)
        for stage in stages:
            if stage not in built:
                built[stage] = self.shared(stage, built[left[self.folder(stage)]])
        return built

    def shared(self, stage: Stage, twin: Built) -> Built:
        """`stage`, which has the key of one that was built in this run."""
        self._seen(stage, twin.folder, built := twin.shared(stage))
        return built

    def is_there(self, stage: Stage) -> bool:
        """Whether it is sealed, and undamaged."""
        try:
            return self.sealed(stage) is not None
        except StoreError:
            return False

    def _build(self, left: Mapping[Stage, Path], builder: GroupBuilder, repair: Repair | None) -> dict[Stage, Built]:
        """Of stages of different keys, by folder. Locks are taken in this order, which is everybody's."""
        start, first = time.monotonic(), next(iter(left))
        with ExitStack() as locks, told_if_unfit(left[first]), working_on(stage=first.title):
            doubts = [locks.enter_context(folder_lock(folder, stage.title)) for stage, folder in left.items()]
            reasons = {
                stage: self._repaired(stage, repair or move_damaged_parts, doubt)
                for stage, doubt in zip(left, doubts, strict=True)
            }
            built = {s: reused for s in left if (reused := self._reuse(s, "built by another run")) is not None}
            reasons = {stage: reasons[stage] or self.reason(stage) for stage in left if stage not in built}
            for stage, reason in reasons.items():
                with working_on(stage=stage.title):
                    log.info("building %s: %s", stage.title, reason)
                self._seen(stage, left[stage], None)
                publish(left[stage] / "STAGE.json", json.dumps(stage.document(), indent=1).encode())
            folders, begun = {stage: left[stage] for stage in reasons}, time.time()
            for stage, (seal, facts) in (builder(folders) if reasons else {}).items():
                self._checked[left[stage]] = seal
                seconds = float(facts.get("seconds", time.monotonic() - start))
                facts = {"begun": begun, "ended": time.time(), **facts}
                built[stage] = Built(stage, left[stage], seal, False, reasons[stage], seconds, facts)
                self._seen(stage, left[stage], built[stage])
        return built

    def _reuse(self, stage: Stage, reason: str) -> Built | None:
        start = time.monotonic()
        if not self.is_there(stage) or (seal := self.sealed(stage)) is None:
            return None
        log.info("reused %s", stage.title)
        folder = self.folder(stage)
        self._seen(stage, folder, built := Built(stage, folder, seal, True, reason, time.monotonic() - start))
        return built

    def _repaired(self, stage: Stage, repair: Repair, doubt: Doubt) -> str:
        """Move damaged outputs away; says what was damaged, or nothing. Raises StoreError without the right to."""
        folder = self.folder(stage)
        try:
            seal = read_seal(folder)
            damages = check_seal(folder, seal, hashes=True, run=self.checks) if seal is not None else []
        except StoreError as error:
            damages = [Damage(SEAL, str(error), "a seal")]
        if not damages:
            return ""
        told = "; ".join(map(str, damages[:3])) + (f" and {len(damages) - 3} more" if len(damages) > 3 else "")
        if reason := doubt():
            raise StoreError(f"{stage.title} is damaged ({told}), and is not repaired: {reason}")
        away = self.out / "quarantine" / f"{folder.name}-{time.time_ns()}"
        away.mkdir(parents=True)
        log.warning("%s is damaged (%s): moved to %s", stage.title, told, away)
        repair(folder, away, damages)
        return f"repaired: {told}"

    def reason(self, stage: Stage) -> str:
        """Why an unsealed stage has to be built, in a few words."""
        if (self.folder(stage) / "STAGE.json").exists():
            return "continued: an earlier run did not finish it"
        earlier = self.earlier(stage)
        return difference(earlier, stage.document()) if earlier is not None else "not built before"

    def earlier(self, stage: Stage) -> dict[str, Any] | None:
        """What decided the newest sealed stage of the same kind, name and part, but for this one."""
        newest: tuple[float, dict[str, Any]] | None = None
        for seal in (self.out / FOLDERS[stage.kind]).glob(f"{stage.name}-*/{SEAL}"):
            try:
                document = json.loads((seal.parent / "STAGE.json").read_bytes())
                check_format(document, FORMAT, seal.parent / "STAGE.json")
            except (OSError, ValueError, StoreError):
                continue
            document["folder"] = str(seal.parent)
            same = (document["name"], document["part"]) == (stage.name, stage.part) and document["key"] != stage.key
            if same and (newest is None or seal.stat().st_mtime > newest[0]):
                newest = (seal.stat().st_mtime, document)
        return newest[1] if newest else None
