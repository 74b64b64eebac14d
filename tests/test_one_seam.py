"""Nothing but the tasks knows which task it is: no comparison with a task's name elsewhere, and no figure by its name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from teachers.config.task import TaskName

ROOT = Path(__file__).parents[1]
PACKAGES = ("teachers", "students", "orchestrator")
FIGURE = "accuracy"
NAMES_OF_METRICS = Path("teachers/process/prometheus.py")
"""Prometheus' names are a table of their own, which pages quote."""


def code() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "tasks" not in path.relative_to(ROOT).parts:
                yield path.relative_to(ROOT)


def documented(nodes: list[ast.AST]) -> set[int]:
    """The ids of string nodes that are docstrings, of attributes too."""
    return {id(node.value) for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}


def words(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every name and every string that is no docstring, with its line."""
    docstrings = documented(nodes)
    for node in nodes:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield node.lineno, text


def comparisons(nodes: list[ast.AST]) -> Iterator[int]:
    """Lines where something is compared with the name of a task, also as a case of a match."""
    names = set(get_args(TaskName))
    for node in nodes:
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = [each for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)]
        elif isinstance(node, ast.MatchValue):
            found = [each for each in ast.walk(node) if isinstance(each, ast.Constant)]
        else:
            continue
        if any(each.value in names for each in found if isinstance(each.value, str)):
            yield getattr(node, "lineno", 0)


def test_no_code_outside_the_tasks_asks_which_task_it_is_or_names_a_figure():
    for path in code():
        nodes = [*ast.walk(ast.parse((ROOT / path).read_text()))]
        compared = [*comparisons(nodes)]
        assert not compared, f"{path}: compared with the name of a task: put it into a table of the tasks"
        if path != NAMES_OF_METRICS:
            assert not [(line, text) for line, text in words(nodes) if FIGURE in text.lower()], path


def test_no_page_asks_which_task_it_is_or_names_a_figure():
    pages = [path for package in PACKAGES for path in (ROOT / package).rglob("*.j2")]
    assert pages
    for path in pages:
        text = path.read_text()
        assert FIGURE not in text.lower(), path
        assert not re.search(r"task\s*(==|!=|in\b)", text), path


def test_the_search_finds_what_it_looks_for():
    tree = ast.parse("def f(task):\n    'accuracy'\n    return task == 'regression' and found['accuracy']")
    nodes = [*ast.walk(tree)]
    assert [*comparisons(nodes)] == [3]
    assert [text for _, text in words(nodes) if FIGURE in text] == [FIGURE]
