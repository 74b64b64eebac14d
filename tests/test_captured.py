"""Layers of a network, captured: what each gave, whatever happens behind it."""

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from teachers.errors import RecipeError
from teachers.models.captured import Captured, layers_of
from teachers.models.torchvision_build import make_importable


class InPlace(nn.Module):
    """A convolution whose output two operations change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        maps += 1
        maps = self.activation(maps)
        return self.head(maps.mean((2, 3)))


def images(rows: int = 4) -> Tensor:
    return torch.randn(rows, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> InPlace:
    torch.manual_seed(0)
    return InPlace()


def test_a_layer_before_an_activation_in_place_gives_what_it_gave(network: InPlace) -> None:
    said, seen = Captured(network, ["convolution", "activation"])(images())
    assert torch.equal(seen["convolution"], network.convolution(images()))
    assert torch.equal(seen["activation"], (network.convolution(images()) + 1).relu())
    assert torch.equal(said, network(images()))
    assert list(seen) == ["convolution", "activation"]


def test_gradients_of_what_was_captured_are_those_of_a_network_that_returns_it(network: InPlace) -> None:
    _, seen = Captured(network, ["convolution"])(images())
    seen["convolution"].pow(2).mean().backward()
    weight = network.convolution.weight.detach().clone().requires_grad_()
    nn.functional.conv2d(images(), weight, network.convolution.bias.detach()).pow(2).mean().backward()
    assert torch.allclose(network.convolution.weight.grad, weight.grad)  # type: ignore[arg-type]
    assert network.head.weight.grad is None


def test_gradients_of_the_answer_are_the_same_with_and_without_it(network: InPlace) -> None:
    network(images()).sum().backward()
    alone = [each.grad.clone() for each in network.parameters() if each.grad is not None]
    network.zero_grad()
    Captured(network, ["convolution", "activation"])(images())[0].sum().backward()
    assert all(
        torch.equal(one, each.grad)
        for one, each in zip(alone, network.parameters(), strict=True)
        if each.grad is not None
    )


@dataclass
class Several:
    attention: Tensor | None
    last_hidden_state: Tensor
    pooled: Tensor


class Giving(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, values: Tensor) -> Any:
        other = values * 0
        return {
            "tuple": (values, (other, other)),
            "nested": [None, (values, other)],
            "mapping": {"attention": other, "last_hidden_state": values},
            "plain mapping": {"hidden": values, "other": other},
            "dataclass": Several(None, values, other),
            "nothing": "text",
        }[self.kind]


class Around(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = Giving(kind)

    def forward(self, values: Tensor) -> Tensor:
        self.inner(values)
        return values


@pytest.mark.parametrize("kind", ["tuple", "nested", "mapping", "plain mapping", "dataclass"])
def test_of_several_things_the_last_hidden_state_counts_else_the_first_tensor(kind: str) -> None:
    _, seen = Captured(Around(kind), ["inner"])(torch.ones(2, 3))
    assert torch.equal(seen["inner"], torch.ones(2, 3))


def test_a_layer_that_gives_no_tensor_is_refused() -> None:
    with pytest.raises(RecipeError, match="layer 'inner' gives a str without a tensor in it"):
        Captured(Around("nothing"), ["inner"])(torch.ones(2, 3))


def test_a_layer_of_transformers_gives_its_hidden_states() -> None:
    make_importable()
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(vocab_size=11, dim=8, n_layers=2, n_heads=2, hidden_dim=8, num_labels=3)
    network = transformers.DistilBertForSequenceClassification(config).eval()
    ids = torch.arange(10).reshape(2, 5)
    said, seen = Captured(network, ["distilbert", "distilbert.transformer.layer.0"])(
        input_ids=ids, output_hidden_states=True
    )
    assert torch.equal(seen["distilbert.transformer.layer.0"], said.hidden_states[1])
    assert torch.equal(seen["distilbert"], said.hidden_states[2])


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(3, 3)
        self.stages = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.activation = nn.Tanh()

    def forward(self, values: Tensor) -> Tensor:
        for stage in self.stages:
            values = self.activation(stage(values))
        return values


def test_of_a_layer_that_is_called_several_times_the_last_counts() -> None:
    said, seen = Captured(Shared(), ["activation"])(torch.ones(2, 3))
    assert torch.equal(seen["activation"], said)


def test_a_layer_that_is_never_called_is_an_error_that_says_so() -> None:
    with pytest.raises(RecipeError, match=r"layer 'idle' of a Shared is a Linear that is never called"):
        Captured(Shared(), ["idle"])(torch.ones(2, 3))
    with pytest.raises(RecipeError, match=r"never called.*inside it are 'stages.0', 'stages.1'"):
        Captured(Shared(), ["stages"])(torch.ones(2, 3))


@pytest.mark.parametrize("layer", ["stages.2", "", "stage.1"])
def test_a_layer_that_does_not_exist_is_refused_with_the_nearest(layer: str) -> None:
    with pytest.raises(RecipeError, match=rf"a Shared has no layer '{layer}'; the nearest of 5 are 'sta"):
        Captured(Shared(), [layer])


def test_a_copy_captures_for_itself(network: InPlace) -> None:
    captured = Captured(network, ["convolution"])
    for other in (copy.deepcopy(captured), pickle.loads(pickle.dumps(captured))):
        with torch.no_grad():
            other.network.convolution.weight.zero_()
            other.network.convolution.bias.zero_()
        assert not other(images())[1]["convolution"].any()
        assert captured(images())[1]["convolution"].any()
        assert not other.shelf.kept and not captured.shelf.kept


def test_the_network_called_alone_keeps_nothing_and_released_has_no_hooks(network: InPlace) -> None:
    captured = Captured(network, ["convolution"])
    network(images())
    assert not captured.shelf.kept
    assert captured.release() is network
    assert not network.convolution._forward_hooks
    with pytest.raises(RuntimeError):
        captured(torch.zeros(2, 5, 6, 6))
    network(images())
    assert not captured.shelf.kept and not captured.shelf.is_open


def test_it_is_the_same_compiled(network: InPlace) -> None:
    captured = Captured(network, ["convolution", "activation"])
    said, seen = captured(images())
    compiled: Any = torch.compile(captured, backend="aot_eager", fullgraph=True)
    again, seen_again = compiled(images())
    assert torch.allclose(said, again)
    assert all(torch.allclose(seen[layer], seen_again[layer]) for layer in seen)
    seen_again["convolution"].sum().backward()
    assert network.convolution.weight.grad is not None


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_it_is_the_same_in_a_data_parallel_training(network: InPlace) -> None:
    captured = Captured(network, ["convolution"])
    said, seen = captured(images())
    again, seen_again = nn.parallel.DistributedDataParallel(captured)(images())
    assert torch.equal(said, again) and torch.equal(seen["convolution"], seen_again["convolution"])
    (again.sum() + seen_again["convolution"].sum()).backward()
    assert network.convolution.weight.grad is not None


def test_layers_are_listed_with_what_they_give_of_a_row() -> None:
    network = Shared()
    network.stages[0].eval()
    listed = {layer.path: layer for layer in layers_of(network, torch.ones(2, 3))}
    assert list(listed) == ["idle", "stages", "stages.0", "stages.1", "activation"]
    assert listed["stages.1"].shape == (3,) and listed["stages.1"].kind == "Linear"
    assert listed["stages.1"].num_parameters == 12 and listed["stages"].num_parameters == 24
    assert listed["idle"].shape is None and listed["idle"].num_calls == 0
    assert listed["activation"].num_calls == 2
    assert network.training and not network.stages[0].training
    assert not any(module._forward_hooks for module in network.modules())


def test_what_does_not_begin_with_rows_has_no_shape_of_a_row() -> None:
    network = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 3)))
    shapes = {layer.path: layer.shape for layer in layers_of(network, torch.ones(2, 3))}
    assert shapes == {"0": None, "1": (3,)}
