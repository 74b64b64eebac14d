"""What `plan` says of labels and of budgets: which are used besides, and trainings that are too short to learn.

Rows are those of the prepared transfer set, or about those that the recipe's shares will give.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from students.config.cohort import CodistillationCohort
from students.config.estimator import EstimatorStudent
from students.config.hints import check_heard, first_stage
from students.config.terms import HardTerm, TeacherTermCommon, check_ramps
from teachers.config.task import ANSWER_OF
from teachers.config.training import TrainConfig
from teachers.errors import CollegiumError
from teachers.preparing.count import Counted
from teachers.preparing.look import Look
from teachers.transfer_set.transfer_set import SplitName

from ..cluster.capacity import workers_of
from ..recipe.model import Recipe, name_in_recipe

FEWEST_STEPS = 100
FEWEST_EPOCHS = 3
"""Of one_cycle, whose rate has hardly risen before it falls again when there are fewer."""
MOST_OF_A_LABEL = 10
"""Rows without a label that one with a label counts as much as: with ten labelled images of blood cells of 184, `hard` and `pseudo`
alike (a label counts as 19 others) gave a student .45 AP, a tenth of `hard` (3) .49, true boxes of all .50, and labels alone .42."""


@dataclass(frozen=True)
class Rows:
    """How many rows, and labels, a recipe's trainings draw from."""

    by_split: Mapping[SplitName, int]
    labelled: Mapping[SplitName, int]
    exact: bool

    @classmethod
    def of(cls, recipe: Recipe, seen: Look, counted: Counted | None) -> "Rows | None":
        """None where only reading every row tells."""
        if counted is not None:
            return cls(counted.rows, counted.num_labelled, True)
        if seen.rows_by_split is None:
            return None
        asked = recipe.transfer_set.labelled_by_split
        has_labels = recipe.transfer_set.label is not None
        labelled = {split: min(asked.get(split, rows), rows) * has_labels for split, rows in seen.rows_by_split.items()}
        return cls(seen.rows_by_split, labelled, False)

    def told(self, number: float) -> str:
        return f"{'' if self.exact else 'about '}{number:,.0f}"


def row_notes(recipe: Recipe, seen: Look, rows: Rows | None) -> Iterator[str]:
    """Rows that were looked at and cannot be used; that there are no labels, or some beside those that `labelled` counts."""
    if seen.bad:
        position, reason = seen.bad[0]
        then = "they are dropped" if recipe.transfer_set.on_bad_row == "skip" else "the run will end there"
        yield (
            f"{len(seen.bad)} of the rows that were looked at cannot be used, and {then} ({position}: {reason}); mend them, or "
            f"see transfer_set.on_bad_row"
        )
    said = {each.column for each in recipe.transfer_set.input_columns if each.as_ is not None}
    guessed = [name for column in seen.columns for name in column.names if name not in said]
    if guessed:
        yield (
            f"transfer_set.inputs: {', '.join(map(repr, guessed))} {'is a category' if len(guessed) == 1 else 'are categories'}, being "
            f"text, truth values or dictionaries; `as:` says otherwise"
        )
    for name in seen.copies:
        yield (
            f"transfer_set.inputs: {name!r} has the value of the label in every row that was looked at; if it is made of the "
            f"label, take it out"
        )
    if recipe.transfer_set.label is None:
        yield (
            "transfer_set.label is null: nothing will be judged; the report tells what needs no label (who agrees with whom, "
            "how sure each is, which classes are said), and the model is exported"
        )
    counted = recipe.transfer_set.labelled_by_split
    if "train" in counted and "validation" not in counted and rows is not None and rows.labelled["validation"]:
        yield (
            f"{rows.told(rows.labelled['validation'])} validation rows choose weights, seeds and settings by their labels, "
            f"beside the {counted['train']:,} labelled training rows; "
            f"`labelled: {{train: {counted['train']}, validation: N}}` counts them too"
        )


def budget_notes(recipe: Recipe, rows: Rows | None) -> Iterator[str]:
    """Trainings that are too short to learn or to be stopped, or that nothing stops."""
    if rows is not None and rows.exact and not rows.labelled["validation"]:
        trainings = {f"teachers.{name}": getattr(each, "train", None) for name, each in recipe.teachers.items()}
        trainings |= {name_in_recipe(recipe, name): each.train for name, each in recipe.learners.items()}
        for where, train in trainings.items():
            if isinstance(train, TrainConfig) and train.early_stopping is not None:
                yield f"{where}.train.early_stopping: no validation row has a label to stop by, so it trains to the end"
    own = recipe.transfer_set.labelled_by_split.get("teachers", 0)
    for name, teacher in recipe.teachers.items():
        if teacher.kind == "module" and teacher.train is not None:
            drawn = rows.labelled["train"] + own if rows else None
            yield from _of_training(f"teachers.{name}", teacher.train, rows, drawn)
    for name, learner in recipe.learners.items():
        if isinstance(learner, EstimatorStudent):
            continue
        drawn = rows.by_split["train"] if rows else None
        if drawn is not None and isinstance(learner, CodistillationCohort) and learner.own_rows:
            drawn //= len(learner.members)
        yield from _of_training(name_in_recipe(recipe, name), learner.train, rows, drawn)


