"""Students that read ids of text: what padding, batches, graphs and folders do to what they say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from students.models import bag, static, tiny_transformer
from teachers.config.preprocess import Preprocess
from teachers.errors import RecipeError
from teachers.models.attention import turned
from teachers.models.encoded import Encoded
from teachers.models.folder import ModelConfig, load_model, save_model
from teachers.models.modules import network_for
from teachers.models.preprocess import Preprocessor
from teachers.models.static import SIF, token_table
from teachers.models.text import Tokenized
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from tests.text_files import WORDS, encoder, write_encoder

TEXT = Column("text", "text", (), (), ())
ROWS = ["please book a table for two", "", "what is the weather in rome", "play"]
LENGTH, SIZE = 12, 50
SHAPES: dict[str, Any] = {
    "ids": (LENGTH,),
    "beside": {"features": (3,), "ngrams": (LENGTH,)},
    "pair": {"tokens": (LENGTH,), "segments": (LENGTH,)},
}


def ids_of(rows: int = 5, *, empty: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(SIZE, (rows, LENGTH), generator=generator, dtype=torch.int32)
    lengths = torch.randint(1, 8, (rows, 1), generator=generator)
    lengths[0] = 0 if empty else 1
    return torch.where(torch.arange(LENGTH) < lengths, ids, -1)


def inputs_of(kind: str, rows: int = 5) -> Any:
    ids = ids_of(rows)
    if kind == "beside":
        return {"features": torch.randn(rows, 3, generator=torch.Generator().manual_seed(1)), "ngrams": ids}
    segments = (torch.arange(LENGTH) > 3).to(torch.int8).expand(rows, LENGTH)
    return ids if kind == "ids" else {"tokens": ids, "segments": segments}


NETWORKS = {
    "bag": lambda shape: bag(16, num_classes=4, input_shape=shape, vocabulary_size=SIZE),
    "bag with a hidden layer": lambda shape: bag(16, 8, "sum", num_classes=4, input_shape=shape, vocabulary_size=SIZE),
    "transformer": lambda shape: tiny_transformer(16, 2, 2, num_classes=4, input_shape=shape, vocabulary_size=SIZE),
    "rotary": lambda shape: tiny_transformer(
        16, 2, 2, positions="rotary", num_classes=4, input_shape=shape, vocabulary_size=SIZE
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_row_is_answered_alike_whatever_rows_and_padding_stand_beside_it(name: str, kind: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](SHAPES[kind]).eval()
    inputs = inputs_of(kind)
    together = network(inputs)
    assert together.shape == (5, 4) and together.isfinite().all()
    for row in range(5):
        one = {key: values[row : row + 1] for key, values in inputs.items()} if kind != "ids" else inputs[row : row + 1]
        assert torch.allclose(network(one)[0], together[row], atol=1e-6)
    in_graph = torch.export.export(network, (inputs,)).module()(inputs)
    assert torch.allclose(in_graph, together, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_from_whole_batches_with_rows_of_no_id(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](SHAPES["ids"])
    ids, labels = ids_of(64), torch.arange(64) % 4
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(network(ids), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_a_bag_is_the_embedding_bag_of_torch(pooling: Any) -> None:
    torch.manual_seed(0)
    network = bag(16, pooling=pooling, num_classes=4, input_shape=(LENGTH,), vocabulary_size=SIZE)
    ids = ids_of(empty=False)
    table = torch.cat([network.table.detach(), torch.zeros(1, 16)])
    oracle = nn.EmbeddingBag.from_pretrained(table, mode=pooling, padding_idx=SIZE)
    expected = network.head(oracle(torch.where(ids < 0, SIZE, ids)))
    assert torch.allclose(network(ids), expected, atol=1e-6)


def test_turned_vectors_know_only_how_far_they_stand_apart() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    rows = torch.stack([query, key]).view(2, 1, 1, 8).expand(2, 1, 10, 8)
    first, second = turned(rows)[:, 0]
    products = first @ second.T
    for apart in range(-4, 5):
        along = products.diagonal(apart)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-5)
    assert torch.allclose(products.diagonal(), (query @ key).expand(10), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_says_the_same_for_any_number_of_rows(name: str, tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    network = NETWORKS[name](SHAPES["ids"]).eval()
    shapes = {"inputs": {0: torch.export.Dim("rows")}}
    torch.onnx.export(
        network, (ids_of(),), str(tmp_path / "net.onnx"), input_names=["ids"], dynamic_shapes=shapes, dynamo=True,
        verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for rows in (1, 5, 17):
        (said,) = session.run(None, {"ids": ids_of(rows).numpy()})
        assert np.abs(said - network(ids_of(rows)).detach().numpy()).max() < 1e-5


def preprocessor_of(config: dict[str, Any], columns: tuple[Column, ...] = (TEXT,)) -> Preprocessor:
    return Preprocessor(Preprocess.model_validate(config), columns)


TOKENIZER = {"tokenizer": {"path": str(encoder()), "max_length": LENGTH}}
GIVEN: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bag of ngrams": ("bag", {"dim": 8}, {"ngrams": {"buckets": 512, "max_length": 32}}),
    "bag of tokens": ("bag", {"dim": 8, "hidden": 4}, TOKENIZER),
    "static": ("static", {"dim": 8, "encoder": "not/needed/any/more"}, TOKENIZER),
    "transformer": ("tiny_transformer", {"dim": 16, "heads": 2}, TOKENIZER),
    "layer over an encoder": ("linear", {}, {"encoder": {"path": str(encoder()), "max_length": LENGTH}}),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_delivered_folder_runs_on_raw_text(name: str, tmp_path: Path) -> None:
    model, arguments, config = GIVEN[name]
    preprocessor = preprocessor_of(config)
    torch.manual_seed(0)
    network = network_for(preprocessor, f"students.models:{model}", arguments, num_classes=3)
    about = ModelConfig(
        f"students.models:{model}", arguments, Space("classification", ("a", "b", "c")), preprocessor.resolved(),
        files=preprocessor.files,
    )  # fmt: skip
    save_model(tmp_path / "model", network.state_dict(), about)
    loaded = load_model(tmp_path / "model")
    raw = np.array(ROWS, object)
    expected = network.eval()(preprocessor({"text": raw}))
    assert torch.allclose(loaded({"text": raw}), expected, atol=1e-6)
    assert preprocessor.text is not None
    assert torch.equal(loaded(preprocessor.text.derive([raw])), loaded({"text": raw}))
    assert {name for name in preprocessor.files} == {
        path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*") if path.is_file()
    } - {"config.json", "model.safetensors"}


class Reads(nn.Module):
    def __init__(self, size: int, positions: int = 99) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(size, 4), nn.Embedding(positions, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids.clamp_min(0)).mean(1)


class Folds(Reads):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids % self.table.num_embeddings)


def test_a_tokenizer_larger_than_the_vocabulary_of_the_network_is_refused() -> None:
    ready, size = preprocessor_of(TOKENIZER), len(WORDS)
    for known in (size, size + 5):
        network_for(ready, f"{__name__}:Reads", {"size": known, "positions": 3}, num_classes=4)
    with pytest.raises(RecipeError, match=rf"Reads knows {size - 1} ids, and what the preprocess .* has {size}"):
        network_for(ready, f"{__name__}:Reads", {"size": size - 1, "positions": 3}, num_classes=4)
    folding = network_for(ready, f"{__name__}:Folds", {"size": size - 1, "positions": 3}, num_classes=4)
    assert folding.training
    with pytest.raises(RecipeError, match="bag reads ids of text"):
        network_for(preprocessor_of(GIVEN["layer over an encoder"][2]), "students.models:bag", {}, num_classes=4)


def test_the_table_of_a_static_student_is_what_the_encoder_makes_of_each_token(tmp_path: Path) -> None:
    text = Tokenized(("text",), encoder() / "tokenizer.json", LENGTH)
    table = token_table(str(encoder()), text, 24, tmp_path).double().numpy()
    config = preprocessor_of({"encoder": {"path": str(encoder()), "max_length": LENGTH, "normalise": False}}).text
    assert isinstance(config, Encoded)
    alone = config.embed(np.array([[2, token, 3] for token in range(len(WORDS))], np.int32)).astype(float)
    shares = 1 / np.arange(2, len(WORDS) + 2)
    unweighted = table / (SIF / (SIF + shares / shares.sum()))[:, None]
    centred = alone - alone.mean(0)
    assert np.abs(unweighted @ unweighted.T - centred @ centred.T).max() < 2e-2 * np.abs(centred @ centred.T).max()
    _, singular, _ = np.linalg.svd(centred)
    assert np.allclose(np.linalg.norm(unweighted, axis=0)[:8], singular[:8], rtol=2e-2)


def test_a_table_is_made_once_for_each_content(tmp_path: Path) -> None:
    text = Tokenized(("text",), encoder() / "tokenizer.json", LENGTH)
    first = token_table(str(encoder()), text, 8, tmp_path)
    (file,) = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    elsewhere = write_encoder(tmp_path / "elsewhere")
    assert torch.equal(token_table(str(elsewhere), text, 8, tmp_path), first)
    assert file.stat().st_mtime_ns == made
    token_table(str(encoder()), text, 4, tmp_path)
    assert len([*tmp_path.glob("static-*")]) == 2
    with pytest.raises(RecipeError, match="gives 24 numbers"):
        token_table(str(encoder()), text, 25, tmp_path)
    ngrams = preprocessor_of({"ngrams": {}}).text
    assert ngrams is not None
    with pytest.raises(RecipeError, match="reads other tokens"):
        token_table(str(encoder()), ngrams, 8, tmp_path)


def test_a_static_student_begins_with_that_table(tmp_path: Path) -> None:
    ready = preprocessor_of(TOKENIZER)
    network = static(str(encoder()), 8, num_classes=3, input_shape=(LENGTH,), vocabulary_size=len(WORDS))
    assert ready.text is not None
    network.initialise_for_text(ready.text, tmp_path)
    assert torch.equal(network.table.detach(), token_table(str(encoder()), ready.text, 8, tmp_path))
