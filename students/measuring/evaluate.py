"""Every figure that a report quotes, from label stores and model folders. The only code that opens the test split.

Knows nothing of recipes: the pipeline says whose stores, which runs and which combination.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.errors import DataError, StoreError
from teachers.models.folder import LoadedModel, load_model
from teachers.soft_targets.combine.class_scores import COMBINE, align
from teachers.soft_targets.reader import SoftTargets
from teachers.transfer_set.transfer_set import Segment, SplitName, TransferSet
from teachers.users_code import imports
from teachers.users_code.calls import calling

from ..runs.best import validation_of
from ..tasks import classification
from .bootstrap import paired_gain, verdict
from .footprint import footprint

FORMAT = 1
ROWS_AT_ONCE = 4096
"""Of one forward, and of one call of a combination rule; no figure depends on it."""


class Source(Protocol):
    """Where one teacher's soft targets lie: a complete store per segment, and how its classes map."""

    @property
    def name(self) -> str: ...
    @property
    def stores(self) -> Mapping[str, Path]: ...
    @property
    def class_map(self) -> Mapping[str, str | None] | None: ...
    @property
    def probability_floor(self) -> float: ...


@dataclass(frozen=True)
class Labelled:
    """The rows of a split that have a label; a row without one counts in no figure."""

    transfer_set: TransferSet
    segments: tuple[Segment, ...]
    masks: tuple[NDArray[np.bool_], ...]
    labels: Tensor
    """i64[N], the segments one after the other."""

    @classmethod
    def of(cls, transfer_set: TransferSet, split: SplitName) -> "Labelled":
        segments = transfer_set.of(split)
        found = [transfer_set.labels(segment) for segment in segments]
        masks = tuple(labels >= 0 for labels in found)
        kept = [labels[mask].astype(np.int64) for labels, mask in zip(found, masks, strict=True)]
        return cls(transfer_set, segments, masks, torch.from_numpy(np.concatenate([np.empty(0, np.int64), *kept])))

    def require(self, split: str) -> "Labelled":
        if not len(self.labels):
            rows = sum(segment.num_rows for segment in self.segments)
            raise DataError(
                f"{self.transfer_set.folder}: none of the {rows} rows of the {split} split has a label, so nothing can "
                f"be evaluated; give `transfer_set.label`, or rows with labels in that split"
            )
        return self


def evaluate_teachers(
    transfer_set: Path,
    sources: Sequence[Source],
    *,
    split: SplitName = "test",
    folders: Mapping[str, Path] | None = None,
    trust: Sequence[str] = (),
    threads: int = 1,
) -> dict[str, Any]:
    """`evaluation.json` of the teachers and of their ensemble (`mean_probability`), from their label stores.

    `folders`: of the teachers that are model folders; those get parameters, bytes and latency too. `validation` is told
    where the stores cover the validation split. Raises DataError when no row of `split` has a label.
    """
    data = TransferSet.open(transfer_set)
    rows = Labelled.of(data, split).require(split)
    said, ensemble = hear(rows, sources, "mean_probability")
    everyone = {**said, "ensemble": ensemble}
    figures = {name: classification.all_metrics(logits, rows.labels, ensemble) for name, logits in everyone.items()}
    for name, looked_at in _validation(data, sources).items():
        figures[name]["validation"] = looked_at
    for name, folder in (folders or {}).items():
        figures[name] |= footprint_of(folder, rows, trust, threads)
    return {
        "format": FORMAT,
        "ensemble": figures.pop("ensemble"),
        "teachers": figures,
        "agreement": classification.agreement_matrix(everyone),
        "rows": len(rows.labels),
    }


def evaluate_student(
    transfer_set: Path,
    sources: Sequence[Source],
    student_runs: Mapping[int, Path],
    control_runs: Mapping[int, Path] | None,
    chosen: int,
    trust: Sequence[str] = (),
    *,
    combine: str = "mean_probability",
    teacher_weights: Mapping[str, float] | None = None,
    split: SplitName = "test",
    device: str | torch.device = "cpu",
    threads: int = 1,
) -> dict[str, Any]:
    """`evaluation.json` of one student and its control, both by seed; runs are model folders with `result.json`.

    `sources` are the student's own teachers; the ensemble is what they say under its own `combine`, at T = 1. `chosen`
    is the delivered seed. Raises DataError when no row of `split` has a label.
    """
    rows = Labelled.of(TransferSet.open(transfer_set), split).require(split)
    heard = hear(rows, sources, combine, teacher_weights)
    runs = {"student": student_runs, **({"control": control_runs} if control_runs else {})}
    said = ask_all(runs, rows, trust, device)
    return {"format": FORMAT, **document_of(rows, heard, runs, said, chosen, trust, threads)}


Runs = Mapping[str, Mapping[int, Path]]
"""By kind (student, control, offline) and seed."""
Answers = Mapping[str, Mapping[int, Tensor]]
"""What the networks of `Runs` say."""


def ask_all(runs: Runs, rows: Labelled, trust: Sequence[str], device: str | torch.device = "cpu") -> Answers:
    return {
        kind: {seed: ask(load_model(run, trust=trust, device=device), rows) for seed, run in by_seed.items()}
        for kind, by_seed in runs.items()
    }


