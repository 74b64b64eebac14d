"""Tables that the shipped recipes learn from, out of packages or files that hold them: `kind: import` names these functions."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ..errors import EnvironmentUnfit

TRAITS = {"even": (0, 2, 4, 6, 8), "prime": (2, 3, 5, 7), "closed_loop": (0, 6, 8, 9), "above_four": (5, 6, 7, 8, 9)}


def diamonds() -> pa.Table:
    """53,940 cut diamonds: `carat`, `depth`, `table`, `x`, `y`, `z`, `price` in dollars; `cut`, `color`, `clarity` as text.

    The data of ggplot2 (Wickham, 2016), under the MIT licence, as plotnine ships them. Raises EnvironmentUnfit without
    the extra `examples`.
    """
    try:
        path = Path(str(distribution("plotnine").locate_file("plotnine/data/diamonds.csv")))
    except PackageNotFoundError:
        raise EnvironmentUnfit(
            "the table of diamonds comes with plotnine, which is not installed; pip install 'collegium[examples]'"
        ) from None
    return pa.csv.read_csv(path)


def digit_traits() -> pa.Table:
    """1,797 handwritten digits of scikit-learn (BSD): `image` uint8 [8, 8, 1], 0 to 16, and what is true of each digit:
    whether it is `even`, `prime`, `above_four`, and whether it has a `closed_loop`."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = found.images.astype(np.uint8).reshape(-1, 8, 8, 1)
    image = pa.array(pixels.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8(), 1), 8), 8))
    return pa.table({"image": image} | {name: np.isin(found.target, digits) for name, digits in TRAITS.items()})


def intents(path: str, parts: Sequence[str] = ("train", "val", "test")) -> pa.Table:
    """`text` and its `intent`, of a JSON object whose `parts` are lists of [text, intent]: as clinc150 (Larson et al., 2019)."""
    document = json.loads(Path(path).read_bytes())
    rows = [row for part in parts for row in document[part]]
    return pa.table({"text": [text for text, _ in rows], "intent": [intent for _, intent in rows]})
