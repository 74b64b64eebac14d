"""What a recipe can say of who trains, who chooses and who tests, and of which labels may be used."""

from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .strict import Config


class SplitFiles(Config):
    """Files of each split; names inside `source.path`."""

    train: str
    """File or folder of the training rows."""
    validation: str | None = None
    """File or folder of the validation rows; null: `split.validation` is taken out of train."""
    test: str
    """File or folder of the test rows."""


class SplitConfig(Config):
    """Who is in which split: by a seeded hash of the row's key (or of `group_by`), or by given files."""

    train: float | None = Field(None, gt=0, lt=1)
    """Share of training rows; null: what the others leave."""
    validation: float | None = Field(None, gt=0, lt=1)
    """Share of validation rows (default 0.1); with `files` and no validation file a share of train."""
    test: float | None = Field(None, gt=0, lt=1)
    """Share of test rows (default 0.2); not with `files`."""
    seed: int = Field(0, ge=0)
    """Another seed, another split."""
    group_by: str | None = None
    """Column whose equal values always fall into the same split."""
    stratify: bool | None = None
    """`true`: every class is divided by the shares, to within a row or a tenth of what it should have, and none misses a split where it has a row for each. Null: only classes that would miss a split are divided so, and none with `limit`. `false`: by the hash alone."""
    files: SplitFiles | None = None
    """Files that are the splits."""

    @model_validator(mode="after")
    def can_be_stratified(self) -> Self:
        if self.stratify and self.group_by is not None:
            raise ValueError(
                "`stratify` would part the rows of a group, which `group_by` keeps together; give one of them"
            )
        if self.stratify and self.files is not None and self.files.validation is not None:
            raise ValueError("the files are the splits, so there is nothing to `stratify`; remove it")
        return self

    @model_validator(mode="after")
    def shares_add_up(self) -> Self:
        if self.files is not None:
            if self.train is not None or self.test is not None:
                raise ValueError("`files` gives train and test; of the shares only `validation` may stand beside it")
            if self.files.validation is not None and self.validation is not None:
                raise ValueError("give a validation file or a validation share, not both")
        else:
            total = (self.train or 0.0) + self.validation_share + self.test_share
            if total > 1 + 1e-9:
                raise ValueError(f"train, validation and test add up to {total:g}, more than 1")
            if self.train is None and total >= 1 - 1e-9:
                raise ValueError("validation and test leave nothing to train on")
        return self

    @property
    def validation_share(self) -> float:
        return 0.1 if self.validation is None else self.validation

    @property
    def test_share(self) -> float:
        return 0.2 if self.test is None else self.test


class LabelledRows(Config):
    """How many labels may be used, by split; stratified, the other rows of that split have none."""

    train: int | None = Field(None, ge=1)
    """To learn from; the other training rows are transfer data only. Null: all."""
    validation: int | None = Field(None, ge=1)
    """To choose weights, seeds and settings, and to judge teachers. Null: all."""
    teachers: int | None = Field(None, ge=1, exclude_if=lambda value: value is None)
    """Further labelled training rows that teachers who are trained here have for themselves: they learn from `train` and from these; no student and no control sees an input or a label of them. Null: none."""


Labelled = Annotated[
    Annotated[int, Field(ge=1), Tag("train")] | Annotated[LabelledRows, Tag("by split")],
    Discriminator(lambda value: "by split" if isinstance(value, dict | LabelledRows) else "train"),
]
