"""Nodes that join while a run goes on are asked whether they see OUT, as those were that were there at its start."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import SIGINT, pthread_kill
from threading import Event, Thread, main_thread
from typing import Any
from uuid import uuid4

from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.process.waiting import Wait
from teachers.storage import mirror

from .probing import ask, unanswered, unseen, where_of

log = logging.getLogger(__name__)

POLL_S = 2.0
"""Between two looks at which nodes there are."""
STOP_S = 5.0
"""So long the end of a run waits for a storage that is slow to take the bytes."""


class NewNodes:
    """Asks each node that joins after `known`. One that says that it does not see OUT interrupts the main thread.

    `unfit` then says why. A node that gives no answer, or leaves before it does, says nothing.
    """

    def __init__(self, out: Path, known: Sequence[Mapping[str, Any]]) -> None:
        self.out, self.known = out, {node["NodeID"] for node in known}
        self.unfit: EnvironmentUnfit | None = None
        self._probe, self._token = out / f".seen-{uuid4().hex}", uuid4().hex
        self._asked: dict[Any, str] = {}
        self._wait = Wait(log)
        self._over = Event()
        self._thread = Thread(target=self._watch, name="new-nodes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Before Ray ends: whoever asks it then ends this process."""
        self._over.set()
        self._thread.join(STOP_S)

    def _watch(self) -> None:
        import ray

        while not self._over.wait(POLL_S) and self.unfit is None:
            with suppress(CollegiumError, OSError, RuntimeError, ray.exceptions.RayError):  # the run meets it, too
                self._ask()
                self._take()
                if self._asked:
                    self._wait.tell(partial(unanswered, [*self._asked.values()]))
                else:
                    self._wait.begin()
        if self._asked:
            self._asked.clear()
            with suppress(CollegiumError, OSError):
                mirror.remove(self._probe)
        if self.unfit is not None and not self._over.is_set():
            pthread_kill(main_thread().ident or 0, SIGINT)  # a real one, which ends any wait

    def _ask(self) -> None:
        import ray

        new = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self.known]
        if new:
            self._probe.write_text(self._token)
            mirror.put(self._probe)
        for node in [] if self._over.is_set() else new:
            self._asked[ask(self._probe, self._token, node)] = where_of(node)
            self.known.add(node["NodeID"])

    def _take(self) -> None:
        import ray

        for answer in ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0] if self._asked else []:
            where = self._asked.pop(answer)
            try:
                problem = ray.get(answer)
            except ray.exceptions.RayError as error:
                log.debug("%s joined, and could not look at OUT (%s)", where, error)
                continue
            log.debug("%s joined; OUT there: %s", where, problem or "seen")
            if problem:
                self.unfit = unseen(self.out, [f"{where}, which has joined, {problem}"])
            if not self._asked:
                mirror.remove(self._probe)
