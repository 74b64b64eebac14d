"""What a recipe can say of images whose boxes stand in files of COCO, Pascal VOC or YOLO."""

from typing import Literal

from .strict import Config

UnannotatedName = Literal["empty", "unlabelled"]
OrientationName = Literal["auto", "stored", "shown"]
"""Of which pixels the boxes of an image are that its EXIF data turns."""


class CocoSource(Config):
    """COCO's `instances.json` and its images. Columns: `image`, `boxes`, `file`, `folder`, and what else its `images` say.

    `boxes` are in pixels of the image as it is seen, each with its category's name; `crowd` of `iscrowd`.
    """

    kind: Literal["coco"]
    path: str
    """The folder that holds all of it; `split.files` names its JSON files. Or the one JSON file, the images beside it or below."""
    annotations: str | None = None
    """The JSON file inside `path`; null: the only one that is there, or those of `split.files`."""
    images: str | None = None
    """Folder inside `path` that the file names start from; null: where the first image is found: beside the JSON file, in `path`, in `images`, or in the folder that the JSON file is named after (`instances_train2017.json`: `train2017`)."""
    unannotated: UnannotatedName = "empty"
    """An image without an annotation: nothing is on it, or nobody has looked, so it has no label. A file that has no `annotations` at all has no labels."""
    orientation: OrientationName = "auto"
    """Boxes are of the pixels as `stored`, or as `shown` after the turn that EXIF data asks for. `auto`: the file's `width` and `height` say it; where they do not, the row is bad."""


class VocSource(Config):
    """Pascal VOC: `Annotations/*.xml`, `JPEGImages`, `ImageSets/Main/*.txt`. Columns: `image`, `boxes`, `file` and `folder`."""

    kind: Literal["voc"]
    path: str
    """The folder that holds these; `split.files` names lists of `ImageSets/Main` (`train`)."""
    annotations: str = "Annotations"
    """Folder of the XML files, inside `path`."""
    images: str = "JPEGImages"
    """Folder of the images, inside `path`."""
    difficult: Literal["ignore", "keep", "drop"] = "ignore"
    """Of boxes that are marked so: where they are nothing is judged (as VOC itself has it), they are boxes like others, or nothing."""
    first_pixel: Literal[0, 1] = 0
    """1: pixels count from 1 and a box includes its last one, as in VOC's own files; 0: corners are points, as most programs write them."""
    unannotated: UnannotatedName = "unlabelled"
    """An image without an XML file: nobody has looked, so it has no label, or nothing is on it."""
    orientation: OrientationName = "auto"
    """Boxes are of the pixels as `stored`, or as `shown` after the turn that EXIF data asks for. `auto`: the XML's `size` says it; where it does not, the row is bad."""


class YoloSource(Config):
    """YOLO: `data.yaml`, images, and a `.txt` file of boxes for each. Columns: `image`, `boxes`, `file` and `folder`."""

    kind: Literal["yolo"]
    path: str
    """`data.yaml`, or the folder that it lies in; `split.files` names its entries (`{train: train, validation: val, test: test}`)."""
    unannotated: UnannotatedName = "empty"
    """An image without a `.txt` file: nothing is on it, as YOLO has it, or nobody has looked, so it has no label."""
    orientation: Literal["stored", "shown"] = "shown"
    """Shares of width and height are of the image as `stored`, or as `shown` after the turn that EXIF data asks for, as YOLO reads it."""
