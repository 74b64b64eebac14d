"""One or several numbers a row, in the label's own units; NaN where nobody knows one.

Several are judged together in standard deviations of their training labels; each column's own figures stand in a table.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from teachers.tasks.space import Space

from .figure import NOTHING, headline, significant
from .ranking import correlation
from .standing import Standing, by_squared_errors, interval
from .task import Document, Model, Task
from .values import COLUMN, ValuesMeter, mean_of_known, scale_of


def merits(said: Tensor, labels: Tensor, space: Space) -> Tensor:
    """Less the mean over a row's known columns of the squared error, as in RMSE."""
    return -torch.nanmean(((said.double() - labels.double()) / scale_of(space)) ** 2, 1)


def beside(said: Tensor, together: Tensor, space: Space) -> Document:
    """`agreement`: Pearson's correlation, the mean over columns; `distance`: the root mean square of the difference, as RMSE."""
    if not space.scale:
        space = replace(
            space, scale=tuple(column[~column.isnan()].std().item() for column in together.double().unbind(1))
        )
    meter = ValuesMeter(space)
    meter.update(said, together)
    return {"agreement": meter.over_columns(_pearson), "distance": meter.figures(keys=("rmse",))["rmse"]}


def _pearson(said: Tensor, labels: Tensor, weights: Tensor | None) -> float | None:
    return correlation(said, labels)


def tables(everybody: Mapping[str, Model], closely: Model, labels: Tensor, space: Space) -> Document:
    """`by_value`: of each column its rows, mean and standard deviation, and by name figures in its own units, of several
    seeds the mean; `scatter`: of the delivered one, what is said of some rows beside what is so."""
    meters = {name: [_metered(said, labels, space) for said in model.seeds] for name, model in everybody.items()}
    known = [column[~column.isnan()].double() for column in labels.unbind(1)]
    return {
        "by_value": {
            "values": list(space.names),
            "rows": [len(column) for column in known],
            "mean": [float(column.mean()) if len(column) else None for column in known],
            "std": [float(column.std()) if len(column) > 1 else None for column in known],
            **{
                key: {
                    name: [
                        mean_of_known(values) for values in zip(*(each.by_column(of) for each in seeds), strict=True)
                    ]
                    for name, seeds in meters.items()
                }
                for key, of in COLUMN.items()
            },
        },
        "scatter": _scatter(closely.seeds[0], labels, space),
    }


def _metered(said: Tensor, labels: Tensor, space: Space) -> ValuesMeter:
    meter = ValuesMeter(space)
    meter.update(said, labels)
    return meter


SHOWN = 400
"""Points of a picture."""
BINS = 30


def _scatter(said: Tensor, labels: Tensor, space: Space) -> list[Document]:
    """Of each column: at most 400 rows of `said` and `label`, evenly taken from all, and how `residuals` (said less label) of
    all rows fall into 30 bins of equal width between `edges`."""
    found = []
    for name, answers, column in zip(space.names, said.unbind(1), labels.unbind(1), strict=True):
        known = ~(column.isnan() | answers.isnan())
        answers, column = answers[known].double(), column[known].double()
        some = torch.linspace(0, len(column) - 1, min(SHOWN, len(column))).round().long()
        counts, edges = np.histogram((answers - column).numpy(), BINS) if len(column) else (np.zeros(0), np.zeros(0))
        found.append(
            {
                "value": name,
                "said": answers[some].tolist(),
                "label": column[some].tolist(),
                "residuals": counts.tolist(),
                "edges": edges.tolist(),
            }
        )
    return found


def mistakes(model: Model, together: Tensor, labels: Tensor, space: Space, count: int) -> list[tuple[int, Document]]:
    """The rows with the largest errors; of several columns the mean of squared errors, each in standard deviations."""
    worst = merits(model.seeds[0], labels, space)
    rows = torch.argsort(worst, stable=True)[:count].tolist()
    return [
        (
            row,
            {
                "label": _told(labels[row], space),
                "said": _told(model.seeds[0][row], space),
                "error": math.sqrt(-float(worst[row])),
                "ensemble": _told(together[row], space),
            },
        )
        for row in rows
        if worst[row] < 0
    ]


def _told(values: Tensor, space: Space) -> str:
    """`12.3`, or of several columns `price 12.3, rent 4`."""
    told = [NOTHING if math.isnan(value) else significant(value) for value in values.tolist()]
    return (
        told[0] if space.width == 1 else ", ".join(f"{n} {value}" for n, value in zip(space.names, told, strict=True))
    )


def _means(of_training: Tensor) -> Tensor:
    """f32[D], of the known labels; 0 for a column without any."""
    return of_training.double().nanmean(0).nan_to_num().float()


def commonest(labels: Tensor, of_training: Tensor, space: Space) -> Document:
    """What always answering the mean of the training labels comes to."""
    figures = _metered(_means(of_training).expand(len(labels), -1), labels, space).figures()
    rmse = headline("regression").shown(figures["rmse"])
    return {
        "figures": figures,
        "remark": f"Who always answers the mean of the training labels has a test RMSE of {rmse}.",
    }


def standing(said: Tensor, labels: Tensor, known: Tensor, of_training: Tensor, space: Space) -> Standing:
    """By a t-test of its squared errors against those of the mean of the training labels."""
    labels = torch.where(known, labels, torch.nan)
    judged = ~labels.isnan().all(1)
    said, labels = said[judged], labels[judged]
    constant = _means(of_training).expand(len(labels), -1)
    meter, always = _metered(said, labels, space), _metered(constant, labels, space).figures(keys=("rmse",))["rmse"]
    p_value, stands = by_squared_errors(merits(said, labels, space), merits(constant, labels, space))
    figures, rows = meter.figures(), len(labels)
    low, high = interval(meter, "rmse")
    shown = headline("regression").shown
    return {
        "rows": rows,
        "figures": figures,
        "low": low,
        "high": high,
        "scale": always or 1.0,
        "p_value": p_value,
        "stands": stands,
        "words": {
            "found": f"RMSE {shown(figures['rmse'])} on {rows:,} {{rows}}",
            "always": "answering the mean of the training labels",
            "that": f"has {shown(always)}",
            "constant": shown(always),
            "test": "one-sided t-test of squared errors",
            "open": f"of {rows:,} {{rows}} no teacher could show that it is better than always answering the mean of the training labels",
        },
    }


def unjudged(said: Tensor, space: Space) -> Document:
    """`spread`: the standard deviation of what is said, of several columns the root of the mean of squares, each in standard
    deviations of training labels (None without any); `said`: by column the mean."""
    columns = [column[~column.isnan()].double() for column in said.unbind(1)]
    scaled = [float(c.std()) / scale for c, scale in zip(columns, scale_of(space).tolist(), strict=True) if len(c) > 1]
    means = [float(column.mean()) if len(column) else None for column in columns]
    has_unit = space.width == 1 or bool(space.scale)
    return {
        "spread": math.sqrt(fmean(each**2 for each in scaled)) if scaled and has_unit else None,
        "said": dict(zip(space.names, means, strict=True)),
    }


REGRESSION = Task(
    name="regression",
    meter=ValuesMeter,
    merits=merits,
    is_mean_of_merits=False,
    beside=beside,
    tables=tables,
    mistakes=mistakes,
    commonest=commonest,
    standing=standing,
    unjudged=unjudged,
)
