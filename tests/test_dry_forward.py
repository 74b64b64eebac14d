"""`plan --check`: networks are called as the engine calls them, and what they say is told by their key."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.planning.dry_forward import dry_forward
from orchestrator.recipe.model import Recipe
from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import Column

IMAGE = Column("image", "image", (8, 8, 1), (), ())
NUMBERS = Column("features", "number", (3,), (), ())
CLASSES = ["a", "b"]


class TakesTheDictionary(nn.Module):
    """As the engine gives it: one dictionary, by column."""

    def __init__(self, num_classes: int, input_shape: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.LazyLinear(num_classes) for name in input_shape})

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.layers[name](column.flatten(1)) for name, column in inputs.items()]).sum(0)


class TakesKeywords(TakesTheDictionary):
    def forward(self, *, image: Tensor, features: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward({"image": image, "features": features})


class OfWords(nn.Sequential):
    """Its preprocess gives whole numbers, and it takes nothing else."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, num_classes))


def words(columns: dict[str, Tensor]) -> Tensor:
    return columns["features"].long() % 5


class SaysMoreWhileItTrains(nn.Linear):
    def __init__(self, num_classes: int) -> None:
        super().__init__(3, num_classes)

    def forward(self, inputs: Tensor) -> Any:
        logits = super().forward(inputs)
        return (logits, logits) if self.training else logits


class LooksForAnotherColumn(TakesTheDictionary):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["text"]


def recipe(model: str, cohort: dict[str, Any] | None = None, **more: Any) -> Recipe:
    student = {"model": f"tests.test_dry_forward:{model}", **more}
    members = {"members": {"a": student, "b": student}, **(cohort or {})}
    source = {"kind": "import", "function": "tests.test_dry_forward:rows"}
    inputs = {"source": source, "inputs": ["image", "features"], "label": "y"}
    learners: dict[str, Any] = {"cohorts": {"pair": members}} if cohort else {"students": {"small": student}}
    if not cohort:
        student["teachers"] = ["wide"]
    teacher = {
        "kind": "module",
        "model": "teachers.zoo:mlp",
        "arguments": {"hidden": 4},
        "train": {"steps": 1},
        "preprocess": {"function": f"{__name__}:flat"},
    }
    return Recipe.model_validate(
        {"format": 1, "name": "r", "transfer_set": inputs, "teachers": {"wide": teacher}, **learners}
    )


def flat(columns: dict[str, Tensor]) -> Tensor:
    return columns["features"].float()


def test_a_network_of_several_columns_is_given_one_dictionary() -> None:
    dry_forward(recipe("TakesTheDictionary"), [IMAGE, NUMBERS], CLASSES)
    with pytest.raises(
        RecipeError, match=r"students\.small: .*TakesKeywords does not take this transfer set: raised TypeError"
    ):
        dry_forward(recipe("TakesKeywords"), [IMAGE, NUMBERS], CLASSES)


def test_a_network_of_whole_numbers_is_given_those_alone_and_in_a_cohort() -> None:
    preprocess = {"preprocess": {"function": "tests.test_dry_forward:words"}}
    dry_forward(recipe("OfWords", **preprocess), [NUMBERS], CLASSES)
    exchange = {"method": "feature_exchange"}
    dry_forward(recipe("OfWords", exchange, layers=["0"], **preprocess), [NUMBERS], CLASSES)


def test_a_network_is_asked_as_it_trains_too() -> None:
    with pytest.raises(RecipeError, match=r"SaysMoreWhileItTrains gives tuple for 2 rows, expected \(2, 2\)"):
        dry_forward(recipe("SaysMoreWhileItTrains"), [NUMBERS], CLASSES)


def test_whatever_a_network_raises_is_told_in_one_line() -> None:
    with pytest.raises(
        RecipeError, match=r"LooksForAnotherColumn does not take this transfer set: raised KeyError: 'text'"
    ):
        dry_forward(recipe("LooksForAnotherColumn"), [IMAGE, NUMBERS], CLASSES)
