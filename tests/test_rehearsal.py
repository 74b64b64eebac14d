"""`plan --check`: everybody is tried on a batch as the engine does it, and what is wrong is told by its key."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from orchestrator.planning.rehearsal import rehearse
from orchestrator.planning.rehearsed import Rehearsed
from orchestrator.planning.teaching import Teaching
from orchestrator.recipe.model import Recipe
from students.objective.features import feature_voice
from teachers.models.skeleton import output_shapes
from teachers.preparing.sample import Sample, as_transfer_set
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from teachers.transfer_set.merged import MergedSplit
from teachers.zoo import mlp

IMAGE = Column("image", "image", (8, 8, 1), (0.5,), (0.5,))
NUMBERS = Column("features", "number", (3,), (0.0,) * 3, (1.0,) * 3)
CLASSES = ("a", "b")
MLP = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": 4}}
WIDE = {**MLP, "train": {"steps": 1}, "preprocess": {"function": f"{__name__}:flat"}}


class TakesTheDictionary(nn.Module):
    """As the engine gives it: one dictionary, by column."""

    def __init__(self, num_classes: int, input_shape: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        sizes = {name: int(np.prod(shape)) for name, shape in input_shape.items()}
        self.layers = nn.ModuleDict({name: nn.Linear(size, num_classes) for name, size in sizes.items()})

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.layers[name](column.flatten(1)) for name, column in inputs.items()]).sum(0)


class TakesKeywords(TakesTheDictionary):
    def forward(self, *, image: Tensor, features: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward({"image": image, "features": features})


class LooksForAnotherColumn(TakesTheDictionary):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["text"]


class OfWords(nn.Sequential):
    """Its preprocess gives whole numbers, and it takes nothing else."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, num_classes))


class OfNumbers(nn.Linear):
    def __init__(self, num_classes: int) -> None:
        super().__init__(3, num_classes)


class SaysMoreWhileItTrains(OfNumbers):
    def forward(self, inputs: Tensor) -> Any:
        logits = super().forward(inputs)
        return (logits, logits) if self.training else logits


class SaysMoreAtRest(OfNumbers):
    def forward(self, inputs: Tensor) -> Any:
        logits = super().forward(inputs)
        return logits if self.training else (logits, logits)


class WithASpareHead(OfNumbers):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.spare = nn.Linear(3, 7)


def of_anything(**arguments: Any) -> nn.Module:
    """A factory that passes on what it gets, with a default of its own."""
    return nn.Linear(3, arguments.get("num_classes", 1000))


def words(columns: dict[str, Tensor]) -> Tensor:
    return columns["features"].long() % 5


def flat(columns: dict[str, Tensor]) -> Tensor:
    return columns["features"].float()


def says_probabilities(batch: dict[str, np.ndarray]) -> np.ndarray:
    first = np.full(len(batch["features"]), 0.9, np.float32)
    return np.stack([first, 1 - first], 1)


def says_three_classes(batch: dict[str, np.ndarray]) -> np.ndarray:
    return np.zeros((len(batch["features"]), 3))


def fails(batch: dict[str, np.ndarray]) -> np.ndarray:
    raise OSError("the endpoint says 401")