def weight_notes(recipe: Recipe, rows: Rows | None) -> Iterator[str]:
    """Students in whose objective a few labelled rows drown what teachers say of all others."""
    if rows is None:
        return
    for name, student in recipe.students.items():
        terms = student.objective
        hard = sum(term.weight for term in terms if isinstance(term, HardTerm))
        taught = sum(term.weight for term in terms if isinstance(term, TeacherTermCommon))
        labelled, drawn = rows.labelled["train"], rows.by_split["train"]
        if not hard or not taught or not 0 < labelled < drawn:
            continue
        times = 1 + hard / taught * drawn / labelled
        if times >= MOST_OF_A_LABEL:
            yield (
                f"{name_in_recipe(recipe, name)}.objective: `hard` weighs {hard:g} beside {taught:g} of teachers and is of "
                f"{rows.told(labelled)} of {rows.told(drawn)} rows, so one with a label counts as much as {times:.0f} without: the "
                f"student learns little else; try a tenth of the weight for `hard`"
            )


def _of_training(key: str, train: TrainConfig, rows: Rows | None, drawn: int | None) -> Iterator[str]:
    """`drawn`: the rows that the training draws from."""
    from students.training.optimize import resolve_evaluate_every, resolve_steps

    if drawn == 0 or (drawn is None and train.epochs is not None):
        return
    steps = resolve_steps(train, drawn or 0)
    epochs = steps * train.batch_size / drawn if drawn else None
    passes = f"{epochs:.3g} epochs" if epochs is not None else ""
    of_rows = f" of {rows.told(drawn)} rows" if rows and drawn else ""
    if steps < FEWEST_STEPS:
        given = f" ({passes}{of_rows} in batches of {train.batch_size:,})" if passes else ""
        yield (
            f"{key}.train: {steps:,} steps{given}, fewer than {FEWEST_STEPS}: it will hardly learn anything; "
            f"give more `epochs` or `steps`, or a smaller `batch_size`"
        )
    elif train.schedule == "one_cycle" and epochs is not None and epochs < FEWEST_EPOCHS - 1e-9:
        yield (
            f"{key}.train: one_cycle over {passes}{of_rows} ({steps:,} steps of {train.batch_size:,}), "
            f"fewer than {FEWEST_EPOCHS}: the learning rate rises and falls before the rows were seen often enough; "
            f"give more `epochs` or `steps`, or another `schedule`"
        )
    looked_at = rows.by_split["validation"] if rows and rows.labelled["validation"] else 0
    looks = -(-steps // resolve_evaluate_every(train, steps, looked_at))
    if train.early_stopping is not None and train.early_stopping.patience >= looks:
        yield (
            f"{key}.train.early_stopping: patience {train.early_stopping.patience} is not less than the {looks} looks at "
            f"validation of {steps:,} steps, so it never stops one; give a smaller `patience`, or `evaluate_every`"
        )


def budget_problems(recipe: Recipe, counted: Counted) -> Iterator[str]:
    """Budgets that cannot be what they say, with the rows that there are."""
    from students.data.batches import labelled_share
    from students.training.optimize import resolve_steps

    for name, learner in recipe.learners.items():
        if isinstance(learner, EstimatorStudent):
            continue
        where, train = name_in_recipe(recipe, name), learner.train
        steps = resolve_steps(train, counted.rows["train"])
        try:
            in_steps = train.model_copy(update={"steps": steps, "epochs": None})
            hints = getattr(learner, "hints", [])
            check_ramps(learner.objective, in_steps, first_stage=first_stage(hints))
            check_ramps(hints, in_steps, "hints", first_stage(hints))
            check_heard(hints, in_steps, counted.rows["train"])
            if train.labelled_fraction is not None and name in recipe.students:
                labelled_share(train, workers_of(learner))
        except (ValueError, CollegiumError) as error:
            yield f"{where}.{error}"


def floor_notes(recipe: Recipe) -> list[str]:
    """What a probability of 0 becomes."""
    return [
        f"teachers.{name}: probabilities of 0 become {teacher.probability_floor:g} / classes (probability_floor)"
        for name, teacher in recipe.teachers.items()
        if ANSWER_OF[recipe.task] != "values" and teacher.kind != "checkpoint" and teacher.output == "probabilities"
    ]


def seed_notes(recipe: Recipe) -> list[str]:
    """Of whom no verdict can be given."""
    return [
        f"{name_in_recipe(recipe, name)}: one seed gives no verdict; `train.seeds` needs at least two, better five"
        for name, config in recipe.learners.items()
        if config.control and len(config.train.seeds) < 2 and recipe.search is None
    ]
