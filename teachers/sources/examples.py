"""Tables that the shipped recipes learn from, out of packages or files that hold them: `kind: import` names these functions."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ..errors import EnvironmentUnfit

FASHION = ("train.parquet", "test.parquet")
CLINC = ("train", "val", "test")
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


def clinc150(path: str) -> pa.Table:
    """22,500 requests to an assistant, in English, and the `intent` of each, one of 150; those out of scope are left out.

    `path`: `data_full.json` of CLINC150 (Larson et al., 2019; CC BY 3.0), {part: [[text, intent], ...]}.
    """
    parts = json.loads(Path(path).read_bytes())
    text, intent = zip(*(row for part in CLINC for row in parts[part]), strict=True)
    return pa.table({"text": text, "intent": intent})


def fashion_with_a_long_tail(path: str, imbalance: float = 100.0, most: int = 7000) -> pa.Table:
    """Fashion-MNIST (MIT), of whose classes the first keeps `most` images (all are 7,000) and each further one fewer by one and the
    same factor, the last 1 / `imbalance` of them: `image` (PNG) and `label`, with names.

    `path`: the folder of `train.parquet` and `test.parquet` in Hugging Face's layout; of both, the first images of each class stay.
    """
    whole = pa.concat_tables([pyarrow.parquet.read_table(Path(path) / name) for name in FASHION])
    labels = whole.column("label").to_numpy()
    last = int(labels.max())
    kept = [
        np.flatnonzero(labels == number)[: round(most * imbalance ** (-number / last))] for number in range(last + 1)
    ]
    return whole.take(np.sort(np.concatenate(kept)))


def digit_traits() -> pa.Table:
    """1,797 handwritten digits of scikit-learn (BSD): `image` uint8 [8, 8, 1], 0 to 16, and what is true of each digit:
    whether it is `even`, `prime`, `above_four`, and whether it has a `closed_loop`."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = found.images.astype(np.uint8).reshape(-1, 8, 8, 1)
    image = pa.array(pixels.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8(), 1), 8), 8))
    return pa.table({"image": image} | {name: np.isin(found.target, digits) for name, digits in TRAITS.items()})
