"""How teachers stand before anybody learns from them: beside always giving the commonest answer, and beside each other.

Reads their label stores of one split, never of test. Knows nothing of recipes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from teachers.config.task import AnswerName
from teachers.models.adapters import look_like_probabilities
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from ..tasks.figure import Figure, headline
from .evaluate import FORMAT
from .hearing import hear
from .judged import Voice, metered
from .labelled import Labelled

FAR_BELOW = 0.20
"""Between a teacher's interval and the best one's: of shares 20 points, of errors a fifth of the commonest answer's."""


def judge(transfer_set: Path, sources: Sequence[Source], split: Literal["train", "validation"]) -> dict[str, Any]:
    """`evaluation.json` of how each teacher stands on the rows of `split` with a usable label whose class it knows.

    `far_below`: who is so far below the best that the ensemble is measured without it too. Raises
    DataError when no row has a label.
    """
    data = TransferSet.open(transfer_set)
    rows = Labelled.of(data, split).require(split)
    of_training = Labelled.of(data, "train").labels
    heard = hear(rows, sources)
    teachers = {
        name: {
            **rows.task.standing(said, rows.labels, ~heard.kept[name].isnan(), of_training, rows.space),
            "like_probabilities": like_probabilities(heard.kept[name], rows.space.answer),
        }
        for name, said in heard.alone.items()
    }
    best, far = far_below(headline(rows.task.name), teachers)
    return {
        "format": FORMAT,
        "split": split,
        "teachers": teachers,
        "together": _headline(rows, heard.together),
        "far_below": {name: {"best": best, "without": _without(rows, sources, name)} for name in far},
        "rows": len(rows.labels),
    }


def like_probabilities(kept: Tensor, answer: AnswerName) -> str | None:
    """How what a teacher calls logits `[rows, width]`, NaN in what it does not know, is like probabilities; None where it is not."""
    known = ~kept.isnan()
    mine = kept[known.any(1)][:, known.any(0)]
    if answer == "class_axis" and look_like_probabilities(mine):
        return "0 to 1 and sum to 1 in every row"
    alike = answer == "class_set" and mine.numel() and bool(((mine >= 0) & (mine <= 1)).all())
    return "0 to 1 in every row" if alike else None


def far_below(figure: Figure, teachers: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, list[str]]:
    """(the best teacher; those whose interval is 20 points and more, or 20 %, worse than its)."""
    judged = {name: found for name, found in teachers.items() if found["rows"] and found["low"] is not None}
    if not judged:
        return None, []
    worst, most = ("low", "high") if figure.sign > 0 else ("high", "low")
    best = max(judged, key=lambda name: figure.sign * judged[name]["figures"][figure.key])
    end = judged[best][worst]
    return best, [
        name for name, found in judged.items() if figure.sign * (end - found[most]) >= FAR_BELOW * found["scale"]
    ]


def _headline(rows: Labelled, said: Tensor) -> float | None:
    key = headline(rows.task.name).key
    return metered(rows, Voice(said)).figures(keys=(key,))[key]


def _without(rows: Labelled, sources: Sequence[Source], name: str) -> float | None:
    """The headline of all teachers but one."""
    return _headline(rows, hear(rows, [source for source in sources if source.name != name]).together)
