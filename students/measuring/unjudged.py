"""What can be said of rows without a label: who agrees with whom, how sure each one is, which classes it says.

Nobody is judged by it. Knows nothing of recipes.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from teachers.transfer_set.transfer_set import SplitName, TransferSet

from ..tasks import classification
from .hearing import Heard, Source, hear
from .labelled import Labelled

Figures = dict[str, Any]


def is_judged(transfer_set: TransferSet, split: SplitName) -> bool:
    """Whether any row of a split has a label; where the transfer set has labels elsewhere, a split without is a mistake."""
    if len(Labelled.of(transfer_set, split).labels):
        return True
    return any(len(Labelled.of(transfer_set, other).labels) for other in ("train", "validation"))


def figures_of(logits: Tensor, classes: Sequence[str], *, sure: bool = True) -> Figures:
    """Of what somebody says of N rows, f32[N, C].

    `entropy`: the mean of the rows', in nats, None where only classes are said; `coverage`: the share of the classes that
    it says of some row; `said`: by class, the share of rows that are said to be of it.
    """
    log_p = classification.log_probabilities(logits)
    counts = torch.bincount(logits.argmax(-1), minlength=len(classes))
    return {
        "entropy": float(-(log_p.exp() * log_p).sum(-1).mean()) if sure else None,
        "coverage": float((counts > 0).double().mean()),
        "said": dict(zip(classes, (counts.double() / len(logits)).tolist(), strict=True)),
    }


def teachers_unjudged(transfer_set: TransferSet, sources: Sequence[Source], split: SplitName) -> dict[str, Any]:
    """What `evaluate_teachers` gives where no row has a label."""
    rows = Labelled.whole(transfer_set, split)
    heard = hear(rows, sources, "mean_probability")
    return {"judged": False, **_of_those_who_teach(heard, rows), "rows": len(rows.labels)}


def _of_those_who_teach(heard: Heard, rows: Labelled) -> dict[str, Any]:
    classes, everyone = rows.transfer_set.classes, {**heard.alone, "ensemble": heard.together}
    sure = {**{name: name not in heard.class_only for name in heard.alone}, "ensemble": heard.sure}
    return {
        "teachers": {name: figures_of(logits, classes, sure=sure[name]) for name, logits in heard.alone.items()},
        "ensemble": figures_of(heard.together, classes, sure=heard.sure),
        "agreement": classification.agreement_matrix(everyone),
    }


def student_unjudged(
    rows: Labelled,
    heard: Heard,
    said: Mapping[int, Tensor],
    chosen: int,
    size: Mapping[str, Any],
) -> dict[str, Any]:
    """What an evaluation of one student gives where no row has a label; `said`: by seed, f32[N, C]."""
    runs = [
        {
            "seed": seed,
            **figures_of(said[seed], rows.transfer_set.classes),
            "agreement": classification.agreement(said[seed], heard.together),
            "kl": classification.kl(heard.together, said[seed]) if heard.sure else None,
            **size,
        }
        for seed in sorted(said)
    ]
    return {
        "judged": False,
        "student": {"runs": runs},
        "delivered": chosen,
        "mean_agreement": fmean(run["agreement"] for run in runs),
        "agreement": classification.agreement_matrix(
            {**heard.alone, "ensemble": heard.together, "student": said[chosen]}
        ),
        "rows": len(rows.labels),
    }
