"""What a recipe can say of one input column: what kind of thing it holds, and how its values are written."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from .strict import Config

AsName = Literal["number", "category", "date", "text"]
UnitName = Literal["seconds", "minutes", "hours", "days"]


class InputColumn(Config):
    """One input column, and how it is read."""

    model_config = ConfigDict(serialize_by_alias=True)

    column: str
    """Its name in the source."""
    as_: AsName | None = Field(None, alias="as")
    """`number`, `category` (one of the values that training rows have), `text` (words to be read, for `preprocess` or a teacher to make something of) or `date` (a number: how long after 1970 in UTC, of a duration how long, of a time of day how long after midnight). Null: numbers are numbers; strings are text where they are words in a row that hardly come twice, or long; other strings, truth values and dictionaries are categories."""
    unit: UnitName = "days"
    """Of a `date`."""
    format: str | None = Field(None, min_length=1)
    """Of a `date` in text, as strptime has it (`%d.%m.%Y`); null: ISO 8601, `2026-11-29` or `2026-11-29T08:30:00Z`."""
    missing: Literal["allow", "refuse"] | None = None
    """Whether a row may have no value. Null: `allow` for categories, `refuse` for numbers and text, where it would be empty text."""
    nulls: list[str] | None = None
    """Text that stands for no value, beside what is empty (which of `text` is a value). Null: of numbers that may be missing `NA`, `N/A`, `null` and `None`; of categories and text nothing else."""
    decimal: Literal[".", ","] = "."
    """In numbers that are text: `1,5` is one and a half with `,`."""
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """Between groups of three digits in numbers that are text: `1,234.5`."""
    most_common: int | None = Field(None, ge=1, le=100_000)
    """Of a category: so many values of the training rows, the commonest; the others count as unknown. Null: all, of which there may be 1,000."""

    @model_validator(mode="after")
    def says_what_its_kind_has(self) -> Self:
        of_kinds = {
            "unit": ("date",),
            "format": ("date",),
            "decimal": ("number", None),
            "thousands": ("number", None),
            "most_common": ("category", None),
        }
        for key, kinds in of_kinds.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.as_ not in kinds:
                raise ValueError(f"`{key}` is of `as: {kinds[0]}`, and {self.column!r} is `as: {self.as_}`")
        if self.thousands == self.decimal:
            raise ValueError(f"{self.column!r}: `thousands` and `decimal` are both {self.decimal!r}")
        return self


InputEntry = Annotated[
    Annotated[str, Tag("name")] | Annotated[InputColumn, Tag("column")],
    Discriminator(lambda value: "column" if isinstance(value, dict | InputColumn) else "name"),
]
Inputs = Annotated[
    Annotated[str, Tag("one")] | Annotated[list[InputEntry], Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
