"""Which teachers label rows that they have learnt, and which label them out of fold.

Knows nothing but the resolved recipe and the counts of rows.
"""

from collections.abc import Iterator, Mapping
from typing import Any


def about_folds(recipe: Mapping[str, Any], counted: Mapping[str, Any]) -> Iterator[str]:
    """A sentence of those who label in-sample, and one for each that does not."""
    rows = counted["labelled"]["train"]
    in_sample = []
    for name, teacher in recipe["teachers"].items():
        if not _is_trained_here(teacher) or teacher.get("mode") == "live":
            continue
        if folds := (teacher["train"] or {}).get("folds"):
            others = (
                "by one that was trained again on all of them" if teacher["train"]["refit"] else "by the mean of all"
            )
            yield (
                f"Teacher {name} labels out of fold: of {rows:,} labelled training rows each by the one of its {folds} parts "
                f"that has not learnt it, other rows {others}."
            )
        else:
            in_sample.append(name)
    if in_sample:
        which = f"Teacher {in_sample[0]} labels" if len(in_sample) == 1 else f"Teachers {', '.join(in_sample)} label"
        yield (
            f"{which} in-sample: what is said of the {rows:,} labelled training rows comes from who has learnt their labels "
            f"(`train: {{folds: 5}}` asks who has not)."
        )


def _is_trained_here(teacher: Mapping[str, Any]) -> bool:
    return (teacher["kind"] == "module" and teacher["train"] is not None) or (
        teacher["kind"] == "sklearn" and teacher["model"] is not None
    )
