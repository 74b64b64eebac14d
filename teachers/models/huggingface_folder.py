"""What a folder of transformers says of itself: its head, its classes, which of its files count. Loads no weights and no torch."""

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..config.published import HuggingFaceTeacher
from ..config.task import AnswerName
from ..errors import RecipeError
from ..tasks.space import Space
from .detectors.folder import DETECTS, detector_problem
from .foreign import WITH_A_HEAD

HEADS = dict(zip(WITH_A_HEAD, ("text", "image", "image"), strict=True))
"""By the end of an architecture's name: the kind of column that it reads."""
PICKLES = "pytorch_model*.bin"
PROBLEMS: dict[str, AnswerName] = {
    "single_label_classification": "class_axis",
    "multi_label_classification": "class_set",
    "regression": "values",
}
"""By `problem_type` of a config, what its head was trained to say."""
UNNAMED = re.compile(r"LABEL_\d+")
LACKS = "{what} needs {package}, which is not installed here: pip install collegium[{extra}]"


def folder_problem(config: HuggingFaceTeacher, answer: AnswerName | None) -> str:
    """What is wrong with the folder, beginning with the recipe's key, as far as it says so unloaded; empty: nothing."""
    try:
        about = read(config)
        check_weights(config)
        _check_head(config, about, answer)
    except RecipeError as error:
        return str(error)
    if importlib.util.find_spec("transformers") is None:
        return f"kind: {LACKS.format(what='`huggingface`', package='transformers', extra='huggingface')}"
    return ""


def read(config: HuggingFaceTeacher) -> dict[str, Any]:
    """The folder's `config.json`. Raises RecipeError for what is none of transformers, or for a name of a hub."""
    folder = Path(config.path)
    if not folder.is_dir():
        name = config.path if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.path) else "NAME"
        raise RecipeError(
            f"path: there is no folder {config.path}, and nothing is fetched from a hub; if it is a name there, download it "
            f"first: `hf download {name} --local-dir FOLDER`, and say `path: FOLDER`"
        )
    try:
        about = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise RecipeError(f"path: {folder} is no folder of transformers, there is no config.json in it") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"path: {folder / 'config.json'} is not readable as JSON ({error})") from error
    if not isinstance(about, dict) or "model_type" not in about:
        raise RecipeError(f"path: {folder} is no folder of transformers: its config.json names no model_type")
    return about


def column_kind(about: Mapping[str, Any]) -> str | None:
    """`text` or `image`, by the architecture of the folder's head; None where it has none that is read here."""
    names = about.get("architectures") or []
    return next((kind for end, kind in HEADS.items() for name in names if str(name).endswith(end)), None)


def check_weights(config: HuggingFaceTeacher) -> None:
    """Raises RecipeError for a folder without weights that may be read."""
    folder = Path(config.path)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.glob(PICKLES))
    if not pickles:
        raise RecipeError(f"path: there are no weights in {folder}, expected model.safetensors")
    if not config.allow_pickle:
        raise RecipeError(
            f"path: the weights in {folder} are a pickle only ({pickles[0]}); convert them: `from transformers import "
            f"AutoModelFor{_auto_of(read(config), config)} as M; "
            f'M.from_pretrained("{folder}").save_pretrained("{folder}")`, or say `allow_pickle: true` to read it with '
            f"weights_only=True"
        )


def _auto_of(about: Mapping[str, Any], config: HuggingFaceTeacher) -> str:
    """How the class of transformers is called behind `AutoModelFor`."""
    if _detects(about):
        return "ZeroShotObjectDetection" if config.asked_for else "ObjectDetection"
    return "ImageClassification" if column_kind(about) == "image" else "SequenceClassification"


