"""From a student's part of a recipe to its runs: itself, and its control. Knows nothing of torch or Ray."""

from pathlib import Path
from typing import Any, Literal

from ..config.student import StudentConfig, control_train, labels_alone
from .run import Run, Source

Kind = Literal["student", "control"]


def student_run(
    kind: Kind, config: StudentConfig, seed: int, *, folder: Path, sources: tuple[Source, ...], **common: Any
) -> Run:
    """`<kind>/seed-<n>` under `folder`; the control draws from the labelled rows, by the same hard terms, for the same steps."""
    name = f"{kind}/seed-{seed}"
    taught = kind == "student"
    return Run(
        name=name,
        folder=folder / name,
        model=config.model,
        arguments=config.arguments,
        preprocess=config.preprocess,
        objective=tuple(config.objective) if taught else labels_alone(config.objective),
        train=config.train if taught else control_train(config.control, config.train),
        seed=seed,
        sources=sources if taught else (),
        labelled_only=not taught,
        **common,
    )
