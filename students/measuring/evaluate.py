"""Every figure that a report quotes, from label stores and model folders.

Knows nothing of recipes: the pipeline says whose stores, which runs and which combination.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from teachers.models.folder import load_model
from teachers.transfer_set.transfer_set import SplitName, TransferSet

from ..runs.best import validation_of
from ..tasks.figure import LOOKS
from .footprint import footprint
from .gain import verdict
from .hearing import Heard, Source, hear
from .judged import Voice, figures_of
from .labelled import Labelled, ask
from .thresholds import covers
from .unjudged import is_judged, student_unjudged, teachers_unjudged

FORMAT = 4


def evaluate_teachers(
    transfer_set: Path,
    sources: Sequence[Source],
    *,
    split: SplitName = "test",
    folders: Mapping[str, Path] | None = None,
    trust: Sequence[str] = (),
    threads: int = 1,
) -> dict[str, Any]:
    """`evaluation.json` of the teachers and of their ensemble, by the first rule of the answer, from their label stores.

    `folders`: of the teachers that are model folders; those get parameters, bytes and latency too. `validation` is told
    where the stores cover the validation split, `training` (on the labelled training rows, of which a teacher may
    have learnt) for each whose stores cover those. Where no row has a label, what `teachers_unjudged` gives. Raises
    DataError when only `split` has none.
    """
    data = TransferSet.open(transfer_set)
    if not is_judged(data, split):
        return {"format": FORMAT, **teachers_unjudged(data, sources, split)}
    rows = Labelled.of(data, split).require(split)
    heard = hear(rows, sources, "mean_probability")
    together = classification.all_metrics(heard.together, rows.labels, heard.together, sure=heard.sure)
    figures = {**heard.figures(rows.labels), "ensemble": together}
    for name, looked_at in _validation(data, sources).items():
        figures[name]["validation"] = looked_at
    for name, looked_at in _training(data, sources).items():
        figures[name]["training"] = looked_at
    for name, folder in (folders or {}).items():
        figures[name] |= footprint_of(folder, rows, trust, threads)
    everyone = {**heard.alone, "ensemble": heard.together}
    return {
        "format": FORMAT,
        "ensemble": figures.pop("ensemble"),
        "teachers": figures,
        "by_class": class_table.by_class(
            {name: [logits] for name, logits in everyone.items()}, rows.labels, data.classes, heard.unsure
        ),
        "confusion": class_table.confusion(heard.together, rows.labels),
        "mistakes": confident_mistakes(heard.together, heard.together, rows),
        "agreement": classification.agreement_matrix(everyone),
        "rows": len(rows.labels),
        "commonest": rows.commonest(),
    }


def evaluate_student(
    transfer_set: Path,
    sources: Sequence[Source],
    student_runs: Mapping[int, Path],
    control_runs: Mapping[int, Path] | None,
    chosen: int,
    trust: Sequence[str] = (),
    *,
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    split: SplitName = "test",
    device: str | torch.device = "cpu",
    threads: int = 1,
) -> dict[str, Any]:
    """`evaluation.json` of one student and its control, both by seed; runs are model folders with `result.json`.

    `sources` are the student's own teachers; the ensemble is what they say under its own `combine`, at T = 1, given to
    that rule in this `order`. `chosen` is the delivered seed. Where no row has a label, what `student_unjudged` gives.
    Raises DataError when only `split` has none.
    """
    data = TransferSet.open(transfer_set)
    if not is_judged(data, split):
        rows = Labelled.whole(data, split)
        heard = hear(rows, sources, combine, teacher_weights, order)
        said = ask_all({"student": student_runs}, rows, trust, device)["student"]
        size = footprint_of(student_runs[chosen], rows, trust, threads)
        return {"format": FORMAT, **student_unjudged(rows, heard, said, chosen, size)}
    rows = Labelled.of(data, split).require(split)
    heard = hear(rows, sources, combine, teacher_weights, order)
    runs = {"student": student_runs, **({"control": control_runs} if control_runs else {})}
    answers = ask_all(runs, rows, trust, device)
    return {"format": FORMAT, **document_of(rows, heard, runs, answers, chosen, trust, threads)}


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
    heard: Heard,
    runs: Runs,
    said: Answers,
    chosen: int,
    trust: Sequence[str],
    threads: int,
) -> dict[str, Any]:
    """Figures of one student over seeds, beside whoever of `control` and `offline` was trained as well.

    `heard`: each of its teachers alone, and what they say together.
    """
    students, controls, offline = said["student"], said.get("control"), said.get("offline")
    size = footprint_of(runs["student"][chosen], rows, trust, threads)
    gain = _gain(students, controls, rows)
    over_offline = _gain(students, offline, rows)
    everyone = {**heard.alone, "ensemble": heard.together}
    over_seeds = {name: [logits] for name, logits in everyone.items()}
    over_seeds |= {kind: list(by_seed.values()) for kind, by_seed in said.items()}
    return {
        "student": _runs(students, runs["student"], rows, heard, size),
        "control": _runs(controls, runs["control"], rows, heard, {}) if controls else None,
        "offline": _runs(offline, runs["offline"], rows, heard, {}) if offline else None,
        "ensemble": classification.all_metrics(heard.together, rows.labels, sure=heard.sure),
        "gain": gain.to_json() if gain else None,
        "gain_over_offline": over_offline.to_json() if over_offline else None,
        "verdict": verdict(gain),
        "delivered": chosen,
        "agreement": classification.agreement_matrix(
            everyone | {kind: by_seed[chosen] for kind, by_seed in said.items()}
        ),
        "by_class": class_table.by_class(over_seeds, rows.labels, rows.transfer_set.classes, heard.unsure),
        "confusion": class_table.confusion(students[chosen], rows.labels),
        "right": {
            kind: [packed(logits, rows) for _, logits in sorted(by_seed.items())] for kind, by_seed in said.items()
        },
        "mistakes": confident_mistakes(students[chosen], heard.together, rows),
        "rows": len(rows.labels),
        "commonest": rows.commonest(),
    }


def _gain(students: Mapping[int, Tensor], others: Mapping[int, Tensor] | None, rows: Labelled) -> Gain | None:
    return paired_gain(_right(students, rows), _right(others, rows), rows.groups) if others else None


def packed(logits: Tensor, rows: Labelled) -> str:
    """Which rows are right, in their order: a bit each, in base64. `orchestrator.reporting.comparison` reads it."""
    right = (logits.argmax(-1) == rows.labels).numpy()
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def _training(transfer_set: TransferSet, sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Of teachers who have labelled the training rows."""
    rows = Labelled.of(transfer_set, "train")
    there = [source for source in sources if all(segment.name in source.stores for segment in rows.segments)]
    if not there or not len(rows.labels):
        return {}
    heard = hear(rows, there, "mean_probability")
    return {name: _short(logits, rows.labels, name not in heard.class_only) for name, logits in heard.alone.items()}


