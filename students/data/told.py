"""What combination rules are told besides what teachers say: of all rows before the first step, and in each step.

Knows nothing of batches.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.tasks.labels import has_label
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import within

from ..config.task_terms import OF_LABELLED_ROWS
from ..objective.combination import Combination, OfRows
from ..objective.heads import OfHeads
from ..objective.late import Late
from ..objective.merits import figures_alone
from ..objective.pacing import SelfPaced, pacing_of
from ..objective.routes import heard_in
from ..objective.targets import Targets
from ..runs.run import Run
from .labels import rule_labels


def told_of_rows(train: MergedSplit, combinations: Sequence[Combination | None]) -> OfRows:
    """What rules are told of all rows. Raises RecipeError for a column that names no teachers, and where a rule asks for labels and
    there are none."""
    asked = [each for each in combinations if each is not None]
    heard = {}
    for each in asked:
        if each.options.column is not None:
            with within(each.key):
                parts = [
                    heard_in(train.transfer_set, segment, each.options.column, each.teachers)
                    for segment in train.segments
                ]
                heard[each] = torch.from_numpy(train.ordered(parts))
    labels = None
    if any(each.rule in OF_LABELLED_ROWS for each in asked):
        usable = train.usable_labels()
        if not has_label(usable).any():
            key = next(each.key for each in asked if each.rule in OF_LABELLED_ROWS)
            raise RecipeError(
                f"{key}: this rule weighs teachers by the labels of the training rows, and none has one; give labels, or take "
                f"another rule"
            )
        labels = rule_labels(usable, train.transfer_set.space)
    keys = None
    if any(each.is_late and each.needs_context for each in asked):
        keys = torch.from_numpy(np.array(train.keys()).view(np.int64))
    in_views = partial(_repeated, times=train.views)
    return OfRows(
        None if labels is None else in_views(labels),
        {each: in_views(names) for each, names in heard.items()},
        None if keys is None else in_views(keys),
    )


def _repeated(values: Tensor, times: int) -> Tensor:
    """Of each row in every view, view after view."""
    return values if times == 1 else values.repeat(times, *[1] * (values.ndim - 1))


def late_of(combination: Combination, run: Run, transfer_set: TransferSet, targets: Targets) -> Late | None:
    """What decides a combination in the step; None of one that is decided before."""
    if combination not in targets.late:
        return None
    figures: tuple[Any, ...] = ()
    heard = [source for source in run.sources if source.name in combination.teachers]
    if combination.options.pace is not None:
        called = {source.name: source for source in heard}
        with within(combination.key.rpartition(".")[0]):
            pacing = pacing_of([called[name] for name in combination.teachers], transfer_set, combination.options.pace)
        return SelfPaced(combination, targets.units, combination in targets.gapless, pacing)
    judged = all(segment.name in source.stores for source in heard for segment in transfer_set.of("validation"))
    if combination.needs_context and not combination.is_ours and judged:
        by_name = {source.name: figures_alone(source, transfer_set) for source in heard}
        figures = tuple(by_name[name] for name in combination.teachers)
    about = combination, targets.units, combination in targets.gapless, figures
    if combination.of_heads:
        return OfHeads(*about, known=torch.stack([targets.voices[name].known for name in combination.teachers]))
    return Late(*about)
