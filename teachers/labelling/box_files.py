"""Boxes with scores as files that other programs train on: COCO's JSON, YOLO's text. The sources of these kinds read them back.

Knows nothing of stores, or of where boxes and images come from.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from ..tasks.boxes import CLASS, SCORE
from ..transfer_set.transfer_set import SPLITS, SplitName

IMAGES = "images"
Boxes = NDArray[np.float32]
"""`[n, 6]` as `tasks.boxes.BOX` has them: corners in 0 to 1, the score, the class."""


@dataclass(frozen=True)
class Shown:
    """An image of which something is said. `file`: inside the folder; `size`: (width, height) as it is seen."""

    file: str
    split: SplitName
    size: tuple[int, int]
    key: int


class BoxFiles(Protocol):
    """Written image by image. `labels`: of all teachers together, what is to be learnt; `said`: all boxes of each teacher, and
    of all together."""

    def add(self, shown: Shown, labels: Boxes, said: Mapping[str, Boxes]) -> None: ...
    def finish(self) -> None: ...


@dataclass
class CocoFiles:
    """`annotations/SPLIT.json`, and of each teacher `said/NAME/SPLIT.json`; annotations have a `score`."""

    folder: Path
    names: tuple[str, ...]
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, shown: Shown, labels: Boxes, said: Mapping[str, Boxes]) -> None:
        self._add(f"annotations/{shown.split}.json", shown, labels)
        for name, boxes in said.items():
            self._add(f"said/{name}/{shown.split}.json", shown, boxes)

    def _add(self, path: str, shown: Shown, boxes: Boxes) -> None:
        document = self.documents.setdefault(path, {"images": [], "annotations": [], "categories": self._categories()})
        number, (width, height) = len(document["images"]) + 1, shown.size
        about = {"id": number, "file_name": shown.file, "width": width, "height": height, "sample_key": str(shown.key)}
        document["images"].append(about)
        edge = np.array([width, height, width, height], np.float64)
        for corners, box in zip((boxes[:, :SCORE] * edge).tolist(), boxes, strict=True):
            x, y, w, h = corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(box[CLASS]) + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "score": round(float(box[SCORE]), 6),
                }
            )

    def _categories(self) -> list[dict[str, Any]]:
        return [{"id": number, "name": name} for number, name in enumerate(self.names, 1)]

    def finish(self) -> None:
        for path, document in self.documents.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(json.dumps(document, ensure_ascii=False), "utf-8")


@dataclass
class YoloFiles:
    """`data.yaml`, `labels/SPLIT/NAME.txt`, and with a score as sixth number `said/NAME/SPLIT/NAME.txt`: a trainer that reads labels
    takes five."""

    folder: Path
    names: tuple[str, ...]
    splits: dict[str, None] = field(default_factory=dict)

    def add(self, shown: Shown, labels: Boxes, said: Mapping[str, Boxes]) -> None:
        self.splits[shown.split] = None
        text = PurePosixPath(shown.file).with_suffix(".txt").name
        self._write(f"labels/{shown.split}/{text}", labels, with_score=False)
        for name, boxes in said.items():
            self._write(f"said/{name}/{shown.split}/{text}", boxes, with_score=True)

    def _write(self, path: str, boxes: Boxes, *, with_score: bool) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(
            "".join(_line(box, with_score=with_score) for box in boxes.astype(np.float64)), "ascii"
        )

    def finish(self) -> None:
        own = {"train": "train", "validation": "val", "test": "test"}
        entries = {own[split]: f"{IMAGES}/{split}" for split in SPLITS if split in self.splits}
        document = {**entries, "names": dict(enumerate(self.names))}
        (self.folder / "data.yaml").write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), "utf-8")


def _line(box: NDArray[np.float64], *, with_score: bool) -> str:
    x1, y1, x2, y2 = box[:SCORE].tolist()
    numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    told = [f"{value:.12g}" for value in numbers] + ([f"{box[SCORE]:.6g}"] if with_score else [])
    return f"{int(box[CLASS])} {' '.join(told)}\n"


def usable(boxes: Boxes) -> Boxes:
    """Those that are boxes to whoever reads them: in the image, with an area, each once (of the same class, the best)."""
    there = boxes[boxes[:, CLASS] >= 0]
    there[:, :SCORE] = there[:, :SCORE].clip(0, 1)
    there = there[(there[:, 2:SCORE] > there[:, :2]).all(1)]
    best = there[np.argsort(-there[:, SCORE], kind="stable")]
    _, first = np.unique(best[:, [0, 1, 2, 3, CLASS]], axis=0, return_index=True)
    found: Boxes = best[np.sort(first)]
    return found


FILES: Mapping[str, type[CocoFiles] | type[YoloFiles]] = {"coco": CocoFiles, "yolo": YoloFiles}


def named_apart(names: Sequence[str], keys: Sequence[int]) -> list[str]:
    """File names without folders, each once: of those that two have, the row's key stands behind."""
    plain = [PurePosixPath(name).name for name in names]
    stems = [PurePosixPath(name).stem.lower() for name in plain]
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem] = counts.get(stem, 0) + 1
    return [
        name if counts[stem] == 1 else f"{PurePosixPath(name).stem}-{key:016x}{PurePosixPath(name).suffix}"
        for name, stem, key in zip(plain, stems, keys, strict=True)
    ]
