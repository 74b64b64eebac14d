"""Where a student is right and where it is not: its classes as a table, its surest mistakes as rows. Knows nothing but `report.json`."""

from collections.abc import Mapping
from typing import Any

CLASSES = 25
"""On the page; all are in `report.json`."""


def class_table(found: Mapping[str, Any]) -> dict[str, Any]:
    """`names`: who is compared; `rows` of {name, support, recalls, lost}, those first in which the student loses most.

    `lost` is the recall of all its teachers together less its own. Classes without a test row are left out.
    """
    recall, names = found["recall"], [*found["recall"]]
    rows = [
        {
            "name": name,
            "support": support,
            "recalls": [recall[who][number] for who in names],
            "lost": recall["ensemble"][number] - recall["student"][number],
        }
        for number, (name, support) in enumerate(zip(found["classes"], found["support"], strict=True))
        if support
    ]
    rows.sort(key=lambda row: (-row["lost"], -row["support"]))
    return {"names": names, "rows": rows[:CLASSES], "left_out": len(rows) - CLASSES if len(rows) > CLASSES else 0}


def mistakes(report: Mapping[str, Any], student: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The surest wrong answers, each with its `images` (base64 of a PNG) and its `values` as text."""
    return [
        {
            **wrong,
            "images": [shown["png"] for shown in wrong["inputs"] if "png" in shown],
            "values": [_values(report, shown) for shown in wrong["inputs"] if "values" in shown],
        }
        for wrong in student["mistakes"]
    ]


def _values(report: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """`width 3.1, height 2` where the recipe names as many columns as there are values, else the bare numbers."""
    inputs = report["recipe"]["transfer_set"]["inputs"]
    named = isinstance(inputs, list) and len(inputs) == shown["of"]
    numbers = [f"{value:.4g}" for value in shown["values"]]
    told = [f"{name} {number}" for name, number in zip(inputs, numbers, strict=False)] if named else numbers
    return ", ".join(told) + (f" and {shown['of'] - len(numbers)} more" if shown["of"] > len(numbers) else "")
