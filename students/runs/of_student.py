"""From a student's part of a recipe to its runs: itself, and its control. Knows nothing of torch or Ray."""

from pathlib import Path
from typing import Any, Literal

from teachers.config.training import TrainConfig

from ..config.estimator import EstimatorStudent
from ..config.student import StudentConfig, control_train
from ..config.terms import labels_alone
from .run import Estimator, Run, Source

Kind = Literal["student", "control"]


def student_run(
    kind: Kind,
    config: StudentConfig | EstimatorStudent,
    seed: int,
    *,
    folder: Path,
    sources: tuple[Source, ...],
    **common: Any,
) -> Run:
    """`<kind>/seed-<n>` under `folder`; the control draws from the labelled rows, by the same hard terms, for the same steps,
    and begins with weights of chance."""
    name = f"{kind}/seed-{seed}"
    taught = kind == "student"
    return Run(
        name=name,
        folder=folder / name,
        model=config.model,
        arguments=config.arguments,
        preprocess=config.preprocess.absolute(),
        objective=tuple(config.objective) if taught else labels_alone(config.objective),
        train=_train(config, kind),
        seed=seed,
        sources=sources if taught else (),
        hints=tuple(config.hints) if taught and isinstance(config, StudentConfig) else (),
        hydra=config.hydra if taught and isinstance(config, StudentConfig) else None,
        labelled_only=not taught,
        init=config.init if taught and isinstance(config, StudentConfig) else None,
        energy=config.energy if taught and isinstance(config, StudentConfig) else None,
        estimator=_estimator(config) if isinstance(config, EstimatorStudent) else None,
        **common,
    )


def _train(config: StudentConfig | EstimatorStudent, kind: Kind) -> TrainConfig:
    if isinstance(config, EstimatorStudent):
        return TrainConfig(steps=1, class_weights=config.train.class_weights)
    return config.train if kind == "student" else control_train(config.control, config.train)


def _estimator(config: EstimatorStudent) -> Estimator:
    return Estimator(config.learns, config.least_weight, config.probability_floor, tuple(config.trusted))
