"""Which modules an import string leads to, found without running any of them.

The user's are followed wherever they lie: a working directory, a folder of PYTHONPATH, an editable install. Installed
distributions are named, not followed; Python's own modules and ours end the way.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .calls import told_as

OURS = ("teachers", "students", "orchestrator")
INSTALLED = ("site-packages", "dist-packages")
"""Folders that installers write to."""
IMPORTS = ("importlib.import_module", "importlib.__import__", "builtins.__import__")
RUNS_A_FILE = (
    *("importlib.util.spec_from_file_location", "importlib.machinery.SourceFileLoader", "imp.load_source"),
    *("runpy.run_path", "runpy.run_module"),
)
RUNS_TEXT = ("builtins.exec", "builtins.eval")
READS = ("open", "read", "read_text", "read_bytes", "readlines", "get_data")
"""Calls whose outcome is what a file holds."""


@dataclass
class Reach:
    """What a module brings in. `modules`: the user's, by name; `installed`: top names of installed packages.

    `hidden`: imports that cannot be followed, `api.py:3: exec(...)`.
    """

    modules: dict[str, Path] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    hidden: list[str] = field(default_factory=list)
    defined: dict[str, str] = field(default_factory=dict)
    """Digests of what stands in no module: the cells of a notebook."""


def reach(import_string: str) -> Reach:
    """Raises RecipeError when there is no such module, or one of the user's cannot be read."""
    module_name = import_string.partition(":")[0]
    found = Reach()
    if _ends_the_way(module_name):
        return found
    if spec_of(module_name) is None:
        raise RecipeError(
            f"{import_string}: there is no module {module_name!r}; is it in the working directory, or installed?"
        )
    with told_as(lambda what: RecipeError(f"{import_string}: {module_name} cannot be read: {what}")):
        follow(module_name, found)
    return found


def follow(module_name: str, found: Reach) -> None:
    """Add what a module brings in, itself included. Raises OSError, SyntaxError for one that cannot be read."""
    waiting, seen = [module_name], set()
    while waiting:
        name = waiting.pop()
        if name in seen or _ends_the_way(name):
            continue
        seen.add(name)
        top = name.partition(".")[0]
        if top in found.installed or ((spec := spec_of(top)) is not None and is_installed(spec)):
            found.installed.add(top)
            continue
        if (parent := name.rpartition(".")[0]) != "":
            waiting.append(parent)
        path = source_of(name)
        if path is None:
            continue
        found.modules[name] = path
        if path.suffix == ".py":
            names, hidden = _imported(path, name)
            waiting += names
            found.hidden += hidden


def _ends_the_way(module_name: str) -> bool:
    top = module_name.partition(".")[0]
    return top in OURS or top in sys.stdlib_module_names


def is_installed(spec: ModuleSpec) -> bool:
    return any(part in INSTALLED for place in _places(spec) for part in Path(place).parts)


def _places(spec: ModuleSpec) -> list[str]:
    """Where a module and what is in it lies."""
    within = spec.submodule_search_locations
    # a namespace package asks its parent again for each look, which is not imported here: what it found first
    folders = getattr(within, "_path", within) or ()
    return [*folders, *([spec.origin] if spec.origin and spec.has_location else [])]


def spec_of(module_name: str) -> ModuleSpec | None:
    """Where a module would come from now, whatever is imported already; nothing is imported for it."""
    spec: ModuleSpec | None = None
    within: Sequence[str] | None = None
    parts = module_name.split(".")
    for depth in range(len(parts)):
        if depth and not within:
            return None
        spec = first_spec(".".join(parts[: depth + 1]), within)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
        within = None if folders is None else list(getattr(folders, "_path", folders))
    return spec


