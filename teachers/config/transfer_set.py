"""What a recipe can say of the transfer set: where its rows come from, and who trains, chooses and tests."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from .box_sources import CocoSource, VocSource, YoloSource
from .inputs import InputColumn, Inputs
from .munge import Munge
from .preprocess import FitName
from .split import Labelled as Labelled
from .split import LabelledRows as LabelledRows
from .split import SplitConfig as SplitConfig
from .split import SplitFiles as SplitFiles
from .strict import DELIMITER_PATTERN, Config, ImportString
from .task import ANSWER_OF, TaskName
from .training import Transform, transforms_of

ResampleName = Literal["bilinear", "bicubic", "lanczos", "hamming", "box", "nearest"]


class SklearnSource(Config):
    """A data set that ships inside scikit-learn."""

    kind: Literal["sklearn"]
    name: Literal["digits", "iris", "wine", "breast_cancer"]
    """`digits` has the columns `image` (uint8 [8, 8, 1], 0 to 16) and `digit`; the others `features` and `target`."""


class TableSource(Config):
    """Parquet or Arrow IPC files: one file, or a folder of them (read in the order of their names)."""

    kind: Literal["parquet", "arrow"]
    path: str
    """A file or a folder. Hugging Face image columns (`struct<bytes, path>`) and ClassLabel names are understood."""


class ImageFolderSource(Config):
    """One folder of images per class. Columns: `image` and `label`."""

    kind: Literal["image_folder"]
    path: str
    """The folder that holds the class folders."""


class CsvSource(Config):
    """CSV with a header, one record a row."""

    kind: Literal["csv"]
    path: str
    """A file or a folder."""
    delimiter: str = Field(",", pattern=DELIMITER_PATTERN)
    """Between two values: `";"`, `"\\t"`; `auto`: what parts each file's header into the columns that the recipe names."""


class JsonLinesSource(Config):
    """JSON lines: one object a row, its keys are the columns."""

    kind: Literal["jsonl"]
    path: str
    """A file or a folder."""


class NumpySource(Config):
    """An `.npz` file (its arrays are the columns) or `.npy` files (their names are). Never unpickled.

    Only the arrays that the recipe names count; others may lie beside them.
    """

    kind: Literal["numpy"]
    path: str
    """The `.npz` file, the folder of `.npy` files, or one such file, which is one column."""


class ImportSource(Config):
    """A function of yours that returns a table (of pyarrow, pandas or Polars, or a list of dicts), or an iterator of tables for data that does not fit memory."""

    kind: Literal["import"]
    function: ImportString
    """`package.module:name`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the function; `${NAME}` in them is a variable of the environment."""
    files: list[str] = []
    """Files and folders that the function reads; they count by content, as does an argument that is a path."""
    version: str | None = None
    """Of rows that come from elsewhere, which no digest of code and files decides: a function that opens a connection needs one. Another version, another transfer set."""


Source = Annotated[
    SklearnSource
    | TableSource
    | ImageFolderSource
    | CocoSource
    | VocSource
    | YoloSource
    | CsvSource
    | JsonLinesSource
    | NumpySource
    | ImportSource,
    Field(discriminator="kind"),
]


