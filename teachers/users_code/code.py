"""The user's code as one run knows it: taken along to every process that calls it, where no other version of it runs.

A module is compiled from the very bytes whose digest is the run's, whatever was imported in that process before; where
something else lies there by now, the work is refused.
"""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Self

import cloudpickle

from ..errors import CollegiumError
from ..storage.seal import digest_of, publish
from .digest import module_digest, named_in, reached
from .following import first_spec
from .in_main import by_value, defined, is_in_main
from .meaning import source_digest
from .reads import Watched, unwatched, watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsersCode:
    """`folder`: where import strings are looked for, after everything that is installed; `cwd`: the run's working directory.

    `modules`: digests of the user's modules by name. `listed` and `answers` as in `reads.Watched`. Warnings of other
    processes become files in `notes`.
    """

    folder: Path
    cwd: Path
    modules: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    answers: Mapping[str, bool] = field(default_factory=dict)
    defined: Mapping[str, str] = field(default_factory=dict)
    """Digests of what a notebook's cells define, and `values` what is named of it, in one piece."""
    values: bytes = field(default=b"", repr=False)
    out: Path | None = None
    notes: Path | None = None

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]], folder: Path, **more: Any) -> Self:
        """All that is named in parts of a recipe, as it lies there now. Raises RecipeError as `inputs_of`."""
        modules: dict[str, str] = {}
        listed: dict[str, frozenset[str]] = {}
        answers: dict[str, bool] = {}
        defined: dict[str, str] = {}
        for document in documents:
            for named in named_in(document):
                named.inputs()
                files = frozenset(os.path.realpath(file) for file in named.read())
                for _, name in named.names:
                    listed[name] = listed.get(name, frozenset()) | files
                    defined |= reached(name).defined
                    modules |= {module: module_digest(path) for module, path in reached(name).modules.items()}
            if "version" in document and "function" in document:
                answers[document["function"]] = document["version"] is not None
        values = by_value(sorted(filter(is_in_main, listed)))
        return cls(folder, Path.cwd(), modules, listed, answers, defined, values, **more)

    @property
    def digest(self) -> str:
        return digest_of([dict(self.modules), dict(self.defined)])

    def resolve(self) -> Self:
        """The same for a process with another working directory, which all paths in it are meant for already."""
        return self

    def take_up(self) -> None:
        """In a process that may call this code, before it does: relative paths are the run's, and its versions run.

        Modules of other versions that are imported here are forgotten, and imported anew when they are needed.
        """
        if self.cwd.is_dir():
            os.chdir(self.cwd)
        if GATE.code == self:
            return
        GATE.let_in(self)
        importlib.invalidate_caches()
        folders = {str(self.folder): True, str(self.cwd): True}
        folders |= {str(self.out.absolute()): False} if self.out is not None else {}
        watch(Watched(self.listed, self.answers, self.modules, folders, self._tell))

    def _tell(self, warning: str) -> None:
        """To whoever started the run, once for all of its processes."""
        if self.notes is None:
            log.warning("%s", warning)
            return
        with contextlib.suppress(OSError):  # a warning ends no run
            self.notes.mkdir(parents=True, exist_ok=True)
            publish(self.notes / f"{sha256(warning.encode()).hexdigest()[:16]}.txt", warning.encode())


def let_go() -> None:
    """The run is over: this process may import what it likes."""
    GATE.code = None
    watch(None)


class Exactly(SourceFileLoader):
    """Runs `payload`, whatever lies in the file by now, or in Python's cache of compiled files, which goes by seconds."""

    def __init__(self, module_name: str, path: str, payload: bytes) -> None:
        super().__init__(module_name, path)
        self.payload = payload

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.payload, self.path)
        return code


class Gate:
    """Stands before Python's finders: a module that a run counts on is imported in that version, or not at all."""

    looks_on = True

    def __init__(self) -> None:
        self.code: UsersCode | None = None
        self.imported: dict[str, str] = {}
        """Digests of what this process has imported through here."""
        self.taken: dict[str, Any] | None = None
        """What came by value, once somebody has asked for it: that may import modules."""

    def value_of(self, import_string: str) -> Any:
        """What `__main__:name` is in the run at hand, or in this process where there is none. Raises RecipeError."""
        if self.code is None or not self.code.values:
            return defined(import_string)
        if self.taken is None:
            self.taken = cloudpickle.loads(self.code.values)
        return self.taken[import_string] if import_string in self.taken else defined(import_string)

    def let_in(self, code: UsersCode) -> None:
        """Modules of these versions, from now on; what is imported in another one is forgotten."""
        modules = code.modules
        self.taken = None
        if modules and self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        self.code = code
        if any(name in sys.modules and not self._is(name, digest) for name, digest in modules.items()):
            for name in modules:  # all of them: those that are unchanged may hold parts of those that are not
                sys.modules.pop(name, None)

    def _is(self, name: str, digest: str) -> bool:
        """Whether the module `name`, which is imported, is the one that is meant."""
        if name in self.imported:
            return self.imported[name] == digest
        file = getattr(sys.modules[name], "__file__", None)
        import psutil

        with unwatched(), contextlib.suppress(OSError, SyntaxError):
            # untouched since this process began: what was imported is what lies there
            untouched = file is not None and os.stat(file).st_ctime < psutil.Process().create_time()
            return untouched and source_digest(Path(str(file)).read_bytes(), Path(str(file))) == digest
        return False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        self.imported.pop(name, None)
        digest = self.code.modules.get(name) if self.code is not None else None
        spec = first_spec(name, path) if digest is not None else None
        if digest is None or spec is None or spec.origin is None:
            return None
        file = Path(spec.origin)
        with unwatched():
            payload = file.read_bytes()
        if _digest_or_none(payload, file) != digest:
            raise CollegiumError(
                f"{file} has changed since this run began, and what it computes is kept under the digest of what it was; "
                f"run the same command again"
            )
        self.imported[name] = digest
        if type(spec.loader) is SourceFileLoader:
            spec.loader = Exactly(name, spec.origin, payload)
        return spec


def _digest_or_none(payload: bytes, file: Path) -> str | None:
    try:
        return source_digest(payload, file)
    except SyntaxError:
        return None


GATE = Gate()
