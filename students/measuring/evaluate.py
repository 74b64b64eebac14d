"""Every figure that a report quotes, from label stores and model folders.

Knows nothing of recipes: the pipeline says whose stores, which runs and which combination.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachers.models.folder import load_model, seen_in
from teachers.transfer_set.transfer_set import SplitName, TransferSet

from ..config.combining import NO_OPTIONS, Options
from ..config.energy import Energy
from ..objective.calibration import calibration_of
from ..runs.best import validation_of
from ..runs.run import Source
from ..tasks.ensemble import TOGETHER
from ..tasks.figure import LOOKS
from ..tasks.task import Model
from .by_row import gain_between, gain_of_class, row_by_row, to_document
from .energy import by_energy
from .footprint import footprint
from .gain import verdict
from .hearing import Heard, hear
from .judged import Thresholds, Voice, agreement_matrix, figures_of, metered
from .labelled import Labelled, ask
from .mistakes import worst_mistakes
from .recommended import of_several, recommended
from .sheet import sheet_of
from .thresholds import chosen_by, covers, thresholds_of_teachers
from .together import by_every_rule, known_by_few, unknown_rows
from .uncertainty import uncertainty_of_student
from .unjudged import is_judged, student_unjudged, teachers_unjudged

FORMAT = 4
PROBABILITIES = ("nll", "ece")
"""Figures that a calibration is to better."""


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
    heard = hear(rows, sources)
    chosen = thresholds_of_teachers(data, sources)
    voices = {name: heard.voice(name, chosen.get(name)) for name in heard.everyone}
    together = voices["ensemble"]
    figures = {name: figures_of(rows, voice, together) for name, voice in voices.items()}
    for split_name, looked_at in (("validation", _validation(data, sources)), ("training", _training(data, sources))):
        for name, found in looked_at.items():
            figures[name][split_name] = found
    for source in sources:
        if source.calibrate is not None:
            raw = hear(rows, [replace(source, calibrate=None)]).voice(source.name)
            keys = [key for key in PROBABILITIES if key in figures[source.name]]
            figures[source.name]["uncalibrated"] = metered(rows, raw).figures(keys=keys)
            figures[source.name]["temperature"] = getattr(calibration_of(source, data), "temperature", None)
        if unknown := unknown_rows(data, source):
            figures[source.name]["unknown"] = unknown
    for name, folder in (folders or {}).items():
        figures[name] |= footprint_of(folder, rows, trust, threads)
    models = {name: Model([voice.said], voice.sure, [voice.thresholds]) for name, voice in voices.items()}
    tables = rows.task.tables(models, models["ensemble"], rows.labels, rows.space)
    return {
        "format": FORMAT,
        "ensemble": figures.pop("ensemble"),
        "teachers": figures,
        **tables,
        "combinations": by_every_rule(rows, sources, heard),
        "recommended": recommended(rows, sources, heard),
        "known_by_few": known_by_few(tables.get("by_class"), heard.kept),
        "mistakes": worst_mistakes(together, together.said, rows),
        "agreement": agreement_matrix(rows, heard.everyone),
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
    options: Options = NO_OPTIONS,
    energy: Energy | None = None,
    split: SplitName = "test",
    device: str | torch.device = "cpu",
    threads: int = 1,
) -> dict[str, Any]:
    """`evaluation.json` of one student and its control, both by seed; runs are model folders with `result.json`.

    `sources` are the student's own teachers; of one without, the ensemble is all its seeds as one. The ensemble is what they say under its own `combine`, at T = 1, given to
    that rule in this `order`. `chosen` is the delivered seed. Where no row has a label, what `student_unjudged` gives.
    Raises DataError when only `split` has none.
    """
    data = TransferSet.open(transfer_set)
    if not is_judged(data, split):
        rows = Labelled.whole(data, split)
        said = {seed: ask(load_model(run, trust=trust, device=device), rows) for seed, run in student_runs.items()}
        own = partial(of_itself, rows, [*said.values()])
        heard = hear(rows, sources, combine, teacher_weights, order, options) if sources else own()
        size = footprint_of(student_runs[chosen], rows, trust, threads)
        document = student_unjudged(rows, heard, said, chosen, size)
        return {"format": FORMAT, **document, **uncertainty_of_student(rows, heard, student_runs, trust, device)}
    rows = Labelled.of(data, split).require(split)
    runs = {"student": student_runs, **({"control": control_runs} if control_runs else {})}
    answers = ask_all(runs, rows, trust, device)
    own = partial(of_itself, rows, [voice.said for voice in answers["student"].values()])
    heard = hear(rows, sources, combine, teacher_weights, order, options) if sources else own()
    thresholds = thresholds_of_teachers(data, sources, combine, teacher_weights, order, options) if sources else {}
    document = document_of(rows, heard, runs, answers, chosen, trust, threads, thresholds)
    as_one = of_several(rows, sources, heard, combine, teacher_weights, order, options)
    as_one |= uncertainty_of_student(rows, heard, student_runs, trust, device)
    if energy is not None:
        as_one["energy"] = by_energy(energy, {source.name: source for source in sources}, rows, heard)
    return {"format": FORMAT, **document, **as_one}


def of_itself(rows: Labelled, said: Sequence[Tensor]) -> Heard:
    """What a student without teachers agrees with: its own seeds, `said` by each, as one."""
    return Heard({}, TOGETHER[rows.space.answer](torch.stack([*said])))


Runs = Mapping[str, Mapping[int, Path]]
"""By kind (student, control, offline) and seed."""
Answers = Mapping[str, Mapping[int, Voice]]
"""What the networks of `Runs` say."""


def ask_all(runs: Runs, rows: Labelled, trust: Sequence[str], device: str | torch.device = "cpu") -> Answers:
    """Each network of the rows, and where the task has thresholds, of validation rows, which choose its own."""
    choosing = Labelled.of(rows.transfer_set, "validation")

    def voice_of(run: Path) -> Voice:
        model = load_model(run, trust=trust, device=device)
        return Voice(ask(model, rows), thresholds=chosen_by(choosing, lambda: ask(model, choosing)))

    return {kind: {seed: voice_of(run) for seed, run in by_seed.items()} for kind, by_seed in runs.items()}


def document_of(
    rows: Labelled,
    heard: Heard,
    runs: Runs,
    said: Answers,
    chosen: int,
    trust: Sequence[str],
    threads: int,
    thresholds: Mapping[str, Thresholds] | None = None,
) -> dict[str, Any]:
    """Figures of one student over seeds, beside whoever of `control` and `offline` was trained as well.

    `heard`: each of its teachers alone, and what they say together; `thresholds`: theirs.
    """
    students, controls, offline = said["student"], said.get("control"), said.get("offline")
    size = footprint_of(runs["student"][chosen], rows, trust, threads)
    scored = {kind: row_by_row(rows, by_seed) for kind, by_seed in said.items()}
    gain, over_offline = (
        gain_between(rows.space.task, scored["student"], scored.get(kind), rows.groups)
        for kind in ("control", "offline")
    )
    teachers = {name: heard.voice(name, (thresholds or {}).get(name)) for name in heard.everyone}
    models = {name: Model([voice.said], voice.sure, [voice.thresholds]) for name, voice in teachers.items()}
    models |= {kind: _over_seeds(by_seed) for kind, by_seed in said.items()}
    delivered = Model([students[chosen].said], thresholds=[students[chosen].thresholds])
    tables = rows.task.tables(models, delivered, rows.labels, rows.space)
    return {
        "student": _runs(students, runs["student"], rows, heard, size),
        "control": _runs(controls, runs["control"], rows, heard, {}) if controls else None,
        "offline": _runs(offline, runs["offline"], rows, heard, {}) if offline else None,
        "ensemble": figures_of(rows, teachers["ensemble"]),
        "gain": gain.to_json() if gain else None,
        "gain_over_offline": over_offline.to_json() if over_offline else None,
        "verdict": verdict(gain),
        "delivered": chosen,
        "agreement": agreement_matrix(
            rows, heard.everyone | {kind: by_seed[chosen].said for kind, by_seed in said.items()}
        ),
        **tables,
        **sheet_of(models, rows),
        "known_by_few": known_by_few(
            tables.get("by_class"), heard.kept, partial(gain_of_class, rows, scored["student"], scored.get("control"))
        ),
        "by_row": {kind: to_document(found) for kind, found in scored.items()},
        "mistakes": worst_mistakes(students[chosen], heard.together, rows),
        "rows": len(rows.labels),
        "commonest": rows.commonest(),
    }


def _over_seeds(by_seed: Mapping[int, Voice]) -> Model:
    voices = [voice for _, voice in sorted(by_seed.items())]
    return Model([voice.said for voice in voices], thresholds=[voice.thresholds for voice in voices])


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
    inputs = seen_in(folder, rows.transfer_set).inputs(segment, 0, min(32, segment.num_rows))
    return footprint(folder, inputs, trust=trust, threads=threads)
