"""What a recipe of `task: detection` says that has no meaning for boxes, or is not there yet. Knows nothing of files."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from students.config.estimator import EstimatorStudent
from students.config.moves import FOLLOWED
from students.config.terms import AUTO, PseudoTerm
from teachers.config.training import transforms_of

from .file import Loc

if TYPE_CHECKING:
    from teachers.transfer_set.transfer_set import SplitName

    from .model import Recipe


def detection_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    rows = recipe.transfer_set
    if rows.image_size is not None and rows.fit != "squash":
        yield (
            ("transfer_set", "fit"),
            f"`{rows.fit}` moves boxes within their image; say `squash`, which leaves them where they are",
        )
    for name, teacher in recipe.teachers.items():
        where: Loc = ("teachers", name)
        train = getattr(teacher, "train", None)
        if train is not None and train.folds is not None and not train.refit:
            yield (*where, "train", "refit"), "boxes of several parts have no mean: with `folds` say `refit: true`"
        yield from _augment(getattr(train, "augment", None), (*where, "train", "augment"))
        yield from _drawn(train, where)
    for name in recipe.cohorts:
        yield ("cohorts", name), "members of a cohort cannot tell each other of boxes yet; train them as students"
    for name, student in recipe.students.items():
        if isinstance(student, EstimatorStudent):
            yield ("students", name, "kind"), "an estimator says no boxes; take a network"
            continue
        yield from _drawn(student.train, ("students", name))
        if student.hydra is not None:
            yield ("students", name, "hydra"), "boxes of several heads have no mean; remove it"
        if student.energy is not None:
            yield ("students", name, "energy"), "detectors say boxes, and no logits of an image; remove it"
        if student.train.class_weights is not None:
            yield ("students", name, "train", "class_weights"), "images hold boxes of many classes; remove it"
        yield from _augment(student.train.augment, ("students", name, "train", "augment"))
        yield from _augment(getattr(student.control, "augment", None), ("students", name, "control", "augment"))


def _drawn(train: object, where: Loc) -> Iterator[tuple[Loc, str]]:
    """Of how a batch is drawn and made, by a teacher's or student's `train`."""
    if getattr(train, "mix", None) is not None:
        yield (
            (*where, "train", "mix"),
            "two images as one would hold the boxes of both, which is not there yet; remove it",
        )
    if getattr(train, "balanced", None) is not None:
        yield (*where, "train", "balanced"), "images hold boxes of many classes; remove it"


def rows_to_choose_by(recipe: "Recipe", labelled: "Mapping[SplitName, int]") -> Iterator[str]:
    """Terms that would choose their thresholds on validation images, with so many labelled rows of each split: none."""
    for name, student in recipe.students.items() if not labelled["validation"] else ():
        for number, term in enumerate(student.objective):
            if isinstance(term, PseudoTerm) and term.keep_above == AUTO:
                yield (
                    f"students.{name}.objective.{number}.keep_above: `auto` chooses on labelled validation images, and there are "
                    f"none; say a number, or give `split.validation` labelled images"
                )


def _augment(given: str | list[str] | None, where: Loc) -> Iterator[tuple[Loc, str]]:
    strange = [name for name in transforms_of(given) if name not in FOLLOWED]
    if strange:
        yield where, f"boxes cannot follow `{strange[0]}`; take {', '.join(f'`{name}`' for name in FOLLOWED)}"
