"""Prompts: Jinja templates over the columns of a row, in a sandbox, in which nothing is undefined."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import SandboxedEnvironment

from ...errors import RecipeError, TeacherError
from ...sources.files import nearest

ROW, CLASSES = "row", "classes"
"""Names beside the columns: all of them, for those whose names are no words of Jinja's; the words of the classes."""
ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, finalize=lambda value: "" if value is None else value)
"""What a row has no value for is empty."""


class Prompt:
    """A template that names columns of a row. Raises RecipeError for one that cannot be, beginning with its `key`."""

    def __init__(
        self, text: str, key: str, columns: Sequence[str], words: Sequence[str], *, may_be_fixed: bool = False
    ) -> None:
        try:
            tree = ENVIRONMENT.parse(text)
            self.template = ENVIRONMENT.from_string(text)
        except TemplateSyntaxError as error:
            raise RecipeError(f"{key}: line {error.lineno}: {error.message}") from None
        named = meta.find_undeclared_variables(tree)
        if strange := sorted(named - {*columns, ROW, CLASSES}):
            raise RecipeError(f"{key}: no column {strange[0]!r}{nearest(strange[0], columns)}")
        if not named & {*columns, ROW} and not may_be_fixed:
            raise RecipeError(
                f"{key}: names no column, so it asks the same of every row; `{{{{ {columns[0]} }}}}` stands for one of "
                f"{', '.join(map(repr, columns[:10]))}"
            )
        self.key, self.words = key, list(words)
        self.columns = set(columns) if ROW in named else named & {*columns}
        """That it needs."""

    def __call__(self, row: Mapping[str, Any]) -> str:
        try:
            return self.template.render({**row, ROW: row, CLASSES: self.words})
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise TeacherError(f"{self.key}: cannot be filled in: {type(error).__name__}: {error}") from error
