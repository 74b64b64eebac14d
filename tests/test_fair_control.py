"""A control differs from its student by its teachers alone, and what else its teachers had is said."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from orchestrator.recipe.checks import import_problems
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe, public
from orchestrator.recipe.shipped import find
from orchestrator.reporting.fairness import about_augmentation, missing_augmentation
from orchestrator.stages.trainings import training_stages
from students.config.cohort import CohortConfig
from students.config.student import StudentConfig
from students.config.terms import HardTerm, SoftTerm, labels_alone
from students.objective.losses.classification import hard
from students.runs.of_cohort import alone_runs, member_runs
from students.runs.of_student import student_run
from teachers.users_code.imports import use_user_path

WHERE: dict[str, Any] = {"folder": Path("x"), "stage": Path("x"), "stage_name": "distill/small", "transfer_set": Path()}
BY_TEACHERS = {"name", "folder", "objective", "sources", "labelled_only"}
"""Where a control's run differs from its student's."""


def student(**options: Any) -> StudentConfig:
    return StudentConfig.model_validate({"model": "students.models:mlp", "teachers": ["wide"], **options})


def runs_of(config: StudentConfig) -> tuple[Any, Any]:
    return tuple(student_run(kind, config, 3, sources=(), **WHERE) for kind in ("student", "control"))  # type: ignore[return-value]


def test_a_control_has_all_that_its_student_has_but_the_teachers() -> None:
    train = {"steps": 70, "batch_size": 48, "augment": "flip", "early_stopping": {"patience": 2}, "clip": 1.0}
    config = student(objective=[{"loss": "soft"}, {"loss": "hard", "weight": 0.2, "label_smoothing": 0.1}], train=train)
    mine, control = runs_of(config)
    assert {
        field.name for field in fields(mine) if getattr(mine, field.name) != getattr(control, field.name)
    } <= BY_TEACHERS
    assert control.objective == (HardTerm(loss="hard", weight=1.0, label_smoothing=0.1),)


def test_the_objective_of_labels_alone_is_that_of_the_labels_in_its_proportions() -> None:
    smoothed = HardTerm(loss="hard", weight=0.3, label_smoothing=0.2)
    terms = labels_alone([SoftTerm(loss="soft", weight=9), HardTerm(loss="hard", weight=0.1), smoothed])
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    value = sum(term.weight * hard(logits, labels, label_smoothing=term.label_smoothing) for term in terms)
    smooth = 0.25 * 0.0 + 0.75 * 0.2  # cross-entropy is linear in its target
    assert torch.allclose(value, F.cross_entropy(logits, labels, reduction="none", label_smoothing=smooth), atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_labels_alone_weigh_one_whatever_they_weigh_beside_teachers(weight: float) -> None:
    (term,) = labels_alone([SoftTerm(loss="soft"), HardTerm(loss="hard", weight=weight, label_smoothing=0.1)])
    assert (term.weight, term.label_smoothing) == (1.0, 0.1)
    assert labels_alone([SoftTerm(loss="soft")]) == (HardTerm(loss="hard"),)


def cohort(**options: Any) -> Any:
    return TypeAdapter(CohortConfig).validate_python(options)


def test_controls_of_a_cohort_have_the_label_smoothing_of_its_members() -> None:
    members = {name: {"model": "students.models:mlp"} for name in "ab"}
    smoothed = {"loss": "hard", "label_smoothing": 0.1, "weight": 0.5}
    config = cohort(method="mutual", members=members, objective=[smoothed, {"loss": "peer"}])
    control = alone_runs("control", "trio", config, 0, sources=(), **WHERE)
    assert [run.objective for run in control.members] == [(HardTerm(loss="hard", label_smoothing=0.1),)] * 2


def test_a_member_that_takes_every_third_step_has_a_control_of_as_many_steps() -> None:
    roles = {"a": "wide_teacher", "b": "student"}
    members = {name: {"model": "students.models:mlp", "role": role} for name, role in roles.items()}
    config = cohort(method="online_teacher", members=members, teachers_every=3)
    together = member_runs("trio", config, 0, sources=(), **WHERE)
    control = alone_runs("control", "trio", config, 0, sources=(), **WHERE)
    assert [run.membership.every for run in control.members] == [run.membership.every for run in together.members]
    assert [run.membership.every for run in control.members] == [3, 1]


def test_a_control_can_have_the_augmentation_of_the_teachers() -> None:
    mine, control = runs_of(student(control={"augment": ["affine", "cutout"]}))
    assert (mine.train.augments, control.train.augments) == ([], ["affine", "cutout"])
    assert control.train.steps == mine.train.steps and control.train.batch_size == mine.train.batch_size


def test_code_that_augments_a_control_is_checked_and_decides_what_is_trained(tmp_path: Path) -> None:
    code = tmp_path / "mine_for_controls.py"
    code.write_text("def shake(inputs, generator):\n    return inputs\n")
    use_user_path(tmp_path)
    recipe = digits("students.small.control={augment: 'mine_for_controls:shake'}")
    labels = dict.fromkeys(recipe.students["small"].teachers, "")
    before = training_stages(recipe, "small", "prepared", labels)
    assert "code of mine_for_controls.py" in before["control", 0].inputs
    assert "code of mine_for_controls.py" not in before["student", 0].inputs
    wrong = digits("students.small.control={augment: 'mine_for_controls:shook'}")
    assert any("students.small.control.augment" in line for line in import_problems(wrong))


def digits(*overrides: str) -> Recipe:
    return load_recipe(find("digits"), [*overrides])


def test_the_control_of_digits_has_the_augmentation_of_its_teachers() -> None:
    small = digits().students["small"]
    (mine, control), teachers = runs_of(small), digits().teachers
    trained = [teacher.train for teacher in teachers.values() if teacher.kind == "module"]
    assert [train.augments for train in trained if train] == [control.train.augments] * 2 and not mine.train.augments


@pytest.mark.parametrize("name", ["digits", "assistant", "peers", "search", "fashion", "online", "codistillation"])
def test_no_shipped_recipe_lets_teachers_alone_have_augmentation(name: str) -> None:
    assert not [*missing_augmentation(public(load_recipe(find(name))))]


def test_a_control_without_the_augmentation_of_the_teachers_is_told(tmp_path: Path) -> None:
    document = public(digits("students.small.control=true"))
    (told,) = missing_augmentation(document)
    assert "wide (affine), deep (affine)" in told and "the control of small saw the rows as they are" in told
    assert told in about_augmentation(document)
    assert not [*missing_augmentation(public(digits("students.small.control=false")))]
    (grouped,) = about_augmentation(public(digits()))
    assert grouped.startswith("Trained with augmentation (affine): teacher wide, teacher deep, the control of small.")


def test_augmentation_behind_an_assistant_is_told_of_the_student_that_it_teaches() -> None:
    recipe = load_recipe(find("assistant"), ["students.small.control=true"])
    (told,) = missing_augmentation(public(recipe))
    assert told.startswith("Part of what small gains") and "wide (affine)" in told