def document_of(
    rows: Labelled,
    heard: tuple[Mapping[str, Tensor], Tensor],
    runs: Runs,
    said: Answers,
    chosen: int,
    trust: Sequence[str],
    threads: int,
) -> dict[str, Any]:
    """Figures of one student over seeds, beside whoever of `control` and `offline` was trained as well.

    `heard`: each of its teachers alone, and what they say together.
    """
    alone, ensemble = heard
    students, controls, offline = said["student"], said.get("control"), said.get("offline")
    size = footprint_of(runs["student"][chosen], rows, trust, threads)
    gain = paired_gain(_right(students, rows), _right(controls, rows)) if controls else None
    over_offline = paired_gain(_right(students, rows), _right(offline, rows)) if offline else None
    everyone = {**alone, "ensemble": ensemble} | {kind: by_seed[chosen] for kind, by_seed in said.items()}
    return {
        "student": _runs(students, runs["student"], rows, ensemble, size),
        "control": _runs(controls, runs["control"], rows, ensemble, {}) if controls else None,
        "offline": _runs(offline, runs["offline"], rows, ensemble, {}) if offline else None,
        "ensemble": classification.all_metrics(ensemble, rows.labels),
        "gain": gain.to_json() if gain else None,
        "gain_over_offline": over_offline.to_json() if over_offline else None,
        "verdict": verdict(gain, len(students)),
        "delivered": chosen,
        "agreement": classification.agreement_matrix(everyone),
        "rows": len(rows.labels),
    }


def hear(
    rows: Labelled, sources: Sequence[Source], combine: str, teacher_weights: Mapping[str, float] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """What each teacher says of `rows` and what they say together, f32[N, C] in the transfer set's classes."""
    heard = {source.name: _aligned(rows, source) for source in sources}
    alone = {name: _combined([said], "mean_probability", {}) for name, said in heard.items()}
    keywords = {"teacher_weights": [teacher_weights[name] for name in heard]} if teacher_weights else {}
    return alone, _combined(list(heard.values()), combine, keywords)


def ask(model: LoadedModel, rows: Labelled) -> Tensor:
    """What a network says of `rows`, f32[N, C] on the CPU."""
    parts = []
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        for first in range(0, segment.num_rows, ROWS_AT_ONCE):
            num_rows = min(ROWS_AT_ONCE, segment.num_rows - first)
            logits = model(rows.transfer_set.inputs(segment, first, num_rows)).cpu()
            parts.append(logits[torch.from_numpy(mask[first : first + num_rows])])
    return torch.cat(parts)


def _aligned(rows: Labelled, source: Source) -> tuple[Tensor, Tensor]:
    """Logits f32[N, C] in the transfer set's classes, and which of them the teacher knows, bool[C]."""
    parts = []
    for segment, mask in zip(rows.segments, rows.masks, strict=True):
        store = SoftTargets.open(source.stores[segment.name])
        if not np.array_equal(store.keys(), rows.transfer_set.keys(segment)):
            raise StoreError(
                f"{source.stores[segment.name]}: its rows are not those of segment {segment.name} of "
                f"{rows.transfer_set.folder}; it was made from other data, label again"
            )
        index, known = align(store.spec.classes, rows.transfer_set.classes, source.class_map)
        parts.append(store.logits(source.probability_floor)[torch.from_numpy(mask)][:, index])
    return torch.cat(parts), known


def _combined(heard: Sequence[tuple[Tensor, Tensor]], combine: str, keywords: Mapping[str, Any]) -> Tensor:
    rule = COMBINE[combine] if combine in COMBINE else imports.load(combine)
    known = torch.stack([known for _, known in heard])[:, None]
    parts = []
    for first in range(0, len(heard[0][0]), ROWS_AT_ONCE):
        logits = torch.stack([said[first : first + ROWS_AT_ONCE] for said, _ in heard])
        with calling("objective.combine", combine):
            parts.append(rule(logits, temperature=1.0, known=known.expand_as(logits), **keywords)[0])
    return torch.cat(parts)


def _validation(transfer_set: TransferSet, sources: Sequence[Source]) -> dict[str, dict[str, float]]:
    rows = Labelled.of(transfer_set, "validation")
    covered = all(segment.name in source.stores for source in sources for segment in rows.segments)
    if not covered or not len(rows.labels):
        return {}
    said, ensemble = hear(rows, sources, "mean_probability")
    return {name: _short(logits, rows.labels) for name, logits in {**said, "ensemble": ensemble}.items()}


def _short(logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {"accuracy": classification.accuracy(logits, labels), "nll": classification.nll(logits, labels)}


def _right(said: Mapping[int, Tensor], rows: Labelled) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = torch.stack([said[seed].argmax(-1) == rows.labels for seed in sorted(said)]).numpy()
    return right


def _runs(
    said: Mapping[int, Tensor], folders: Mapping[int, Path], rows: Labelled, ensemble: Tensor, size: Mapping[str, Any]
) -> dict[str, Any]:
    """Figures by seed, in the order of seeds; all are one architecture, so `size` is measured once."""
    runs = []
    for seed in sorted(said):
        document = {"seed": seed, **classification.all_metrics(said[seed], rows.labels, ensemble), **size}
        if looked_at := validation_of(folders[seed]):
            document["validation"] = dict(looked_at)
        runs.append(document)
    return {"runs": runs}


def footprint_of(folder: Path, rows: Labelled, trust: Sequence[str], threads: int) -> dict[str, Any]:
    segment = rows.segments[0]
    inputs = rows.transfer_set.inputs(segment, 0, min(32, segment.num_rows))
    return footprint(folder, inputs, trust=trust, threads=threads)