def first_spec(module_name: str, within: Sequence[str] | None) -> ModuleSpec | None:
    """What Python's finders say, but for those that only look on."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and not getattr(finder, "looks_on", False):
            spec: ModuleSpec | None = find(module_name, within)
            if spec is not None:
                return spec
    return None


def source_of(module_name: str) -> Path | None:
    """The file of a module: Python's source, or what was compiled from another language."""
    spec = spec_of(module_name)
    return Path(spec.origin).resolve() if spec is not None and spec.origin and spec.has_location else None


def file_of(module_name: str, path: Path) -> str:
    """A module's file as it lies in the folder that its top package is found in."""
    parts = module_name.split(".")
    if path.stem == "__init__":
        return "/".join([*parts, path.name])
    return "/".join([*parts[:-1], f"{parts[-1]}.py" if path.suffix == ".py" else path.name])


def _imported(path: Path, module_name: str) -> tuple[list[str], list[str]]:
    """Names that a module may import, and its imports that cannot be followed."""
    tree = ast.parse(path.read_bytes(), str(path))
    package = module_name if path.stem == "__init__" else module_name.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    dynamic = Dynamic(tree, module_name, package)
    literal, hidden = dynamic.found()
    return [name for name in (*names, *literal) if name], [f"{file_of(module_name, path)}:{text}" for text in hidden]


def _base(node: ast.ImportFrom, package: str) -> str:
    up = package.rsplit(".", node.level - 1)[0] if node.level else ""
    return ".".join(part for part in (up, node.module or "") if part)


class Dynamic:
    """Imports of one module that are calls: `importlib.import_module`, `exec` of a file and their like."""

    def __init__(self, tree: ast.Module, module_name: str, package: str) -> None:
        self.tree, self.anchors = tree, {"__name__": module_name, "__package__": package}
        self.names: dict[str, str] = {}
        """What a name stands for that was imported: `importlib.import_module` for `im`."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.names |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else "" for a in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                self.names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        self.read: set[str] = set()
        """Names that hold what a file holds."""
        for _ in range(2):  # text = file.read(); code = compile(text, ...)
            for target, value in self._assigned():
                if self._is_read(value):
                    self.read |= {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}

    def found(self) -> tuple[list[str], list[str]]:
        """(names of modules that are imported by a literal, the calls that cannot be followed with their lines)"""
        literal, hidden = [], []
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            called = self._dotted(node.func)
            if called in IMPORTS:
                name = self._literal(node)
                if name is not None:
                    literal.append(name)
                    continue
            elif called not in RUNS_A_FILE and not (called in RUNS_TEXT and any(map(self._is_read, node.args[:1]))):
                continue
            hidden.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
        return literal, hidden

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        if isinstance(node, ast.Name):
            return self.names.get(node.id) or (f"builtins.{node.id}" if node.id not in self.names else node.id)
        return "?"

    def _literal(self, node: ast.Call) -> str | None:
        """The module that is named by a constant, relative to the package that is named beside it."""
        given: dict[str | None, Any] = {keyword.arg: keyword.value for keyword in node.keywords}
        name = node.args[0] if node.args else given.get("name")
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            return None
        bare = name.value.lstrip(".")
        if bare == name.value:
            return bare
        beside = node.args[1] if len(node.args) > 1 else given.get("package")
        anchor = beside.value if isinstance(beside, ast.Constant) else self.anchors.get(getattr(beside, "id", ""))
        if not isinstance(anchor, str):
            return None
        up = anchor.rsplit(".", len(name.value) - len(bare) - 1)[0]
        return f"{up}.{bare}" if bare else up

    def _is_read(self, expression: ast.expr) -> bool:
        """Whether what a file holds is in it."""
        return any(
            (isinstance(node, ast.Call) and self._last(node.func) in READS)
            or (isinstance(node, ast.Name) and node.id in self.read)
            for node in ast.walk(expression)
        )

    def _last(self, function: ast.expr) -> str:
        return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")

    def _assigned(self) -> Iterator[tuple[ast.expr, ast.expr]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                yield from ((target, node.value) for target in node.targets)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                yield node.target, node.value
