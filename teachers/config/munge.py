"""What a recipe can say of synthetic rows of a table: how many, and how far they lie from the rows that they are made of."""

from typing import Self

from pydantic import Field, model_validator

from .strict import Config


class Munge(Config):
    """Synthetic training rows of a table, each made of a training row and of the one next to it (MUNGE: Bucila, Caruana and Niculescu-Mizil, 2006)."""

    rows: int | None = Field(None, ge=1)
    """So many."""
    factor: float | None = Field(None, gt=0)
    """So many times the training rows of the source."""
    p: float = Field(0.2, ge=0, le=1)
    """With what probability a value is changed."""
    s: float = Field(1.0, gt=0)
    """A number is drawn around that of the next row, with a standard deviation of their distance divided by this: more, nearer."""
    seed: int = Field(0, ge=0)
    """Another seed, other rows."""

    @model_validator(mode="after")
    def says_how_many(self) -> Self:
        if (self.rows is None) == (self.factor is None):
            raise ValueError("give `rows` or `factor`, one of them: how many synthetic rows there shall be")
        return self

    def of(self, rows: int) -> int:
        """How many synthetic rows are made of so many."""
        return self.rows if self.rows is not None else max(1, round((self.factor or 0) * rows))
