"""Generations: what a member of a codistilling cohort publishes of itself while it trains, for its peers to run.

Each is a model folder `step-<n>`, create-only, with a seal written last: a reader takes only whole ones, and never
waits for one. Knows nothing of when to publish, to read, or what is made of it.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from teachers.errors import CollegiumError, StoreError
from teachers.models.folder import CONFIG, WEIGHTS, LoadedModel, ModelConfig, load_model, save_model
from teachers.storage import mirror, seal
from teachers.storage.disk import is_unfit, unfit

from ..training.checkpoint import is_whole

log = logging.getLogger(__name__)

KEPT = 3


@dataclass(frozen=True)
class Generation:
    """A peer as it was after `step` steps: frozen, in evaluation mode."""

    step: int
    model: LoadedModel


def publish_generation(folder: Path, step: int, state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Publish `folder/step-<n>` unless it is there already, and drop what is older than the newest three up to it.

    Weights that are not finite are not published. Raises CollegiumError when the folder cannot be written.
    """
    if not all(bool(value.isfinite().all()) for value in state.values()):
        log.warning("%s: weights at step %d are not finite; peers keep the generation before", folder.name, step)
        return
    target = folder_of(folder, step)
    try:
        with suppress(FileNotFoundError):  # a later life of this member is ahead, and has dropped the folder
            if not mirror.there(target / seal.NAME):
                save_model(target, state, config)
                seal.write_seal(target, [CONFIG, WEIGHTS, *config.files])
    except OSError as error:
        raise unfit(error) if is_unfit(error) else CollegiumError(f"{target}: cannot be published: {error}") from error
    drop_older(folder, step)


def folder_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}"


def steps_in(folder: Path) -> list[int]:
    """Steps of which there is a folder, whole or not, the newest first."""
    names = {path.name for path in folder.glob("step-*")} | {name.split("/")[0] for name in mirror.entries(folder)}
    return sorted((int(name.removeprefix("step-")) for name in names if name.startswith("step-")), reverse=True)


def drop_older(folder: Path, step: int) -> None:
    """Keep the newest three sealed generations up to `step`, and all after it: an earlier life may have been ahead."""
    sealed = [each for each in steps_in(folder) if each <= step and mirror.there(folder_of(folder, each) / seal.NAME)]
    drop(folder, [each for each in steps_in(folder) if len(sealed) >= KEPT and each < sealed[KEPT - 1]])


def drop_after(folder: Path, step: int) -> None:
    """Take back generations of a member that was set back to `step`: their weights were on the way to no good."""
    drop(folder, [each for each in steps_in(folder) if each > step])


def drop(folder: Path, steps: Sequence[int]) -> None:
    for step in steps:
        mirror.remove_folder(folder_of(folder, step))


def newest_generation(folder: Path, *, up_to: int | None = None, known: int | None = None) -> int | None:
    """The step of the newest whole generation in `folder`, not after step `up_to`; None when there is none.

    The one of step `known` has been looked at before: its hashes are not computed again.
    """
    candidates = [step for step in steps_in(folder) if up_to is None or step <= up_to]
    return next((step for step in candidates if step == known or is_whole(folder_of(folder, step))), None)


def load_generation(folder: Path, step: int, trust: Sequence[str], device: torch.device) -> Generation | None:
    """The generation of `step`, or None when another process removed it meanwhile.

    Raises StoreError for a whole one that names code outside `trust`, or whose weights do not fit.
    """
    try:
        model = load_model(folder_of(folder, step), trust=trust, device=device)
    except (StoreError, OSError):
        if is_whole(folder_of(folder, step)):
            raise
        return None
    return Generation(step, model)
