"""The thresholds that lie beside a delivered model: probabilities from which on a class is said."""

import json
from collections.abc import Sequence
from pathlib import Path

from teachers.errors import StoreError
from teachers.storage.seal import local

METRICS = "metrics.json"
THRESHOLDS = "thresholds"


def thresholds_beside(folder: Path, names: Sequence[str]) -> list[float] | None:
    """Of a model folder, in the order of `names`; None where it was not delivered with any.

    Raises StoreError for a file that holds something else.
    """
    try:
        found = json.loads(local(folder, METRICS).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{folder / METRICS}: not readable as JSON ({error})") from error
    given = found.get(THRESHOLDS) if isinstance(found, dict) else None
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) != set(names) or not all(map(_is_share, given.values())):
        raise StoreError(
            f"{folder / METRICS}: {THRESHOLDS} is {given!r:.80}, expected a probability for each of {list(names)!r:.80}"
        )
    return [float(given[name]) for name in names]


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
