"""What rows lack: missing numbers and categories, empty text, and values that no training row has. Knows nothing but counts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from teachers.transfer_set.transfer_set import SPLITS

NAMED = 5


def about_columns(counted: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on what is missing, one on what is empty, one on what is unknown, where there is any."""
    columns, rows = counted.get("columns", {}), counted["rows"]
    for what, is_text in (("Missing", False), ("Empty text", True)):
        lacking = [
            f"`{name}` in {_share(sum(found['missing'].values()), sum(rows[split] for split in SPLITS))} of all rows"
            for name, found in columns.items()
            if any(found["missing"].values()) and (found["kind"] == "text") == is_text
        ]
        if lacking:
            yield f"{what} is {_some(lacking)}."
    strange = [
        f"`{name}` in " + " and ".join(f"{count:,} {split} rows" for split, count in found["unknown"].items() if count)
        for name, found in columns.items()
        if any(found.get("unknown", {}).values())
    ]
    if strange:
        yield f"Unknown, for no training row has the value or `most_common` left it out, is {_some(strange)}."


def column_table(counted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of every column that may lack a value: `name`, `values` (of a category) and by split what is `missing` and `unknown`."""
    return [
        {
            "name": name,
            "values": found.get("values"),
            "missing": [found["missing"][split] for split in SPLITS],
            "unknown": [found["unknown"][split] for split in SPLITS] if "unknown" in found else None,
        }
        for name, found in counted.get("columns", {}).items()
    ]


def _share(count: int, rows: int) -> str:
    return f"{100 * count / rows:.2g} %"


def _some(told: Sequence[str]) -> str:
    more = f" and {len(told) - NAMED:,} more columns" if len(told) > NAMED else ""
    return ", ".join(told[:NAMED]) + more
