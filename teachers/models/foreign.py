"""What a folder or a file that another program has made is, and which kind of teacher reads it.

Looks at names and at a line of JSON; loads nothing.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.preprocess import HOW_IT_WAS_FED
from ..config.teacher import SklearnTeacher

FUNCTION = "`kind: callable` with a function of yours that loads it and gives scores"
NETWORK = '`kind: module` with `model: "yours:make_network"` and `weights: {weights}`'
WITH_A_HEAD = ("ForSequenceClassification", "ForImageClassification", "ForObjectDetection")
"""How architectures of transformers end that a teacher may have."""
ENCODER = (
    "`kind: module` with `preprocess: {{encoder: {{path: {folder}}}}}` and `train`, for a head that is trained here,"
)
FILES = {
    "adapter_config.json": ("a PEFT adapter", FUNCTION),
    "modules.json": ("a sentence-transformers model", FUNCTION),
    "model_index.json": ("a diffusers pipeline", FUNCTION),
    "MLmodel": ("an MLflow model", FUNCTION),
    "saved_model.pb": ("a TensorFlow model", FUNCTION),
    "SEAL.json": ("a stage of an OUT", "the folder under `models/` of that OUT, or its `seed-<n>` with a config.json"),
}
"""By a file in the folder: what it is, and what reads it."""
SUFFIXES = {
    ".skops": ("an estimator", "`kind: sklearn` with `weights: {weights}`"),
    ".ubj": ("a model of XGBoost", "`kind: sklearn` with `weights: {weights}`"),
    ".cbm": ("a model of CatBoost", "`kind: sklearn` with `weights: {weights}`"),
    ".safetensors": ("a network's weights", NETWORK),
    ".bin": ("a network's weights", NETWORK),
    ".pt": ("a network's weights", NETWORK),
    ".pth": ("a network's weights", NETWORK),
    ".ckpt": ("a Lightning checkpoint", NETWORK),
    ".onnx": ("an ONNX graph", "`kind: onnx` with `path: {weights}`"),
    ".joblib": ("a pickled estimator", "`kind: sklearn` with `weights`, after `skops.io.dump(joblib.load(...), 'm.skops')`"),
    ".pkl": ("a pickle", "`kind: sklearn` with `weights`, after `skops.io.dump(pickle.load(...), 'm.skops')`"),
}  # fmt: skip
"""By the end of a file's name."""
SCHEMA = "schema.json"
LIBRARIES = {".json": "xgboost", ".ubj": "xgboost", ".txt": "lightgbm", ".cbm": "catboost"}
"""Whose boosted trees lie in a file; of a `.json` its content says more."""


def whose_folder(folder: Path, config: Any = None) -> str:
    """What `folder`, or a file, is that is no model folder of ours, and what reads it; empty where nobody knows.

    `config`: what its config.json holds.
    """
    found = _by_config(config) if isinstance(config, Mapping) else None
    if found is None and folder.is_dir():
        found = next((FILES[name] for name in FILES if (folder / name).is_file()), None)
    weights = folder if folder.is_file() else next(iter(_weights(folder)), None)
    if found is None and weights is not None:
        found = SUFFIXES[weights.suffix]
    if found is None:
        return ""
    what, kind = found
    return f"it is {what}, which {kind.format(folder=folder, weights=weights or folder / 'model.safetensors')} reads"


def _by_config(config: Mapping[str, Any]) -> tuple[str, str] | None:
    if "model_type" in config or "transformers_version" in config:
        name = config.get("model_type") or ", ".join(config.get("architectures") or ["?"])
        if any(str(each).endswith(WITH_A_HEAD) for each in config.get("architectures") or []):
            return f"a Hugging Face model ({name})", "`kind: huggingface` with `path: {folder}`"
        return f"a Hugging Face model ({name}) without a head that knows classes", ENCODER
    if "architecture" in config or "pretrained_cfg" in config:
        return f"a timm model ({config.get('architecture', '?')})", "`kind: timm` with `weights: {folder}`"
    return None


def _weights(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for suffix in SUFFIXES:
            yield from sorted(folder.glob(f"*{suffix}"))


def no_weights(path: Path) -> str:
    """Why `path` cannot hold a network's weights, beginning with the recipe's key; empty if it may."""
    if path.is_file():
        return ""
    if not path.is_dir():
        return f"weights: there is no file {path}"
    inside = [each.name for each in _weights(path)]
    return f"weights: {path} is a folder, expected a file" + (f"; it holds {', '.join(inside[:5])}" if inside else "")


def weights_in(folder: Path) -> Path:
    """The file of a model folder that holds what was learnt, without a look at anything else of it."""
    try:
        document = json.loads((folder / "config.json").read_bytes())
        return folder / str(document["estimator"]["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder / "model.safetensors"


def library_of(path: Path) -> str:
    """Whose estimator lies in `path`: `xgboost`, `lightgbm` or `catboost`; `skops` where nothing says so."""
    library = LIBRARIES.get(path.suffix, "skops")
    if path.suffix == ".json" and path.is_file():
        with path.open("rb") as file:
            library = "xgboost" if b'"learner"' in file.read(1 << 16) else "catboost"
    return library


def no_file(path: Path) -> str:
    """Why an estimator's file cannot be opened; empty if it may."""
    if path.is_file():
        return ""
    return f"{path} is a folder, expected a file" if path.is_dir() else f"there is no file {path}"


def not_skops(path: Path) -> str:
    """Why `path` is no skops file, with the cure; empty if it is one."""
    made = "joblib.load" if path.suffix == ".joblib" else "pickle.load"
    cure = (
        f"convert it where it was made: `skops.io.dump({made}(...), '{path.with_suffix('.skops').name}')`, "
        f"with the scikit-learn that fitted it"
    )
    if wrong := no_file(path):
        return wrong
    try:
        _schema(path)
    except (zipfile.BadZipFile, KeyError, ValueError):
        return f"{path} is no skops file{' but a pickle, it seems' * (path.suffix != '.skops')}; {cure}"
    return ""


def estimator_in(path: Path) -> tuple[str, bool]:
    """(class of the estimator in a skops file, whether a pipeline is in it, which scales its inputs itself).

    Raises OSError, BadZipFile, KeyError or ValueError for another file.
    """
    schema = _schema(path)
    return str(schema.get("__class__")), any(node.get("__class__") == "Pipeline" for node in _nodes(schema))


def given_problem(config: SklearnTeacher) -> str:
    """What is wrong with the file of an estimator that is brought, as far as it says so unloaded; empty: nothing."""
    path = Path(config.weights or "")
    library = library_of(path)
    if wrong := not_skops(path) if library == "skops" else no_file(path):
        return f"weights: {wrong}"
    kind, scales_itself = estimator_in(path) if library == "skops" else (f"model of {library}", False)
    if config.preprocess.is_stated or scales_itself:
        return ""
    return f"weights: {path} holds a {kind} and no pipeline, so the file does not say how it was fed; say it: {HOW_IT_WAS_FED}"


def _schema(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        found = json.loads(file.read(SCHEMA))
    if not isinstance(found, dict):
        raise ValueError(f"{SCHEMA} holds no object")
    return found


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
