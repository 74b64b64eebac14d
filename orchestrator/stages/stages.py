"""Stages: pure functions whose outputs are named by a key of everything that decides them.

Knows nothing of what a stage does. `Stages.build` reuses a sealed stage, resumes an unsealed one, repairs a damaged one.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from teachers.errors import EnvironmentUnfit, StoreError
from teachers.process.log_lines import working_on
from teachers.storage import mirror
from teachers.storage.disk import told_if_unfit
from teachers.storage.lease import NAME as LEASE
from teachers.storage.lease import Doubt
from teachers.storage.place import spoken
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import Damage, Seal, check_format, check_seal, digest_of, publish, read_seal

from .locks import folder_lock

Kind = Literal["prepare", "train_teacher", "label", "judge", "distill", "evaluate", "export"]
FORMAT = 1
VERSIONS: dict[Kind, int] = {"prepare": 2, "train_teacher": 2, "label": 2, "judge": 1, "distill": 3, "evaluate": 2, "export": 2}  # fmt: skip
"""Of the code of a stage: raised when the same inputs would give another output."""
FOLDERS: dict[Kind, str] = {
    "prepare": "prepared",
    "train_teacher": "teachers",
    "label": "soft_targets",
    "judge": "judgements",
    "distill": "students",
    "evaluate": "evaluations",
    "export": "models",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Stage:
    """One node of a run's graph. `part` tells stages of the same name apart (a teacher's segments)."""

    kind: Kind
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    part: str = ""

    @property
    def key(self) -> str:
        """SHA-256 of everything that decides the output, and nothing else (the name does not)."""
        return digest_of(self._decided_by())

    def _decided_by(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "version": VERSIONS[self.kind],
            "config": dict(self.config),
            "inputs": dict(self.inputs),
        }

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}" + (f"/{self.part}" if self.part else "")

    @property
    def folder(self) -> str:
        """Relative to OUT."""
        return f"{FOLDERS[self.kind]}/{self.name}-{self.key[:12]}"

    def document(self) -> dict[str, Any]:
        return {"format": FORMAT, "name": self.name, "part": self.part, "key": self.key, **self._decided_by()}


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

    def output_digest(self, *paths: str) -> str:
        """Digest of some of the outputs, for a follower that reads no others."""
        by_path = {output.path: output.sha256 for output in self.seal.outputs}
        return digest_of([[path, by_path[path]] for path in paths])

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


Seen = Callable[["Stage", "Built | None"], None]
"""Is told of a stage that is being built (None), and of one that is there."""
Builder = Callable[[Path], tuple[Seal, Mapping[str, Any]]]
"""Fills the stage's folder (which may hold an interrupted attempt), seals it, and returns facts for the report."""
GroupBuilder = Callable[[Mapping["Stage", Path]], Mapping["Stage", tuple[Seal, Mapping[str, Any]]]]
Repair = Callable[[Path, Path, list[Damage]], None]
"""(stage folder, quarantine folder, damages): moves what is damaged away."""


