"""What a folder of transformers that detects says of itself, unloaded: which kind it is, and what the recipe must say. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config.published import HuggingFaceTeacher

OWL, GROUNDED = ("owlvit", "owlv2"), ("grounding-dino", "mm-grounding-dino")
"""Kinds that are told what to look for, by `model_type`."""
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
PADS_TO_A_SQUARE = ("owlv2",)
DETECTS = "ForObjectDetection"
"""How architectures of transformers end that say boxes."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
EXAMPLE = '`prompts: {"red blood cell": RBC, "a white blood cell": WBC}`'


def detector_problem(config: HuggingFaceTeacher, about: Mapping[str, Any]) -> str:
    """What is wrong with a folder that is to say boxes, beginning with the recipe's key; empty: nothing. `about`: its config.json."""
    kind, names = str(about["model_type"]), [str(name) for name in about.get("architectures") or []]
    if not any(name.endswith(DETECTS) for name in names):
        return (
            f"path: {config.path} holds {', '.join(names) or 'no architecture'}, which is no detector (expected *{DETECTS}); "
            f"`task: detection` needs one"
        )
    if kind not in (*OWL, *GROUNDED, *OF_OWN_CLASSES):
        known = ", ".join((*OWL, *GROUNDED, *OF_OWN_CLASSES))
        return (
            f"path: {config.path} is of a kind that is not read here (model_type {kind!r}; read are {known}); export it, "
            f"`kind: onnx`, or bring its boxes, `kind: predictions`"
        )
    if not any((Path(config.path) / name).is_file() for name in PROCESSORS):
        return f"path: there is no {PROCESSORS[0]} in {config.path}, which says how images are made ready; copy it there too"
    return _asking_problem(config, kind)


def _asking_problem(config: HuggingFaceTeacher, kind: str) -> str:
    told = "prompts" if config.prompts else "examples" if config.examples else ""
    if kind in OF_OWN_CLASSES:
        cure = "they are in its config.json; which is which here says `class_map`"
        return f"{told}: {config.path} ({kind}) knows classes of its own, {cure}: leave it out" if told else ""
    if not told:
        return f"prompts: {config.path} ({kind}) knows no classes of its own; say what to look for: {EXAMPLE}"
    if kind in GROUNDED and config.examples:
        return f"examples: {config.path} ({kind}) is asked in words only; say them: {EXAMPLE}"
    missing = [
        f"examples.{name}: there is no file {file}"
        for name, files in (config.examples or {}).items()
        for file in files
        if not Path(file).is_file()
    ]
    if missing:
        return missing[0]
    if config.prompts and not (Path(config.path) / "tokenizer.json").is_file():
        return (
            f"path: there is no tokenizer.json in {config.path}; make it of what is there: `from transformers import AutoTokenizer "
            f'as T; T.from_pretrained("{config.path}").save_pretrained("{config.path}")`'
        )
    return ""


def example_files(config: HuggingFaceTeacher) -> list[tuple[str, Path]]:
    """(class, file) of every crop, in their order."""
    return [(name, Path(file)) for name, files in (config.examples or {}).items() for file in files]
