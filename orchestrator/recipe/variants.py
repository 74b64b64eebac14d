"""One student in several variants: a recipe whose students differ in one thing, which `collegium compare` carries out.

By method (`students.config.methods`), or by who is heard: all its teachers, all but one, one alone. Rows, batches, budget, seeds
and the control are the same for all, so whatever they share is built once. Knows nothing of stages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from students.config.estimator import AT_ONCE, EstimatorStudent
from students.config.methods import HAVE_NO_METHOD, HEARS_NOBODY, METHODS, MethodName, Setting, changes_by, method_of
from students.config.student import StudentConfig
from students.config.task_terms import COMBINES, KEYWORDS
from teachers.config.strict import LONGEST_NAME
from teachers.config.task import ANSWER_OF
from teachers.errors import RecipeError

from .dividing import undivided
from .fewer import heard_by
from .file import nearest
from .load import changed
from .model import Recipe

Kind = Literal["methods", "teachers"]
ALL = "all"
"""Of methods: all that the recipe's teachers can serve; of teachers: whoever hears all of them."""

ALL_TEACHERS = "all teachers"
"""What that one is."""


@dataclass(frozen=True)
class Variants:
    """`recipe`: of the variants and who teaches them; `of`: by each variant's name, what it is (`dkd`, `without wide`)."""

    kind: Kind
    student: str
    recipe: Recipe
    of: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By method, or by `without wide`, why it is not among them."""
    takes_all: bool = False
    """Whether all methods were asked for, so that one that cannot be trained is left out."""

    @property
    def seeds(self) -> list[int]:
        """The same of all."""
        return self.recipe.students[next(iter(self.of))].train.seeds

    @property
    def whole(self) -> str:
        """Of variants by teachers, the one that hears all of them."""
        return next(name for name, of in self.of.items() if of == ALL_TEACHERS)

    def cost(self) -> str:
        """What training them takes, before anybody knows what of it is there."""
        seeds, each = len(self.seeds), budget_in_words(self.recipe.students[next(iter(self.of))])
        return (
            f"{len(self.of)} variants of {self.student} with {seeds} seed{'s' * (seeds > 1)}: {len(self.of) * seeds} trainings"
            f"{each}, and {seeds} of the control that they share; what is there already is reused"
        )


def budget_in_words(config: StudentConfig | EstimatorStudent) -> str:
    """` of 1,600 steps`; empty of an estimator."""
    if isinstance(config, EstimatorStudent) or not (config.train.steps or config.train.epochs):
        return ""
    return f" of {config.train.steps:,} steps" if config.train.steps else f" of {config.train.epochs:g} epochs"


def chosen_student(recipe: Recipe, name: str | None) -> str:
    """The student that is compared with itself. Raises RecipeError where none can be, or where it is not clear which."""
    if recipe.transfer_set.label is None:
        raise RecipeError(
            "transfer_set.label is null, so nothing can be compared: give rows with a label for the test split, and some to "
            "train the control with"
        )
    if name is not None:
        if name in recipe.cohorts:
            raise RecipeError(f"--student {name}: is a cohort, whose members have methods of their own; name a student")
        if name not in recipe.students:
            raise RecipeError(f"--student {name}: there is no such student{nearest(name, list(recipe.students))}")
        return name
    if recipe.search is not None and recipe.search.student in recipe.students:
        return recipe.search.student
    found = [each for each in recipe.students if each not in recipe.assistants()]
    if len(found) != 1:
        told = f"has students {', '.join(found)}; say which with --student" if found else "has no student to compare"
        raise RecipeError(f"the recipe {told}")
    return found[0]


def by_method(
    recipe: Recipe,
    student: str,
    methods: str | Sequence[str],
    seeds: int | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Variants:
    """One variant a method; `methods`: their names, or `all` that can be served. `settings`: of some, other than their first.

    Raises RecipeError for a method that there is none of, that the recipe cannot serve, or where there is nothing to compare.
    """
    names, every = _known(methods)
    config, found, why = recipe.students[student], dict[str, dict[str, Any]](), dict[str, str]()
    for name in sorted(names, key=[*METHODS].index):
        if every and not is_of_task(recipe, name):
            continue
        if reason := lacks(recipe, student, name):
            if not every:
                raise RecipeError(f"--methods {name}: {reason}")
            why[name] = reason
            continue
        changes = changes_of(recipe, student, name, (settings or {}).get(name))
        twin = next((other for other, its in found.items() if _are_one(config, its, changes)), None)
        if twin is not None and settings is None:
            why[name] = f"is the same objective as {twin} here"
        else:
            found[name] = changes
    if len(found) < 2:
        told = "; ".join(f"{name}: {reason}" for name, reason in why.items())
        raise RecipeError(
            f"--methods leaves {', '.join(found) or 'none'}, and a comparison is of two or more; `all` takes every one that the "
            f"recipe's teachers can serve{f' ({told})' * bool(told)}"
        )
    return replace(variants_of("methods", recipe, student, found, seeds, why), takes_all=every)


def without(recipe: Recipe, made: Variants, failures: Mapping[str, str]) -> Variants:
    """The variants without methods that were found to fail: by method, why. Raises RecipeError where they were asked for by
    name, or where too few are left."""
    if not failures:
        return made
    if not made.takes_all:
        raise RecipeError("\n".join(f"--methods {method}: {why}" for method, why in failures.items()))
    kept = [method for method in made.of.values() if method not in failures]
    again = by_method(recipe, made.student, kept, len(made.seeds))
    return replace(again, left_out={**made.left_out, **failures}, takes_all=True)


def _are_one(config: StudentConfig | EstimatorStudent, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of changes come to the same student, defaults filled in."""
    first, second = (type(config).model_validate(config.model_dump() | dict(each)) for each in (one, other))
    return first == second


