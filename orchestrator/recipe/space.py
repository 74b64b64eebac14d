"""What a search may change of a student or cohort: paths and values, checked before anything runs.

Knows nothing of how values are drawn, nor of trials.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from students.config.cohort import CohortCommon, CohortConfig
from students.config.estimator import EstimatorStudent
from students.config.student import StudentConfig, TrainOverride, control_train
from students.config.task_terms import task_problems
from students.config.terms import TeacherTermCommon
from teachers.config.task import TaskName

from .errors import told
from .file import Loc, nearest
from .search import Choice, Entry, Integer, SearchConfig, Subset, Uniform

if TYPE_CHECKING:
    from .model import Learner, Recipe

Values = Mapping[str, Any]
"""By path below the student: what a trial sets there."""
BUDGET = {
    f"train.{key}"
    for key in ("steps", "epochs", "batch_size", "accumulate", "workers", "early_stopping", "evaluate_every")
}
OF_PBT = ("objective.", "teachers", "train.learning_rate", "train.clip")
"""Below these a network that is being trained can be given other values."""
MANY_SUBSETS = 200
OWN_OF_CONTROL = {f"train.{key}" for key in TrainOverride.model_fields}
"""What a control can have for itself."""


def applied(document: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """A student's document with `values` in it; its terms and hints listen to those only who are among its teachers.

    Raises KeyError, IndexError or TypeError for a path that leads nowhere.
    """
    changed: dict[str, Any] = _copied(document)
    for path, value in values.items():
        *above, last = parts_of(path)
        at: Any = changed
        for part in above:
            at = at[part]
        at[last] = _copied(value)
    if "teachers" in values:
        for term in changed["objective"]:
            _restrict(term, values["teachers"])
        if hints := changed.get("hints"):
            changed["hints"] = [hint for hint in hints if hint["teacher"] in values["teachers"]]
        if changed.get("hydra") is not None and len(values["teachers"]) == 1:
            changed["hydra"] = None  # a head for each of one teacher
    return changed


def parts_of(path: str) -> list[Any]:
    """Keys of mappings and numbers of entries."""
    return [int(part) if part.isdigit() else part for part in path.split(".")]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(child) for key, child in value.items()}
    return [_copied(child) for child in value] if isinstance(value, list) else value


def _restrict(term: dict[str, Any], teachers: list[str]) -> None:
    if term.get("teachers"):
        term["teachers"] = [name for name in term["teachers"] if name in teachers]
    if term.get("teacher_weights"):
        term["teacher_weights"] = {name: weight for name, weight in term["teacher_weights"].items() if name in teachers}


def validated(learner: "Learner", document: Mapping[str, Any]) -> "Learner":
    checked: Learner = TypeAdapter(schema_of(learner)).validate_python(document)
    return checked


def schema_of(learner: "Learner") -> Any:
    """What documents of its kind are checked against; a cohort's may change its method."""
    return CohortConfig if isinstance(learner, CohortCommon) else type(learner)


def values_now(learner: "Learner", search: SearchConfig) -> dict[str, Any]:
    """What the recipe says at the paths of the space."""
    found = {}
    for path in search.space:
        at: Any = learner.model_dump(mode="json")
        for part in parts_of(path):
            at = at.get(part) if isinstance(at, dict) else at[part] if isinstance(at, list) else None
        found[path] = at
    return found


def of_the_control(search: SearchConfig) -> dict[str, Entry]:
    """The part of the space that a network without teachers has too: how it is trained."""
    return {path: entry for path, entry in search.space.items() if path in OWN_OF_CONTROL}


def shared_with_control(values: Values) -> dict[str, Any]:
    """What the control cannot have for itself, but has from its student: its network, its augmentation."""
    mine = ("objective.", "hints.", "hydra", "teachers")
    return {path: value for path, value in values.items() if path not in OWN_OF_CONTROL and not path.startswith(mine)}


def control_now(learner: "Learner", search: SearchConfig) -> dict[str, Any] | None:
    """What the recipe says of its control at the paths of the space; None for a student without one."""
    if not learner.control:
        return None
    if isinstance(learner, EstimatorStudent):
        return shared_with_control(values_now(learner, search))
    train = control_train(learner.control, learner.train).model_dump(mode="json")
    own = {path: train[path.removeprefix("train.")] for path in of_the_control(search)}
    return shared_with_control(values_now(learner, search)) | own


def search_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """What is wrong between the search and the rest of the recipe: (path, message)."""
    search = recipe.search
    assert search is not None
    if search.student not in recipe.learners:
        yield (
            ("search", "student"),
            f"no student or cohort is called {search.student!r}{nearest(search.student, [*recipe.learners])}",
        )
        return
    learner = recipe.learners[search.student]
    for name in recipe.live_teachers(search.student):
        yield (
            ("search", "student"),
            f"its teacher {name!r} is live, and a study never asks a teacher; set `teachers.{name}.mode: cached`",
        )
    if search.algorithm == "pbt" and (not isinstance(learner, StudentConfig) or learner.train.workers > 1):
        yield (
            ("search", "algorithm"),
            "pbt moves a network between settings while it trains; it takes a student with `workers: 1`",
        )
    for path, entry in search.space.items():
        for message in _entry_problems(recipe.task, learner, search, path, entry):
            yield ("search", "space", path), message


