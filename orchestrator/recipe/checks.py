"""What can be known to be wrong with a recipe before any work: names that lead nowhere, weights, classes that do not fit.

`plan` tells all of it; a run looks before it starts Ray. Knows nothing of stages.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.lfme_term import LfmeTerm
from students.config.student import StudentConfig
from students.config.task_terms import JUDGING, OF_LABELLED_ROWS
from teachers.config.published import HuggingFaceTeacher, OnnxTeacher, TimmTeacher
from teachers.config.task import ANSWER_OF, TaskName
from teachers.config.teacher import TeacherConfig
from teachers.config.training import TrainConfig, unknown_classes
from teachers.errors import CollegiumError, DataError, EnvironmentUnfit, RecipeError, StoreError
from teachers.tasks.space import Space
from teachers.users_code.calls import within
from teachers.users_code.imports import load

from . import model
from .model import Recipe
from .secrets import absent_variables
from .seen_rows import seen_problems

if TYPE_CHECKING:
    from teachers.models.endpoint.apis import Question
    from teachers.transfer_set.columns import Column
    from teachers.transfer_set.transfer_set import TransferSet


def import_problems(recipe: Recipe) -> Iterator[str]:
    """Import strings that name nothing, or what cannot be called. A recipe is code: its modules are imported."""
    for where, name in _import_strings(recipe):
        try:
            found = load(name)
        except RecipeError as error:
            yield f"{where}: {error}"
        else:
            if not callable(found):
                yield f"{where}: {name} is a {type(found).__name__}, expected a function or class"


def check_before_work(recipe: Recipe) -> None:
    """Raise RecipeError with all that is wrong with names and model folders: found before hours of work, not after."""
    problems = [*import_problems(recipe), *folder_problems(recipe), *file_problems(recipe), *seen_problems(recipe)]
    if problems:
        raise RecipeError("\n".join(problems))


def check_variables(recipe: Recipe, *, alone: bool) -> list[str]:
    """Raise EnvironmentUnfit for variables that are named and missing here; `alone`: all of it runs on this machine.

    Returns what is to be said of those that workers elsewhere need.
    """
    absent = absent_variables(recipe.model_dump(mode="json"))
    if wrong := [told for told, is_read_here in absent.items() if alone or is_read_here]:
        raise EnvironmentUnfit("\n".join(wrong))
    return [f"{told}, or see that every node of the cluster has it" for told in absent]


def folder_problems(recipe: Recipe) -> Iterator[str]:
    """Model folders that are none, or that name code which nobody vouched for."""
    for name, teacher in recipe.teachers.items():
        if teacher.kind == "checkpoint":
            from teachers.models.folder import check_trusted, read_config  # torch, which takes seconds

            try:
                config = read_config(Path(teacher.path))
                check_trusted(config, recipe.trusted(), Path(teacher.path))
                if config.space.answer != ANSWER_OF[recipe.task]:
                    yield (
                        f"teachers.{name}.path: {teacher.path} was made for `task: {config.space.task}`, this recipe has "
                        f"`task: {recipe.task}`"
                    )
            except CollegiumError as error:
                yield f"teachers.{name}.path: {error}"


def file_problems(recipe: Recipe) -> Iterator[str]:
    """Weights that are not there, or whose file does not say what it must, as far as that is known unloaded."""
    from teachers.models.foreign import given_problem, no_weights
    from teachers.models.published_files import problem_of

    for name, teacher in recipe.teachers.items():
        problem = ""
        if teacher.kind == "sklearn" and teacher.weights is not None:
            problem = given_problem(teacher)
        elif teacher.kind == "module" and teacher.weights is not None:
            problem = no_weights(Path(teacher.weights))
        elif isinstance(teacher, HuggingFaceTeacher | TimmTeacher | OnnxTeacher):
            problem = problem_of(teacher, ANSWER_OF[recipe.task])
        elif teacher.kind == "predictions" and not Path(teacher.path).exists():
            problem = f"path: there is no file {teacher.path} (looked from {Path.cwd()})"
        elif teacher.kind == "predictions" and teacher.images is not None and not Path(teacher.images).is_file():
            problem = f"images: there is no file {teacher.images} (looked from {Path.cwd()})"
        if problem:
            yield f"teachers.{name}.{problem}"


def _import_strings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for where, config in _configs(recipe):
        for key in ("model", "function"):
            value = getattr(config, key, None)
            if value is not None:
                yield f"{where}.{key}", value
        for key in ("train", "control"):
            for name in getattr(getattr(config, key, None), "augments", ()):
                if ":" in name:
                    yield f"{where}.{key}.augment", name
        preprocess = getattr(config, "preprocess", None)
        if preprocess is not None and preprocess.function is not None:
            yield f"{where}.preprocess.function", preprocess.function
        for number, term in enumerate(getattr(config, "objective", ())):
            for key in ("loss", "combine"):
                if ":" in (value := getattr(term, key, None) or ""):
                    yield f"{where}.objective.{number}.{key}", value


def _configs(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    for kind in ("teachers", "students", "cohorts"):
        for name, config in getattr(recipe, kind).items():
            yield f"{kind}.{name}", config
            for member, own in getattr(config, "members", {}).items():
                yield f"{kind}.{name}.members.{member}", own


def class_problems(
    recipe: Recipe, classes: Sequence[str] | None, labelled: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Teachers whose classes do not fit the transfer set's, and weights of classes that are none.

    `labelled`: how many training rows of each class may be learnt from, as far as that is known.
    """
    from teachers.soft_targets.class_map import mapped, resolved

    if classes is None:
        return
    yield from weight_problems(recipe, classes)
    for name, teacher in recipe.teachers.items():
        trained = model.is_trained_here(teacher)
        try:
            with within(f"teachers.{name}"):
                own = _learnt(teacher, classes, labelled) if trained else _known(teacher, recipe.task, classes)
                if own is not None:
                    found = mapped(own, classes, resolved(teacher.class_map), ANSWER_OF[recipe.task])
                    if not any(each is not None for each in found.values()):
                        yield (
                            f"teachers.{name}.class_map: the teacher knows none of the classes, so nobody would hear it; map one "
                            f"of its own to one of the transfer set's, or leave it out"
                        )
        except StoreError:
            continue  # told with the other problems of folders
        except RecipeError as error:
            yield str(error)


