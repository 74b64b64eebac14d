"""From stores to what a term listens to: several teachers become one target per row.

A rule of COMBINE has no state, so its target is computed once per run when it fits memory, and a step then costs one
gather. Other rules, and targets that do not fit, are computed in every step from the same stores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from teachers.config.task import ANSWER_OF, AnswerName, TaskName
from teachers.rows.rows import Rows
from teachers.soft_targets.alignment import Alignment
from teachers.soft_targets.combine.rules import COMBINE, check_combined, with_gaps
from teachers.tasks.space import Space
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import calling
from teachers.users_code.imports import load

from ..config.cohort_terms import CohortTerm
from ..config.task_terms import combine_of
from ..config.terms import TeacherTermCommon, Term
from ..runs.run import Live, Source
from .calibration import calibration_of
from .stores import open_store
from .units import Units

Batch = Mapping[str, Tensor]
Column = Rows | Tensor
CHUNK = 16_384


class Asked(NamedTuple):
    """What a term compares the student with."""

    target: Tensor
    """NaN where nobody knows anything."""
    weight: Tensor | None
    """Of each row `[rows]`; None: all 1."""
    labels: Tensor | None = None
    """i64 `[rows]`, of a term whose loss takes them: rows without one have the weight 0."""


@dataclass(frozen=True)
class Combination:
    """How several teachers become one target; terms that agree on it share the column."""

    teachers: tuple[str, ...]
    rule: str
    teacher_weights: tuple[float, ...] | None
    temperature: float
    key: str = field(default="combine", compare=False)
    """Of the recipe."""
    answer: AnswerName = "class_axis"
    variances: tuple[float, ...] | None = None
    """Of `inverse_variance`: by teacher, `squared_errors` of it. The weights of `fitted` are `teacher_weights`."""

    @property
    def is_ours(self) -> bool:
        """Then it has no state."""
        return self.rule in COMBINE[self.answer]

    @property
    def counts(self) -> dict[str, float]:
        """What each teacher counts, they sum to 1, where a rule found it on labelled validation rows."""
        weights = self.teacher_weights if self.rule == "fitted" else None
        weights = tuple(1 / each for each in self.variances) if self.variances and all(self.variances) else weights
        return {name: each / sum(weights) for name, each in zip(self.teachers, weights, strict=True)} if weights else {}

    def __call__(
        self, said: Tensor, known: Tensor, labels: Tensor | None = None, *, check: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Target `[B, W]` and weights `[K, B]`, of what is said, 0 where unknown, and known `[K, B, W]`.

        `check`: raise RecipeError for a rule that does not give what a rule gives.
        """
        rule = COMBINE[self.answer][self.rule] if self.is_ours else load(self.rule)  # type: ignore[index]
        given = {"teacher_weights": self.teacher_weights, "variances": self.variances}
        keywords = {name: value for name, value in given.items() if value is not None}
        with calling(self.key, self.rule):
            found = rule(said, temperature=self.temperature, known=known, labels=labels, **keywords)
            if check:
                found = check_combined(found, said, f"{self.key}: {self.rule}", known)
            return found

    def is_made_once(self, voices: "Mapping[str, Voice]") -> bool:
        """Whether its target can be: by a rule of ours, and not of a live teacher, who speaks of a batch only."""
        return self.is_ours and not any(isinstance(voices[name], LiveVoice) for name in self.teachers)


def teachers_of(term: Term | CohortTerm, sources: Sequence[Source]) -> tuple[str, ...]:
    """Whom a term listens to."""
    if not isinstance(term, TeacherTermCommon):
        return ()
    return tuple(term.teachers or (source.name for source in sources))


def combination_of(
    term: Term | CohortTerm, sources: Sequence[Source], number: int, task: TaskName
) -> Combination | None:
    """What term number `number` asks of the teachers; None for one that does not listen to any."""
    if not isinstance(term, TeacherTermCommon):
        return None
    heard = teachers_of(term, sources)
    given = term.teacher_weights
    weights = None if given is None else tuple(given[name] for name in heard)
    key, rule = f"objective.{number}.combine", combine_of(term, task)
    return Combination(heard, rule, weights, term.temperature, key, ANSWER_OF[task])


