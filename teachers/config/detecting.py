"""What a recipe can say of teachers that say boxes (`task: detection`). Imports no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .strict import Config

DecodeName = Literal["yolo", "detr", "raw"]
LayoutName = Literal["yolov8", "yolov5", "end_to_end"]
FitName = Literal["letterbox", "squash"]
BoxFormat = Literal["coco", "yolo", "voc"]
SCORE_ABOVE = 0.01
NMS_ABOVE = 0.7


def _is_none(value: Any) -> bool:
    return value is None


class Detector(Config):
    """Who is asked where things are in an image. What is said here is in keys; what is left out is not."""

    score_above: float | None = Field(None, ge=0, lt=1, exclude_if=_is_none)
    """Boxes with this score or less are left out, before the best `transfer_set.max_boxes` are kept; null: 0.01. The store keeps all others with their scores: from which one on a box counts is chosen when students learn."""
    nms_above: float | None = Field(None, gt=0, le=1, exclude_if=_is_none)
    """Of two boxes of one class that overlap by more (IoU), the one with the lower score is left out. Null: 0.7 of `decode: yolo` and of `flips`; of other detectors nothing is left out, as their own post-processing does."""
    flips: bool = Field(False, exclude_if=lambda value: not value)
    """Ask about the mirrored image too: both answers together, through `nms_above`. Twice the work."""


class AskedInWords(Detector):
    """A detector of which some kinds are told what to look for."""

    prompts: dict[str, str] | None = Field(None, min_length=1, exclude_if=_is_none)
    """What to look for, in words, and the class that it is: `{"red blood cell": RBC, "a white blood cell": WBC}`. Several may lead to one class, of which the best counts. For OWL-ViT, OWLv2 and Grounding DINO, which know no classes of their own."""
    examples: dict[str, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None, min_length=1, exclude_if=_is_none
    )
    """What to look for, as pictures, by class: files of crops, each of one such thing, `{WBC: [crops/one.png, crops/two.png]}`. For OWL-ViT and OWLv2, beside `prompts` or alone. Their content counts, not where they lie."""

    @property
    def asked_for(self) -> tuple[str, ...]:
        """The classes that `prompts` and `examples` lead to, in their order; none: it knows classes of its own."""
        return tuple(dict.fromkeys([*(self.prompts or {}).values(), *(self.examples or {})]))


class DecodedGraph(Detector):
    """A graph whose numbers are to be read as boxes."""

    decode: DecodeName | None = Field(None, exclude_if=_is_none)
    """Of boxes, how the graph's numbers are read. `yolo`: one output, see `layout`. `detr`: logits `[rows, places, classes]` (sigmoid) or with one class more, which is none (softmax), and boxes `[rows, places, 4]`, centre and size in 0 to 1. `raw`: `[rows, places, 6]`, corners in 0 to 1 of its input, score and number of the class, as they are."""
    layout: LayoutName | None = Field(None, exclude_if=_is_none)
    """Of `decode: yolo`. `yolov8`: `[rows, 4 + classes, places]`, centre and size in pixels of its input, scores. `yolov5`: `[rows, places, 5 + classes]`, the same with whether there is anything before the scores. `end_to_end`: `[rows, places, 6]`, corners in pixels, score, number of the class. Null: by its shape, where that fits one."""
    strides: list[Annotated[int, Field(ge=1)]] | None = Field(None, min_length=1, exclude_if=_is_none)
    """Of `layout: yolov5` whose boxes are still offsets in its grids (YOLOX): pixels of a cell of each, `[8, 16, 32]`, in the graph's order. Null: boxes are in pixels."""
    fit: FitName | None = Field(None, exclude_if=_is_none)
    """How an image becomes the graph's input. `letterbox`: as large as fits, in the middle of grey (114); `squash`: stretched. Null: `letterbox` of `decode: yolo`, else `squash`. Its size is the graph's, or `preprocess.resize` where the graph takes any."""

    @model_validator(mode="before")
    @classmethod
    def says_boxes_where_they_are_decoded(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("decode") is not None:
            return {"output": "boxes", **value}
        return value

    @model_validator(mode="after")
    def reads_one_layout(self) -> Self:
        if self.decode != "yolo" and (self.layout or self.strides):
            raise ValueError(
                f"`{'layout' if self.layout else 'strides'}` is of `decode: yolo`: leave it out, or say that"
            )
        if self.strides and self.layout != "yolov5":
            raise ValueError("`strides` are of boxes that are offsets in grids: say `layout: yolov5` with it")
        return self


OF_BOXES = (
    "prompts",
    "examples",
    "score_above",
    "nms_above",
    "flips",
    "decode",
    "layout",
    "strides",
    "fit",
    "format",
    "images",
)
"""What only teachers of boxes are told."""
