"""How much a row of each class counts in `hard`. Knows nothing of losses, nor of where labels come from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.training import ClassWeights, unknown_classes
from teachers.errors import RecipeError


def class_weights(
    given: ClassWeights | None, labels: NDArray[Any], classes: Sequence[str], where: str
) -> Tensor | None:
    """f32 `[classes]`; None: every row counts alike. `labels`: of the labelled training rows, as a transfer set has them.

    Of classes that each hold or not they are the weights of those that hold, and `balanced` gives both sides of a class
    the same sum. Raises RecipeError, which begins with `where`, for a name that is no class.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        if problem := unknown_classes(given, classes):
            raise RecipeError(f"{where}: {problem}")
        return torch.tensor([given.get(name, 1.0) for name in classes])
    weights = _of_one_class(labels, len(classes)) if labels.ndim == 1 else _of_those_that_hold(labels)
    return torch.from_numpy(weights.astype(np.float32))


def _of_one_class(labels: NDArray[np.int32], classes: int) -> NDArray[np.float64]:
    """`balanced` of scikit-learn (King and Zeng, 2001): rows / (classes that have one * rows of the class), so that each
    class weighs as much as any other and a row has the weight 1 on average; a class without a row has 1."""
    rows = np.bincount(labels, minlength=classes)
    present = rows > 0
    weights = np.ones(classes)
    weights[present] = rows.sum() / (present.sum() * rows[present])
    return weights


def _of_those_that_hold(labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Rows without the class / rows with it, of those where it is known; 1 where either has none."""
    holds, fails = (labels == 1).sum(0), (labels == 0).sum(0)
    both = (holds > 0) & (fails > 0)
    return np.where(both, fails / np.where(both, holds, 1), 1.0)
