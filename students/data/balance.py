"""Rows drawn by their class: how often each comes in an epoch. Knows nothing of batches."""

import math

import numpy as np
from numpy.typing import NDArray


def by_class(index: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows `index`, with those of each class as many times as it takes to be as many as of the most frequent one, to the row;
    those without a label (-1 in `labels` `[N]`) as they are."""
    own = labels[index]
    rows = [index[own == number] for number in np.unique(own[own >= 0])]
    most = max((len(each) for each in rows), default=0)
    return np.concatenate([index[own < 0], *(np.resize(each, most) for each in rows)])


def times_longer(labels: NDArray[np.int64]) -> int:
    """How many times as long as the rows are the rows that are drawn, rounded up."""
    return math.ceil(len(by_class(np.arange(len(labels)), labels)) / max(len(labels), 1))
