"""Reports as they lie in the folders of runs: written, and found again."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from teachers.errors import RecipeError, StoreError
from teachers.process.log_lines import once
from teachers.storage.seal import read_document, replace

from .document import FORMAT

log = logging.getLogger(__name__)


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into a run's folder, over what was there."""
    from .page import page

    written = folder / "report.json", folder / "report.html"
    replace(written[0], json.dumps(report, indent=1, allow_nan=False).encode())
    replace(written[1], page(report).encode())
    return written


def newest_report(out: Path) -> tuple[Path, dict[str, Any]]:
    """The newest run's folder in `out`, and its report. Raises RecipeError where there is none."""
    for found in reports(out):
        return found
    raise RecipeError(f"{out} holds no finished run; `collegium run RECIPE --out {out}` makes one")


def newest_of_teachers(out: Path) -> tuple[Path, dict[str, Any]]:
    """The newest comparison of who teaches. Raises RecipeError, with the command that makes one, where there is none."""
    for found in reports(out):
        if found[1].get("compared", {}).get("kind") == "teachers":
            return found
    raise RecipeError(f"no run in {out} compared who teaches; {_which_does(out)}")


def _which_does(out: Path) -> str:
    """The command of a comparison of who teaches, and what it would train; of a comparison by methods, whose recipe is of its
    variants, on the recipe with the best of them."""
    folder, report = next((each for each in reports(out) if "compared" not in each[1]), None) or newest_report(out)
    students = {name: config["teachers"] for name, config in report["recipe"]["students"].items()}
    file, name = folder / "recipe.yaml", None
    if (compared := report.get("compared")) is not None:
        file, name = folder / "found.yaml", compared["student"]
        heard = next(students[each] for each in compared["of"])
        students = {each: of for each, of in students.items() if each not in compared["of"]} | {name: heard}
    numbers = {each: 2 * len(of) + 1 - 2 * (len(of) == 2) for each, of in students.items() if len(of) > 1}
    if len(students) > 1:
        name = name or next(iter(numbers), "NAME")
    recipe, which = file if file.exists() else "RECIPE", f" --student {name}" * (name is not None)
    cost = "; variants that it would train for each seed: " if numbers else ""
    cost += ", ".join(f"{each} {number}" for each, number in numbers.items())
    return (
        f"`collegium compare {recipe} --teachers{which} --out {out}` does, and trains students on the labels that are there, by all "
        f"teachers, all but each, and each alone{cost}"
    )


def reports(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and report of every run, the newest first. One that is damaged is told once and passed over."""
    for path in sorted((out / "runs").glob("*/report.json"), reverse=True):
        try:
            found = read_document(path, FORMAT, "the report of that run is lost; the runs before are shown")
        except StoreError as error:
            once(log, str(error))
            continue
        yield path.parent, found
