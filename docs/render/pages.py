"""Every file that is made: whole pages, and parts of pages that are written by hand between two marks."""

import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.recipe.reference import json_schema
from orchestrator.recipe.shipped import SCHEMA

from . import DOCS, ROOT, rooms
from .measured import PARTS as FIGURES
from .recipe import pages as recipe_pages
from .tables import commands, environment, metrics

PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/metrics.md": metrics,
    "reference/environment.md": environment,
}
PARTS: dict[str, Callable[[], str]] = {
    **FIGURES,
    "rooms": rooms.listed,
    "rooms-picture": rooms.picture,
    "rooms-modules": rooms.told,
}
"""By the name in the marks `<!-- made: NAME -->` and `<!-- end: NAME -->`."""
MARKED = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)


def made() -> dict[Path, str]:
    """What each file that is made should hold, by its path."""
    found = {SCHEMA: json_schema()}
    found |= {DOCS / name: page() for name, page in PAGES.items()}
    found |= {DOCS / "reference" / name: text for name, text in recipe_pages().items()}
    written = [ROOT / "README.md", *(path for path in sorted(DOCS.rglob("*.md")) if path not in found)]
    return found | {path: _filled(path) for path in written}


def _filled(path: Path) -> str:
    """A page that is written by hand, with its made parts. Raises KeyError for a mark that nothing is made for."""
    return MARKED.sub(lambda mark: f"{mark[1]}{PARTS[mark['name']]()}\n{mark[3]}", path.read_text("utf-8"))
