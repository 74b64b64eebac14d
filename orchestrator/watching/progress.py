"""What a person sees while a run goes on: rich bars on a terminal, a line every few seconds elsewhere. All on stderr."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from teachers.process.log_lines import JsonLines, are_json, handle

EVERY_S = 5.0
"""Between two lines about the same task, off a terminal."""


class Watch:
    """Shows tasks (`label/wide`, `distill/small`) as they advance. Thread-safe as far as rich and logging are."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, float] = {}
        self._log = logging.getLogger("collegium")

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet and not are_json():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
            )
            self._bars = Progress(*columns, console=self.console)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """`done` of `total` of a task; the last call should have both equal."""
        if self._bars is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, note=note)
            self._bars.update(self._tasks[task], completed=done, total=total, note=note)
        elif done >= total or time.monotonic() - self._last.get(task, 0.0) >= EVERY_S:
            self._last[task] = time.monotonic()
            self._log.info("%s: %d of %d%s", task, done, total, f", {note}" if note else "")


def show_logs(console: Console, *, verbose: bool = False, as_json: bool = False) -> None:
    """Our log lines on stderr: through rich on a terminal, plain with time elsewhere; or as JSON, then others' too."""
    handler: logging.Handler
    if console.is_terminal and not as_json:
        handler = RichHandler(console=console, show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    if as_json:
        logging.captureWarnings(True)
        logging.getLogger().handlers[:] = [handler]
    handle(handler, logging.DEBUG if verbose else logging.INFO)
