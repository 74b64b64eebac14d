"""Where somebody is right and where not: classes as a table, confusions, the surest mistakes as rows.

Knows nothing but `report.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

CLASSES = 25
"""On the page; all are in `report.json`."""
TEACHERS = 3
"""Whose recalls are in the table of a student; of more only their ensemble's."""
MATRIX = 20
"""Classes of a confusion matrix on the page; of more the largest confusions are listed."""
CONFUSIONS = 15
MISTAKES, ALL_MISTAKES = 12, 24
"""Most that are drawn of one student, and of all together: a page has to stay small."""


def class_table(found: Mapping[str, Any], of: str = "student") -> dict[str, Any]:
    """`groups` of columns (title, columns), `rows` of {name, support, cells}, those first in which `of` loses most.

    A cell is a share, or None, but for the first: how many rows are said to be of the class. What is lost is the recall of
    all teachers together less its own; of the ensemble itself, 1 less its recall. Classes without a test row are left out.
    """
    others = [name for name in found["recall"] if name not in ("ensemble", "student", "control", "offline")]
    names = [name for name in found["recall"] if name not in others or len(others) <= TEACHERS or of == "ensemble"]
    ranking = [
        name for name in dict.fromkeys((of, "control", "ensemble")) if _is_known(found["average_precision"].get(name))
    ]
    columns = [("recall", names), ("precision", [of]), ("f1", [of]), ("average_precision", ranking)]
    titles = {"recall": "recall", "precision": "precision", "f1": "F1", "average_precision": "average precision"}
    rows = [
        {
            "name": name,
            "support": support,
            "said": found["said"][of][number],
            "cells": [found[figure][who][number] for figure, several in columns for who in several],
            "lost": _lost(found["recall"], of, number),
        }
        for number, (name, support) in enumerate(zip(found["classes"], found["support"], strict=True))
        if support
    ]
    rows.sort(key=lambda row: (-row["lost"], -row["support"]))
    groups = [{"title": titles[figure], "names": several} for figure, several in columns if several]
    return {
        "of": of,
        "groups": groups,
        "rows": rows[:CLASSES],
        "left_out": max(0, len(rows) - CLASSES),
        "rare": _rare(found, ranking),
    }


def _is_known(figures: Sequence[float | None] | None) -> bool:
    return figures is not None and any(figure is not None for figure in figures)


def _lost(recall: Mapping[str, Sequence[float]], of: str, number: int) -> float:
    return (1.0 if of == "ensemble" else recall["ensemble"][number]) - recall[of][number]


def _rare(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """The names of rare classes, the first of them, and the mean of their average precision by name."""
    rare = found.get("rare")
    if not rare or not rare["classes"] or not names:
        return None
    precision = {name: rare["average_precision"][name] for name in names}
    return {
        "classes": rare["classes"][:5],
        "left_out": max(0, len(rare["classes"]) - 5),
        "average_precision": precision,
    }


def confusions(found: Mapping[str, Any], confusion: Mapping[str, Any]) -> dict[str, Any]:
    """`matrix`: rows of {name, support, cells of (rows, share of the class)} of at most 20 classes, else None.

    `largest`: of {label, said, rows, share}, the most frequent confusions.
    """
    classes, support, given = found["classes"], found["support"], confusion["matrix"]
    matrix = None
    if given is not None and len(classes) <= MATRIX:
        matrix = [
            {"name": name, "support": rows, "cells": [(count, count / rows if rows else 0.0) for count in counts]}
            for name, rows, counts in zip(classes, support, given, strict=True)
        ]
    largest = [
        {"label": classes[true], "said": classes[said], "rows": rows, "share": rows / support[true]}
        for true, said, rows in confusion["largest"][:CONFUSIONS]
    ]
    return {
        "names": classes,
        "matrix": matrix,
        "largest": largest,
        "is_long": max(map(len, classes)) * len(classes) > 70,
    }


def mistakes(report: Mapping[str, Any], found: Sequence[Mapping[str, Any]], sharers: int = 1) -> list[dict[str, Any]]:
    """The surest wrong answers, each with its `images` (base64 of a PNG), its `texts`, and its `values` as text.

    `sharers`: so many students are on the page.
    """
    return [
        {
            **wrong,
            "images": [shown["png"] for shown in wrong["inputs"] if "png" in shown],
            "texts": [_text(shown) for shown in wrong["inputs"] if "text" in shown],
            "values": [_values(report, shown) for shown in wrong["inputs"] if "values" in shown],
        }
        for wrong in found[: max(2, min(MISTAKES, ALL_MISTAKES // sharers))]
    ]


def _values(report: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """`width 3.1, height 2` where the names are known or the recipe names as many columns as there are values, else the values."""
    inputs = report["recipe"]["transfer_set"]["inputs"]
    given = [each if isinstance(each, str) else each["column"] for each in inputs] if isinstance(inputs, list) else []
    names = shown.get("names") or (given if len(given) == shown["of"] else [])
    values = [_value(value) for value in shown["values"]]
    told = [f"{name} {value}" for name, value in zip(names, values, strict=False)] if names else values
    return ", ".join(told) + (f" and {shown['of'] - len(values)} more" if shown["of"] > len(values) else "")


def _text(shown: Mapping[str, Any]) -> str:
    """Its first characters, in one line; what cannot be printed is written out."""
    text = "".join(
        each if each.isprintable() else " " if each.isspace() else f"\\x{ord(each):02x}" for each in shown["text"]
    )
    return text + " ..." * bool(shown["of"] > len(shown["text"]))


def _value(value: float | str | None) -> str:
    return "missing" if value is None else value if isinstance(value, str) else f"{value:.4g}"