def _check_head(config: HuggingFaceTeacher, about: Mapping[str, Any], answer: AnswerName | None) -> None:
    if "auto_map" in about and not config.trust_remote_code and about["model_type"] not in _known_types():
        raise RecipeError(
            f"path: {config.path} brings an architecture of its own (model_type {about['model_type']!r}) as code in its "
            f"*.py files; `trust_remote_code: true` runs them with all rights of this program, so read them first"
        )
    if answer == "boxes":
        if problem := detector_problem(config, about):
            raise RecipeError(problem)
        return
    if answer is not None and _detects(about):
        raise RecipeError(f"path: {config.path} says where things are in an image, for `task: detection`")
    if column_kind(about) is None:
        raise RecipeError(no_head(config.path, ", ".join(about.get("architectures") or ["no architecture"])))
    said = PROBLEMS.get(about.get("problem_type") or "")
    if said is not None and answer is not None and said != answer:
        task = {"class_axis": "classification", "class_set": "multilabel", "values": "regression"}
        raise RecipeError(
            f"path: the head in {config.path} was trained for `task: {task[said]}` (problem_type "
            f"{about['problem_type']}), this recipe has `task: {task[answer]}`"
        )


def _detects(about: Mapping[str, Any]) -> bool:
    return any(str(name).endswith(DETECTS) for name in about.get("architectures") or [])


def no_head(path: str, what: str) -> str:
    """What to do with an encoder alone."""
    encoder = f'"teachers.zoo:linear"`, `preprocess: {{encoder: {{path: {path}}}}}`'
    whole = f'"students.models:huggingface"`, `arguments: {{path: {path}}}`'
    head = encoder if (Path(path) / "tokenizer.json").is_file() else whole
    return (
        f"path: {path} holds {what}, which has no head that knows classes (expected one of "
        f"{', '.join('*' + end for end in HEADS if end != DETECTS)}); train one on it here: `kind: module`, `model: {head}, `train: {{...}}`"
    )


@lru_cache
def _known_types() -> frozenset[str]:
    """Of architectures that transformers has itself; all where it is not installed, which is told elsewhere."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ImportError:
        return frozenset()
    return frozenset(CONFIG_MAPPING_NAMES)


def labels_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what the head gives, in its order: transformers leaves them out of a config with LABEL_0 and LABEL_1."""
    names = about.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return tuple(str(names[number]) for number in sorted(names, key=int))


def folder_classes(config: HuggingFaceTeacher, space: Space) -> tuple[str, ...]:
    """Names of what it scores, in its order; of numbers those of the recipe. Raises RecipeError for names that say nothing,
    or another number of them than the head has, or for words that lead to no class."""
    if config.asked_for:
        return _asked_for(config, space)
    labels = labels_of(read(config))
    if config.classes is not None and len(config.classes) != len(labels):
        raise RecipeError(
            f"classes: {len(config.classes)} are named, the head in {config.path} gives {len(labels)}: "
            f"{', '.join(labels[:10])}"
        )
    if config.classes is not None:
        return tuple(config.classes)
    if space.answer == "values" and all(map(UNNAMED.fullmatch, labels)) and len(labels) == len(space.names):
        return space.names
    if config.class_map is None and all(map(UNNAMED.fullmatch, labels)) and not set(labels) <= set(space.names):
        raise RecipeError(
            f"classes: config.json in {config.path} calls its classes {_some(labels)}, which says nothing; say which they "
            f"are, in this order: `classes: [{', '.join(space.names[:3])}{', ...' * (len(space.names) > 3)}]`, or map them: "
            f"`class_map: {{LABEL_0: {space.names[0]}, ...}}`"
        )
    return labels


def _asked_for(config: HuggingFaceTeacher, space: Space) -> tuple[str, ...]:
    """The classes that a detector is told to look for."""
    asked = {f"prompts: {words!r}": name for words, name in (config.prompts or {}).items()}
    asked |= {f"examples: {name!r}": name for name in config.examples or {}}
    strange = [f"{words} leads to {name!r}" for words, name in asked.items() if name not in space.names]
    if strange and config.class_map is None:
        raise RecipeError(f"{strange[0]}, which is no class of the transfer set; it has {_some(space.names)}")
    return config.asked_for


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + " ..." * (len(names) > 5)
