"""How much memory preparing takes: COLLEGIUM_PREPARE_BYTES for each process, the driver too. Decides nothing of what is prepared."""

import os
from dataclasses import dataclass

from ..errors import EnvironmentUnfit
from ..storage.room import SIZE, in_bytes

BYTES = "COLLEGIUM_PREPARE_BYTES"
SHARE = 4
"""Rows that are sorted and written stand in memory about so many times."""
LABELS_TIMES = 4
"""How often a row's label stands in memory while a census is sorted and written."""
ABOUT = 320
"""Bytes that a census takes for a row while it is sorted, without the label."""


@dataclass(frozen=True)
class Budget:
    """`bytes`: of a process, beside its code."""

    bytes: int

    @property
    def run_bytes(self) -> int:
        """Of decoded rows that wait to be sorted."""
        return max(1, self.bytes // SHARE)

    def census_rows(self, label_bytes: int) -> int:
        """Rows of which a process may know what is decided over all of them."""
        return max(1, self.bytes // (ABOUT + LABELS_TIMES * label_bytes))


STANDARD = Budget(256 * 2**20)


def budget() -> Budget:
    """What the environment says. Raises EnvironmentUnfit for what is no size."""
    if not (said := os.environ.get(BYTES, "").strip()):
        return STANDARD
    found = SIZE.fullmatch(said)
    if found is None or not in_bytes(found):
        raise EnvironmentUnfit(f"{BYTES} is {said!r}; expected is a number of bytes, or a size such as 1GB or 512MiB")
    return Budget(in_bytes(found))
