"""A delivered model for who has no Collegium: a folder with its graph or program, and a script that asks it.

Everything is asked the model's golden rows first; what says something else is not written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from teachers.errors import CollegiumError, RecipeError, StoreError
from teachers.models.folder import LoadedModel, Vouching, load_model
from teachers.models.text import TOKENIZER
from teachers.storage.seal import replace, sha256_file

from .export import SUMS
from .forms import FORMS, FormName
from .golden import GOLDEN, Agreement, Golden, asked, compared, read_golden
from .source import rows_of
from .standalone import MODEL, SCRIPT, standalone
from .thresholds import thresholds_beside

MOST_DIFFERENCE = 1e-4
"""Of a probability, or of a number in standard deviations of the label, on golden rows."""
OURS = {*(form.file for form in FORMS.values()), MODEL, SCRIPT, TOKENIZER, SUMS}


@dataclass(frozen=True)
class Exported:
    """`files` that were written; how each form agrees with the model; why there is no script, where that is so."""

    files: tuple[str, ...]
    agreements: dict[FormName, Agreement]
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
) -> Exported:
    """Write the model of `folder` in `forms` to `output`, over an earlier export; beside an ONNX graph `predict.py`.

    `rows`: a source as `predict` reads it, for golden rows of a folder that has none. Raises RecipeError where `output`
    holds anything else, CollegiumError for a model that has no such form, or where the form says something else.
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
    golden = _golden(folder, model, rows)
    payloads, agreements = {}, {}
    for each in forms:
        form = FORMS[each]
        payloads[form.file] = form.made_of(model)
        agreements[each] = compared(form.said(payloads[form.file], golden.inputs), golden, model.config.space)
        _check(form.file, agreements[each])
    no_script = None
    if "onnx" in forms:
        try:
            payloads |= standalone(model.config, name, thresholds_beside(folder, model.config.classes))
        except RecipeError as why:
            no_script = str(why)
    _write(output, payloads)
    return Exported((*payloads,), agreements, no_script)


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
    if not agreement.largest_difference <= MOST_DIFFERENCE:
        raise CollegiumError(
            f"{file} says something else than the model, so it is not written: {agreement} ({MOST_DIFFERENCE:g} may)"
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
