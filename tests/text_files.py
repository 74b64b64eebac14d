"""A tokenizer and an encoder that a second makes: real files of the libraries that read them."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

from teachers.models.torchvision_build import make_importable

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: no token ids are made")
make_importable()
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
    *(
        "please",
        "book",
        "a",
        "table",
        "for",
        "two",
        "what",
        "is",
        "the",
        "weather",
        "in",
        "rome",
        "play",
        "some",
        "music",
    ),
    *("my", "card", "was", "stolen", "how", "much", "money", "do", "i", "have", "##s", "##ing", "it", "rain", "##y"),
]


def write_tokenizer(folder: Path, *, padded: bool = True) -> Path:
    """WordPiece with BERT's special tokens, and settings of its own of truncation and padding."""
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    if padded:
        made.enable_truncation(5, stride=2, direction="left")
        made.enable_padding(direction="left", length=64)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_encoder(folder: Path, *, vocab_size: int = len(WORDS)) -> Path:
    """A BERT of two layers with random weights, as `save_pretrained` writes it, and its tokenizer."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocab_size, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@cache
def encoder() -> Path:
    return write_encoder(Path(mkdtemp(prefix="collegium-encoder-")) / "tiny-bert")