def _known(methods: str | Sequence[str]) -> tuple[list[MethodName], bool]:
    """The names, and whether they are `all` that there are. Raises RecipeError for a name that is none of METHODS."""
    given = methods.split(",") if isinstance(methods, str) else methods
    names = [name for each in given if (name := each.strip())]
    if ALL in names:
        if others := [name for name in names if name != ALL]:
            raise RecipeError(
                f"--methods {','.join(names)}: `{ALL}` stands alone; leave {', '.join(others)} out, or `{ALL}`"
            )
        return [*METHODS], True
    for name in names:
        if name in HAVE_NO_METHOD or name == "control":
            raise RecipeError(f"--methods {name}: is the control, which stands in every comparison; leave it out")
        if name not in METHODS:
            raise RecipeError(f"--methods {name}: there is no such method{nearest(name, list(METHODS))}")
    return list(dict.fromkeys(names)), False  # type: ignore[arg-type]  # each was looked up


def changes_of(recipe: Recipe, student: str, name: MethodName, setting: Setting | None = None) -> dict[str, Any]:
    """What a student has otherwise by a method; an estimator cannot be softened."""
    config = recipe.students[student]
    changes = changes_by(method_of(name, ANSWER_OF[recipe.task]), config, setting)
    if isinstance(config, EstimatorStudent):
        for term in changes["objective"]:
            term |= {"temperature": AT_ONCE} if term["loss"] == "soft" else {}
    return changes


def is_of_task(recipe: Recipe, name: MethodName) -> bool:
    """Whether the recipe's task has the losses of a method, and its rule."""
    answer = ANSWER_OF[recipe.task]
    method, rules = method_of(name, answer), [str(rule) for rule in COMBINES[answer]]
    return {*method.losses} <= {*KEYWORDS[recipe.task]} and (method.rule is None or method.rule in rules)


def lacks(recipe: Recipe, student: str, name: MethodName) -> str | None:
    """Why a recipe cannot serve a method, with the key to set; None where it can."""
    method, config = method_of(name, ANSWER_OF[recipe.task]), recipe.students[student]
    if not is_of_task(recipe, name):
        return f"is not of the task {recipe.task}"
    if method.rule is not None and len(config.teachers) < 2:
        return f"is a rule that joins several teachers, and students.{student}.teachers has one; name another there"
    if method.hydra and (isinstance(config, EstimatorStudent) or len(config.teachers) < 2):
        found = "is an estimator" if isinstance(config, EstimatorStudent) else "has one teacher; name another there"
        return f"is a network with a head for each of several teachers, and students.{student} {found}"
    if method.hint is not None and not getattr(config, "hints", ()):
        return f"is a hint, and the recipe says none; set `students.{student}.hints`: whose output, for which layer"
    if "lfme" in method.losses and (reason := undivided(recipe, student)):
        return reason
    hears_scores = any(loss not in ("teacher_label", *HEARS_NOBODY) for loss in method.losses)
    for teacher in config.teachers if hears_scores else ():
        if teacher in recipe.teachers and recipe.teachers[teacher].encoding == "label":
            return f"needs scores, and teacher {teacher} keeps only labels; set `teachers.{teacher}.encoding: dense`"
    try:
        variants_of("methods", recipe, student, {name: changes_of(recipe, student, name)}, None)
    except RecipeError as error:
        return _of_student(error, student, name)
    return None


