"""What can be said of rows without a label: who agrees with whom, how sure each one is, what it says.

Nobody is judged by it. Knows nothing of recipes.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from teachers.transfer_set.transfer_set import SplitName, TransferSet

from ..runs.run import Source
from ..tasks.figure import UNJUDGED
from .hearing import Heard, hear
from .judged import Voice, agreement_matrix, beside
from .labelled import Labelled
from .together import unknown_rows


def is_judged(transfer_set: TransferSet, split: SplitName) -> bool:
    """Whether any row of a split has a label; where the transfer set has labels elsewhere, a split without is a mistake."""
    if len(Labelled.of(transfer_set, split).labels):
        return True
    return any(len(Labelled.of(transfer_set, other).labels) for other in ("train", "validation"))


def said_of(rows: Labelled, voice: Voice) -> dict[str, Any]:
    """What one says of the rows; figures of probabilities are None where only classes are said."""
    found = rows.task.unjudged(voice.said, rows.space)
    unsure = {figure.key for figure in UNJUDGED[rows.task.name] if figure.of_probabilities and not voice.sure}
    return found | dict.fromkeys(unsure)


def teachers_unjudged(transfer_set: TransferSet, sources: Sequence[Source], split: SplitName) -> dict[str, Any]:
    """What `evaluate_teachers` gives where no row has a label."""
    rows = Labelled.whole(transfer_set, split)
    heard, by_name = hear(rows, sources), {source.name: source for source in sources}
    return {
        "judged": False,
        "teachers": {
            name: said_of(rows, heard.voice(name)) | _unknown(transfer_set, by_name[name]) for name in heard.alone
        },
        "ensemble": said_of(rows, heard.voice("ensemble")),
        "agreement": agreement_matrix(rows, heard.everyone),
        "rows": len(rows.labels),
    }


def _unknown(transfer_set: TransferSet, source: Source) -> dict[str, Any]:
    unknown = unknown_rows(transfer_set, source)
    return {"unknown": unknown} if unknown else {}


def student_unjudged(
    rows: Labelled,
    heard: Heard,
    said: Mapping[int, Tensor],
    chosen: int,
    size: Mapping[str, Any],
) -> dict[str, Any]:
    """What an evaluation of one student gives where no row has a label; `said`: by seed, f32[N, width]."""
    together = heard.voice("ensemble")
    runs = [
        {
            "seed": seed,
            **said_of(rows, Voice(said[seed])),
            **beside(rows, Voice(said[seed]), together),
            **size,
        }
        for seed in sorted(said)
    ]
    agreed = [run["agreement"] for run in runs if run["agreement"] is not None]
    return {
        "judged": False,
        "student": {"runs": runs},
        "delivered": chosen,
        "mean_agreement": fmean(agreed) if agreed else None,
        "agreement": agreement_matrix(rows, {**heard.everyone, "student": said[chosen]}),
        "rows": len(rows.labels),
    }
