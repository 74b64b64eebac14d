"""A search over what is made of text: each of its choices is made once, before the trials, which find it by its content."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from orchestrator.building.context import Context
from orchestrator.building.derive_trials import derive_for_trials
from orchestrator.recipe.model import Recipe
from orchestrator.stages.stages import Built, Stage, Stages
from orchestrator.watching.progress import Watch
from teachers.config.preprocess import Preprocess
from teachers.errors import RecipeError
from teachers.models.preprocess import Preprocessor
from teachers.storage.seal import Seal, read_seal, write_seal
from teachers.transfer_set.derived import DerivedSegment
from teachers.transfer_set.transfer_set import TransferSet

from .test_derived import prepared, written

SPACE = {"preprocess.ngrams.max_length": {"choice": [16, 24]}, "preprocess.ngrams.lowercase": {"choice": [True, False]}}


def derived(out: Path, data: TransferSet, space: dict[str, Any]) -> list[Built]:
    source = {"kind": "jsonl", "path": str(written(out / "rows.jsonl"))}
    rows = {"source": source, "inputs": [{"column": "text", "as": "text"}, "n"], "label": "label"}
    words = {"kind": "sklearn", "model": "teachers.zoo:tfidf_words"}
    student = {"model": "students.models:bag", "preprocess": {"ngrams": {}}, "teachers": ["words"]}
    document = {"format": 1, "name": "texts", "transfer_set": rows, "teachers": {"words": words}, "students": {"small": student}}  # fmt: skip
    recipe = Recipe.from_dict(document | {"search": {"student": "small", "space": space, "trials": 2}})
    seal = read_seal(data.folder) or write_seal(data.folder, [])
    assert isinstance(seal, Seal)
    sealed = Built(Stage("prepare", "transfer_set", {}, {}), data.folder, seal, True, "", 0.0)
    unused: Any = None  # n-grams of few rows are made in this process
    context = Context(recipe, Stages(out), unused, Watch(quiet=True), unused, unused, out)
    return derive_for_trials(context, sealed)


def test_each_choice_is_found_by_the_trial_that_has_it(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    again = [derived(tmp_path, data, SPACE) for _ in range(2)]
    assert len(again[0]) == len(again[1]) == 4 * len(data.segments)
    assert not any(built.reused for built in again[0]) and all(built.reused for built in again[1])
    for max_length, lowercase in product([16, 24], [True, False]):
        made = Preprocess.model_validate({"ngrams": {"max_length": max_length, "lowercase": lowercase}})
        text = Preprocessor(made, data.columns).text
        assert text is not None
        assert all(DerivedSegment.find(data, segment, text) is not None for segment in data.segments)


def test_what_is_drawn_from_a_range_and_what_makes_nothing_of_text_is_left_to_the_trials(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    assert derived(tmp_path, data, {"preprocess.ngrams.max_length": {"integer": [16, 24]}}) == []
    assert derived(tmp_path, data, {"train.learning_rate": {"choice": [0.1, 0.2]}}) == []


def test_a_choice_that_cannot_be_made_ends_the_study_before_its_trials(tmp_path: Path) -> None:
    choices = [{"ngrams": {}}, {"tokenizer": {"path": str(tmp_path / "none")}}]
    with pytest.raises(RecipeError, match=r"students\.small\.preprocess\.tokenizer\.path"):
        derived(tmp_path, prepared(tmp_path), {"preprocess": {"choice": choices}})
