"""Every figure that a report quotes of a cohort: its members as students of their own, and all of them together."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from teachers.models.folder import load_model
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import SplitName, TransferSet

from ..config.combining import NO_OPTIONS, Options
from ..runs.best import rank_of_run
from ..runs.run import Source
from ..tasks.ensemble import TOGETHER
from .ensemble import save_ensemble
from .evaluate import FORMAT, Runs, ask_all, document_of, footprint_of
from .gain import verdict
from .hearing import Heard, hear
from .judged import Thresholds, Voice, agreement_matrix, figures_of
from .labelled import Labelled, ask
from .recommended import of_several
from .thresholds import chosen_by, thresholds_of_teachers
from .unjudged import is_judged, student_unjudged


def evaluate_cohort(
    transfer_set: Path,
    sources: Sequence[Source],
    members: Mapping[str, Runs],
    chosen: Mapping[str, int],
    trust: Sequence[str] = (),
    *,
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    options: Options = NO_OPTIONS,
    split: SplitName = "test",
    threads: int = 1,
    as_one: bool = False,
) -> dict[str, Any]:
    """`evaluation.json` of a cohort: every member as a student of its own, and all of them together, seed by seed.

    A member agrees with its frozen teachers' combination; without any, with its cohort as one. `as_one`:
    the ensemble is delivered, so what it costs is measured too.
    """
    data = TransferSet.open(transfer_set)
    if not is_judged(data, split):
        return _unjudged(Labelled.whole(data, split), sources, members, chosen, trust, threads, as_one=as_one)
    rows = Labelled.of(data, split).require(split)
    said = {member: ask_all(runs, rows, trust) for member, runs in members.items()}
    seeds = sorted(next(iter(said.values()))["student"])
    together = {
        seed: said_together([answers["student"][seed].said for answers in said.values()], rows.space) for seed in seeds
    }
    best = max(seeds, key=lambda seed: sum(rank_of_run(runs["student"][seed])[0] for runs in members.values()))
    heard = hear(rows, sources, combine, teacher_weights, order, options) if sources else Heard({}, together[best])
    thresholds = thresholds_of_teachers(data, sources, combine, teacher_weights, order, options) if sources else {}
    beside_each = of_several(rows, sources, heard, combine, teacher_weights, order, options)
    documents = {
        member: document_of(rows, heard, members[member], answers, chosen[member], trust, threads, thresholds)
        | beside_each
        for member, answers in said.items()
    }
    own = _thresholds_together(data, members, seeds, trust)
    figures = [
        {"seed": seed, **figures_of(rows, Voice(answers, thresholds=own[seed]), heard.voice("ensemble"))}
        for seed, answers in together.items()
    ]
    return {
        "format": FORMAT,
        "members": documents,
        "ensemble": {"runs": figures},
        "as_one": one_model(
            documents, figures, [runs["student"][best] for runs in members.values()], best, rows, trust, threads
        )
        if as_one
        else None,
        "agreement": agreement_matrix(
            rows, {member: answers["student"][best].said for member, answers in said.items()}
        ),
        "seed": best,
        "best": max(members, key=lambda member: rank_of_run(members[member]["student"][chosen[member]])),
        "rows": len(rows.labels),
        "commonest": rows.commonest(),
    }


def _thresholds_together(
    data: TransferSet, members: Mapping[str, Runs], seeds: Sequence[int], trust: Sequence[str]
) -> dict[int, Thresholds]:
    """Of all members as one, by seed; None where the task has none."""
    rows = Labelled.of(data, "validation")

    def said(seed: int) -> Tensor:
        networks = (load_model(runs["student"][seed], trust=trust) for runs in members.values())
        return said_together([ask(network, rows) for network in networks], rows.space)

    return {seed: chosen_by(rows, partial(said, seed)) for seed in seeds}


def _unjudged(
    rows: Labelled,
    sources: Sequence[Source],
    members: Mapping[str, Runs],
    chosen: Mapping[str, int],
    trust: Sequence[str],
    threads: int,
    *,
    as_one: bool,
) -> dict[str, Any]:
    """Of rows without a label: each member beside its teachers, or beside its cohort."""
    said = {
        member: {seed: ask(load_model(run, trust=trust), rows) for seed, run in runs["student"].items()}
        for member, runs in members.items()
    }
    seeds = sorted(next(iter(said.values())))
    together = {seed: said_together([answers[seed] for answers in said.values()], rows.space) for seed in seeds}
    heard = hear(rows, sources) if sources else Heard({}, together[seeds[0]])
    documents = {
        member: student_unjudged(
            rows,
            heard,
            answers,
            chosen[member],
            footprint_of(members[member]["student"][chosen[member]], rows, trust, threads),
        )
        for member, answers in said.items()
    }
    first = [runs["student"][seeds[0]] for runs in members.values()]
    return {
        "format": FORMAT,
        "judged": False,
        "members": documents,
        "as_one": student_unjudged(rows, heard, together, seeds[0], size_together(first, rows, trust, threads))
        if as_one
        else None,
        "seed": seeds[0],
        "best": next(iter(members)),
        "rows": len(rows.labels),
    }


def one_model(
    documents: Mapping[str, Mapping[str, Any]],
    figures: Sequence[Mapping[str, Any]],
    runs: Sequence[Path],
    chosen: int,
    rows: Labelled,
    trust: Sequence[str],
    threads: int,
) -> dict[str, Any]:
    """The ensemble of a cohort as a student's document; it has no control of its own."""
    size = size_together(runs, rows, trust, threads)
    return {
        "student": {"runs": [{**run, **size} for run in figures]},
        "ensemble": next(iter(documents.values()))["ensemble"],
        "gain": None,
        "verdict": verdict(None),
        "delivered": chosen,
    }


def size_together(runs: Sequence[Path], rows: Labelled, trust: Sequence[str], threads: int) -> dict[str, Any]:
    """What the ensemble of these networks costs."""
    with TemporaryDirectory(prefix="ensemble-") as scratch:
        save_ensemble(Path(scratch), runs)
        return footprint_of(Path(scratch), rows, trust, threads)


def said_together(said: Sequence[Tensor], space: Space) -> Tensor:
    """What several networks say together, f32[N, width]."""
    return TOGETHER[space.answer](torch.stack([*said]))