def _entry_problems(task: TaskName, learner: "Learner", search: SearchConfig, path: str, entry: Entry) -> Iterator[str]:
    if any(path == key or path.startswith(f"{key}.") for key in BUDGET):
        yield "is the budget, which is the same for all trials; else the most expensive one would win"
    elif path in OWN_OF_CONTROL and isinstance(entry, Choice) and None in entry.choice and learner.control:
        yield "null among the choices cannot be said of the control alone; leave null out, or set `control: false`"
    elif path == "train":
        yield "holds the budget too, which is the same for all trials; name keys below it, as `train.learning_rate`"
    elif path == "train.seeds" or path.split(".")[0] == "control":
        yield "is the study's own: trials share a seed, and the control is searched by itself"
    elif search.algorithm == "pbt" and not path.startswith(OF_PBT):
        yield f"cannot change while a network trains, as pbt does; it takes {', '.join(OF_PBT)}"
    elif isinstance(entry, Subset) != (parts_of(path)[-1] == "teachers"):
        yield "`subset` goes with a list of teachers, and only with one"
    elif isinstance(entry, Subset) and (strange := [name for name in entry.subset.of if name not in learner.teachers]):
        yield f"{strange} are not among the student's own teachers {learner.teachers}; name them there too"
    else:
        yield from dict.fromkeys(_value_problems(task, learner, path, entry))


def _value_problems(task: TaskName, learner: "Learner", path: str, entry: Entry) -> Iterator[str]:
    """Whatever the schema and the task have against the path, or against values at the ends of its range."""
    document = learner.model_dump(mode="json")
    for value in extremes(entry):
        try:
            changed = applied(document, {path: value})
        except (KeyError, IndexError, TypeError):
            yield from _nowhere(document, path)
            return
        try:
            found = [*task_problems(task, validated(learner, changed))]
        except ValidationError as error:
            found = [*told(schema_of(learner), changed, error)]
        for loc, message in found:
            at = ".".join(map(str, loc))
            yield f"{message}" if at == path else f"with {value!r}: {at + ': ' if at else ''}{message}"


def _nowhere(document: Any, path: str) -> Iterator[str]:
    """The first part of a path that the recipe does not have, and what it has there."""
    at = document
    for number, part in enumerate(parts_of(path)):
        known = [*at] if isinstance(at, dict) else [*range(len(at))] if isinstance(at, list) else []
        if part not in known:
            above = ".".join(path.split(".")[:number]) or "the student"
            if isinstance(at, list):
                yield f"there is no number {part} in {above}, which has {len(at)} entries, counted from 0"
            elif not known:
                yield f"{above} is {at!r} in the recipe, so there is nothing below it; set it there first"
            else:
                yield f"unknown key {part!r}{nearest(str(part), [str(name) for name in known])}"
            return
        at = at[part]


def extremes(entry: Entry) -> list[Any]:
    """Values that stand for all others: the ends of a range, every choice, the smallest subsets and all."""
    if isinstance(entry, Choice):
        return list(entry.choice)
    if isinstance(entry, Subset):
        of, least = entry.subset.of, entry.subset.at_least
        few = [list(some) for some in combinations(of, least)] if comb(len(of), least) <= MANY_SUBSETS else []
        return [list(of), *few]
    if isinstance(entry, Uniform):
        return list(entry.uniform)
    return list(entry.integer if isinstance(entry, Integer) else entry.log_uniform)


NOT_OF_TRAINING = ("resources", "require", "deliver", "placement", "onnx")


def search_warnings(recipe: "Recipe") -> list[str]:
    """Entries of the space that change nothing of what is trained."""
    search = recipe.search
    if search is None:
        return []
    learner = recipe.learners[search.student]
    return [
        f"search.space.{path}: the student does not use it ({why}), so trials differ in nothing by it"
        for path in search.space
        if (why := _unused(learner, search, path))
    ]


def _unused(learner: "Learner", search: SearchConfig, path: str) -> str:
    parts = parts_of(path)
    if parts[0] in NOT_OF_TRAINING:
        return "it decides nothing of its training"
    if (
        isinstance(learner, StudentConfig)
        and path == "train.momentum"
        and learner.train.optimizer != "sgd"
        and "train.optimizer" not in search.space
    ):
        return f"its optimizer is {learner.train.optimizer}"
    if parts[0] == "objective" and len(parts) > 2 and isinstance(parts[1], int):
        term = learner.objective[parts[1]]
        if parts[2] != "weight" and term.weight == 0 and f"objective.{parts[1]}.weight" not in search.space:
            return f"objective.{parts[1]}.weight is 0"
        if parts[2] in ("combine", "teachers") and isinstance(term, TeacherTermCommon):
            heard = term.teachers or learner.teachers
            return f"it listens to {heard[0]!r} alone" if len(heard) == 1 else ""
    return ""
