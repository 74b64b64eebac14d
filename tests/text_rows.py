"""Sentences of two languages as a prepared transfer set, for tests of who reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from teachers.config.transfer_set import TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.transfer_set.transfer_set import TransferSet

WORDS = {
    "en": ["the", "house", "is", "very", "old", "and", "we", "like", "water", "with", "children"],
    "de": ["das", "Haus", "ist", "sehr", "alt", "und", "wir", "mögen", "Wasser", "mit", "Kindern"],
    "fi": ["talo", "on", "hyvin", "vanha", "ja", "me", "pidämme", "vedestä", "lasten", "kanssa", "yö"],
}


def sentences(rows: int = 240, seed: int = 0) -> pa.Table:
    """`text`, `title` (another one of the same language), `size` (a number that says nothing), `language`."""
    rng = np.random.default_rng(seed)
    languages = [list(WORDS)[row % 3] for row in range(rows)]
    said = [[" ".join(rng.choice(WORDS[each], 6)) + f" {row}" for row, each in enumerate(languages)] for _ in range(2)]
    return pa.table({"text": said[0], "title": said[1], "size": rng.normal(size=rows), "language": languages})


def asked_for(inputs: Any = ("text",), **changes: Any) -> dict[str, Any]:
    """The `transfer_set` of a recipe."""
    given = [{"column": name, "as": "text"} if name in ("text", "title") else name for name in inputs]
    source = {"kind": "import", "function": "tests.text_rows:sentences"}
    return {"source": source, "inputs": given, "label": "language", "labelled": 60} | changes


def prepared(folder: Path, inputs: Any = ("text",), **changes: Any) -> TransferSet:
    return prepare(TransferSetConfig.model_validate(asked_for(inputs, **changes)), folder)
