"""How much lies in OUT when everything is done, how much of that is still to come, and whether the disk has room for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers.errors import EnvironmentUnfit
from teachers.storage.place import remote_of, spoken

from ..building.estimates import bytes_of_an_answer
from ..recipe.model import Recipe
from ..stages.keys import viewing_of
from ..stages.stages import Built
from ..stages.texts import texts_of
from .memory import in_units
from .outputs import Shapes, bytes_a_row
from .prices import LearnerPrice
from .walk import Planned

if TYPE_CHECKING:
    from teachers.preparing.look import Look


@dataclass(frozen=True)
class Storage:
    """By part of OUT (`prepared`, `derived`, `soft_targets`, `networks`), bytes in all, and of what is not there yet. `networks` are known
    with `--check` only: what is delivered, and the checkpoints while it is trained."""

    parts: Mapping[str, int] = field(default_factory=dict)
    to_come: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())

    def record(self) -> dict[str, Any]:
        return {"bytes": dict(self.parts), "bytes_to_come": dict(self.to_come)}

    def with_networks(self, learners: Sequence[LearnerPrice], stages: Sequence[Planned]) -> "Storage":
        sizes = {each.work: each.bytes for each in learners if each.bytes is not None}
        if not sizes:
            return self
        open_works = {f"{stage.stage}/{stage.name}" for stage in stages if stage.action != "reuse"}
        missing = sum(size for work, size in sizes.items() if work in open_works)
        return replace(
            self,
            parts={**self.parts, "networks": sum(sizes.values())},
            to_come={**self.to_come, "networks": missing},
        )


def storage_of(
    recipe: Recipe, seen: "Look", outputs: Shapes, stages: Sequence[Planned], prepared: Built | None
) -> Storage:
    """Of rows and of what is said of them; of rows of which nobody knows how many there are, nothing."""
    rows = seen.num_rows or 0
    further = max(recipe.transfer_set.views - 1, 0) * (seen.rows_by_split["train"] if seen.rows_by_split else rows)
    texts = texts_of(recipe, [column.name for column in seen.columns if column.kind == "text"]).values()
    derived = rows * sum(each.bytes_per_row for each in texts)
    cached = [name for name, teacher in recipe.teachers.items() if teacher.mode == "cached"]
    a_row = {
        name: bytes_of_an_answer(recipe, name, seen.classes or (), bytes_a_row(outputs.get(name, {})))
        for name in cached
    }
    there = _labelled(recipe, stages, prepared)
    labels = {name: (rows + further) * size for name, size in a_row.items()}
    missing = sum(max(labels[name] - there.get(name, 0) * a_row[name], 0) for name in cached)
    derives = any(stage.stage == "derive" and stage.action != "reuse" for stage in stages)
    return Storage(
        {"prepared": seen.num_bytes or 0, "derived": derived, "soft_targets": sum(labels.values())},
        {
            "prepared": 0 if prepared is not None else seen.num_bytes or 0,
            "derived": derived * derives,
            "soft_targets": missing,
        },
    )


def _labelled(recipe: Recipe, stages: Sequence[Planned], prepared: Built | None) -> dict[str, int]:
    """By teacher, the rows in stores that would be reused."""
    from teachers.transfer_set.transfer_set import TransferSet

    if prepared is None:
        return {}
    transfer_set = TransferSet.open(prepared.folder).viewing(viewing_of(recipe))
    found: dict[str, int] = {}
    for stage in stages:
        if stage.stage == "label" and stage.action == "reuse":
            found[stage.name] = found.get(stage.name, 0) + transfer_set.segment(stage.part).num_rows
    return found


def check_room(storage: Storage, free: int, out: Path) -> list[str]:
    """Raise EnvironmentUnfit for a disk that is too small for what is still to come; of a storage elsewhere a note is all."""
    to_come = sum(storage.to_come.values())
    if to_come <= free:
        return []
    told = ", ".join(f"{in_units(size)} of {part}" for part, size in storage.to_come.items() if size)
    said = f"about {in_units(to_come)} are still to come under {spoken(out)} ({told}), {in_units(free)} are free"
    if remote_of(out) is not None:
        return [f"{said} on this machine, whose disk holds what it reads"]
    raise EnvironmentUnfit(
        f"{said}; make room there, choose another --out, or keep less: fewer `views`, `encoding: label`, fewer `outputs`"
    )
