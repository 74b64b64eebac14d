"""What every part of a recipe is made of: a frozen model, an import string, a union chosen by a field."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, StringConstraints

IMPORT_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
ImportString = Annotated[str, StringConstraints(pattern=IMPORT_PATTERN)]
"""`package.module:name`, the extension mechanism everywhere."""


LONGEST_NAME = 64
NAME_PATTERN = rf"^[A-Za-z][A-Za-z0-9_-]{{0,{LONGEST_NAME - 1}}}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Of a recipe, and of everything in it that has one: a part of folders, figures and `cohort.member`."""
DELIMITER_PATTERN = r"^(auto|[^\n\r\"])$"
IN_WORDS = {
    NAME_PATTERN: f"a name begins with a letter and has letters, digits, _ and -, at most {LONGEST_NAME}",
    DELIMITER_PATTERN: "a delimiter is one character, or `auto`",
}
"""What a pattern asks for, for people."""


class Config(BaseModel):
    """Frozen and strict: a misspelt key is an error, and the bound sits on the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def tag_or(names: tuple[str, ...], field: str, otherwise: str) -> Discriminator:
    """Choose a union's member by `field`: itself when it is one of `names`, else `otherwise` (an import string)."""

    def choose(value: Any) -> str:
        found = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return found if found in names else otherwise

    return Discriminator(choose)
