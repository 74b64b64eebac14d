"""A delivered model for who has no Collegium: a folder with its graph or program, and a script that asks it.

Everything is asked the model's golden rows first; what says something else is not written.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from teachers.errors import CollegiumError, RecipeError, StoreError
from teachers.models.folder import LoadedModel, Vouching, load_model
from teachers.models.text import TOKENIZER
from teachers.storage.seal import replace, sha256_file

from .cost import cost_of
from .edge import Judged, in_8_bits
from .export import SUMS
from .forms import FORMS, Form, FormName
from .golden import GOLDEN, Agreement, Golden, asked, compared, read_golden
from .manifest import MANIFEST, OTHERWISE, ROWS, golden_file, licences_beside, manifest_of
from .program import Sizes
from .sizes import sized
from .source import rows_of
from .standalone import MODEL, SCRIPT, standalone
from .thresholds import thresholds_beside

INT8 = "model.int8.onnx"
OURS = {*(form.file for form in FORMS.values()), INT8, MODEL, SCRIPT, TOKENIZER, MANIFEST, ROWS, SUMS}


@dataclass(frozen=True)
class EightBits:
    """What `model.int8.onnx` is made by: rows of the transfer set that the model learnt from, and how much it may lose."""

    transfer_set: Path
    max_drop: float


@dataclass(frozen=True)
class Exported:
    """`files` that were written; by file, how it agrees with the model and what is known of it; why there is no script,
    where that is so."""

    files: tuple[str, ...]
    agreements: dict[str, Agreement]
    forms: dict[str, dict[str, Any]]
    no_script: str | None


def export_elsewhere(
    folder: Path,
    output: Path,
    forms: Sequence[FormName],
    *,
    name: str,
    rows: Path | None = None,
    trust: Sequence[str] = (),
    vouching: Vouching = "python",
    int8: EightBits | None = None,
    keep_golden: bool = True,
    one_row: bool = False,
    size: int | Literal["any"] | None = None,
) -> Exported:
    """Write the model of `folder` in `forms` to `output`, over an earlier export; beside an ONNX graph `predict.py`, which
    asks the one in 8 bits where there is one.

    `rows`: a source as `predict` reads it, for golden rows of a folder that has none; `keep_golden`: whether they go along. `one_row`: a call takes
    one row; `size`: of a detector, the edge of the squares that it takes, or images of any size. Raises RecipeError where
    `output` holds anything else, or for a `size` that the model has not, CollegiumError for a model that has no such form, or
    where the form says something else.
    """
    _check_output(output)
    model = load_model(folder, trust=trust, vouching=vouching)
    if function := model.config.preprocess["function"]:
        raise CollegiumError(
            f"{folder}: `preprocess.function` is code of yours ({function}), which no file of another form holds"
        )
    if raw := [column.name for column in model.preprocessor.columns if column.kind == "text"]:
        raise CollegiumError(
            f"{folder}: {model.config.model} reads text as it is ({raw[0]}), which no file of another form does"
        )
    golden, thresholds = _golden(folder, model, rows), thresholds_beside(folder, model.config.classes)
    asked_for = [golden]
    if size is not None:
        model, asked_for = sized(model, golden, size)
        golden = asked_for[0]
    graphs, about = _graphs(model, forms, asked_for, Sizes(one_row, any_image=size == "any"))
    if int8 is not None:
        about |= _in_8_bits(model, graphs, golden, thresholds, int8)
    payloads, no_script = dict(graphs), None
    if "onnx" in forms:
        try:
            payloads |= standalone(model.config, name, thresholds, INT8 if int8 else FORMS["onnx"].file)
        except RecipeError as why:
            no_script = str(why)
    said = {file: _form_of(file).said(payload, golden.inputs) for file, payload in graphs.items()}
    agreements = {file: compared(answers, golden, model.config.space) for file, answers in said.items()}
    told = {file: _told(graphs[file], agreements[file]) | found for file, found in about.items()}
    payloads[MANIFEST] = manifest_of(model.config, name, thresholds, told, licences_beside(folder))
    if keep_golden:
        payloads[ROWS] = golden_file(golden, said)
    _write(output, payloads)
    return Exported((*payloads,), agreements, told, no_script)


def _graphs(
    model: LoadedModel, forms: Sequence[FormName], asked_for: Sequence[Golden], sizes: Sizes
) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """By file what is made of the model, and room for what is known of it. Raises CollegiumError for what says something else."""
    made = {}
    for each in forms:
        form = FORMS[each]
        made[form.file] = form.made_of(model, sizes)
        for golden in asked_for:
            _check(form.file, compared(form.said(made[form.file], golden.inputs), golden, model.config.space))
    return made, {file: {} for file in made}


def _in_8_bits(
    model: LoadedModel, graphs: dict[str, bytes], golden: Golden, thresholds: Sequence[float] | None, int8: EightBits
) -> dict[str, dict[str, Any]]:
    """Adds the graph in 8 bits to `graphs`; by file figures, size and cost of both."""
    file = FORMS["onnx"].file
    made = in_8_bits(model, graphs[file], int8.transfer_set, thresholds, int8.max_drop)
    graphs[INT8] = made.payload
    about = _of_8_bits(made, int8.max_drop)
    return {each: found | cost_of(graphs[each], golden.inputs) for each, found in about.items()}


def _form_of(file: str) -> Form:
    return next(form for form in FORMS.values() if Path(form.file).suffix == Path(file).suffix)


def _told(payload: bytes, agreement: Agreement) -> dict[str, Any]:
    return {"sha256": sha256(payload).hexdigest(), "bytes": len(payload), "agreement": asdict(agreement)}


def _of_8_bits(made: Judged, max_drop: float) -> dict[str, dict[str, Any]]:
    """By file, figures of the test rows."""
    found = made.document()
    figures = found.pop("figures")
    return {
        FORMS["onnx"].file: {"figures": figures["float32"], "rows": made.rows},
        INT8: {**found, "figures": figures["int8"], "max_drop": max_drop},
    }


def _check_output(output: Path) -> None:
    there = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    if output.exists() and (not output.is_dir() or (there and (SUMS not in there or there - OURS))):
        raise RecipeError(f"{output} holds something else than an earlier export; name another folder with --output")


def _golden(folder: Path, model: LoadedModel, source: Path | None) -> Golden:
    """The model's own, else the first rows of `source`."""
    if source is None:
        golden = read_golden(folder, model)
        if golden is None:
            raise StoreError(
                f"{folder} has no {GOLDEN}, rows to compare with; give it some of its kind: --rows FILE, or run its recipe again"
            )
        return golden
    found = next((some.inputs for some in rows_of(source, model.config) if len(some.bad) < len(some.ids)), None)
    if found is None:
        raise RecipeError(f"{source}: has no row that this model can use")
    return asked(model, model.preprocessor.derive(found))


def _check(file: str, agreement: Agreement) -> None:
    if not agreement.largest_difference <= OTHERWISE:
        raise CollegiumError(
            f"{file} says something else than the model, so it is not written: {agreement} ({OTHERWISE:g} may)"
        )


def _write(output: Path, payloads: dict[str, bytes]) -> None:
    """File by file, the checksums last; what an earlier export left besides goes."""
    output.mkdir(parents=True, exist_ok=True)
    (output / SUMS).unlink(missing_ok=True)
    for file in OURS - {*payloads, SUMS}:
        (output / file).unlink(missing_ok=True)
    for file, payload in payloads.items():
        replace(output / file, payload)
    replace(output / SUMS, "".join(f"{sha256_file(output / file)}  {file}\n" for file in payloads).encode())
