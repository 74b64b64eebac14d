"""From a cohort's part of a recipe to its runs: what each method makes of its members. Knows nothing of torch or Ray."""

from pathlib import Path
from typing import Any

from ..config.cohort import CodistillationCohort, CohortConfig, KdclCohort, OnlineTeacherCohort
from ..config.cohort_terms import ChannelTerm, FeatureTerm, PeerTerm
from ..config.student import control_train
from ..config.terms import labels_alone
from .run import CohortRun, Membership, Run, Source


def member_runs(
    name: str, config: CohortConfig, seed: int, *, folder: Path, sources: tuple[Source, ...], **common: Any
) -> CohortRun:
    """The cohort at work: `<member>/seed-<n>` under `folder`."""
    runs = []
    for number, member in enumerate(config.members):
        membership = membership_of(name, config, number)
        teaches = config.members[member].role in ("wide_teacher", "deep_teacher")
        objective = labels_alone(config.objective) if teaches else tuple(config.objective)
        runs.append(
            _run(
                member,
                config,
                seed,
                folder,
                membership,
                objective=objective,
                sources=() if teaches else sources,
                **common,
            )
        )
    return CohortRun(f"seed-{seed}", tuple(runs), config)


def alone_runs(
    kind: str, name: str, config: CohortConfig, seed: int, *, folder: Path, sources: tuple[Source, ...], **common: Any
) -> CohortRun:
    """The members beside each other, without a word: `control` by labels alone, `offline` from frozen teachers.

    What hears peers is left out of the objective; a control draws from the labelled rows only. Same seeds, same steps.
    """
    objective: tuple[Any, ...] = labels_alone(config.objective)
    if kind == "offline":
        objective = tuple(
            term for term in config.objective if not isinstance(term, PeerTerm | FeatureTerm | ChannelTerm)
        )
    runs = [
        _run(
            member,
            config,
            seed,
            folder,
            Membership(
                number=number,
                every=membership_of(name, config, number).every,
                recipe_key=f"cohorts.{name}.members.{member}",
            ),
            objective=objective,
            sources=sources if kind == "offline" else (),
            labelled_only=kind == "control",
            kind=kind,
            **common,
        )
        for number, member in enumerate(config.members)
    ]
    return CohortRun(f"{kind}/seed-{seed}", tuple(runs), config, exchange=False)


def membership_of(name: str, config: CohortConfig, number: int) -> Membership:
    member = [*config.members][number]
    needs_maps = any(isinstance(term, FeatureTerm | ChannelTerm) for term in config.objective)
    teaches = config.members[member].role in ("wide_teacher", "deep_teacher")
    return Membership(
        number=number,
        own_views=isinstance(config, KdclCohort),
        every=config.teachers_every if isinstance(config, OnlineTeacherCohort) and teaches else 1,
        peer_rule=peer_rule_of(config),
        share_of_rows=(number, len(config.members))
        if isinstance(config, CodistillationCohort) and config.own_rows
        else (0, 1),
        layers=tuple(config.members[member].layers) if needs_maps else (),
        keeps_canonical=isinstance(config, CodistillationCohort) and not config.has_one_preprocess,
        recipe_key=f"cohorts.{name}.members.{member}",
    )


def peer_rule_of(config: CohortConfig) -> str:
    if isinstance(config, KdclCohort):
        return config.target
    return "mean_of_others" if isinstance(config, CodistillationCohort) else "others"


def _run(
    member: str,
    config: CohortConfig,
    seed: int,
    folder: Path,
    membership: Membership,
    *,
    kind: str = "",
    **common: Any,
) -> Run:
    name = "/".join(part for part in (kind, member, f"seed-{seed}") if part)
    train = config.member_train(member)
    return Run(
        name=name,
        folder=folder / name,
        model=config.members[member].model,
        arguments=config.members[member].arguments,
        preprocess=config.members[member].preprocess.absolute(),
        train=control_train(config.control, train) if kind == "control" else train,
        seed=seed,
        membership=membership,
        **common,
    )
