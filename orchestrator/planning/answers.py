"""What `plan` knows of teachers that are no networks: whether a file of predictions fits, what an endpoint will cost.

Reads files; asks nobody.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from teachers.config.endpoint import Budget
from teachers.config.predictions import PredictionsTeacher
from teachers.errors import CollegiumError, RecipeError
from teachers.users_code.calls import within

from ..recipe.model import Recipe
from .budgets import Rows

if TYPE_CHECKING:
    from teachers.models.endpoint.apis import Question
    from teachers.preparing.sample import Sample
    from teachers.tasks.space import Space
    from teachers.transfer_set.transfer_set import TransferSet

PRICED_ROWS = 64
"""Whose prompts are written, to know how long they are."""


def prediction_problems(recipe: Recipe, space: "Space", prepared: "TransferSet | None") -> Iterator[str]:
    """Files of predictions that do not fit, read to the end: `space` and, where there is one, the transfer set they are about."""
    for name, teacher in recipe.teachers.items():
        if isinstance(teacher, PredictionsTeacher):
            try:
                with within(f"teachers.{name}"):
                    _read(teacher, recipe, space, prepared)
            except RecipeError as error:
                yield str(error)
            except CollegiumError as error:
                yield f"teachers.{name}: {error}"


def _read(teacher: PredictionsTeacher, recipe: Recipe, space: "Space", prepared: "TransferSet | None") -> None:
    from teachers.labelling.joined import Joining, Rows, check_missing, source_keys
    from teachers.models.predictions import Predictions
    from teachers.transfer_set.own_rows import shared

    made = recipe.transfer_set
    uses_all = made.limit is None and (made.split.train is None or made.split.files is not None)
    if teacher.format is not None:
        _read_boxes(teacher, recipe, space, prepared, uses_all)
        return
    predictions = Predictions.open(teacher, space)
    if prepared is not None:
        rows = [
            Rows(prepared.keys(each), _ids(prepared.ids(each)), prepared.labels(each) if teacher.label else None)
            for each in shared(prepared)
        ]
    else:
        in_order = source_keys(made, by_row_number=teacher.by_row_number)
        keys = np.unique(np.concatenate([np.zeros(0, np.uint64), *in_order]))
        rows = [Rows(keys, lambda row: f"{int(keys[row]):016x}")]
    found = Joining(predictions, made).read_into(rows)
    if prepared is not None or uses_all:
        check_missing(found, predictions)


def _read_boxes(
    teacher: PredictionsTeacher, recipe: Recipe, space: "Space", prepared: "TransferSet | None", uses_all: bool
) -> None:
    from teachers.labelling.predicted_boxes import Matched, source_names
    from teachers.transfer_set.own_rows import shared

    if prepared is None:
        names = list(source_names(recipe.transfer_set))
    else:
        names = [name for segment in shared(prepared) for name in prepared.ids(segment).to_pylist()]
    matched = Matched.of(teacher, space, names)
    if prepared is not None or uses_all:
        matched.check_missing()


def _ids(ids: Any) -> Any:
    return lambda row: str(ids[row])


def endpoint_notes(
    asked: dict[str, "Question"], made_of: Sequence[Any], sample: "Sample", rows: Rows | None, reused: set[str]
) -> Iterator[str]:
    """What asking about all rows will cost. `reused`: teachers that have labelled all of them. Raises TeacherError for a prompt that
    a row cannot fill in."""
    for name, question in asked.items():
        config = question.config
        if config.mode == "live":
            yield f"teachers.{name}: is asked about every batch of every training anew, and nothing of that is kept"
        elif name not in reused:
            yield f"teachers.{name}: {_told(question, made_of, sample, rows)}"


def _told(question: "Question", made_of: Sequence[Any], sample: "Sample", rows: Rows | None) -> str:
    from teachers.models.endpoint.purse import Spent
    from teachers.models.endpoint.rows import Fields

    config = question.config
    found = Fields.of(sample.columns, made_of).rows(sample.seen, question.columns)
    requests = [question.request([row], config.votes) for row in found]
    expected = [question.expected(request) for request in requests]
    a_row = [
        float(np.mean([tokens.input for tokens in expected])),
        float(np.mean([tokens.output for tokens in expected])),
    ]
    if rows is None:
        return f"about {a_row[0]:,.0f} tokens a row (four characters each); how many rows there are is known after `prepare`"
    total = sum(rows.by_split.values())
    num_requests = -(-total // (config.rows_per_request if config.api == "json" else 1))
    spent = Spent(num_requests, round(total * a_row[0]), round(total * a_row[1]))
    told = f"{rows.told(total)} rows are about {spent.told(config.price, Budget())} (four characters a token: no tokenizer is asked)"
    limits = config.limits
    minutes = [
        spent.requests / (limits.requests_per_minute or np.inf),
        spent.tokens / (limits.tokens_per_minute or np.inf),
    ]
    told += f"; at its limits {max(minutes):,.1f} minutes" if max(minutes) else ""
    if not spent.within(config.budget, config.price):
        told += f"; its budget is less ({_budget(config.budget)}), so labelling will end there with code 3"
    return told


def _budget(budget: Budget) -> str:
    return ", ".join(f"{most:,} {name}" for name, most in budget.model_dump().items() if most is not None)