class Voice:
    """What one teacher says of the training rows, in the classes of the transfer set."""

    def __init__(self, source: Source, train: MergedSplit) -> None:
        stores = [open_store(source, train.transfer_set, segment) for segment in train.segments]
        spec = stores[0].spec
        self.name, self.encoding, self.said = source.name, spec.encoding, spec.answered
        self.floor, self.has_unknown = source.probability_floor, any(store.has_unknown for store in stores)
        self.columns = {
            f"{source.name}.{field}": train.column([store.rows()[field] for store in stores])
            for field in stores[0].rows()
        }
        self.align(spec.names, source, train.transfer_set)

    def align(self, names: Sequence[str], source: Source, transfer_set: TransferSet) -> None:
        """`names`: of what it says, in its order."""
        self.alignment = Alignment.of(names, transfer_set.space, source.class_map, source.probability_floor)
        self.known, self.has_unknown = self.alignment.known, self.has_unknown or self.alignment.dropped is not None
        self.calibrated = calibration_of(source, transfer_set)

    @property
    def knows_all(self) -> bool:
        """Whether there is nothing, in any row, that it does not know."""
        return not self.has_unknown and bool(self.known.all())

    def said_of(self, batch: Batch) -> Tensor:
        """f32 `[rows, width]` from this teacher's columns of a batch, on their device; numbers in the units of the label. NaN
        where it does not know, of a row, what it knows of others."""
        fields = {name.rpartition(".")[2]: batch[name] for name in self.columns}
        return self.in_order(self.said.encodes.decode(fields, self.said.width, self.floor))

    def in_order(self, said: Tensor) -> Tensor:
        """Its columns as the transfer set has them, calibrated."""
        self.alignment = self.alignment.to(said.device)
        ordered = self.alignment(said)
        return ordered if self.calibrated is None else self.calibrated(ordered)

    def chunk(self, first_row: int, num_rows: int) -> dict[str, Tensor]:
        """This teacher's columns of some rows, copied."""
        out = {}
        for name, rows in self.columns.items():
            out[name] = torch.empty((num_rows, *rows.shape), dtype=rows.dtype)
            rows.copy(first_row, out[name])
        return out


class LiveVoice(Voice):
    """What one live teacher says: in no store, every batch brings it along."""

    def __init__(self, source: Source, live: Live, transfer_set: TransferSet) -> None:
        self.name, self.encoding = source.name, "dense"
        self.columns, self.has_unknown = {}, True  # as far as anybody can know before it is asked
        self.align(live.classes, source, transfer_set)

    def said_of(self, batch: Batch) -> Tensor:
        return self.in_order(batch[live_column(self.name)])


def live_column(teacher: str) -> str:
    """Of a batch: f32 `[rows, width]`, in the teacher's own classes or numbers."""
    return f"{teacher}.said"


def voice_of(source: Source, train: MergedSplit) -> Voice:
    """Raises StoreError for stores of other rows, RecipeError for classes that do not fit."""
    if source.live is not None:
        return LiveVoice(source, source.live, train.transfer_set)
    return Voice(source, train)


