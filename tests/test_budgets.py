"""Labels that are used are counted, those that only choose too; trainings that are too short are told by `plan`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.reporting.fairness import about_labels
from orchestrator.running.run import smoke
from orchestrator.stages import keys
from students.measuring.evaluate import Labelled
from teachers.config.transfer_set import SklearnSource, TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.transfer_set.transfer_set import TransferSet
from tests.training_runs import HARD, make_run


def digits_config(**options: Any) -> TransferSetConfig:
    source = SklearnSource(kind="sklearn", name="digits")
    return TransferSetConfig.model_validate({"source": source, "inputs": "image", "label": "digit", **options})


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    """digits with 100 labels to learn from and 50 to choose by."""
    return prepare(digits_config(labelled={"train": 100, "validation": 50}), tmp_path_factory.mktemp("few"))


def test_labelled_validation_rows_are_stratified_and_the_others_have_no_label_to_use(few: TransferSet) -> None:
    (validation,) = few.of("validation")
    labels, usable = few.labels(validation), few.usable_labels(validation)
    chosen = few.labelled(validation)
    assert (chosen.sum(), few.num_labelled) == (50, 100) and few.labelled(few.of("test")[0]).all()
    assert np.array_equal(usable[chosen], labels[chosen]) and (usable[~chosen] == -1).all()
    expected = np.bincount(labels, minlength=10) / len(labels) * 50
    assert (np.abs(np.bincount(labels[chosen], minlength=10) - expected) < 1).all()


def test_only_usable_labels_choose(few: TransferSet, tmp_path: Path) -> None:
    from students.fitting.fit import fit
    from students.runs.session import PlainSession

    (result,) = fit([make_run(tmp_path, few, objective=[HARD], labelled_only=True)], PlainSession())
    assert result.validation is not None
    right = result.validation["accuracy"] * 50
    assert right == pytest.approx(round(right)), "a share of 50 rows"
    assert len(Labelled.of(few, "validation").labels) == 50


def test_a_number_alone_restricts_training_rows_as_train_does(few: TransferSet, tmp_path: Path) -> None:
    plain = prepare(digits_config(labelled=100), tmp_path / "plain")
    (train,), (mine,) = plain.of("train"), few.of("train")
    assert np.array_equal(plain.labelled(train), few.labelled(mine))
    assert plain.labelled(plain.of("validation")[0]).all()
    stages = [
        keys.prepare_stage(digits(f"transfer_set.labelled={given}"), "x").key for given in ("100", "{train: 100}")
    ]
    assert stages[0] == stages[1] != keys.prepare_stage(digits("transfer_set.labelled=null"), "x").key


def test_fewer_validation_labels_than_classes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labelled: 5 validation rows are less than one row for each of the 10 classes"):
        prepare(digits_config(labelled={"validation": 5}), tmp_path)


def test_what_labelled_cannot_be_is_told_with_its_place() -> None:
    with pytest.raises(RecipeError, match=r"valdation: unknown key, did you mean validation\?"):
        digits("transfer_set.labelled={valdation: 5}")
    with pytest.raises(RecipeError, match="greater than or equal to 1"):
        digits("transfer_set.labelled=0")


def test_the_report_counts_the_labels_that_only_choose(few: TransferSet) -> None:
    told = about_labels(few.report)
    tests = sum(segment.num_rows for segment in few.of("test"))
    assert told.startswith("150 labels went into students and controls: 100 of training rows")
    assert "50 of validation rows" in told and f"{tests} other labelled rows" in told


def test_a_smoke_run_restricts_the_same_splits_and_has_a_label_of_each_class(tmp_path: Path) -> None:
    """There are fewer rows than labels asked for, and then all of them count."""
    made = smoke(digits("transfer_set.labelled={train: 1000, validation: 50}"))
    prepared = prepare(made.transfer_set, tmp_path / "set")
    assert prepared.report["labelled"]["train"] == prepared.report["rows"]["train"] == made.transfer_set.limit == 256
    assert prepared.report["labelled"]["validation"] == 50 and all(prepared.report["labelled_per_class"].values())
    assert smoke(digits("transfer_set.labelled=null")).transfer_set.labelled_by_split == {}


def digits(*overrides: str) -> Recipe:
    return load_recipe(find("digits"), [*overrides])


def noted(tmp_path: Path, *overrides: str) -> list[str]:
    return plan(digits(*overrides), tmp_path / "out").notes


def test_rows_of_each_split_are_foreseen_within_chance(few: TransferSet) -> None:
    foreseen = look(digits_config()).rows_by_split
    assert foreseen is not None and sum(foreseen.values()) == 1797
    assert all(abs(foreseen[split] - few.report["rows"][split]) < 60 for split in foreseen)


def test_plan_warns_of_a_training_of_few_steps_with_its_numbers(tmp_path: Path) -> None:
    few_steps = ("transfer_set.labelled=200", "teachers.wide.train={epochs: 3, batch_size: 256}")
    (told,) = [note for note in noted(tmp_path, *few_steps) if note.startswith("teachers.wide.train")]
    assert "3 steps" in told and "of 200 rows in batches of 256" in told and "fewer than 100" in told
    (told,) = [note for note in noted(tmp_path, "students.small.train.steps=99") if ".train" in note]
    assert told.startswith("students.small.train: 99 steps")
    assert not [note for note in noted(tmp_path, "students.small.train.steps=100") if ".train" in note]


@pytest.mark.parametrize("schedule,warned", [("one_cycle", True), ("cosine", False)])
def test_plan_warns_of_a_cycle_over_few_epochs_with_its_numbers(
    few: TransferSet, tmp_path: Path, schedule: str, warned: bool
) -> None:
    train = f"{{epochs: 2.5, batch_size: 8, schedule: {schedule}}}"
    found = [
        note for note in noted(tmp_path, f"students.small.train={train}") if note.startswith("students.small.train")
    ]
    assert bool(found) == warned
    if warned:
        rows = few.report["rows"]["train"]  # plan counts them too
        steps = math.ceil(2.5 * rows / 8)
        assert f"over {steps * 8 / rows:.3g} epochs of {rows:,} rows ({steps} steps of 8)" in found[0]
        assert "fewer than 3" in found[0]
    assert not [n for n in noted(tmp_path, "students.small.train={epochs: 3, batch_size: 8}") if "small.train" in n]


def test_plan_says_which_labels_choose_besides(few: TransferSet, tmp_path: Path) -> None:
    validation = few.report["rows"]["validation"]
    assert any(note.startswith(f"{validation} validation rows choose") for note in noted(tmp_path))
    assert not [
        n for n in noted(tmp_path, "transfer_set.labelled={train: 100, validation: 50}") if "seeds and settings by" in n
    ]
    assert not [n for n in noted(tmp_path, "transfer_set.labelled=null") if "seeds and settings by" in n]


def test_plan_says_where_a_few_labels_drown_what_teachers_say_of_all_rows(few: TransferSet, tmp_path: Path) -> None:
    alike = (
        "transfer_set.labelled=20",
        "students.small.objective=[{loss: soft, weight: 0.5}, {loss: hard, weight: 0.5}]",
    )
    (told,) = [note for note in noted(tmp_path, *alike) if "with a label counts as much" in note]
    rows = few.report["rows"]["train"]
    assert told.startswith("students.small.objective: `hard` weighs 0.5 beside 0.5 of teachers")
    assert f"of 20 of {rows:,} rows, so one with a label counts as much as {1 + rows / 20:.0f} without" in told
    assert not [note for note in noted(tmp_path) if "with a label counts" in note]
    assert not [
        note for note in noted(tmp_path, "transfer_set.labelled=null", alike[1]) if "with a label counts" in note
    ]


def test_plan_says_which_control_lacks_the_augmentation_of_the_teachers(tmp_path: Path) -> None:
    assert any("Part of what small gains" in note for note in noted(tmp_path, "students.small.control=true"))
    assert not [note for note in noted(tmp_path) if "Part of what" in note]


@pytest.mark.parametrize(("patience", "told"), [(2, True), (1, False)])
def test_plan_says_where_early_stopping_has_too_few_looks_to_stop_anything(
    tmp_path: Path, patience: int, told: bool
) -> None:
    """130 steps of 32 rows: a tenth of these are two looks at 194 validation rows, which `plan` has counted."""
    train = f"{{steps: 130, batch_size: 32, schedule: cosine, early_stopping: {{patience: {patience}}}}}"
    found = [n for n in noted(tmp_path, f"students.small.train={train}") if "small.train.early_stopping" in n]
    assert bool(found) == told and all("not less than the 2 looks" in note for note in found)
