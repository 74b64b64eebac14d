"""A model that is named instead of its folder: `digits-small`, the newest of an OUT."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from teachers.errors import StoreError
from teachers.sources.files import nearest
from teachers.storage.place import is_uri
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import read_document

from ..reporting.document import FORMAT as REPORT_FORMAT
from ..stages.stages import FOLDERS, SHORT
from ..stages.stages import FORMAT as STAGE_FORMAT
from .out import Out


@dataclass(frozen=True)
class Delivered:
    """A model of an OUT. `name` has the recipe's before it: `digits-small`."""

    out: Path
    folder: Path
    key: str
    name: str
    alone: str


def folder_of(model: str, out: Path | None) -> Path:
    """The folder that `model` is or names: in `out`, else in the OUT of its recipe, else in the only other of `out/`."""
    if out is None and (is_uri(model) or Path(model).exists()):
        return Out(exists=True).convert(model, None, None)
    there = [each for place in ([out] if out else sorted(Path("out").glob("*"))) for each in _delivered(place)]
    found = [each for each in there if model in (each.name, each.alone)]
    if out is None:
        found = [each for each in found if each.name.startswith(f"{each.out.name}-")] or found
    outs = sorted({each.out for each in found})
    if len(outs) == 1:
        return _newest(found)
    if outs:
        raise click.UsageError(f"{model} is in {' and in '.join(map(str, outs))}; say which: --out {outs[0]}")
    is_path = out is None and "/" in model
    what = (
        f"there is no folder {model}" if is_path else f"there is no model {model!r} in {out or Path('out').resolve()}"
    )
    names = list(dict.fromkeys(each.name for each in there))
    where = "" if out else "; --out says where else to look"
    raise click.UsageError(f"{what}{nearest(model, names) if names else ''}{where}")


def _delivered(out: Path) -> Iterator[Delivered]:
    """Every whole model; one whose record is damaged or of another format is passed over."""
    for stage in sorted((out / FOLDERS["export"]).glob("*/STAGE.json")):
        with suppress(StoreError):
            if (stage.parent / SEAL).exists():
                document = read_document(stage, STAGE_FORMAT, "remove its folder")
                recipe, alone = document["config"]["recipe"]["name"], document["name"]
                yield Delivered(out, stage.parent, document["key"], f"{recipe}-{alone}", alone)


def prepared_of(folder: Path) -> Path:
    """The transfer set that the model of `folder` is of: in the OUT that it lies in, by the newest run that had both.

    Raises StoreError for a model that lies elsewhere, or of which no finished run tells.
    """
    out = folder.resolve().parent.parent
    key = read_document(folder / "STAGE.json", STAGE_FORMAT, "")["key"] if (folder / "STAGE.json").exists() else None
    for report in sorted((out / "runs").glob("*/report.json"), reverse=True):
        with suppress(StoreError):
            stages = read_document(report, REPORT_FORMAT, "")["stages"]
            if key in {stage["key"] for stage in stages}:
                prepared = next(stage["key"] for stage in stages if stage["stage"] == "prepare")
                for found in (out / FOLDERS["prepare"]).glob(f"*-{prepared[:SHORT]}"):
                    return found
    raise StoreError(
        f"{folder}: no finished run tells of which transfer set it is, whose rows --int8 calibrates and judges by; name a model "
        f"where a run delivered it, OUT/models/..."
    )


def _newest(models: Sequence[Delivered]) -> Path:
    """Of the newest finished run that has one of them, else the one that was built last."""
    for report in sorted((models[0].out / "runs").glob("*/report.json"), reverse=True):
        with suppress(StoreError):
            keys = {stage["key"] for stage in read_document(report, REPORT_FORMAT, "")["stages"]}
            if told := [each.folder for each in models if each.key in keys]:
                return told[-1]
    return max((each.folder for each in models), key=lambda folder: (folder / SEAL).stat().st_mtime_ns)
