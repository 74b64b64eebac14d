"""A recipe's YAML file, with the place of every value in it. Knows nothing of what a recipe means."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    option: str = "-o"
    """By which it is overridden."""

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
            return f"{self.option} {dotted}: {message}"
        line, column = self._place((loc, message))
        return f"{self.path}:{line}:{column}: {dotted or 'recipe'}: {message}"

    def override(self, assignment: str) -> None:
        dotted, equals, text = assignment.partition("=")
        if not equals or not dotted:
            raise RecipeError(f"{self.option} {assignment}: expected `path.to.key=value`")
        parts: list[str | int] = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        at: Any = self.value
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            try:
                if following is None:
                    at[part] = parsed(text)[0]
                else:
                    if isinstance(at, dict) and not isinstance(at.get(part), dict | list):
                        at[part] = {}
                    at = at[part]
            except (IndexError, TypeError, KeyError):
                size = f"has {len(at)} entries" if isinstance(at, list) else "is no list or mapping"
                raise RecipeError(
                    f"{self.option} {assignment}: there is no {part!r} there; what stands before it {size}"
                ) from None
            except _NotYaml as error:
                raise RecipeError(f"{self.option} {assignment[:80]}: {text[:80]!r} is not YAML ({error.why})") from None
        self.overridden.add(tuple(parts))


MOST_VALUES = 100_000
"""Of a recipe; anchors that hold anchors that hold anchors are more before anybody notices."""
Marks = dict[Loc, tuple[int, int]]


class _NotYaml(Exception):
    """Text that is no YAML, or not the YAML of a recipe; `at`: line and column, from 1."""

    def __init__(self, why: str, at: tuple[int, int] | None = None) -> None:
        super().__init__(why)
        self.why, self.at = why, at


def read_yaml(path: Path) -> SourceFile:
    """Raises RecipeError for a missing file, broken YAML, duplicate keys, or anything but a mapping."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file; `collegium init` writes a starter recipe") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: is a folder; name the recipe's file in it") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not text in UTF-8 (byte {error.start + 1}); save it so") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from None
    try:
        value, marks, twice = parsed(text)
    except _NotYaml as error:
        at = "" if error.at is None else f":{error.at[0]}:{error.at[1]}"
        raise RecipeError(f"{path}{at}: not YAML: {error.why}") from None
    if twice:
        raise RecipeError("\n".join(f"{path}:{line}:{column}: {message}" for line, column, message in twice))
    if not isinstance(value, dict):
        raise RecipeError(f"{path}:1:1: expected a mapping with `format: 1`, found {type(value).__name__}")
    return SourceFile(path, value, marks, set())


def parsed(text: str) -> tuple[Any, Marks, list[tuple[int, int, str]]]:
    """(the value, where each part of it stands, keys that stand twice). Raises _NotYaml, whatever is wrong."""
    marks: Marks = {}
    node = None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        twice = list(_walk(node, (), marks)) if node is not None else []
        return yaml.safe_load(text), marks, twice
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        raise _NotYaml(why, (mark.line + 1, mark.column + 1) if mark else None) from None
    except RecursionError:
        raise _NotYaml("nested too deeply", _deepest(text)) from None
    except UNREADABLE as error:
        at = next((_place(each) for each in _scalars(node) if not _is_readable(each)), None)
        raise _NotYaml(f"a value that cannot be read ({error}); put it in quotes", at) from None


UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)
"""What PyYAML's own conversions of dates, numbers and truth values raise."""


def _scalars(node: Any) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            yield from _scalars(part)


def _is_readable(node: yaml.ScalarNode) -> bool:
    try:
        yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, *UNREADABLE):
        return False
    return True


def _deepest(text: str) -> tuple[int, int]:
    """Line and column where most brackets are open."""
    opened = list(accumulate((mark in "[{") - (mark in "]}") for mark in text))
    before = text[: opened.index(max(opened))]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _walk(
    node: yaml.Node, loc: Loc, marks: Marks, within: frozenset[int] = frozenset()
) -> Iterator[tuple[int, int, str]]:
    """Note where every value stands (a key's own place for a mapping's values); yield keys that stand twice.

    Raises _NotYaml for keys that are no words, and for anchors without an end.
    """
    here = _place(node)
    marks.setdefault(loc, here)
    if id(node) in within:
        raise _NotYaml("an anchor that holds itself", here)
    if len(marks) > MOST_VALUES:
        raise _NotYaml(f"more than {MOST_VALUES:,} values, anchors written out", here)
    within |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            yield from _walk(child, (*loc, number), marks, within)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line, column = _place(key)
            if not isinstance(key, yaml.ScalarNode):
                is_template = isinstance(key, yaml.MappingNode)
                cure = "; `{{ ... }}` is a template that was not filled in" if is_template else ""
                raise _NotYaml(f"a key that is no word{cure}", (line, column))
            if key.value in seen and key.value != "<<":
                dotted = ".".join(map(str, (*loc, key.value)))
                yield line, column, f"{dotted}: stands twice, first in line {seen[key.value]}; remove one"
            seen[key.value] = line
            marks[(*loc, key.value)] = (line, column)
            yield from _walk(child, (*loc, key.value), marks, within)


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
