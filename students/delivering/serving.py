"""A delivered model as a JSON server: rows in, scores out. The batch API that a `kind: endpoint` teacher asks.

Knows nothing of addresses or of how the server is stopped.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.errors import CollegiumError
from teachers.models.folder import LoadedModel
from teachers.preparing.canonical import InputPlan
from teachers.tasks.boxes import CLASS, boxes_of

from .predict import asked
from .records import of_records
from .source import plans_of

Document = dict[str, Any]
Output = Literal["probabilities", "log_probabilities", "logits", "values"]
FORMS: dict[AnswerName, dict[Output, Callable[[Tensor], Tensor]]] = {
    "class_axis": {
        "probabilities": partial(torch.softmax, dim=-1),
        "log_probabilities": partial(torch.log_softmax, dim=-1),
        "logits": Tensor.float,
    },
    "class_set": {"probabilities": torch.sigmoid, "log_probabilities": F.logsigmoid, "logits": Tensor.float},
    "values": dict.fromkeys(get_args(Output), Tensor.float),
    "boxes": dict.fromkeys(get_args(Output), Tensor.float),
}
"""By what a model says, from its logits to what is asked for; numbers and boxes stay what they are."""


class Refused(Exception):
    """A request that is not answered: the status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def application(model: LoadedModel, name: str, *, most_rows: int, most_bytes: int) -> Starlette:
    """`POST /`: `{"rows": [{column: value}, ...]}`, at most `most_rows` in `most_bytes` bytes, to what `answered` gives; `GET /`:
    what the model takes and says. One request at a time is computed."""
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> JSONResponse:
        try:
            rows, output = _asked(await _body(request, most_bytes), most_rows, [*FORMS[model.config.space.answer]])
            async with one_at_a_time:
                said = await run_in_threadpool(answered, model, rows, output)
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, refused.status)
        except CollegiumError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(said)

    async def about(request: Request) -> JSONResponse:
        return JSONResponse(described(model, name) | {"most_rows": most_rows, "most_bytes": most_bytes})

    return Starlette(routes=[Route("/", answer, methods=["POST"]), Route("/", about, methods=["GET"])])


async def _body(request: Request, most_bytes: int) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most_bytes:
            raise Refused(413, f"more than {most_bytes:,} bytes; send fewer rows at once")
    return bytes(found)


def _asked(body: bytes, most_rows: int, outputs: list[Output]) -> tuple[list[Any], Output]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"not JSON: {error}") from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise Refused(400, 'expected {"rows": [{column: value, ...}, ...]}')
    if len(rows) > most_rows:
        raise Refused(413, f"{len(rows):,} rows, at most {most_rows:,}; send fewer at once")
    output = document.get("output", "probabilities")
    if output not in outputs:
        raise Refused(400, f"output is {output!r}, expected {', '.join(outputs)}")
    return rows, output


def answered(model: LoadedModel, rows: list[Any], output: Output = "probabilities") -> Document:
    """`classes` (of a model of numbers `names`) and `scores`, a list for each row: in the form `output`, or the numbers.

    Of a row that cannot be used they are null, and `bad` says why by its place. Raises CollegiumError where no row has a
    column that the model takes.
    """
    space = model.config.space
    said, bad = asked(model, of_records(model.config, rows))
    scores = FORMS[space.answer][output](said).tolist() if not space.max_boxes else _boxes(said)
    return {
        "classes" if space.has_classes else "names": list(space.names),
        "scores": [None if row in bad else score for row, score in enumerate(scores)],
        "bad": {str(row): why for row, why in sorted(bad.items())},
    }


def _boxes(said: Tensor) -> list[list[list[float]]]:
    """Of each row its boxes, each x1, y1, x2, y2 in 0 to 1 of the image, score and the number of its class."""
    each = boxes_of(said.numpy())
    return [row[row[:, CLASS] >= 0].tolist() for row in each]


def described(model: LoadedModel, name: str) -> Document:
    """What the model takes, by column of a row, and what it says."""
    takes: Mapping[str, str] = {name: kind for plan in plans_of(model.config) for name, kind in _kinds(plan)}
    space = model.config.space
    return {"name": name, "task": space.task, "takes": takes, "classes" if space.has_classes else "names": space.names}


def _kinds(plan: InputPlan) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(plan.sources):
        is_date = number < len(plan.how) and plan.how[number].unit is not None
        yield name, "date" if is_date else plan.kind
