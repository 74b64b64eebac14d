"""From stores to what a term listens to: several teachers become one target per row.

A rule of COMBINE has no state, so its target is computed once per run when it fits memory, and a step then costs one
gather. Other rules, and targets that do not fit, are computed in every step from the same stores.
"""

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.rows.rows import Rows
from teachers.tasks.space import Space

from .combination import WEIGHED, Combination, OfRows
from .units import Units, usable_labels
from .voices import CHUNK, AsSeen, Chorus, Voice

Batch = Mapping[str, Tensor]
Column = Rows | Tensor
SAMPLE_KEY = "sample_key"
"""Of a batch, where live teachers or a rule are told of it."""


class Asked(NamedTuple):
    """What a term compares the student with."""

    target: Tensor
    """NaN where nobody knows anything. Of a combination that is decided late what each teacher says, `[rows, K, width]`; of losses
    beside each teacher as many targets."""
    weight: Tensor | None
    """Of each row `[rows]`; None: all 1. Beside each teacher `[rows, K]`."""
    labels: Tensor | None = None
    """i64 `[rows]`, of a term whose loss takes them: rows without one have the weight 0."""
    of_rule: Tensor | None = None
    """Labels for a rule that is decided late, in the units of the label."""
    sample_key: Tensor | None = None
    """For the same: i64 `[rows]`."""
    heard: Tensor | None = None
    """For `combine: route`: i64 `[rows]`."""
    own: Tensor | None = None
    """Of rows that are mixed two by two: how much of itself is in each, f32 `[rows]`; None: of a target that is of the row as it is."""
    other: Tensor | None = None
    """What the other row is labelled, where it is none of the batch; None: it stands beside the row."""


Ask = Callable[[Batch], Asked]


