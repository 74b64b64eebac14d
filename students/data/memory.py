"""One budget for all that a training holds of its rows: inputs, soft targets, validation, and columns as they are stored.

What is held is decided by sizes alone, before anything is read. Knows nothing of files, networks or devices beyond how
large the budget is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from teachers.config.training import TrainConfig

GIB_ON_GPU = 4.0
"""Never what happens to be free there: held and made anew, a batch differs in the last digits on a GPU."""
OF_RAM = 4
"""A training takes this part of what is free: others run beside it, and the pages of mapped files need room too."""
FOR_WINDOWS = 4
"""This part is the reader's where not everything fits, for the windows in which it brings what is not held."""


def memory_for(train: TrainConfig, device_type: str, workers: int) -> int:
    """Bytes for the rows of one worker: what the recipe says, else a fixed size on a GPU, else a share of free RAM."""
    if train.memory_gib is not None:
        return int(train.memory_gib * 2**30)
    if device_type == "cuda":
        return int(GIB_ON_GPU * 2**30)
    return int(psutil.virtual_memory().available) // (OF_RAM * workers)


@dataclass(frozen=True)
class Target:
    """What several teachers say together."""

    teachers: tuple[str, ...]
    combined: int | None
    """Bytes of it, combined once; None: it cannot be."""


@dataclass(frozen=True)
class Needs:
    """Bytes of each part of a training's rows, held whole."""

    inputs: int | None
    """As the network takes them; None: augmentation comes before that, so they are made anew for every batch."""
    stored_inputs: int
    """As they are stored."""
    targets: tuple[Target, ...]
    stored_labels: Mapping[str, int]
    """By teacher: what it says, as it is stored."""
    validation: int
    hints: int = 0
    """What teachers' layers give, as it is stored."""
    copies: int = 1
    """2 where batches are drawn from parts of the rows: each part of what was made once is gathered for its reader. More where rows
    of rare classes are drawn several times."""


@dataclass(frozen=True)
class Division:
    """What of `Needs` is held. What is not is read and made anew for every batch, in `reader` bytes."""

    total: int
    inputs: bool
    targets: tuple[bool, ...]
    validation: bool
    reader: int
    """For columns as they are stored: the reader holds them too where they fit."""
    taken: Mapping[str, int]
    """Bytes of each part that is held: `inputs`, `soft targets`, `validation`, `as stored`."""
    too_large: tuple[str, ...]
    """Parts that could be held, and are not."""


def divide(total: int, needs: Needs) -> Division:
    """Everything, where it fits. Else inputs first, then soft targets, then validation, with a part left for windows."""
    left = total if _whole(needs) <= total else total - total // FOR_WINDOWS
    taken: dict[str, int] = {}
    too_large: list[str] = []

    def hold(part: str, num_bytes: int) -> bool:
        nonlocal left
        if num_bytes > left:
            too_large.append(part)
            return False
        left -= num_bytes
        taken[part] = taken.get(part, 0) + num_bytes
        return True

    inputs = needs.inputs is not None and hold("inputs", needs.copies * needs.inputs)
    targets = tuple(
        each.combined is not None and hold("soft targets", needs.copies * each.combined) for each in needs.targets
    )
    validation = hold("validation", needs.validation)
    reader = total - sum(taken.values())
    stored = _stored(needs, inputs=inputs, targets=targets)
    if stored > reader:
        too_large.append("as stored")
    elif stored:
        taken["as stored"] = stored
    return Division(total, inputs, targets, validation, reader, taken, tuple(dict.fromkeys(too_large)))


def _whole(needs: Needs) -> int:
    """Bytes of everything that can be held."""
    made = [needs.inputs or 0, *(each.combined or 0 for each in needs.targets)]
    can_be = tuple(each.combined is not None for each in needs.targets)
    stored = _stored(needs, inputs=needs.inputs is not None, targets=can_be)
    return needs.copies * sum(made) + stored + needs.validation


def _stored(needs: Needs, *, inputs: bool, targets: tuple[bool, ...]) -> int:
    """Bytes of the columns that a reader brings as they are stored."""
    heard = {name for each, once in zip(needs.targets, targets, strict=True) if not once for name in each.teachers}
    labels = sum(needs.stored_labels.get(name, 0) for name in heard)
    return (0 if inputs else needs.stored_inputs) + labels + needs.hints