def text_problems(recipe: Recipe, columns: Sequence["Column"]) -> Iterator[str]:
    """Networks that would be trained on text of which nothing is made: arrays of fixed width are what training reads."""
    text = [column.name for column in columns if column.kind == "text"]
    networks: list[tuple[str, Any]] = [
        (f"teachers.{name}", each) for name, each in recipe.teachers.items() if each.kind == "module" and each.train
    ]
    networks += [
        (f"students.{name}", each) for name, each in recipe.students.items() if isinstance(each, StudentConfig)
    ]
    networks += [
        (f"cohorts.{name}.members.{member}", each)
        for name, cohort in recipe.cohorts.items()
        for member, each in cohort.members.items()
    ]
    for where, config in networks if text else ():
        if config.preprocess.text is None:
            yield (
                f"{where}.preprocess: column {text[0]!r} is text, of which a network takes what is made of it; say `ngrams: {{}}`, "
                f"`tokenizer: {{path: FOLDER}}` or `encoder: {{path: FOLDER}}`"
            )


def judging_problems(recipe: Recipe, labelled: int, labelled_train: int | None = None) -> Iterator[str]:
    """Rules that weigh teachers by labelled rows, where there are none. `labelled`: how many there are in validation; in
    training, as far as that is known."""
    for where, config in _configs(recipe):
        terms = [
            (f"{where}.{of}.{n}", term)
            for of in ("objective", "hints")
            for n, term in enumerate(getattr(config, of, ()))
        ]
        for at, term in terms:
            rule, key = getattr(term, "combine", None), f"{at}.combine"
            if rule in JUDGING and not labelled and getattr(term, "experts", None) is None:
                yield (
                    f"{key}: `{rule}` weighs teachers by labelled validation rows, and there are none; take another rule, or give "
                    f"`split.validation` labelled rows"
                )
            if isinstance(term, LfmeTerm) and not labelled:
                yield (
                    f"{at}.loss: `lfme` paces experts by labelled validation rows, and there are none; give "
                    f"`split.validation` labelled rows, or let experts be heard by `loss: soft`"
                )
            if rule in OF_LABELLED_ROWS and labelled_train == 0:
                yield (
                    f"{key}: `{rule}` weighs teachers by the labels of training rows, and there are none; take another rule, or give "
                    f"labels"
                )


