"""What a student has left out, or weighed less, by a teacher's energy, and whether teachers know less beyond the threshold.

Knows nothing of recipes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from teachers.tasks.labels import has_label
from teachers.transfer_set.transfer_set import TransferSet

from ..config.energy import Energy
from ..objective.energy import Reference, energies, judging
from ..runs.run import Source
from ..tasks.figure import headline
from .hearing import Heard
from .labelled import Labelled


def by_energy(energy: Energy, sources: Mapping[str, Source], rows: Labelled, heard: Heard) -> dict[str, Any]:
    """`threshold`; of each kind of unlabelled training rows `rows` and how many are `beyond`; of the labelled `rows`, below and
    above, how many there are and the headline figure of each teacher, None where there are none."""
    source, data = judging(energy, sources), rows.transfer_set
    reference = Reference.of(source, data, energy.quantile)
    of_rows = [energies(source, data, segment) for segment in rows.segments]
    beyond = np.concatenate([reference.is_beyond(found[mask]) for found, mask in zip(of_rows, rows.masks, strict=True)])
    parts = {"below": torch.from_numpy(~beyond), "above": torch.from_numpy(beyond)}
    return {
        "teacher": source.name,
        "quantile": energy.quantile,
        "rows": energy.rows,
        "threshold": reference.threshold,
        "training": _training(energy, source, reference, data),
        "tested": {
            where: {
                "rows": int(mask.sum()),
                "teachers": {n: _figure(rows, said, mask) for n, said in heard.alone.items()},
            }
            for where, mask in parts.items()
        },
    }


def _training(energy: Energy, source: Source, reference: Reference, data: TransferSet) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for segment in (each for each in data.of("train") if energy.judges(each.kind)):
        unlabelled = ~(data.labelled(segment) & has_label(data.labels(segment)))
        beyond = reference.is_beyond(energies(source, data, segment)) & unlabelled
        kind = found.setdefault(segment.kind, {"rows": 0, "beyond": 0})
        kind["rows"] += int(unlabelled.sum())
        kind["beyond"] += int(beyond.sum())
    return found


def _figure(rows: Labelled, said: torch.Tensor, mask: torch.Tensor) -> float | None:
    if not bool(mask.any()):
        return None
    meter = rows.task.meter(rows.space, None)
    meter.update(said[mask], rows.labels[mask])
    key = headline(rows.task.name).key
    return meter.figures(keys=[key])[key]
