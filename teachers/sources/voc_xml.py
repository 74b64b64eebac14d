"""One XML file of Pascal VOC: the image's size, and boxes with the lines that they stand in.

A file that declares entities is refused before one is read: a few of them can stand for gigabytes, or for other files.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

CORNERS = ("xmin", "ymin", "xmax", "ymax")
OBJECT = ("annotation", "object")


class NotVoc(ValueError):
    """Why a file is none; the message names the line."""


@dataclass
class VocObject:
    line: int
    said: dict[str, str] = field(default_factory=dict)
    """By the names of its elements, `name`, `difficult`, `bndbox/xmin`."""

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Raises NotVoc for what is no box."""
        told = [self.said.get(f"bndbox/{name}", "") for name in CORNERS]
        try:
            x1, y1, x2, y2 = map(float, told)
        except ValueError:
            lacks = [name for name, text in zip(CORNERS, told, strict=True) if not text]
            what = f"has no {lacks[0]}" if lacks else f"has {', '.join(map(repr, told))}"
            raise NotVoc(f"line {self.line}: the object {what}, expected bndbox with {', '.join(CORNERS)}") from None
        return x1, y1, x2, y2


@dataclass
class VocFile:
    objects: list[VocObject] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    """Of the image: `filename`, `size/width`."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height), None where it does not say: programs write 0 for what they do not know."""
        try:
            width, height = (int(float(self.said.get(f"size/{name}", "0"))) for name in ("width", "height"))
        except (ValueError, OverflowError):
            return None
        return (width, height) if width > 0 and height > 0 else None


def read_voc_xml(path: Path) -> VocFile:
    """Raises NotVoc for what is no such file, OSError for one that cannot be read."""
    reader = _Reader()
    try:
        reader.parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise NotVoc(f"line {error.lineno}: no XML ({expat.errors.messages[error.code]})") from None
    return reader.found


class _Reader:
    """Gathers the text of every element on the way."""

    def __init__(self) -> None:
        self.found = VocFile()
        self.path: list[str] = []
        self.text: list[str] = []
        self.parser: Any = expat.ParserCreate()
        self.parser.EntityDeclHandler = self._refused
        self.parser.ExternalEntityRefHandler = self._refused
        self.parser.StartElementHandler = self._begins
        self.parser.EndElementHandler = self._ends
        self.parser.CharacterDataHandler = self.text.append

    def _refused(self, *_: Any) -> int:
        raise NotVoc(f"line {self.parser.CurrentLineNumber}: declares an entity, which no annotation needs; remove it")

    def _begins(self, name: str, _: Any) -> None:
        self.path.append(name)
        self.text.clear()
        if len(self.path) == 1 and name != OBJECT[0]:
            raise NotVoc(f"line {self.parser.CurrentLineNumber}: is <{name}>, expected <{OBJECT[0]}>")
        if tuple(self.path) == OBJECT:
            self.found.objects.append(VocObject(self.parser.CurrentLineNumber))

    def _ends(self, name: str) -> None:
        of_object = tuple(self.path[:2]) == OBJECT
        said = self.found.objects[-1].said if of_object else self.found.said
        inner = "/".join(self.path[2 if of_object else 1 :])
        if inner:
            said.setdefault(inner, "".join(self.text).strip())
        self.path.pop()
        self.text.clear()
