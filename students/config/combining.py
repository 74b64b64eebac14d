"""How a term of an objective combines its teachers, beyond the rule's name. Knows nothing of torch or ray."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .unsaid import Unsaid

OPTIONS: dict[str, str] = {
    "by_class": "fitted",
    "box": "gradient",
    "experts": "experts",
    "column": "route",
    "silence": "confusion",
}
"""Keys of a term that belong to one rule."""
Level = Literal["targets", "losses"]


@dataclass(frozen=True)
class Options:
    """The same as a run has it, once it is known who is heard."""

    level: Level = "targets"
    drop: int = 0
    by_class: bool = False
    box: float | None = None
    experts: tuple[tuple[str, tuple[str, ...]], ...] | None = None
    column: str | None = None
    silence: bool = False
    called: tuple[tuple[str, str], ...] = ()
    """Of an evaluation, which knows teachers by their places: each with its name in the recipe."""

    @property
    def classes_of(self) -> dict[str, tuple[str, ...]]:
        """Of the experts that a recipe names."""
        return dict(self.experts or ())

    def by_place(self, places: Mapping[str, str]) -> "Options":
        """`places`: what each teacher is called instead."""
        experts = tuple((places[name], classes) for name, classes in self.experts or ())
        called = tuple((place, name) for name, place in places.items()) if self.column else ()  # rows hold names
        return replace(self, experts=None if self.experts is None else experts, called=called)

    @property
    def together(self) -> "Options":
        """What of it decides what teachers are together: a step and a loss do not."""
        return Options(
            by_class=self.by_class,
            experts=self.experts,
            column=self.column,
            silence=self.silence,
            called=self.called,
        )

    def document(self) -> dict[str, Any]:
        """What is said, as JSON."""
        return {name: value for name, value in asdict(self).items() if value != getattr(NO_OPTIONS, name)}

    def name_of(self, teacher: str) -> str:
        """What a teacher is called in the recipe."""
        return dict(self.called).get(teacher, teacher)


NO_OPTIONS = Options()


class Combining(Unsaid):
    """What a term says of the combination of its teachers."""

    unsaid: ClassVar[frozenset[str]] = frozenset({"level", "drop", "by_class", "box", "experts", "column", "silence"})

    level: Level = "targets"
    """What is combined: what teachers say, into one target that the loss is taken of (`targets`), or the losses beside each teacher alone, by the same weights (`losses`)."""
    drop: int | None = Field(None, ge=1)
    """So many of the term's teachers, drawn anew in every step, are not heard in it (DGKD's stochastic dropping)."""
    by_class: bool = False
    """Of `combine: fitted`: weights of each teacher and class, shrunk to those of the teacher by the number of labelled rows."""
    box: float | None = Field(None, gt=0, le=1)
    """Of `combine: gradient`: the largest weight that a teacher may have; null: 0.6, or an equal share where that is more."""
    experts: dict[str, list[str]] | None = None
    """Of `combine: experts`: the classes that each teacher is heard in; null: in each class whoever is best on labelled validation rows."""
    column: str | None = None
    """Of `combine: route`: the input column, a category or text, whose value in a row is the name of the one teacher that is heard there."""
    silence: bool = False
    """Of `combine: confusion`: that a teacher says nothing of a row is an answer too, whose frequency in each class labelled validation rows tell; rows of which all say nothing are then heard by it."""

    @model_validator(mode="after")
    def options_go_with_their_rule(self) -> Self:
        rule = getattr(self, "combine", None)
        for name, of in OPTIONS.items():
            if getattr(self, name) != Combining.model_fields[name].default and rule != of:
                raise ValueError(f"`{name}` is of `combine: {of}`, and this term has {rule!r}; remove it")
        if rule == "route" and self.column is None:
            raise ValueError("`combine: route` needs `column`: the input column that names the teacher of each row")
        return self


def options_of(term: Combining) -> Options:
    experts = None if term.experts is None else tuple((name, tuple(classes)) for name, classes in term.experts.items())
    by_rule = term.by_class, term.box, experts, term.column
    return Options(term.level, term.drop or 0, *by_rule, term.silence)


def check_combining(where: str, term: Combining, heard: Sequence[str]) -> None:
    """Raise ValueError, which begins with `where`, for options that do not fit the teachers `heard`."""
    if term.drop is not None and term.drop >= len(heard):
        raise ValueError(
            f"{where}.drop is {term.drop} of {len(heard)} teachers, so nobody would be heard; leave one at least"
        )
    if term.box is not None and term.box * len(heard) < 1 - 1e-9:
        raise ValueError(
            f"{where}.box is {term.box:g} for {len(heard)} teachers, whose weights could not sum to 1; give at least "
            f"{1 / len(heard):.3g}"
        )
    if term.experts is not None:
        if strange := sorted(set(term.experts) - set(heard)):
            raise ValueError(f"{where}.experts names {strange}, who are not among the teachers {list(heard)}")
        if not any(term.experts.values()):
            raise ValueError(f"{where}.experts gives nobody a class, so nobody would be heard; name some, or remove it")
