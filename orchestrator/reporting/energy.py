"""Rows that students left out, or weighed less, by the energy of a teacher. Knows nothing but the parts of `report.json`."""

from collections.abc import Iterator, Mapping
from typing import Any

from students.tasks.figure import headline

KINDS = {"train": "unlabelled rows of the source", "extra": "rows of `transfer_set.extra`", "munge": "synthetic rows"}
DONE = {"drop": "left out", "weigh": "weighed less"}


def about_energy(recipe: Mapping[str, Any], evaluations: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Of each student that did: how many rows, and what teachers are worth on test rows below and above the threshold."""
    label = headline(recipe["task"]).label.lower()
    for name in recipe["students"]:
        found = evaluations[name].get("energy")
        if found is None:
            continue
        told = [
            f"{each['beyond']:,} of {each['rows']:,} {KINDS[kind]}"
            for kind, each in found["training"].items()
            if each["rows"]
        ]
        yield (
            f"Student {name} has {DONE[found['rows']]} {' and '.join(told) or 'no row'} with an energy above {found['threshold']:.3g}, the "
            f"{found['quantile']:.3g} quantile of validation rows by teacher {found['teacher']}."
        )
        below, above = found["tested"]["below"], found["tested"]["above"]
        figures = [f"{teacher} {_said(below, teacher)} and {_said(above, teacher)}" for teacher in below["teachers"]]
        yield (
            f"Of labelled test rows {below['rows']:,} are below that and {above['rows']:,} above; {label} there: "
            f"{', '.join(figures)}."
        )


def _said(part: Mapping[str, Any], teacher: str) -> str:
    value = part["teachers"][teacher]
    return "unknown" if value is None else f"{value:.4f}"
