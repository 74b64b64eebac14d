"""How many rows a teacher is asked about at once: what the recipe says, or as many as make it faster and fit; fewer when memory
runs out. Knows nothing of rows or answers.

What was found lies in `batch_size.json` in the stores that it was found for. It decides nothing: no key and no seal names it.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..errors import TeacherError
from ..storage import mirror, seal

log = logging.getLogger(__name__)

NAME = "batch_size.json"
FIRST, MOST = 16, 4096
"""Of a search."""
USUAL = 256
"""Where nobody searches: what the recipe has by itself."""
WORTHWHILE = 1.05
"""Times as fast, at least, for twice as many rows at once."""
TRIES = 2
"""Of which the faster one counts: the first has to get ready."""


class BatchSize:
    """Of one teacher on one device. `fills`: the folders of the stores that it fills; `filled`: of others of its own."""

    def __init__(
        self,
        given: int | Literal["auto"],
        who: str,
        device: str = "cpu",
        fills: Sequence[Path] = (),
        filled: Sequence[Path] = (),
    ) -> None:
        self.who, self.device, self.searches = who, device, given == "auto"
        self.rows = FIRST if given == "auto" else given
        self.files = [folder / NAME for folder in fills] if self.searches else []
        for folder in (*filled, *fills) if self.searches else ():
            self._recall(folder / NAME)

    def halve(self, error: BaseException) -> None:
        """There was no memory for so many. Raises TeacherError where there was none for one."""
        if self.rows == 1:
            raise TeacherError(
                f"teacher {self.who!r} runs out of memory on a single row; give it a larger share in `resources.gpus`, a "
                f"machine with more memory, or a smaller model"
            ) from error
        self.rows //= 2
        log.warning("teacher %s: out of memory, the batch size is now %d", self.who, self.rows)
        self.searches = False
        self._keep()

    def search(self, ask: Callable[[slice], None], num_rows: int) -> None:
        """Double while rows go faster so, by asking about the same rows in halves and together: their answers are thrown away.

        Of `num_rows` consecutive rows; where they are too few for twice as many at once, the search goes on with others.
        `ask` raises what a teacher raises, and MemoryError where it has no memory for so many.
        """
        while self.searches and 2 * self.rows <= min(num_rows, MOST):
            half, both = self.rows, 2 * self.rows
            apart = _fastest(ask, slice(0, half), slice(half, both))
            self._keep(trying=both)
            try:
                together = _fastest(ask, slice(0, both))
            except MemoryError:
                together = float("inf")
            finally:
                self._keep()
            if apart < WORTHWHILE * together or 2 * both > MOST:
                self.searches = False
            self.rows = both if apart >= WORTHWHILE * together else half
            self._keep()

    def _keep(self, trying: int | None = None) -> None:
        """`trying`: written before it is tried, for a system that is out of memory kills who asks it for more."""
        document = {"device": self.device, "rows": self.rows, "searches": self.searches, "trying": trying}
        for file in self.files:
            with suppress(OSError):  # a disk that is full: whoever commits a shard says so
                seal.replace(file, json.dumps(document).encode())

    def _recall(self, file: Path) -> None:
        """Go on from what was found on such a device; what somebody was last seen to try did not fit."""
        mirror.refresh(file)
        try:
            found = json.loads(file.read_bytes())
            rows, goes_on = int(found["rows"]), bool(found["searches"]) and found["trying"] is None
            device = found["device"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if device == self.device and 1 <= rows <= MOST:
            self.rows, self.searches = rows, goes_on


def _fastest(ask: Callable[[slice], None], *parts: slice) -> float:
    """Seconds for all parts, one after the other."""
    took = []
    for _ in range(TRIES):
        began = time.perf_counter()
        for part in parts:
            ask(part)
        took.append(time.perf_counter() - began)
    return min(took)
