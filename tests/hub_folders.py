"""Folders as transformers leaves them: tiny networks with weights of chance, and a tokenizer of a few words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from teachers.models.torchvision_build import make_importable

pytest.importorskip("transformers", reason="transformers is not installed: no folder of it is made")
make_importable()
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "house",
    "red",
    "blue",
    "big",
    "small",
    "and",
    "then",
    "very",
    "far",
    "away",
    "again",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = [
    "the cat sat on the mat",
    "a dog ran",
    "",
    "the big red dog and the small blue cat ran far away and then again very far away under the house",
    "unknown words here",
    "the",
]
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}


def save_tokenizer(folder: Path, words: Sequence[str] = WORDS, **about: Any) -> None:
    """A whole-word tokenizer with [CLS] and [SEP], which knows pairs."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({w: n for n, w in enumerate([*SPECIAL, *words])}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=made, **named, **about).save_pretrained(folder)


def save_text_model(
    folder: Path, kind: str = "bert", classes: Sequence[str] = ("no", "yes", "maybe"), **more: Any
) -> Any:
    """A folder with a network for texts, of weights that make its answers differ."""
    import transformers

    config_class, model_class = {
        "bert": (transformers.BertConfig, transformers.BertForSequenceClassification),
        "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForSequenceClassification),
        "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification),
        "encoder": (transformers.BertConfig, transformers.BertModel),
    }[kind]
    sizes = {"dim": 16, "n_heads": 2, "hidden_dim": 24, "n_layers": 2} if kind == "distilbert" else dict(SIZES)
    given = {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 32, "pad_token_id": 0} | sizes
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
    torch.manual_seed(0)
    network = model_class(config_class(**given | names | more)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    segments = ["token_type_ids"] if network.config.to_dict().get("type_vocab_size", 1) > 1 else []
    save_tokenizer(folder, model_input_names=["input_ids", "attention_mask", *segments])
    return network


def save_image_model(
    folder: Path, kind: str = "vit", classes: Sequence[str] = ("no", "yes", "maybe"), **more: Any
) -> Any:
    """A folder with a network for images, and its image processor."""
    import transformers

    names = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.ViTConfig(image_size=16, patch_size=8, **SIZES, **names, **more)
        network: Any = transformers.ViTForImageClassification(config).eval()
        processor: Any = transformers.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])  # fmt: skip
    else:
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, **names, **more)).eval()
        processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 20}, crop_pct=0.8)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network