def not_a_number(student: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    return student.sum(-1) * torch.nan


def mean_of_the_batch(student: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    return (student - target).square().mean()


def transposed(logits: Tensor, *, temperature: float, known: Tensor, labels: Any = None) -> tuple[Tensor, Tensor]:
    return logits.mean(0).T, torch.full(logits.shape[:2], 1 / len(logits))


def rows(*columns: Column, num_rows: int = 32) -> Sample:
    generator = np.random.default_rng(0)
    inputs = {
        column.name: generator.integers(0, 200, (num_rows, *column.shape)).astype(column.dtype) for column in columns
    }
    return Sample(columns, Space("classification", CLASSES), inputs, np.arange(num_rows, dtype=np.int32) % 2)


def recipe(teachers: dict[str, Any] | None = None, cohort: dict[str, Any] | None = None, **student: Any) -> Recipe:
    teachers = teachers or {"wide": WIDE}
    learner = {"model": f"{__name__}:OfNumbers", "train": {"steps": 900}, **student}
    if cohort is not None:
        train = learner.pop("train")
        learners = {"cohorts": {"pair": {"members": {"a": learner, "b": learner}, "train": train, **cohort}}}
    else:
        learners = {"students": {"small": {"teachers": [*teachers], **learner}}}
    source = {"kind": "import", "function": "mine:rows"}
    transfer_set = {"source": source, "inputs": ["image", "features"], "label": "y"}
    document = {"format": 1, "name": "r", "transfer_set": transfer_set, "teachers": teachers, **learners}
    return Recipe.model_validate(document)


def tried(recipe: Recipe, *columns: Column) -> Rehearsed:
    return rehearse(recipe, rows(*(columns or (NUMBERS,))), Path.cwd())


def problem(recipe: Recipe, *columns: Column) -> str:
    (told,) = tried(recipe, *columns).problems
    return told


def named(model: str) -> str:
    return f"{__name__}:{model}"


# ---- students


def test_a_network_of_several_columns_is_given_one_dictionary() -> None:
    assert not tried(recipe(model=named("TakesTheDictionary")), IMAGE, NUMBERS).problems
    told = problem(recipe(model=named("TakesKeywords")), IMAGE, NUMBERS)
    assert told.startswith("students.small.model: ") and "TakesKeywords raised TypeError" in told


def test_a_network_of_whole_numbers_is_given_those_alone_and_in_a_cohort() -> None:
    of_words = {"model": named("OfWords"), "preprocess": {"function": named("words")}}
    assert not tried(recipe(**of_words)).problems
    assert not tried(recipe(cohort={"method": "feature_exchange"}, layers=["0"], **of_words)).problems


@pytest.mark.parametrize("model", ["SaysMoreWhileItTrains", "SaysMoreAtRest"])
def test_a_network_is_asked_as_it_trains_and_as_it_rests(model: str) -> None:
    assert f"{model} gives tuple for 8 rows, expected [8, 2]" in problem(recipe(model=named(model)))


def test_whatever_a_network_raises_is_told_with_the_users_own_line() -> None:
    told = problem(recipe(model=named("LooksForAnotherColumn")), IMAGE, NUMBERS)
    assert "LooksForAnotherColumn raised KeyError: 'text' (tests/test_rehearsal.py:" in told


def test_a_factory_that_was_not_told_the_number_of_classes_is_told_how_to_be() -> None:
    told = problem(recipe(model=named("of_anything")))
    assert "gives [8, 1000] for 8 rows, expected [8, 2]" in told
    assert "takes `num_classes` only through `**` keywords" in told and "`num_classes: 2`" in told
    assert not tried(recipe(model=named("of_anything"), arguments={"num_classes": 2})).problems


@pytest.mark.parametrize(
    ("term", "told"),
    [
        ({"loss": named("mean_of_the_batch")}, "expected one value per row"),
        ({"loss": named("not_a_number")}, "the loss 'not_a_number' is nan"),
        ({"loss": "soft", "combine": named("transposed")}, "gives target of shape [2, 8]"),
    ],
    ids=["loss", "nan", "combine"],
)
def test_every_term_of_an_objective_is_computed_on_made_up_targets(term: dict[str, Any], told: str) -> None:
    found = problem(recipe(objective=[term]))
    assert found.startswith("students.small") and told in found


def test_a_control_is_tried_with_its_own_augmentation() -> None:
    assert "moves images" in problem(recipe(control={"augment": "flip"}))


def test_parameters_without_a_part_are_named_where_several_workers_look_for_them() -> None:
    (note,) = tried(recipe(model=named("WithASpareHead"), train={"workers": 2})).notes
    assert note.startswith("students.small: 2 parameters have no part") and "(spare.weight, spare.bias)" in note
    assert not tried(recipe(model=named("WithASpareHead"))).notes


@pytest.mark.parametrize("method", ["mutual", "kdcl", "codistillation"])
def test_a_cohort_takes_steps_together(method: str) -> None:
    assert not tried(recipe(cohort={"method": method})).problems
    assert problem(recipe(cohort={"method": method}, model=named("SaysMoreAtRest"))).startswith("cohorts.pair")


class NeedsAnEvenWidth(nn.Sequential):
    def __init__(self, width: int, num_classes: int) -> None:
        if width % 2:
            raise ValueError(f"width is {width}, expected an even number")
        super().__init__(nn.Linear(3, width), nn.Linear(width, num_classes))


def test_settings_of_a_search_are_tried_at_their_ends() -> None:
    search = {"student": "small", "space": {"arguments.width": {"choice": [2, 3]}}, "trials": 4}
    student = {"model": named("NeedsAnEvenWidth"), "arguments": {"width": 2}}
    document = recipe(**student).model_dump(mode="json") | {"search": search}
    found = tried(Recipe.model_validate(document))
    assert not found.problems
    (note,) = found.notes
    assert note.startswith("search.space.arguments.width: a trial with 3 would fail: ") and "expected an even" in note


# ---- teachers


def test_given_weights_are_loaded_into_the_network_that_is_made(tmp_path: Path) -> None:
    state = mlp(4, num_classes=2, input_shape=(3,)).state_dict()
    save_file(state, tmp_path / "fits.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "wrapped.safetensors")
    given = {**MLP, "preprocess": {"normalise": None}}
    fits = {"wide": {**given, "weights": str(tmp_path / "fits.safetensors")}}
    assert not tried(recipe(fits)).problems
    wrapped = {"wide": {**given, "weights": str(tmp_path / "wrapped.safetensors")}}
    told = problem(recipe(wrapped))
    assert told.startswith("teachers.wide: ") and "say `strip_prefix: module.`" in told


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("fails", "raised OSError: the endpoint says 401"),
        ("says_three_classes", r"returned scores of shape [16, 3], expected [16, 2]"),
    ],
)
def test_a_function_is_asked_about_a_batch(function: str, told: str) -> None:
    found = problem(recipe({"mine": {"kind": "callable", "function": named(function), "output": "logits"}}))
    assert found.startswith("teachers.mine") and told in found


def test_probabilities_that_are_called_logits_are_noted() -> None:
    def notes(output: str) -> list[str]:
        mine = {"kind": "callable", "function": named("says_probabilities"), "output": output}
        return tried(recipe({"mine": mine})).notes

    assert len(notes("logits")) == 1 and "say `output: probabilities`" in notes("logits")[0]
    assert not notes("probabilities")


def test_a_class_map_of_a_teacher_that_is_brought_is_held_against_its_classes() -> None:
    mine = {"kind": "callable", "function": named("says_three_classes"), "output": "logits", "classes": ["a", "b", "c"]}
    assert "the teacher's classes 'c' are not in the transfer set" in problem(recipe({"mine": mine}))
    assert not tried(recipe({"mine": {**mine, "class_map": {"c": None}}})).problems


@pytest.mark.parametrize(
    ("estimator", "arguments", "told"),
    [
        ("sklearn.ensemble:ExtraTreesClassifier", {"trees": 3}, "cannot be made with"),
        ("sklearn.ensemble:ExtraTreesClassifier", {"n_estimators": -3}, "InvalidParameterError"),
        ("sklearn.svm:LinearSVC", {}, "has no predict_proba"),
        ("sklearn.preprocessing:StandardScaler", {}, "has no predict_proba"),
        ("tests.test_brought:Strict", {}, "could run code when they are loaded"),
    ],
    ids=["argument", "value", "no probabilities", "no classifier", "types"],
)
def test_an_estimator_is_made_fitted_kept_and_asked(estimator: str, arguments: dict[str, Any], told: str) -> None:
    found = problem(recipe({"trees": {"kind": "sklearn", "model": estimator, "arguments": arguments}}))
    assert found.startswith("teachers.trees") and told in found


def test_what_may_be_the_fault_of_few_rows_is_a_note() -> None:
    neighbours = {
        "kind": "sklearn",
        "model": "sklearn.neighbors:KNeighborsClassifier",
        "arguments": {"n_neighbors": 40},
    }
    found = tried(recipe({"near": neighbours}))
    assert not found.problems and "could not be tried on 32 rows" in found.notes[0]


def test_all_that_is_wrong_is_told_at_once() -> None:
    teachers = {
        "mine": {"kind": "callable", "function": named("fails"), "output": "logits"},
        "trees": {"kind": "sklearn", "model": "sklearn.svm:LinearSVC"},
    }
    told = tried(recipe(teachers, model=named("SaysMoreAtRest"))).problems
    assert [line.partition(":")[0] for line in told] == [
        "teachers.mine.function",
        "teachers.trees",
        "students.small.model",
    ]


@pytest.mark.parametrize("brought", [True, False])
def test_students_are_tried_with_features_of_who_is_brought_and_of_who_is_trained_here(
    tmp_path: Path, brought: bool
) -> None:
    outputs = {"outputs": {"hidden": {"layer": "1"}}}
    given: dict[str, Any] = {**WIDE, **outputs}
    if brought:
        save_file(mlp(4, num_classes=2, input_shape=(3,)).state_dict(), tmp_path / "w.safetensors")
        given = {**MLP, **outputs, "weights": str(tmp_path / "w.safetensors"), "preprocess": {"normalise": None}}
    of_one, some = recipe({"wide": given}), rows(NUMBERS)
    few, found = as_transfer_set(some.take(16), tmp_path / "few"), Rehearsed()
    shapes = {"wide": output_shapes(of_one.teachers["wide"], few.columns, few.space)}
    teaching = Teaching(of_one, few, some, tmp_path, Path.cwd(), found, shapes)
    source = teaching.source("wide", of_one.teachers["wide"])
    assert not found.problems and source.outputs == {"hidden": (4,)}
    voice = feature_voice(source, "hidden", MergedSplit(few, "train"))
    assert voice.shape == (4,) and voice.columns["wide.hidden.value"].owned().float().std() > 0
