"""The files of teachers that come from other programs: which of them count, and what is wrong with them as far as that is known
unloaded. It is asked before any work, and imports no torch; timm, which is asked which architectures it has, does.
"""

import ast
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config.published import HuggingFaceTeacher, OnnxTeacher, TimmTeacher
from ..config.task import AnswerName
from ..errors import RecipeError, TeacherError
from ..storage.seal import sha256_file
from ..tasks.space import Space
from ..users_code.calls import told_as
from .detectors.folder import example_files
from .foreign import no_weights
from .huggingface_folder import LACKS, PICKLES, folder_classes, folder_problem

PublishedTeacher = HuggingFaceTeacher | TimmTeacher | OnnxTeacher


def problem_of(config: PublishedTeacher, answer: AnswerName | None) -> str:
    """What is wrong with its files, beginning with the recipe's key; empty: nothing. `answer`: of the recipe's task, where
    that is to fit too."""
    if isinstance(config, HuggingFaceTeacher):
        return folder_problem(config, answer)
    return timm_problem(config) if isinstance(config, TimmTeacher) else onnx_problem(config)


def classes_of(config: PublishedTeacher, space: Space) -> tuple[str, ...]:
    """What it scores, in its order, as its files or the recipe say. `space`: the transfer set's. Raises RecipeError."""
    if isinstance(config, HuggingFaceTeacher):
        return folder_classes(config, space)
    return timm_classes(config, space) if isinstance(config, TimmTeacher) else graph_classes(config, space)


def content_of(config: PublishedTeacher) -> list[Any]:
    """What decides what it says, as JSON, wherever it lies: SHA-256 of its files; of a folder's, whose names mean something,
    beside their names. Raises RecipeError for files that are not there, TeacherError for a graph that is none."""
    if problem := problem_of(config, None):
        raise RecipeError(problem)
    if isinstance(config, HuggingFaceTeacher):
        root = Path(config.path)
        own = [[file.relative_to(root).as_posix(), sha256_file(file)] for file in _folder_files(config)]
        return own + [["example", name, sha256_file(file)] for name, file in example_files(config)]
    files = _timm_files(config) if isinstance(config, TimmTeacher) else onnx_files(Path(config.path))
    return [sha256_file(file) for file in files]


def _folder_files(config: HuggingFaceTeacher) -> list[Path]:
    """All files in the folder that may count: not what is told in `*.md`, begins with a dot, or is a pickle that is not read."""
    folder = Path(config.path)
    pickled = not any(folder.glob("*.safetensors"))
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        told = path.suffix == ".md" or any(part.startswith((".", "__pycache__")) for part in name.parts)
        if path.is_file() and not told and (pickled or not path.match(PICKLES)):
            found.append(path)
    return found


def timm_problem(config: TimmTeacher) -> str:
    """What is wrong with the files, beginning with the recipe's key, as far as they say so unloaded; empty: nothing."""
    if importlib.util.find_spec("timm") is None:
        return f"kind: {LACKS.format(what='`timm`', package='timm', extra='timm')}"
    try:
        about = _about(config)
    except RecipeError as error:
        return str(error)
    if problem := no_weights(timm_weights(config)):
        return problem
    if config.architecture is None and "architecture" not in about:
        return f"architecture: {config.weights} does not say it; say its name in timm, `architecture: resnet50.a1_in1k`"
    from .torchvision_build import make_importable  # torch

    make_importable()
    import timm

    if config.architecture is not None and not timm.is_model(config.architecture):
        near = timm.list_models(f"*{config.architecture.partition('.')[0][:6]}*")[:5]
        return (
            f"architecture: timm has no {config.architecture!r}{f'; it has {chr(44).join(near)} ...' if near else ''}"
        )
    return ""


def timm_weights(config: TimmTeacher) -> Path:
    """The file of its tensors."""
    given = Path(config.weights)
    names = ("model.safetensors", "pytorch_model.bin")
    return next((given / name for name in names if (given / name).is_file()), given)


def _timm_files(config: TimmTeacher) -> list[Path]:
    given = Path(config.weights)
    return [timm_weights(config), *([given / "config.json"] if (given / "config.json").is_file() else [])]


def _about(config: TimmTeacher) -> dict[str, Any]:
    """The `config.json` of a download; empty where `weights` are a file. Raises RecipeError for one that is not readable."""
    path = Path(config.weights) / "config.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"weights: {path} is not readable as JSON ({error})") from error
    return found if isinstance(found, dict) else {}


def timm_classes(config: TimmTeacher, space: Space) -> tuple[str, ...]:
    """Names of what it scores, in its order: the recipe's, else those in its folder, else the transfer set's."""
    about = _about(config)
    labels = about.get("label_names") or (about.get("pretrained_cfg") or about).get("label_names")
    return tuple(config.classes or (map(str, labels) if isinstance(labels, list) else space.names))


def onnx_problem(config: OnnxTeacher) -> str:
    """What is wrong with the file, beginning with the recipe's key, as far as it says so unloaded; empty: nothing."""
    for package in ("onnxruntime", "onnx"):
        if importlib.util.find_spec(package) is None:
            return f"kind: {LACKS.format(what='`onnx`', package=package, extra='onnx')}"
    return "" if Path(config.path).is_file() else f"path: there is no file {config.path}"


def graph_classes(config: OnnxTeacher, space: Space) -> tuple[str, ...]:
    """Names of what a graph scores, in its order: the recipe's, else those that a detector's exporter wrote into it, else the
    transfer set's. Raises TeacherError for no graph."""
    if config.classes is not None or config.decode is None:
        return tuple(config.classes or space.names)
    return names_in_graph(Path(config.path)) or space.names


def names_in_graph(path: Path) -> tuple[str, ...]:
    """Classes in a graph's metadata, `names`: a list, or a dict by number, as JSON or as Python writes it; empty where there are
    none."""
    import onnx

    with told_as(lambda what: TeacherError(f"{path}: not readable as an ONNX graph: {what}")):
        model = onnx.load(path, load_external_data=False)
    written = {entry.key: entry.value for entry in model.metadata_props}.get("names", "")
    try:
        found = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return ()
    names = [found[number] for number in sorted(found)] if isinstance(found, dict) else found
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def onnx_files(path: Path) -> list[Path]:
    """The graph, and the files beside it that hold its tensors. Raises TeacherError for no graph, or a file that lacks."""
    import onnx

    with told_as(lambda what: TeacherError(f"{path}: not readable as an ONNX graph: {what}")):
        model = onnx.load(path, load_external_data=False)
    names = sorted({name for tensor in _tensors(model.graph) if (name := _location(tensor))})
    if lacking := [name for name in names if not (path.parent / name).is_file()]:
        raise TeacherError(f"{path}: tensors of it lie in {lacking[0]}, which is not beside it; copy it there too")
    return [path, *(path.parent / name for name in names)]


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of a graph and of graphs within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