def by_teachers(recipe: Recipe, student: str, seeds: int | None = None) -> Variants:
    """The student of all its teachers, of all but each, and of each alone; what it cannot be without is left out.

    Raises RecipeError where it has fewer than two teachers, or can be without none of them.
    """
    config = recipe.students[student]
    if len(config.teachers) < 2:
        only = f"has only {config.teachers[0]}" if config.teachers else "names nobody: it learns from itself alone"
        raise RecipeError(
            f"students.{student}.teachers {only}; what teachers bring together, the control of a plain `collegium run` "
            f"shows; which of several helped, needs two or more"
        )
    variants, of, left_out = dict[str, dict[str, Any]]({ALL: {}}), {ALL: ALL_TEACHERS}, dict[str, str]()
    subsets = {("without", each): [name for name in config.teachers if name != each] for each in config.teachers}
    if len(config.teachers) == 2:
        subsets = {}  # without one is the other alone
    subsets |= {("only", each): [each] for each in config.teachers}
    for number, ((word, teacher), heard) in enumerate(subsets.items()):
        name = f"{word}-{teacher.replace('.', '-')}"
        name = name if len(name) <= LONGEST_NAME else f"{word}-{number}"
        try:
            changes = heard_by(config, heard)
            variants_of("teachers", recipe, student, {name: changes}, None)
        except RecipeError as error:
            left_out[f"{word} {teacher}"] = _of_student(error, student, name)
        else:
            of[name], variants[name] = f"{word} {teacher}", changes
    if len(variants) == 1:
        told = "; ".join(f"{', '.join(titles)}: {why}" for why, titles in by_reason(left_out).items())
        raise RecipeError(f"students.{student} can be without none of its teachers, so nothing is compared ({told})")
    made = variants_of("teachers", recipe, student, variants, seeds, left_out)
    return replace(made, of=dict(zip(made.of, of.values(), strict=True)))


def by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    """Who is left out, by why."""
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def _of_student(error: RecipeError, student: str, variant: str) -> str:
    """The first line of what is wrong with a variant, which nobody wrote, told of the student that it is one of."""
    said, *_ = str(error).splitlines()
    for name in (f"{student}-{variant}", variant):
        said = said.replace(f"compare: students.{name}", f"students.{student}", 1)
    return said


def variants_of(
    kind: Kind,
    recipe: Recipe,
    student: str,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: int | None,
    left_out: Mapping[str, str] | None = None,
) -> Variants:
    """The recipe of `variants`: by name, what each changes in the student. Raises RecipeError for one that does not fit."""
    document = recipe.model_dump(mode="json")
    needed = {name for names in recipe.before(student) for name in names}
    base = document["students"][student] | {"require": None}  # nothing is delivered
    base["control"] = base["control"] or True
    base.pop("follow", None)  # those that are compared learn from the same rows
    base["train"]["seeds"] = seeds_of(base["train"]["seeds"], seeds)
    taken = {*recipe.teachers, *needed}
    names = {name: name if name not in taken else f"{student}-{name}" for name in variants}
    kept = {name: config for name, config in document["students"].items() if name in needed}
    document["students"] = kept | {names[name]: {**base, **changes} for name, changes in variants.items()}
    document["cohorts"] = {name: config for name, config in document["cohorts"].items() if name in needed}
    document["search"] = None
    of = {called: name for name, called in names.items()}
    return Variants(kind, student, changed(document, "compare"), of, dict(left_out or {}))


def with_objective_of(recipe: Recipe, made: Variants, name: str) -> Recipe:
    """The recipe whose student has the objective of one of its variants; all else as it stands, but for a search, whose paths lead
    into the objective that was."""
    document = recipe.model_dump(mode="json") | {"search": None}
    variant = made.recipe.students[name].model_dump(mode="json")
    own = {key: value for key, value in document["students"][made.student].items() if key not in ("hydra", "follow")}
    of_it = {key: variant[key] for key in ("objective", "hints", "hydra") if key in variant}
    document["students"][made.student] = own | of_it
    return changed(document, "compare")


def seeds_of(own: Sequence[int], number: int | None) -> list[int]:
    """So many seeds: the recipe's first, then fresh ones."""
    if number is None:
        return list(own)
    fresh: Iterable[int] = range(max(own) + 1, max(own) + 1 + number)
    return [*own, *fresh][:number]