class TransferSetConfig(Config):
    """The inputs on which teachers are asked; labels are optional."""

    source: Source
    """Where the rows come from."""
    inputs: Inputs
    """Input column, or several: names, or mappings that say how a column is read. Numeric scalar columns are joined into one column `features`, categories into one column `categories`."""
    label: str | Annotated[list[str], Field(min_length=1)] | None
    """Column of the class, or of the number; several columns: numbers, or classes that each hold (1) or not (0); null: no row has a label."""
    label_separator: str | None = Field(None, min_length=1)
    """Of `task: multilabel`: what stands between two classes in a label that is text, `";"` for example."""
    classes: list[str] | None = None
    """Class names in the order of the label's integers, or of its columns; null: from the source's metadata or its sorted values. Without a label column: the names of the classes, or of the numbers, that teachers say."""
    id: str | None = None
    """Column that names a row; null: its path and row number inside the file."""
    key_salt: str = ""
    """Put before every id when it is hashed; the cure for a collision of keys."""
    split: SplitConfig = SplitConfig()
    """Who trains, who chooses, who tests."""
    labelled: Labelled | None = None
    """Stratified training rows whose label may be used, the others are transfer data only; `{train: 100, validation: 50}` counts those of validation too. Null: all."""
    limit: int | None = Field(None, ge=1)
    """So many rows of each split, the first in key order, and one of each class that has none among them; for short runs."""
    image_size: int | None = Field(None, ge=1, le=4096)
    """Edge in pixels that images are stored at, as squares; null: their own size, which must then be equal."""
    fit: FitName = "squash"
    """What `image_size` makes of an image that is no square: `squash` it to one, `crop` its middle, or `pad` it with black."""
    resample: ResampleName = "bilinear"
    """Pillow's filter for that: `bilinear`, `bicubic`, `lanczos`, `hamming`, `box` (all with antialiasing) or `nearest`."""
    decode: Literal["at_prepare", "on_read"] = Field("at_prepare", exclude_if=lambda value: value == "at_prepare")
    """`on_read`: images stay encoded, as they came, and are decoded whenever they are read: for images that would fill the disk as pixels, or that each model sees at a size of its own. The pixels are the same."""
    max_boxes: int = Field(100, ge=1, le=10_000, exclude_if=lambda value: value == 100)
    """Of `task: detection`: boxes of an image, of its label and of what anybody says, at most; every row has room for so many."""
    truncate: bool = Field(False, exclude_if=lambda value: not value)
    """Of `task: detection`: of an image with more than `max_boxes` the largest stay in its label, and it is counted; false: it is a bad row."""
    licence: str | None = Field(None, min_length=1, exclude_if=lambda value: value is None)
    """Under which its rows may be used, in your words: told in the model card and the manifest of what learns from them, and decides nothing."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be used ends the run, or is dropped and counted in the report."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Rows whose inputs are exactly those of a row of another split are counted in the report; `drop` takes them out of the split that learns or chooses: test rows stay, of the rest validation rows."""
    extra: Source | None = Field(None, exclude_if=lambda value: value is None)
    """Further rows without labels, a source of their own with the same input columns: teachers label them, students learn them; they are training rows, all of them, and what they hold of a label is not read."""
    corrections: Source | None = Field(None, exclude_if=lambda value: value is None)
    """Labels that win over the source's, a source of their own with the same label column: the files of `collegium review` after a person has corrected them, for example. Each row that is in it has a label that may be used, beside those that `labelled` counts; inputs, splits and all other rows stay as they are. Of boxes the image's name says of which row it is, else `id`."""
    munge: Munge | None = Field(None, exclude_if=lambda value: value is None)
    """Synthetic training rows of a table, made of its training rows; without labels, as those of `extra`."""
    views: int = Field(0, ge=0, le=10_000)
    """Of every training row, by turns, epoch by epoch: view 0 is the row itself, each other one what `transform` makes of it, the very same for teachers and students. Teachers label all of them. 0: rows as they are."""
    transform: Transform | None = Field(None, exclude_if=lambda value: value is None)
    """What a view is: `flip`, `pad_and_crop`, `random_resized_crop`, `colour_jitter`, `cutout`, `noise`, `mixup` (the weighted mean with another training row, Zhang et al., 2018), or a function (images, seeds) -> images that moves each row by its own seed alone, or a list of these, in order: what stands before `mixup` moves both rows, each by its own draw, what stands behind it their mean."""
    mixup_alpha: float = Field(1.0, gt=0, exclude_if=lambda value: value == 1)
    """Of `mixup`: the share that a row keeps of itself is drawn from Beta(alpha, alpha), for each row and view; 1: all shares are as likely."""
    files: list[str] = Field(default=[], exclude_if=lambda value: not value)
    """Files and folders that functions of `transform` read; they count by content."""
    view_seed: int = Field(0, exclude_if=lambda value: value == 0)
    """Of `transform`: another one gives other views."""
    task: SkipJsonSchema[TaskName] = Field("classification", exclude=True, repr=False)
    """What the label means: the recipe's `task`."""

    @model_validator(mode="after")
    def keeps_groups_apart(self) -> Self:
        if self.extra is not None and self.split.group_by is not None:
            raise ValueError(
                "extra: its rows are training rows whatever their group, and `split.group_by` keeps groups apart; put them into "
                "the source without a label, where the split knows their group"
            )
        return self

    @model_validator(mode="after")
    def has_views_that_can_be_shown(self) -> Self:
        if self.views == 1:
            raise ValueError("views: view 0 is the row itself, so 1 changes nothing; say 0, or 2 and more")
        if self.views and self.transform is None:
            raise ValueError(
                "views need a `transform`, which makes them: flip, pad_and_crop, random_resized_crop, colour_jitter, cutout, noise, mixup, or yours"
            )
        if self.transform is not None and not self.views:
            raise ValueError("transform makes `views`, and there are none; say how many (2 and more), or remove it")
        if self.transforms.count("mixup") > 1:
            raise ValueError("transform names `mixup` twice, and a view is of two rows; say it once")
        if self.mixup_alpha != 1 and "mixup" not in self.transforms:
            raise ValueError("mixup_alpha is of `mixup`, which `transform` does not name; add it there, or remove this")
        if self.views and self.decode == "on_read":
            raise ValueError(
                "views are of images as all see them, and with `decode: on_read` each model sees its own; remove one of them"
            )
        if self.views and self.boxes:
            raise ValueError(
                "views: boxes do not follow `transform` yet; remove it, and say `train.augment` of who learns"
            )
        return self

    @model_validator(mode="after")
    def has_a_size_to_be_read_at(self) -> Self:
        if self.decode == "on_read" and self.image_size is None:
            raise ValueError(
                "`decode: on_read` needs `image_size`: the size at which images are seen by whoever says no size of its own"
            )
        return self

    @property
    def transforms(self) -> tuple[str, ...]:
        """The steps of `transform`, in order."""
        return tuple(transforms_of(self.transform))

    @property
    def boxes(self) -> int:
        """That anybody says of a row, at most; 0 where nobody says boxes."""
        return self.max_boxes if ANSWER_OF[self.task] == "boxes" else 0

    @property
    def labels(self) -> list[str]:
        """The columns of the label."""
        return [] if self.label is None else [self.label] if isinstance(self.label, str) else self.label

    @property
    def input_columns(self) -> tuple[InputColumn, ...]:
        """Every input column, with what is said of it."""
        given = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        return tuple(InputColumn(column=each) if isinstance(each, str) else each for each in given)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(each.column for each in self.input_columns)

    @property
    def stratifies(self) -> Literal["no", "missing", "all"]:
        """Which classes may be divided otherwise than by the hash of each row alone."""
        divided = self.split.files is None or self.split.files.validation is None
        if self.label is None or self.split.group_by is not None or not divided or self.split.stratify is False:
            return "no"
        if self.split.stratify:
            return "all"
        return "missing" if self.limit is None else "no"

    @property
    def labelled_by_split(self) -> dict[Literal["train", "validation", "test", "teachers"], int]:
        """Of the splits that `labelled` restricts, how many labels may be used."""
        given = self.labelled if isinstance(self.labelled, LabelledRows) else LabelledRows(train=self.labelled)
        found: dict[Literal["train", "validation", "test", "teachers"], int | None]
        found = {"train": given.train, "validation": given.validation, "teachers": given.teachers}
        return {split: count for split, count in found.items() if count is not None}
