"""How large images are, upright and as their source has them. Knows nothing of what is on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..transfer_set.images import BadRow, upright_size
from .arrow_types import is_encoded, shape_of
from .bad_rows import Bad
from .canonical import payload_of


def sizes_of(array: pa.Array, rows: Sequence[int], bad: Bad, root: Path | None) -> NDArray[np.float64]:
    """(height, width) of these rows of a column of images, f64 `[len(array), 2]`; 0 of all others and of missing ones.

    `root`: of the files that they name. Of encoded images the header is read alone; one that cannot be read goes to `bad`.
    """
    found, encoded = np.zeros((len(array), 2)), is_encoded(array.type)
    for row in rows:
        if not array[row].is_valid:
            continue
        try:
            found[row] = upright_size(payload_of(array[row].as_py(), root)) if encoded else shape_of(array[row])[:2]
        except BadRow as error:
            bad.setdefault(row, f"{error}")
    return found
