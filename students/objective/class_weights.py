"""How much a row of each class counts in `hard`. Knows nothing of losses, nor of where labels come from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.training import ClassWeights, unknown_classes
from teachers.errors import RecipeError


def class_weights(
    given: ClassWeights | None, labels: NDArray[np.int64], classes: Sequence[str], where: str
) -> Tensor | None:
    """f32 `[classes]`; None: every row counts alike. `labels`: of the labelled training rows, i64 `[rows]`.

    `balanced` is that of scikit-learn (King and Zeng, 2001): rows / (classes that have one * rows of the class), so that
    each class weighs as much as any other and a row has the weight 1 on average; a class without a row has 1. Raises
    RecipeError, which begins with `where`, for a name that is no class.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        if problem := unknown_classes(given, classes):
            raise RecipeError(f"{where}: {problem}")
        return torch.tensor([given.get(name, 1.0) for name in classes])
    rows = np.bincount(labels, minlength=len(classes))
    present = rows > 0
    weights = np.ones(len(classes))
    weights[present] = rows.sum() / (present.sum() * rows[present])
    return torch.from_numpy(weights.astype(np.float32))