def questions(
    recipe: Recipe, columns: Sequence["Column"], made_of: Sequence[Any], space: Space
) -> dict[str, "Question"]:
    """How each endpoint is asked about rows of these columns, which were made by the plans `made_of`.

    Raises RecipeError, naming the key, for prompts and words that name what is not there.
    """
    found = {}
    for name, teacher in recipe.teachers.items():
        if teacher.kind == "endpoint":
            from teachers.models.endpoint.apis import Question
            from teachers.models.endpoint.rows import Fields

            with within(f"teachers.{name}"):
                names = Fields.of(columns, made_of).names
                found[name] = Question.of(teacher, tuple(teacher.classes or space.names), names, space.answer)
    return found


def fold_problems(recipe: Recipe, transfer_set: "TransferSet") -> Iterator[str]:
    """Teachers in folds of which a part would learn no row of a class."""
    from teachers.transfer_set.folds import Folds, checked

    for name, teacher in recipe.teachers.items():
        if teacher.kind not in ("module", "sklearn") or teacher.train is None:
            continue
        seed = teacher.train.seed if teacher.kind == "module" else teacher.seed
        if (folds := Folds.of_config(teacher.train, seed)) is not None:
            own = transfer_set if teacher.classes is None else transfer_set.of_classes(teacher.classes)
            try:
                checked(folds, own, f"teachers.{name}.train.folds")
            except DataError as error:
                yield str(error)


def known_by(teacher: TeacherConfig, task: TaskName, classes: Sequence[str]) -> Sequence[str] | None:
    """What a teacher scores, of a transfer set of `classes`; None where only its file tells. Raises RecipeError as `class_problems`."""
    return _learnt(teacher, classes, None) if model.is_trained_here(teacher) else _known(teacher, task, classes)


def _known(teacher: TeacherConfig, task: TaskName, classes: Sequence[str]) -> Sequence[str] | None:
    """What a teacher that is brought scores; None where only its file tells."""
    if teacher.kind == "checkpoint":
        from teachers.models.folder import read_config

        return read_config(Path(teacher.path)).classes
    if isinstance(teacher, HuggingFaceTeacher | TimmTeacher | OnnxTeacher):
        from teachers.models.published_files import classes_of, problem_of

        return None if problem_of(teacher, None) else classes_of(teacher, Space(task, tuple(classes)))
    if teacher.kind == "predictions":
        from teachers.models.predicted_boxes import box_classes
        from teachers.models.predictions import Predictions

        if teacher.format is not None:
            return box_classes(teacher, Space(task, tuple(classes)))
        return Predictions.open(teacher, Space(task, tuple(classes))).classes
    return teacher.classes or (None if teacher.kind == "sklearn" else classes)


def _learnt(teacher: TeacherConfig, classes: Sequence[str], labelled: Mapping[str, int] | None) -> Sequence[str]:
    """What a teacher that is trained here will score. Raises RecipeError where it cannot learn that."""
    wanted = teacher.classes or classes
    if strange := [each for each in wanted if each not in classes]:
        raise RecipeError(
            f"classes: {strange} are not in the transfer set, which has {', '.join(classes[:10])}; a "
            f"teacher that is trained here learns classes of the transfer set"
        )
    if labelled is None:
        return wanted
    seen = [each for each in wanted if labelled[each]]
    if not seen:
        raise RecipeError("there is no labelled training row to train it on; give labels, or weights")
    if teacher.kind == "module":
        return wanted
    absent = [each for each in wanted if not labelled[each]]
    if absent and teacher.class_map is None:
        raise RecipeError(
            f"no labelled training row is of {', '.join(map(repr, absent[:10]))}, so the estimator cannot learn it; "
            f"`class_map: {{}}` says that this is meant, and it then takes no part in them"
        )
    return seen


def weight_problems(recipe: Recipe, classes: Sequence[str]) -> Iterator[str]:
    """Names under `train.class_weights` that are no classes of who is trained."""
    for where, config in _configs(recipe):
        train = getattr(config, "train", None)
        own = getattr(config, "classes", None) or classes  # of a teacher that learns some of them only
        if isinstance(train, TrainConfig) and (problem := unknown_classes(train.class_weights, own)):
            yield f"{where}.{problem}"
