"""Folders of transformers that detect: tiny networks with weights of chance, made with the real classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from .hub_folders import SPECIAL, WORDS, save_tokenizer

transformers = pytest.importorskip("transformers")
CLASSES = ("cat", "dog", "house")
OF_OWN_CLASSES = (
    "detr",
    "yolos",
    "table-transformer",
    "conditional_detr",
    "deformable_detr",
    "dab-detr",
    "rt_detr",
    "rt_detr_v2",
    "d_fine",
)


def _resnet() -> Any:
    return transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12, 16, 20],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )


def _detr(**more: Any) -> dict[str, Any]:
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 12}
    return {"backbone_config": _resnet(), "use_timm_backbone": False, "backbone": None, **sizes, **more}


def _rt_detr(**more: Any) -> dict[str, Any]:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12, 16, 20],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    sizes = {"d_model": 16, "encoder_hidden_dim": 16, "encoder_in_channels": [12, 16, 20], "encoder_ffn_dim": 16}
    sizes |= {"decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 16, "num_queries": 12, "decoder_layers": 2}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_denoising": 0, "eval_size": None}
    return {"backbone_config": backbone, **sizes, **more}


def _made(kind: str, names: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(configuration, class of the network, image processor)."""
    t = transformers
    aspect = {"size": {"shortest_edge": 48, "longest_edge": 80}}
    square = {"size": {"height": 64, "width": 64}}
    match kind:
        case "detr":
            return t.DetrConfig(**_detr(), **names), t.DetrForObjectDetection, t.DetrImageProcessorPil(**aspect)
        case "table-transformer":
            config = t.TableTransformerConfig(**_detr(), **names)
            return config, t.TableTransformerForObjectDetection, t.DetrImageProcessorPil(**aspect)
        case "conditional_detr":
            config = t.ConditionalDetrConfig(**_detr(), **names)
            return config, t.ConditionalDetrForObjectDetection, t.ConditionalDetrImageProcessorPil(**aspect)
        case "dab-detr":
            sizes = {
                name: value
                for name, value in _detr().items()
                if not name.startswith(("d_model", "encoder_", "decoder_"))
            }
            sizes |= {
                "hidden_size": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_ffn_dim": 16,
                "decoder_ffn_dim": 16,
            }
            sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
            return (
                t.DabDetrConfig(**sizes, **names),
                t.DabDetrForObjectDetection,
                t.ConditionalDetrImageProcessorPil(**aspect),
            )
        case "deformable_detr":
            config = t.DeformableDetrConfig(
                **_detr(d_model=32, decoder_layers=2, num_feature_levels=2, encoder_n_points=2, decoder_n_points=2),
                **names,
            )
            return config, t.DeformableDetrForObjectDetection, t.DeformableDetrImageProcessorPil(**aspect)
        case "yolos":
            sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 2}
            config = t.YolosConfig(**sizes, image_size=[48, 80], patch_size=16, num_detection_tokens=12, **names)
            return config, t.YolosForObjectDetection, t.YolosImageProcessorPil(**aspect)
        case "rt_detr":
            return (
                t.RTDetrConfig(**_rt_detr(), **names),
                t.RTDetrForObjectDetection,
                t.RTDetrImageProcessorPil(**square),
            )
        case "rt_detr_v2":
            return (
                t.RTDetrV2Config(**_rt_detr(), **names),
                t.RTDetrV2ForObjectDetection,
                t.RTDetrImageProcessorPil(**square),
            )
        case "d_fine":
            config = t.DFineConfig(**_rt_detr(max_num_bins=8, feat_strides=[8, 16, 32]), **names)
            return config, t.DFineForObjectDetection, t.RTDetrImageProcessorPil(**square)
    raise AssertionError(kind)


def shaken(network: Any) -> Any:
    """In evaluation mode, with weights that make its answers differ."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_((0.3 if parameter.ndim > 1 else 0.02) * torch.randn_like(parameter))
    return network.eval()


def save_detector(folder: Path, kind: str, classes: Sequence[str] = CLASSES) -> Any:
    """A folder with a network that knows classes of its own, and its image processor."""
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
    torch.manual_seed(0)
    config, network_class, processor = _made(kind, names)
    network = shaken(network_class(config))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return network


def save_owl(
    folder: Path, kind: str = "owlvit", *, processor_file: bool = False, words: Sequence[str] = WORDS, **about: Any
) -> Any:
    """OWL-ViT or OWLv2, with its tokenizer; the whole processor. `processor_file`: as transformers saves it in one."""
    name = {"owlvit": "OwlViT", "owlv2": "Owlv2"}[kind]
    of = lambda what: getattr(transformers, name + what)  # noqa: E731
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    text = {**sizes, "vocab_size": len(SPECIAL) + len(words), "max_position_embeddings": 16, "pad_token_id": 0}
    text |= {"bos_token_id": 2, "eos_token_id": 3}
    vision = {**sizes, "image_size": 64, "patch_size": 8}
    torch.manual_seed(0)
    network = shaken(of("ForObjectDetection")(of("Config")(text_config=text, vision_config=vision, projection_dim=16)))
    with torch.no_grad():  # boxes about their places, and scores that go by what is asked for
        network.box_head.dense2.weight.mul_(0.05)
        network.class_head.logit_shift.weight.mul_(0.2)
        network.class_head.logit_scale.weight.mul_(0.2)
        network.class_head.logit_scale.bias.add_(3)
    network.save_pretrained(folder)
    save_tokenizer(folder, words, **{"model_max_length": 16, **about})
    images = of("ImageProcessorPil")(size={"height": 64, "width": 64})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    whole = of("Processor")(images, tokenizer)
    (whole if processor_file else images).save_pretrained(folder)
    return network, whole


def save_grounding_dino(folder: Path, kind: str = "grounding-dino") -> Any:
    """Grounding DINO, with its tokenizer; the whole processor."""
    t = transformers
    backbone = t.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, out_features=["stage2", "stage3", "stage4"]
    )  # fmt: skip
    words = [*WORDS, ".", "cell", "white"]
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 1}
    text = t.BertConfig(**sizes, vocab_size=len(SPECIAL) + len(words), max_position_embeddings=64, pad_token_id=0)
    config_class, network_class = {
        "grounding-dino": (t.GroundingDinoConfig, t.GroundingDinoForObjectDetection),
        "mm-grounding-dino": (t.MMGroundingDinoConfig, t.MMGroundingDinoForObjectDetection),
    }[kind]
    about = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    about |= {
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "num_queries": 12,
        "num_feature_levels": 3,
        "max_text_len": 32,
    }
    torch.manual_seed(0)
    network = shaken(network_class(config_class(backbone_config=backbone, text_config=text, **about)))
    network.save_pretrained(folder)
    save_tokenizer(folder, words)
    images = t.GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    images.save_pretrained(folder)
    return network, t.GroundingDinoProcessor(images, t.AutoTokenizer.from_pretrained(folder))
