"""Checkpoints of a run, and its sealed result.

Every try writes under an `attempts/` folder of its own, so two processes, or a dead driver's orphan and its successor,
never write the same file. A checkpoint counts if and only if its own small seal verifies; the first seal of a run wins.
"""

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import torch

from teachers.errors import StoreError
from teachers.models.folder import CONFIG
from teachers.storage import mirror, seal
from teachers.storage.checking import check_seal
from teachers.storage.flock import await_lock

from ..runs.run import Run, RunResult

FORMAT = 1
RESULT = "result.json"
STATE = "state.pt"
KEPT = 2


class Attempt:
    """One try at a run, as its checkpoints. `name`, and the number of `rollbacks` before it, are the same for all of a cohort."""

    def __init__(self, run: Run, name: str | None = None, *, rollbacks: int = 0) -> None:
        self.folder = run.folder / "attempts" / f"{rollbacks:03d}-{name or uuid4().hex}"
        self.saved: list[Path] = []
        self.step = 0
        """Of its newest checkpoint, or of the one that it goes on from."""

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint and its seal, and drop all but the newest. Raises OSError when it cannot be written."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        folder = self.folder / f"step-{step:06d}"
        folder.mkdir(parents=True)
        seal.publish(folder / STATE, buffer.getbuffer())
        seal.write_seal(folder, [STATE])
        self.saved.append(folder)
        self.step = step
        while len(self.saved) > KEPT:
            mirror.remove_folder(self.saved.pop(0))


def newest_checkpoint(run: Run) -> Path | None:
    """The furthest checkpoint of any attempt at `run` whose seal verifies."""
    common = newest_common([run])
    return None if common is None else run.folder / "attempts" / common


def newest_common(runs: Sequence[Run], *, before: int | None = None) -> str | None:
    """`<attempt>/step-<n>` of the newest state that verifies in the folder of every one of `runs`; None when there is none.

    Newest is the furthest of those after the most rollbacks: what was further before one was on its way to diverge.
    `before`: of a step before that.
    """
    common = set.intersection(*[_named(run.folder / "attempts") for run in runs])
    newest = sorted(((*_age(name), name) for name in common), reverse=True)
    candidates = [name for _, step, name in newest if before is None or step < before]
    return next((name for name in candidates if all(is_whole(run.folder / "attempts" / name) for run in runs)), None)


def _age(name: str) -> tuple[int, int]:
    """Rollbacks and steps that a checkpoint comes after."""
    rollbacks, step = re.findall(r"^\d+|\d+$", name)
    return int(rollbacks), int(step)


def _named(attempts: Path) -> set[str]:
    """`<attempt>/step-<n>` of every checkpoint of which there is something, here or in the storage."""
    found = {PurePosixPath(name).parent.as_posix() for name in mirror.entries(attempts)}
    found |= {"/".join(at.parts[-2:]) for at in attempts.glob("*/step-*")}
    return {name for name in found if re.fullmatch(r"\d+-[^/]+/step-\d+", name)}


def is_whole(folder: Path) -> bool:
    try:
        found = seal.read_seal(folder)
        return found is not None and not check_seal(folder, found, hashes=True)
    except (StoreError, OSError):  # another process may be removing it
        return False


def read_checkpoint(folder: Path, device: torch.device) -> dict[str, Any]:
    """The state that `Attempt.save` was given, by whatever rank. Unpickles nothing but tensors and plain values."""
    state: dict[str, Any] = torch.load(seal.local(folder, STATE), map_location=device, weights_only=True)
    seal.check_format(state, FORMAT, folder / STATE)
    return state


def publish_result(
    run: Run, save: Callable[[Path], None], weights: str, result: RunResult, files: Iterable[str] = ()
) -> None:
    """Make the run's folder a sealed model folder with `result.json`, unless somebody already has.

    `save` writes `config.json`, the file `weights` and `files` into it.
    """
    document = {
        "format": FORMAT,
        "seed": result.seed,
        "steps": result.steps,
        "best_step": result.best_step,
        "validation": result.validation,
    }
    outputs = [CONFIG, weights, RESULT, *files]
    with only_one(run.folder):
        if seal.read_seal(run.folder) is None:
            for name in outputs:  # of somebody who was killed before the seal
                mirror.remove(run.folder / name)
            save(run.folder)
            seal.publish(run.folder / RESULT, json.dumps(document, indent=1, allow_nan=False).encode())
            seal.write_seal(run.folder, outputs)


def drop_attempts(run: Run) -> None:
    """Of a run that is sealed."""
    mirror.remove_folder(run.folder / "attempts")


def read_result(run: Run) -> RunResult | None:
    """The sealed result of `run`, or None while there is none. Raises StoreError for a sealed folder that is damaged."""
    found = seal.read_seal(run.folder)
    if found is None:
        return None
    if damages := check_seal(run.folder, found, hashes=False):
        raise StoreError(f"{run.folder} is sealed but damaged ({damages[0]}); remove the folder to train it again")
    document = json.loads(seal.local(run.folder, RESULT).read_bytes())
    seal.check_format(document, FORMAT, run.folder / RESULT)
    fields = {name: document[name] for name in ("seed", "steps", "best_step", "validation")}
    return RunResult(name=run.name, folder=run.folder, **fields)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One process of this host at a time; where the file system has no such lock, everyone at once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(NotImplementedError):
            await_lock(handle)
        yield
    finally:
        os.close(handle)
