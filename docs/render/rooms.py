"""The picture of the rooms and the list of what is in each, from the order that a test holds and the rooms' own words."""

import ast

from tests.rooms import BESIDE, PACKAGES, ROOMS

from . import ROOT
from .tables import row


def picture() -> str:
    """Mermaid: a column a package; an arrow says who may import whom, all floors below included."""
    lines = ["```mermaid", "flowchart TB"]
    for package in PACKAGES:
        lines += [f"  subgraph {package}", "    direction TB"]
        names = [f'{package}_{room}["{room}"]' for room in ROOMS[package]]
        lines += [f"    {' --> '.join(names)}", "  end"]
    return "\n".join([*lines, f"  {' --> '.join(PACKAGES)}", "```"])


def listed() -> str:
    """One row a room, top first: what it is."""
    lines = [row("room", "is"), "|---|---|"]
    for package in PACKAGES:
        lines += [row(f"`{package}/{room}/`", _said(package, room)[0]) for room in ROOMS[package]]
    return "\n".join(lines)


def told() -> str:
    """A table a package: each room, what it is and is not, and its modules."""
    parts = []
    for package in PACKAGES:
        lines = [row("room", "is", "modules"), "|---|---|---|"]
        for room in ROOMS[package]:
            lines.append(row(f"`{room}/`", " ".join(_said(package, room)), ", ".join(_modules(package, room))))
        beside = ", ".join(f"`{name}`" for name in BESIDE[package] if not name.startswith("__"))
        parts += [f"### {package}", "\n".join(lines), f"Beside the rooms: {beside}." if beside else ""]
    return "\n\n".join(filter(None, parts))


def _said(package: str, room: str) -> list[str]:
    """Paragraphs of the room's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / package / room / "__init__.py").read_text("utf-8"))) or ""
    return [" ".join(part.split()) for part in text.split("\n\n")]


def _modules(package: str, room: str) -> list[str]:
    folder = ROOT / package / room
    found = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py")]
    return [f"`{name}`" for name in sorted(found) if not name.endswith("__init__")]
