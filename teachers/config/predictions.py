"""What a recipe can say of predictions that exist: a file of what somebody has said of the rows. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from .any_teacher import OutputKind, TeacherCommon
from .detecting import BoxFormat
from .preprocess import Preprocess
from .strict import DELIMITER_PATTERN

PredictedKind = Literal[OutputKind, "classes"]


class PredictionsTeacher(TeacherCommon):
    """A file of what somebody has said of the rows: nobody is asked, what is said of a row is looked up by its id."""

    kind: Literal["predictions"]
    path: str
    """Parquet, Arrow IPC, CSV, JSON lines or `.npz`: a file, or a folder of files of one kind; of boxes as `format` says. Or the folder of a store, of another OUT or of somebody else (`sample_key: sample_key`, `output: logits`). Its content counts, not where it lies."""
    format: BoxFormat | None = Field(None, exclude_if=lambda value: value is None)
    """Of `output: boxes`. `coco`: a JSON list of results (`image_id`, `category_id`, `bbox`, `score`) with `images` beside it; `yolo`: a folder of one `.txt` an image, lines of class, centre, size and perhaps a score; `voc`: a folder of one `.xml` an image. Rows are found by the names of their files."""
    images: str | None = Field(None, exclude_if=lambda value: value is None)
    """Of `format: coco` the JSON that names the images (and categories) of the results; of the others perhaps a text file with the name of an image on each line. All images in it were asked about: one without boxes is empty. One that is in no file at all is unknown."""
    delimiter: str = Field(",", pattern=DELIMITER_PATTERN)
    """Of CSV, between two values."""
    id: str | None = None
    """Column that names a row as `transfer_set.id` does; without that its path and row number, as `collegium store export` writes them."""
    sample_key: str | None = Field(None, exclude_if=lambda value: value is None)
    """Instead of `id`: column of the transfer set's own row keys, as an imported bundle and `collegium store export` have them."""
    by_row_number: bool = False
    """Instead of `id`: the first row is of the source's first row, and so on; there must be as many."""
    scores: str | list[str] | None = None
    """Where the numbers stand: a column of lists, or of structs by class; columns, one a class; of `output: classes` the column of the class. Null: a column for each class, by its name."""
    indices: str | None = Field(None, exclude_if=lambda value: value is None)
    """Of the most probable classes alone (top-k): the column of lists that says which these are, by their numbers among `classes`; `scores` is that of their (log-)probabilities, and what is left is spread evenly over the others."""
    output: PredictedKind
    """What they are; `classes`: the class alone, of which the floor makes a probability (`encoding: label` keeps no more)."""
    label: str | None = None
    """Column of the true class, to be compared with the transfer set's: rows that are not those that they are taken for end the run."""
    max_missing: float = Field(0.0, ge=0, lt=1)
    """Share of the transfer set's rows of which the file may say nothing. They are unknown: this teacher takes no part in them."""

    @model_validator(mode="after")
    def says_how_its_boxes_are_written(self) -> Self:
        if (self.output == "boxes") != (self.format is not None):
            raise ValueError("`output: boxes` and `format` (coco, yolo or voc) go together: say both, or neither")
        if self.images is not None and self.format is None:
            raise ValueError("`images` names the images of boxes (`output: boxes`): leave it out")
        if self.format == "coco" and self.images is None:
            raise ValueError("`format: coco` needs `images`, the JSON whose `images` say which number is which file")
        if self.format is not None and (self.scores, self.label) != (None, None):
            raise ValueError("files of boxes have no columns: leave `scores` and `label` out")
        return self

    @model_validator(mode="after")
    def names_its_rows(self) -> Self:
        named = self.id is not None or self.sample_key is not None or self.by_row_number
        if self.format is not None:
            if named:
                raise ValueError(
                    "files of boxes are found by their names: leave `id`, `sample_key` and `by_row_number` out"
                )
            return self
        if [self.id is not None, self.sample_key is not None, self.by_row_number].count(True) != 1:
            raise ValueError(
                "say whose row is whose: `id`, the column that names it, `sample_key`, that of its key, or `by_row_number: "
                "true`, one of them"
            )
        return self

    @model_validator(mode="after")
    def is_looked_up(self) -> Self:
        if self.mode == "live":
            raise ValueError("a file says nothing of rows as they are augmented: leave `mode: live` out")
        if self.preprocess != Preprocess():
            raise ValueError("nobody is asked, so nothing is fed: leave `preprocess` out")
        if self.indices is not None and not (isinstance(self.scores, str) and "probabilities" in self.output):
            raise ValueError(
                "`indices` goes with `scores`, one column of lists, and `output: probabilities` or `log_probabilities`: of some "
                "logits nobody knows how probable the others are"
            )
        if self.output == "classes" and isinstance(self.scores, list):
            raise ValueError("`output: classes` is one column: `scores: NAME`")
        if self.output == "classes" and self.scores is None:
            raise ValueError("`output: classes` needs `scores`, the column of the class")
        return self
