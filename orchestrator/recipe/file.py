"""A recipe's YAML file, with the place of every value in it. Knows nothing of what a recipe means."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from teachers.errors import RecipeError

Loc = tuple[str | int, ...]


def nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; there are {', '.join(known)}" if known else ""


@dataclass
class SourceFile:
    """A YAML document that remembers where each of its values stands."""

    path: Path
    value: dict[str, Any]
    marks: dict[Loc, tuple[int, int]]
    overridden: set[Loc]

    def tell_all(self, problems: Iterable[tuple[Loc, str]]) -> str:
        """One line a problem, in the order of the file."""
        return "\n".join(dict.fromkeys(self.tell(*problem) for problem in sorted(problems, key=self._place)))

    def _place(self, problem: tuple[Loc, str]) -> tuple[int, int]:
        at = problem[0]
        while at not in self.marks and at:
            at = at[:-1]
        return self.marks.get(at, (1, 1))

    def tell(self, loc: Loc, message: str) -> str:
        """`file:line:column: path: message`, at the nearest place that the file has."""
        dotted = ".".join(map(str, loc))
        if any(loc[: len(given)] == given for given in self.overridden):
            return f"-o {dotted}: {message}"
        line, column = self._place((loc, message))
        return f"{self.path}:{line}:{column}: {dotted or 'recipe'}: {message}"

    def override(self, assignment: str) -> None:
        dotted, equals, text = assignment.partition("=")
        if not equals or not dotted:
            raise RecipeError(f"-o {assignment}: expected `path.to.key=value`")
        parts: list[str | int] = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        at: Any = self.value
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            try:
                if following is None:
                    at[part] = yaml.safe_load(text)
                else:
                    if isinstance(at, dict) and not isinstance(at.get(part), dict | list):
                        at[part] = {}
                    at = at[part]
            except (IndexError, TypeError, KeyError):
                size = f"has {len(at)} entries" if isinstance(at, list) else "is no list or mapping"
                raise RecipeError(
                    f"-o {assignment}: there is no {part!r} there; what stands before it {size}"
                ) from None
            except yaml.YAMLError as error:
                raise RecipeError(f"-o {assignment}: {text!r} is not YAML ({str(error).splitlines()[0]})") from None
        self.overridden.add(tuple(parts))


def read_yaml(path: Path) -> SourceFile:
    """Raises RecipeError for a missing file, broken YAML, duplicate keys, or anything but a mapping."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file; `collegium init` writes a starter recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        marks: dict[Loc, tuple[int, int]] = {}
        twice = list(_walk(node, (), marks)) if node is not None else []
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}{_yaml_problem(error)}") from None
    source = SourceFile(path, value, marks, set())
    if twice:
        raise RecipeError("\n".join(f"{path}:{line}:{column}: {message}" for line, column, message in twice))
    if not isinstance(value, dict):
        raise RecipeError(f"{path}:1:1: expected a mapping with `format: 1`, found {type(value).__name__}")
    return source


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return f"{at}: not YAML: {getattr(error, 'problem', None) or error}"


def _walk(node: yaml.Node, loc: Loc, marks: dict[Loc, tuple[int, int]]) -> Iterator[tuple[int, int, str]]:
    """Note where every value stands (a key's own place for a mapping's values); yield keys that stand twice."""
    marks.setdefault(loc, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            yield from _walk(child, (*loc, number), marks)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if key.value in seen and key.value != "<<":
                dotted = ".".join(map(str, (*loc, key.value)))
                yield line, column, f"{dotted}: stands twice, first in line {seen[key.value]}; remove one"
            seen[key.value] = line
            marks[(*loc, key.value)] = (line, column)
            yield from _walk(child, (*loc, key.value), marks)