class Stages:
    """The stages under one OUT."""

    def __init__(self, out: Path, seen: Seen = lambda stage, built: None) -> None:
        self.out = out
        self._seen = seen
        self._checked: dict[Path, Seal] = {}

    def open(self) -> None:
        """Make OUT; of an object store bring what is small of it. Raises EnvironmentUnfit when it cannot be written."""
        try:
            mirror.check(self.out)
            mirror.heed_marks(self.out, mirror.pull(self.out))
            for folder in (*FOLDERS.values(), "runs"):
                (self.out / folder).mkdir(parents=True, exist_ok=True)
            probe = self.out / f".probe-{os.getpid()}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise EnvironmentUnfit(
                f"--out {spoken(self.out)}: cannot be written ({error.strerror or error}); choose another folder"
            ) from None

    def sealed(self, stage: Stage, *, hashes: bool = True) -> Seal | None:
        """The stage's seal if its outputs are what it says: sizes always, hashes once in this run. Raises StoreError."""
        folder = self.out / stage.folder
        seal = read_seal(folder)
        if seal is None:
            return None
        if damages := check_seal(folder, seal, hashes=hashes and folder not in self._checked):
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
        """Reuse what is sealed; resume, repair or build the rest in one go (one trainer, one set of actors)."""
        start = time.monotonic()
        built = {stage: reused for stage in stages if (reused := self._reuse(stage, "unchanged")) is not None}
        left = sorted((stage for stage in stages if stage not in built), key=lambda stage: stage.folder)
        if not left:
            return built
        with ExitStack() as locks, told_if_unfit(self.out / left[0].folder), working_on(stage=left[0].title):
            doubts = [locks.enter_context(folder_lock(self.out / stage.folder, stage.title)) for stage in left]
            reasons = {
                stage: self._repaired(stage, repair or move_damaged_parts, doubt)
                for stage, doubt in zip(left, doubts, strict=True)
            }
            built |= {s: reused for s in left if (reused := self._reuse(s, "built by another run")) is not None}
            reasons = {stage: reasons[stage] or self.reason(stage) for stage in left if stage not in built}
            for stage, reason in reasons.items():
                with working_on(stage=stage.title):
                    log.info("building %s: %s", stage.title, reason)
                self._seen(stage, None)
                publish(self.out / stage.folder / "STAGE.json", json.dumps(stage.document(), indent=1).encode())
            for stage, (seal, facts) in (builder(self._folders(reasons)) if reasons else {}).items():
                folder = self.out / stage.folder
                self._checked[folder] = seal
                seconds = float(facts.get("seconds", time.monotonic() - start))
                built[stage] = Built(stage, folder, seal, False, reasons[stage], seconds, facts)
                self._seen(stage, built[stage])
        return built

    def _folders(self, stages: Iterable[Stage]) -> dict[Stage, Path]:
        return {stage: self.out / stage.folder for stage in stages}

    def _reuse(self, stage: Stage, reason: str) -> Built | None:
        start = time.monotonic()
        try:
            seal = self.sealed(stage)
        except StoreError:
            return None
        if seal is None:
            return None
        log.info("reused %s", stage.title)
        self._seen(stage, built := Built(stage, self.out / stage.folder, seal, True, reason, time.monotonic() - start))
        return built

    def _repaired(self, stage: Stage, repair: Repair, doubt: Doubt) -> str:
        """Move damaged outputs away; says what was damaged, or nothing. Raises StoreError without the right to."""
        folder = self.out / stage.folder
        try:
            seal = read_seal(folder)
            damages = check_seal(folder, seal, hashes=True) if seal is not None else []
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
        if (self.out / stage.folder / "STAGE.json").exists():
            return "continued: an earlier run did not finish it"
        earlier = self.earlier(stage)
        return _difference(earlier, stage.document()) if earlier is not None else "not built before"

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


def move_damaged_parts(folder: Path, away: Path, damages: list[Damage]) -> None:
    """Move the innermost sealed folder around each damaged file to `away`, and remove the seals above it."""
    for damage in damages:
        part = (folder / damage.path).parent
        while part != folder and not (part / SEAL).exists():
            part = part.parent
        if part == folder:
            _move_all(folder, away)
            return
        if not part.exists():  # moved already: several of its files were damaged
            continue
        for above in (each for each in part.parents if each == folder or folder in each.parents):
            mirror.remove(above / SEAL)
        mirror.move(part, away / part.relative_to(folder).as_posix().replace("/", "_"))


def _move_all(folder: Path, away: Path) -> None:
    mirror.remove(folder / SEAL)
    names = {entry.name for entry in folder.iterdir()} | {name.split("/")[0] for name in mirror.entries(folder)}
    for name in sorted(names - {".lock", LEASE, "STAGE.json"}):
        mirror.move(folder / name, away / name)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What changed, in the order: inputs, own configuration, code."""
    changed = [f"{name} changed" for name in _changed(old["inputs"], new["inputs"])]
    before, after = flat(old["config"]), flat(new["config"])
    changed += [f"{path}: {before.get(path)!r} -> {after.get(path)!r}" for path in _changed(before, after)]
    if old["version"] != new["version"]:
        changed.append("the program computes this stage differently now")
    return ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """{"a": [{"b": 1}]} as {"a.0.b": 1}; empty lists and mappings stay as they are."""
    entries = (
        list(value.items()) if isinstance(value, Mapping) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not entries:
        return {path: value}
    below = [flat(child, f"{path}.{name}" if path else str(name)) for name, child in entries]
    return {name: leaf for child in below for name, leaf in child.items()}