class Chorus:
    """Several voices, heard at once; `knows_all`: of every row each of them knows everything, which is looked at once a run."""

    def __init__(self, voices: Sequence[Voice]) -> None:
        self.voices = voices
        self.known = torch.stack([voice.known for voice in voices])[:, None]
        self.knows_all = all(voice.knows_all for voice in voices)

    def said_of(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """What is said, f32 `[K, B, W]`, 0 where unknown, and known, bool `[K, B, W]`; `batches`: by voice."""
        said = torch.stack([voice.said_of(batch) for voice, batch in zip(self.voices, batches, strict=True)])
        self.known = self.known.to(said.device)
        known = self.known.expand_as(said)
        if not any(voice.has_unknown for voice in self.voices):
            return said, known
        unknown = said.isnan()
        return said.masked_fill_(unknown, 0.0), known & ~unknown

    def in_chunks(self, num_rows: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, said, known) of all rows of their columns."""
        for first in range(0, num_rows, CHUNK):
            rows = slice(first, min(first + CHUNK, num_rows))
            yield rows, *self.said_of([voice.chunk(first, rows.stop - first) for voice in self.voices])

    def target(
        self,
        combination: Combination,
        said: Tensor,
        known: Tensor,
        labels: Tensor | None = None,
        *,
        check: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Target `[B, W]` of `combination`, NaN where nobody knows anything who counts there, and weights `[K, B]`."""
        target, weights = combination(said, known, labels, check=check)
        if not self.knows_all and combination.answer == "class_axis":
            target = with_gaps(target, known, weights)
        return target, weights


class Targets:
    """The columns that a reader has to bring, and what each combination makes of a batch of them; `held` are made once.

    Teachers are combined in the units of the label; what a student is compared with is standardised.
    """

    def __init__(self, voices: Mapping[str, Voice], num_rows: int, space: Space, held: Set[Combination]) -> None:
        self.voices, self.num_rows, self.units, self.held = voices, num_rows, Units(space), held
        self.columns: dict[str, Column] = {}
        self.gapless: set[Combination] = set()
        """Whose targets have no NaN, of those that were asked for."""
        self.answers: dict[Combination, Callable[[Batch], Asked]] = {}

    def answer(self, combination: Combination) -> Callable[[Batch], Asked]:
        """What gives this combination's target of a batch; its columns are brought from now on."""
        if combination not in self.answers:
            once = combination in self.held
            self.answers[combination] = self._once(combination) if once else self._per_step(combination)
        return self.answers[combination]

    def _once(self, combination: Combination) -> Callable[[Batch], Asked]:
        name = f"target.{len(self.answers)}"
        target, row_weight = self._combine_all(combination)
        self.columns[name] = target
        if not target.isnan().any():
            self.gapless.add(combination)
        if bool((row_weight - 1).abs().max() < 1e-6):
            return lambda batch: Asked(batch[name], None)
        self.columns[f"{name}.weight"] = row_weight
        return lambda batch: Asked(batch[name], batch[f"{name}.weight"])

    def _combine_all(self, combination: Combination) -> tuple[Tensor, Tensor]:
        """f32 `[N, W]` and `[N]`; float32, for float16 would add an error of its own to the store's."""
        chorus = self._chorus(combination)
        target, row_weight = torch.empty(self.num_rows, chorus.known.shape[-1]), torch.empty(self.num_rows)
        for rows, said, known in chorus.in_chunks(self.num_rows):
            found, weights = chorus.target(combination, said, known)
            target[rows], row_weight[rows] = self.units.standardised(found), weights.sum(0)
        return target, row_weight

    def _chorus(self, combination: Combination) -> Chorus:
        return Chorus([self.voices[name] for name in combination.teachers])

    def _per_step(self, combination: Combination) -> Callable[[Batch], Asked]:
        chorus = self._chorus(combination)
        for voice in chorus.voices:
            self.columns |= voice.columns
        if chorus.knows_all:
            self.gapless.add(combination)
        unseen = not combination.is_ours

        def ask(batch: Batch) -> Asked:
            nonlocal unseen
            said, known = chorus.said_of([batch] * len(chorus.voices))
            labels = self.units.of_label(usable_labels(batch))
            target, weights = chorus.target(combination, said, known, labels, check=unseen)
            unseen = False  # a look at every value waits for a GPU: once a run is enough to find a wrong rule
            return Asked(self.units.standardised(target), weights.sum(0))

        return ask


def usable_labels(batch: Batch) -> Tensor:
    """i64 `[rows]`, -1 where a row has no label that may be used; f32 `[rows, width]`, NaN there."""
    label = batch["label"]
    if "has_label" not in batch:
        return label
    may_be_used = batch["has_label"].reshape(-1, *[1] * (label.ndim - 1)) > 0
    return torch.where(may_be_used, label, torch.nan if label.is_floating_point() else -1)