def _validation(transfer_set: TransferSet, sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    rows = Labelled.of(transfer_set, "validation")
    covered = all(segment.name in source.stores for source in sources for segment in rows.segments)
    if not covered or not len(rows.labels):
        return {}
    heard = hear(rows, sources, "mean_probability")
    said = {name: (logits, name not in heard.class_only) for name, logits in heard.alone.items()}
    said["ensemble"] = (heard.together, heard.sure)
    return {name: _short(logits, rows.labels, sure) for name, (logits, sure) in said.items()}


def _short(logits: Tensor, labels: Tensor, sure: bool) -> dict[str, float | int | None]:
    return {
        "rows": len(labels),
        "accuracy": classification.all_metrics(logits, labels)["accuracy"],
        "nll": classification.all_metrics(logits, labels, sure=sure)["nll"],
    }


def _right(said: Mapping[int, Tensor], rows: Labelled) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = torch.stack([said[seed].argmax(-1) == rows.labels for seed in sorted(said)]).numpy()
    return right


def _runs(
    said: Mapping[int, Tensor], folders: Mapping[int, Path], rows: Labelled, heard: Heard, size: Mapping[str, Any]
) -> dict[str, Any]:
    """Figures by seed, in the order of seeds; all are one architecture, so `size` is measured once."""
    runs = []
    for seed in sorted(said):
        figures = classification.all_metrics(said[seed], rows.labels, heard.together, ensemble_sure=heard.sure)
        document = {"seed": seed, **figures, **size}
        if looked_at := validation_of(folders[seed]):
            document["validation"] = dict(looked_at)
        runs.append(document)
    return {"runs": runs}


def footprint_of(folder: Path, rows: Labelled, trust: Sequence[str], threads: int) -> dict[str, Any]:
    segment = rows.segments[0]
    inputs = rows.transfer_set.inputs(segment, 0, min(32, segment.num_rows))
    return footprint(folder, inputs, trust=trust, threads=threads)


def _runs(
    said: Mapping[int, Voice], folders: Mapping[int, Path], rows: Labelled, heard: Heard, size: Mapping[str, Any]
) -> dict[str, Any]:
    """Figures by seed, in the order of seeds; all are one architecture, so `size` is measured once."""
    runs = []
    for seed in sorted(said):
        document = {"seed": seed, **figures_of(rows, said[seed], heard.voice("ensemble")), **size}
        if looked_at := validation_of(folders[seed]):
            document["validation"] = dict(looked_at)
        runs.append(document)
    return {"runs": runs}


def _training(transfer_set: TransferSet, sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Of teachers who have labelled the training rows."""
    rows = Labelled.of(transfer_set, "train")
    there = [source for source in sources if all(segment.name in source.stores for segment in rows.segments)]
    if not there or not len(rows.labels):
        return {}
    heard = hear(rows, there)
    return {name: _look(rows, heard.voice(name)) for name in heard.alone}


def _validation(transfer_set: TransferSet, sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    rows = Labelled.of(transfer_set, "validation")
    if not covers(sources, rows) or not len(rows.labels):
        return {}
    heard = hear(rows, sources)
    return {name: _look(rows, heard.voice(name)) for name in heard.everyone}


def _look(rows: Labelled, voice: Voice) -> dict[str, Any]:
    """What a look at validation tells of a network, of somebody who teaches."""
    found = figures_of(rows, voice)
    return {"rows": len(rows.labels), **{key: found[key] for key in LOOKS[rows.task.name]}}


def footprint_of(folder: Path, rows: Labelled, trust: Sequence[str], threads: int) -> dict[str, Any]:
    segment = rows.segments[0]
    inputs = rows.transfer_set.inputs(segment, 0, min(32, segment.num_rows))
    return footprint(folder, inputs, trust=trust, threads=threads)
