"""The shape of the code: a chain of packages, tables that agree with their names, a lock that installs anywhere."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
from mypy.main import process_options

from students.config.terms import LossName
from teachers.config.any_teacher import CalibrateName
from teachers.config.task import TaskName
from teachers.config.teacher import CombineName
from teachers.config.training import AugmentName, MixName, TransformName
from tests.rooms import BESIDE, ROOMS

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "teachers": {"teachers"},
    "students": {"students", "teachers"},
    "orchestrator": {"orchestrator", "students", "teachers"},
}
MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.fixture(scope="module")
def nodes() -> dict[Path, list[ast.AST]]:
    """Of the syntax tree of every module, parsed once."""
    return {path: [*ast.walk(ast.parse(path.read_text()))] for path in MODULES}


def imported(path: Path, nodes: list[ast.AST]) -> set[str]:
    """Top-level packages that a module imports anywhere: in functions and under TYPE_CHECKING too."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(path.relative_to(ROOT).parts[0] if node.level else (node.module or "").partition(".")[0])
    return found


def test_imports_follow_the_chain(nodes: dict[Path, list[ast.AST]]) -> None:
    against = {
        path: upwards
        for path in MODULES
        if (upwards := imported(path, nodes[path]) & set(MAY_IMPORT) - MAY_IMPORT[path.relative_to(ROOT).parts[0]])
    }
    assert not against


def own_imports(path: Path, nodes: list[ast.AST]) -> set[str]:
    """The rooms, and modules beside them, of its own package that a module imports anywhere."""
    package, *inside = path.relative_to(ROOT).parts
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            above = [package, *inside[:-1]][: len(inside) + 1 - node.level] if node.level else []
            whole = [*above, *(node.module or "").split(".")] if node.module else above
            if whole[:1] == [package]:
                found |= {whole[1]} if len(whole) > 1 else {alias.name for alias in node.names}
    return found


def test_a_module_stands_in_a_room_and_imports_only_rooms_below_it(nodes: dict[Path, list[ast.AST]]) -> None:
    for path in MODULES:
        package, *inside = path.relative_to(ROOT).parts
        rooms, beside = ROOMS[package], BESIDE[package]
        if len(inside) == 1:
            assert path.stem in beside, f"{path}: a new file goes into a room"
            continue
        allowed = {*rooms[rooms.index(inside[0]) :], *beside} - {"__init__", "__main__"}
        assert own_imports(path, nodes[path]) <= allowed, path


def test_every_room_says_what_it_is() -> None:
    for package, rooms in ROOMS.items():
        assert {
            path.name for path in (ROOT / package).iterdir() if path.is_dir() and path.name != "__pycache__"
        } == set(rooms)
        for room in rooms:
            assert ast.get_docstring(ast.parse((ROOT / package / room / "__init__.py").read_text())), (package, room)


def test_modules_and_functions_stay_readable(nodes: dict[Path, list[ast.AST]]) -> None:
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 300, path
        for node in nodes[path]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, (path, node.name)


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "base", "manager"}


def test_names_in_the_recipe_are_the_names_in_the_tables() -> None:
    from orchestrator.recipe.tasks import KEPT_AS
    from students.config.task_terms import COMBINES
    from students.data.augment import AUGMENTS
    from students.data.mixes import MIXES
    from students.objective.calibration import FITS
    from students.objective.losses.table import LOSSES
    from teachers.soft_targets.combine.rules import COMBINE
    from teachers.soft_targets.encodings.table import ENCODINGS
    from teachers.transfer_set.views import TRANSFORMS

    assert set(LOSSES) == set(get_args(TaskName))
    assert set().union(*LOSSES.values()) == set(get_args(LossName))
    assert set().union(*COMBINE.values()) == set(get_args(CombineName))
    assert {answer: tuple(rules) for answer, rules in COMBINE.items()} == COMBINES
    assert {answer: tuple(kept) for answer, kept in ENCODINGS.items()} == KEPT_AS
    assert set().union(*FITS.values()) == set(get_args(CalibrateName))
    assert set(AUGMENTS) == set(get_args(AugmentName))
    assert set(MIXES) == set(get_args(MixName))
    assert set(TRANSFORMS) == set(get_args(TransformName))


def test_mypy_checks_all_that_is_written_here_but_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sources, options = process_options(["--config-file", "pyproject.toml"])  # as `mypy` alone reads it
    checked = {Path(source.path or "").resolve() for source in sources}
    folders = [each for each in ROOT.glob("[!.]*/") if each.is_dir() and each.name not in ("tests", "out")]
    unchecked = {path for folder in folders for path in folder.rglob("*.py")} - checked
    assert not unchecked
    assert options.disallow_untyped_defs and options.disallow_untyped_calls and not options.ignore_errors


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-oracles.lock"])
def test_the_lock_installs_on_any_machine(name: str) -> None:
    for line in (ROOT / name).read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
            assert not re.match(r"nvidia|triton", line), line


def test_every_dependency_is_locked_and_says_what_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    locked = {
        line.partition("==")[0].lower().replace("_", "-")
        for lock in ("requirements.lock", "requirements-oracles.lock")
        for line in (ROOT / lock).read_text().splitlines()
    }
    block = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    named = re.findall(r'^  "([A-Za-z0-9-]+)', block, re.M)
    assert len(named) > 15
    assert not [name for name in named if name.lower() not in locked]
