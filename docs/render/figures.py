"""A row of the pages of figures: what was measured, and how the newest record tells it."""

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import DOCS

Record = Mapping[str, Any]


def records(name: str) -> list[Record]:
    """Of one file, the newest last. Keys that are numbers are so here, too."""
    text = (DOCS / "measured" / f"{name}.json").read_text("utf-8")
    found: list[Record] = json.loads(text, object_pairs_hook=_numbered)
    return found


def _numbered(pairs: list[tuple[str, Any]]) -> dict[str | int, Any]:
    return {int(key) if key.isdigit() else key: value for key, value in pairs}


class Text(string.Formatter):
    """As `str.format`, and `{gain:points}` for a difference of shares, `{share:percent}`."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "points":
            return f"{100 * value:+.1f} points"
        return f"{100 * value:.1f} %" if format_spec == "percent" else format(value, format_spec)


@dataclass(frozen=True)
class Figure:
    """One row: what, and the text for a record's figures. `record` names its file."""

    what: str
    record: str
    text: str
    goal: str = ""

    @property
    def wanted(self) -> set[str]:
        names = (name for _, name, _, _ in string.Formatter().parse(self.text) if name)
        return {name.partition("[")[0] for name in names}

    def newest_first(self, kept: Sequence[Record]) -> list[Record]:
        """Those of its file that have all that the text needs."""
        return [found for found in reversed(kept) if self.wanted <= set(found["figures"])]

    def cells(self, kept: Sequence[Record]) -> Iterator[str]:
        """What; the newest figure and what it was before; the goal; the command."""
        newest, *older = self.newest_first(kept)
        told = [Text().vformat(self.text, (), found["figures"]) for found in (newest, *older)]
        earlier = f"; earlier {'; '.join(told[1:])}" if told[1:] else ""
        yield from (self.what, told[0] + earlier, self.goal, f"`{newest['command']}`")
