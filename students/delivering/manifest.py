"""What an exported folder says of itself, and whether it still says what it said: `manifest.json`, `golden.npz`.

For devices that have no Collegium: what goes in, what comes out, what was measured, and rows to try it on.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from teachers.errors import StoreError
from teachers.models.folder import ModelConfig, load_model
from teachers.storage.seal import local, sha256_file
from teachers.tasks.places import CANDIDATES, LEAST_SCORE, OVERLAP
from teachers.tasks.space import Space

from .export import RECIPE, SUMS, licences_in
from .forms import FORMS, FormName
from .golden import Agreement, Golden, compared, read_golden

FORMAT = 1
MANIFEST, ROWS = "manifest.json", "golden.npz"
INPUT, OF = "input:", "said:"
"""Before the name of a column, and of a file that says it, in `golden.npz`."""
ALLOWED: dict[str, float] = {"model.int8.onnx": 0.05}
"""Of a probability, by file: kernels of whole numbers round as the machine does."""
OTHERWISE = 1e-4
"""Of a probability, of a corner in parts of the image, or of a number in standard deviations of the label."""


def manifest_of(
    config: ModelConfig,
    name: str,
    thresholds: Sequence[float] | None,
    forms: Mapping[str, Mapping[str, Any]],
    licences: Mapping[str, str],
) -> bytes:
    """`forms`: by file, what is known of it. `preprocess` is inside every graph; `inputs` says how images and cells become
    what a graph takes. `licences`: see `licences_beside`."""
    document = {
        "format": FORMAT,
        "name": name,
        "task": config.space.task,
        "names": list(config.space.names),
        "scale": list(config.space.scale),
        "thresholds": None if thresholds is None else dict(zip(config.space.names, thresholds, strict=True)),
        "inputs": list(config.inputs),
        "preprocess": config.preprocess,
        "licences": dict(licences),
        **({"decoding": decoding_of(config.space)} if config.space.max_boxes else {}),
        "forms": {file: dict(about) for file, about in forms.items()},
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def licences_beside(folder: Path) -> dict[str, str]:
    """What the recipe of a delivered model declares of its data and of those who taught it; empty where it declares nothing."""
    path = folder / RECIPE
    return licences_in(yaml.safe_load(local(folder, RECIPE).read_text("utf-8"))) if path.exists() else {}


def decoding_of(space: Space) -> dict[str, Any]:
    """How boxes are taken of what a graph gives, `[rows, places, 6 + classes]`: the sigmoid of each logit is a score, the `candidates`
    best (place, class) go through NMS of each class by itself, and the best `max_boxes` are said. Where every point is the
    middle of its own box, as of queries, NMS is left out."""
    return {
        "place": ["x1", "y1", "x2", "y2", "x", "y", *(f"logit of {name}" for name in space.names)],
        "corners": "0 to 1 of the upright image",
        "least_score": LEAST_SCORE,
        "candidates": CANDIDATES * space.max_boxes,
        "nms_above": OVERLAP,
        "max_boxes": space.max_boxes,
    }


def golden_file(golden: Golden, said: Mapping[str, NDArray[np.float32]]) -> bytes:
    """`said`: by file, what it says of these rows."""
    file = io.BytesIO()
    columns = {INPUT + name: values for name, values in golden.inputs.items()}
    np.savez(file, **columns, **{OF + name: values for name, values in said.items()}, said=golden.said)  # type: ignore[arg-type]
    return file.getvalue()


def verified(folder: Path, trust: Sequence[str] = ()) -> dict[str, Agreement]:
    """Of each file of an exported folder, or of the model of a model folder: how it answers golden rows beside what it said.

    Raises StoreError for a folder that is neither, for a file whose checksum is another, and for an answer that is.
    """
    _check_sums(folder)
    if not (folder / MANIFEST).exists():
        model = load_model(folder, trust=trust, vouching="command")
        golden = read_golden(folder, model)
        if golden is None:
            raise StoreError(
                f"{folder} has no golden rows to ask it; run its recipe again, or export it with --rows FILE"
            )
        said = model.given(golden.inputs).cpu().numpy()
        return {model.config.weights: _checked(folder, model.config.weights, said, golden, model.config.space)}
    about, rows = json.loads((folder / MANIFEST).read_bytes()), _rows_of(folder)
    most = about.get("decoding", {}).get("max_boxes", 0)
    space = Space(about["task"], tuple(about["names"]), scale=tuple(about["scale"]), max_boxes=most)
    inputs = {name.removeprefix(INPUT): values for name, values in rows.items() if name.startswith(INPUT)}
    found = {}
    for file in about["forms"]:
        form: FormName = next(name for name, form in FORMS.items() if Path(file).suffix == Path(form.file).suffix)
        said = FORMS[form].said(local(folder, file).read_bytes(), inputs)
        found[file] = _checked(folder, file, said, Golden(inputs, rows[OF + file]), space)
    return found


def _rows_of(folder: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(local(folder, ROWS), allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise StoreError(f"{folder} was exported without golden rows (--no-golden), so nobody can ask it") from None


def _checked(folder: Path, file: str, said: NDArray[np.float32], golden: Golden, space: Space) -> Agreement:
    agreement = compared(said, golden, space)
    allowed = ALLOWED.get(file, OTHERWISE)
    if not agreement.largest_difference <= allowed:
        raise StoreError(f"{folder / file} says something else than it said: {agreement} ({allowed:g} may)")
    return agreement


def _check_sums(folder: Path) -> None:
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except OSError:
        raise StoreError(f"{folder}: no model folder and no exported one: it has no {SUMS}") from None
    for line in lines:
        digest, _, name = line.partition("  ")
        if not name or not (path := local(folder, name)).is_file():
            raise StoreError(f"{folder}: {name or line!r} is missing, which {SUMS} lists; export it again")
        if (found := sha256_file(path)) != digest:
            raise StoreError(f"{path}: its checksum is {found[:12]}, {SUMS} has {digest[:12]}; export it again")
