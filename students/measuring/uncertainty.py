"""What a student with a head for each teacher knows of its own doubts, beside its teachers: a part of its evaluation.

Knows nothing of how it was trained.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.config.task import ANSWER_OF
from teachers.models.folder import LoadedModel, load_model, read_config
from teachers.models.heads import LOG_ZERO, heads_of

from ..config.hydra import HYDRA
from ..tasks.figure import FIGURES
from ..tasks.ranking import spearman
from ..tasks.uncertainty import Uncertainty, uncertainty
from .hearing import Heard
from .judged import Voice, figures_of
from .labelled import Labelled, ask

Rows = Mapping[str, np.ndarray | Tensor]


def said_by_each(model: LoadedModel, inputs: Rows) -> Tensor:
    """What each head of a Hydra says of canonical inputs, f32 `[heads, rows, width]`, numbers in the units of the label. What its
    teacher knows nothing of it never learnt: of one class of many such a class has the probability 0, else it is NaN.
    """
    heads = heads_of(model.module)
    assert heads is not None
    with heads.keeping():
        model(inputs)
    said = heads.taken().float()
    if model.scale is not None and model.mean is not None:
        said = said * model.scale + model.mean
    if heads.share is None:
        return said
    unknown = (heads.share == 0).expand_as(said)
    return said.masked_fill(unknown, LOG_ZERO if model.config.space.answer == "class_axis" else torch.nan)


def uncertainty_of_student(
    rows: Labelled, heard: Heard, runs: Mapping[int, Path], trust: Sequence[str], device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """`uncertainty`, of a Hydra; nothing of any other student. `runs`: its model folders by seed.

    By seed the means over `rows` of `total`, `aleatoric`, `epistemic` and `disagreement`, as far as the task has them, and
    `rank_correlation` (Spearman) of what its heads and its teachers disagree by; `alone`: figures of a head, the mean over heads.
    `teachers`: the same means of these, None where one says classes only.
    """
    if not all(read_config(folder).model == HYDRA for folder in runs.values()):
        return {}
    theirs = None if heard.class_only else uncertainty(_of_teachers(rows, heard), rows.space)
    found = []
    for seed, folder in sorted(runs.items()):
        model = load_model(folder, trust=trust, device=device)
        said = ask(model, rows, partial(said_by_each, model))
        own = uncertainty(said, rows.space)
        document = {"seed": seed, "heads": len(said), **means_of_rows(own)}
        document["rank_correlation"] = None if theirs is None else rank_correlation(own, theirs)
        found.append(document | ({"alone": _alone(rows, said)} if len(rows.labels) else {}))
    return {"uncertainty": {"runs": found, "teachers": None if theirs is None else means_of_rows(theirs)}}


def _of_teachers(rows: Labelled, heard: Heard) -> Tensor:
    """What each says; of one class of many a distribution over the classes that it knows."""
    said = heard.alone if ANSWER_OF[rows.space.task] == "class_axis" else heard.kept
    return torch.stack([*said.values()])


def means_of_rows(found: Uncertainty) -> dict[str, float | None]:
    """Over the rows of which at least two say anything."""
    means = {name: each.nanmean() for name, each in found.parts.items()}
    return {name: None if each.isnan() else float(each) for name, each in means.items()}


def rank_correlation(one: Uncertainty, other: Uncertainty) -> float | None:
    """Of what these disagree by, over the rows in which both do; None where one of them has the same everywhere."""
    both = ~(one.epistemic.isnan() | other.epistemic.isnan())
    return spearman(one.epistemic[both].float(), other.epistemic[both].float(), None)


def _alone(rows: Labelled, said: Tensor) -> dict[str, float | None]:
    """Figures of a head by itself, the mean over heads; None where one has none."""
    keys = [figure.key for figure in FIGURES[rows.space.task]]
    each = [figures_of(rows, Voice(head)) for head in said]
    return {
        key: None if None in values else float(np.mean(values))
        for key, values in ((key, [one[key] for one in each]) for key in keys)
    }
