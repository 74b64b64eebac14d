"""Code that has no module: what the cells of a notebook, or a script that runs, define in `__main__`.

`__main__:f` is such a function or class. It goes to other processes by value, and counts by its source and by all that it
uses: functions and classes by theirs, modules as everywhere, other values by what they hold. Knows nothing of recipes.
"""

import ast
import dis
import hashlib
import inspect
import io
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from ..errors import RecipeError
from ..storage.seal import digest_of
from .calls import told_as
from .following import Dynamic, Reach, follow
from .meaning import source_digest

MAIN = "__main__"
NOT_THE_USERS = ("__", "_abc")
"""With which begins what Python keeps in a class, beside functions."""


def is_in_main(import_string: str) -> bool:
    return import_string.partition(":")[0] == MAIN


def defined(import_string: str) -> Any:
    """What `__main__:name` stands for in this process. Raises RecipeError where there is nothing."""
    name = import_string.partition(":")[2]
    try:
        return getattr(sys.modules[MAIN], name)
    except AttributeError:
        raise RecipeError(
            f"{import_string}: no cell of this notebook, or line of this script, defines {name!r}; in a recipe that a "
            f"command reads, name a module of yours: `mine:{name}` for mine.py"
        ) from None


def reach_in_main(import_string: str) -> Reach:
    """As `reach`, of what is defined here. Raises RecipeError for what is not, or cannot be taken to another process."""
    walk = _Walk(import_string)
    walk.take(import_string.partition(":")[2], defined(import_string))
    found = Reach(defined=walk.digests, hidden=walk.hidden)
    for name in sorted(walk.modules):
        follow(name, found)
    return found


def by_value(import_strings: Sequence[str]) -> bytes:
    """All of these in one piece, for other processes; nothing of none. Raises RecipeError."""
    if not import_strings:
        return b""
    found = {name: defined(name) for name in import_strings}
    names = ", ".join(import_strings)
    with told_as(lambda what: RecipeError(f"{names}: cannot be taken to other processes: {what}")):
        payload: bytes = cloudpickle.dumps(found)
    return payload


class _Walk:
    """Everything that one name in `__main__` leads to: `digests` of what is defined there, `modules` that it uses."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.digests: dict[str, str] = {}
        self.modules: set[str] = set()
        self.hidden: list[str] = []
        self.seen: set[int] = set()

    def take(self, name: str, value: Any) -> None:
        if id(value) in self.seen or value is sys.modules[MAIN]:
            return
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
        elif isinstance(value, FunctionType):
            self.seen.add(id(value))
            self._function(name, value)
        elif isinstance(value, type):
            self.seen.add(id(value))
            self._class(name, value)
        elif inspect.isbuiltin(value) and isinstance(value.__self__, ModuleType):
            self.modules.add(value.__self__.__name__)
        else:
            if type(value).__module__ != MAIN:
                self.modules.add(type(value).__module__)
            self._put(name, self._value(name, value))

    def _put(self, name: str, digest: str) -> None:
        """Two things of one name, two functions inside of others for example, count both."""
        before = self.digests.get(name, digest)
        self.digests[name] = digest if before == digest else digest_of([before, digest])

    def _function(self, name: str, function: FunctionType, *, source: bool = True) -> None:
        is_here = function.__globals__.get("__name__") == MAIN
        if not is_here:
            self.modules.add(function.__globals__.get("__name__", "builtins"))
        elif source:
            self._put(name, self._source(function.__code__) or digest_of(_compiled(function.__code__)))
        for free, value in _enclosed(function):
            if is_here or isinstance(value, FunctionType | type):  # a library's decorator holds what is decorated
                self.take(f"{name}.{free}", value)
        if is_here:
            given = dict(enumerate(function.__defaults__ or ())) | dict(function.__kwdefaults__ or {})
            for which, value in given.items():
                self.take(f"{name}({which})", value)
            self._used(function)

    def _used(self, function: FunctionType) -> None:
        for code in _nested(function.__code__):
            brought = [i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"]
            self.modules.update(module for module in brought if module)
            for name in _globals_of(code):
                if name not in function.__globals__:
                    continue
                self.take(name, value := function.__globals__[name])
                if isinstance(value, ModuleType):  # `import a.b`, and then `a.b.f`
                    below = (f"{value.__name__}.{attribute}" for attribute in code.co_names)
                    self.modules.update(module for module in below if module in sys.modules)

    def _class(self, name: str, kind: type) -> None:
        if kind.__module__ != MAIN:
            self.modules.add(kind.__module__)
            return
        if source := self._source(kind):
            self._put(name, source)
        for base in kind.__bases__:
            self.take(base.__name__, base)
        for key, member in vars(kind).items():
            member = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(member, FunctionType):
                self._function(f"{name}.{key}", member, source=not source)
            elif not key.startswith(NOT_THE_USERS):
                self.take(f"{name}.{key}", member)

    def _source(self, value: CodeType | type) -> str:
        """Digest of the source; empty where there is none to read, or only a part of a statement."""
        try:
            source = textwrap.dedent(inspect.getsource(value))
            tree = ast.parse(source)
        except (OSError, TypeError, SyntaxError):
            return ""
        modules = {n: v.__name__ for n, v in vars(sys.modules[MAIN]).items() if isinstance(v, ModuleType)}
        tree.body[:0] = [ast.Import([ast.alias(module, name)]) for name, module in modules.items()]
        literal, hidden = Dynamic(tree, MAIN, "").found()
        self.modules.update(literal)
        self.hidden += [f"{self.root}: {text.partition(': ')[2]}" for text in hidden]
        return source_digest(source.encode(), Path("cell.py"))

    def _value(self, name: str, value: Any) -> str:
        written = io.BytesIO()
        what = f"{self.root} uses {name}, a {type(value).__name__}, which cannot be taken to another process"
        cure = "make it inside of the function, or put both into a module of yours"
        with told_as(lambda why: RecipeError(f"{what} ({why}); {cure}")):
            _Writer(written, self).dump(value)
        return hashlib.sha256(written.getvalue()).hexdigest()


class _Writer(cloudpickle.Pickler):  # type: ignore[misc]
    """What a value holds, with functions, classes and modules by what they are, wherever their lines stand."""

    def __init__(self, file: io.BytesIO, walk: _Walk) -> None:
        super().__init__(file)
        self.walk = walk

    def persistent_id(self, value: Any) -> str | None:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor) and value.layout is torch.strided:
            flat = value.detach().cpu().contiguous().reshape(-1)  # PyTorch writes addresses beside the numbers
            held = hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()
            return f"{type(value).__name__} {value.dtype} {list(value.shape)} {held}"
        if not isinstance(value, FunctionType | type | ModuleType):
            return None
        self.walk.take(value.__name__, value)
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', value.__name__)}"


def _enclosed(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function made inside of another one holds of it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            yield name, cell.cell_contents


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _globals_of(code: CodeType) -> list[str]:
    """In the order in which they are used."""
    found = [i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return list(dict.fromkeys(found))


def _compiled(code: CodeType) -> Mapping[str, Any]:
    """What decides a function without source, in this version of Python; not where it stood."""
    constants = [_compiled(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    names = [list(code.co_names), list(code.co_varnames), list(code.co_freevars)]
    return {"python": list(sys.version_info[:2]), "code": code.co_code.hex(), "constants": constants, "names": names}