class Targets:
    """The columns that a reader has to bring, and what each combination makes of a batch of them; `held` are made once.

    Teachers are combined in the units of the label; what a student is compared with is standardised. `of_rows`: what rules are
    told of all rows besides; `as_seen`: where what is said moves as rows are augmented.
    """

    def __init__(
        self,
        voices: Mapping[str, Voice],
        num_rows: int,
        space: Space,
        held: Set[Combination],
        of_rows: OfRows | None = None,
        as_seen: AsSeen | None = None,
    ) -> None:
        self.voices, self.num_rows, self.units, self.held = voices, num_rows, Units(space), held
        self.as_seen = as_seen
        self.of_rows = of_rows or OfRows()
        self.columns: dict[str, Column] = {}
        self.gapless: set[Combination] = set()
        """Whose targets have no NaN, of those that were asked for."""
        self.whole: dict[Combination, Tensor] = {}
        """Of these, the targets that are made once."""
        self.answers: dict[Combination, Ask] = {}
        self.late: set[Combination] = set()
        """Those of which something is known in the step only: `answer` gives what each teacher says."""
        self.growing: dict[Combination, tuple[Tensor, Tensor]] = {}
        """Targets and weights of rows, made once, of which only what was said so far is filled in."""
        self.counts: dict[Combination, dict[str, float]] = {}
        """The mean over rows of what each teacher counts, where that differs by row."""

    def answer(self, combination: Combination) -> Ask:
        """What gives this combination's target of a batch; its columns are brought from now on."""
        if combination not in self.answers:
            make = self._late if combination.is_late else self._per_step
            self.answers[combination] = (self._once if combination in self.held else make)(combination)
        return self.answers[combination]

    def _once(self, combination: Combination) -> Ask:
        name = f"target.{len(self.answers)}"
        target, row_weight = self._combine_all(combination)
        self.columns[name] = target
        if not target.isnan().any():
            self.gapless.add(combination)
            self.whole[combination] = target
        if bool((row_weight - 1).abs().max() < 1e-6):
            return lambda batch: Asked(batch[name], None)
        self.columns[f"{name}.weight"] = row_weight
        return lambda batch: Asked(batch[name], batch[f"{name}.weight"])

    def _combine_all(self, combination: Combination) -> tuple[Tensor, Tensor]:
        """f32 `[N, W]` and `[N]`; float32, for float16 would add an error of its own to the store's. Of voices that grow it is filled
        by `fill`."""
        chorus = self._chorus(combination)
        target, row_weight = torch.empty(self.num_rows, chorus.known.shape[-1]), torch.empty(self.num_rows)
        if any(voice.is_growing for voice in chorus.voices):
            self.growing[combination] = target.fill_(torch.nan), row_weight.zero_()
            return target, row_weight
        counted = torch.zeros(len(chorus.voices))
        for rows, said, known in chorus.in_chunks(self.num_rows):
            found, weights = combination.target(
                said, known, complete=chorus.knows_all, **self.of_rows.of(combination, rows)
            )
            target[rows], row_weight[rows] = self.units.standardised(found), weights.sum(0)
            counted += weights.sum(1)
        if combination.rule in WEIGHED:
            shares = (counted / counted.sum().clamp_min(1e-12)).tolist()
            self.counts[combination] = dict(zip(combination.teachers, shares, strict=True))
        return target, row_weight

    def fill(self, numbers: NDArray[np.intp]) -> None:
        """Combine what was said of these rows meanwhile, ascending."""
        for combination, (target, row_weight) in self.growing.items():
            chorus = self._chorus(combination)
            for first in range(0, len(numbers), CHUNK):
                some = numbers[first : first + CHUNK]
                rows = torch.from_numpy(some)
                said, known = chorus.said_of([voice.some(some) for voice in chorus.voices])
                found, weights = combination.target(said, known, **self.of_rows.of(combination, rows))
                target[rows], row_weight[rows] = self.units.standardised(found), weights.sum(0)

    def _chorus(self, combination: Combination) -> Chorus:
        seen = self.as_seen if self.is_seen(combination) else None
        return Chorus([self.voices[name] for name in combination.teachers], seen)

    def is_seen(self, combination: Combination) -> bool:
        """Whether its targets are of augmented rows: where one of its teachers is live, the others' answers move before they meet."""
        return self.as_seen is not None and any(self.voices[name].is_live for name in combination.teachers)

    def _labels(self, combination: Combination, batch: Batch) -> Tensor:
        """For a rule, in the units of the label, of the rows that teachers speak of."""
        labels = self.units.of_label(usable_labels(batch))
        if self.as_seen is not None and self.is_seen(combination):
            return self.as_seen(labels, batch, False)
        return labels

    def _brought(self, combination: Combination) -> tuple[Chorus, str | None]:
        """The voices of a combination, whose columns are brought, and the column that says who is heard."""
        chorus, heard = self._chorus(combination), self.of_rows.heard.get(combination)
        for voice in chorus.voices:
            self.columns |= voice.columns
        name = None
        if heard is not None:
            name = f"heard.{len(self.answers)}"
            self.columns[name] = heard
        return chorus, name

    def _per_step(self, combination: Combination) -> Ask:
        chorus, heard = self._brought(combination)
        if chorus.knows_all and not combination.narrows:
            self.gapless.add(combination)
        unseen = not combination.is_ours

        def ask(batch: Batch) -> Asked:
            nonlocal unseen
            said, known = chorus.said_of([batch] * len(chorus.voices))
            labels = self._labels(combination, batch)
            told = None if heard is None else batch[heard]
            target, weights = combination.target(
                said, known, labels, heard=told, check=unseen, complete=chorus.knows_all
            )
            unseen = False  # a look at every value waits for a GPU: once a run is enough to find a wrong rule
            return Asked(self.units.standardised(target), weights.sum(0))

        return ask

    def _late(self, combination: Combination) -> Ask:
        """What each teacher says, `[rows, K, W]`, NaN in what it does not know; a row's weight is whether anybody is heard in it."""
        chorus, heard = self._brought(combination)
        self.late.add(combination)
        if chorus.knows_all and not combination.narrows:
            self.gapless.add(combination)
        every_row = chorus.knows_all and not combination.may_pass_over
        if combination.needs_context and self.of_rows.sample_key is not None:
            self.columns[SAMPLE_KEY] = self.of_rows.sample_key

        def ask(batch: Batch) -> Asked:
            said, known = chorus.said_of([batch] * len(chorus.voices))
            labels = self._labels(combination, batch)
            told = None if heard is None else batch[heard]
            weight = None if every_row else combination.hears(known, labels, told).to(said.dtype)
            said = said.masked_fill(~known, torch.nan).transpose(0, 1)
            return Asked(said, weight, of_rule=labels, sample_key=batch.get(SAMPLE_KEY), heard=told)

        return ask
