"""A lease on a folder of an object store: one holder at a time among all machines, without a server that decides.

The object `.lease` says who holds it and is written under conditions alone: created when there is none, swapped by its
version else. Its holder writes it anew every few seconds; who sees the same version for long enough, by its own clock,
takes it over. It is never removed: a holder that ends says so in it.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from ..errors import CollegiumError
from ..process.identity import is_process, neighbours, this_process
from ..process.waiting import Wait
from .bucket import Conditions, bucket_of
from .place import Remote, remote_of, spoken

NAME = ".lease"
BEAT_S = 10.0
STALE_S = 45.0
"""Without a beat: then its holder is dead, or cut off."""
POLL_S = 1.0

NO_LEASE = (
    "this storage knows no conditional writes (If-None-Match), so nobody can tell whether another machine works on it; "
    "copy it to a storage that does, or to a folder"
)
TAKEN_OVER = "another machine has taken over the lease on it, since this one was not heard for too long; run the same command again"

Doubt = Callable[[], str]
"""Asked before anything is moved or removed: why that may not be now, or nothing. Raises StorageError without an answer."""

log = logging.getLogger(__name__)


@contextmanager
def lease(folder: Path, title: str, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> Iterator[Doubt]:
    """Hold the lease of `folder`, waited for; what it yields tells whether this one holds it still. Nothing where it is local."""
    if (remote := remote_of(folder)) is None:
        yield lambda: ""
        return
    try:
        held = take(remote, title, beat_s, stale_s)
    except NotImplementedError as error:
        log.warning("%s: no lease (%s): another machine may do the same work; nothing is lost by it", title, error)
        yield lambda: NO_LEASE
        return
    try:
        yield lambda: "" if held.still_ours() else TAKEN_OVER
    finally:
        held.give_back()


@dataclass
class Held:
    """A lease in hand. A thread keeps it fresh. `holder`: its name in what is written."""

    conditions: Conditions
    key: str
    title: str
    holder: str
    version: str
    beat_s: float

    def __post_init__(self) -> None:
        self.saying, self.ended = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.thread.start()

    def _keep(self) -> None:
        while not self.ended.wait(self.beat_s):
            try:
                if not self.still_ours():
                    log.warning("%s: %s", self.title, TAKEN_OVER)
                    return
            except (CollegiumError, OSError) as error:  # the next beat may come through
                log.debug("%s: no beat of its lease (%s)", self.title, error)

    def still_ours(self) -> bool:
        """Beat at once; False when another one has taken it over, else nobody does for the next while."""
        return self._say(free=False)

    def give_back(self) -> None:
        self.ended.set()
        self.thread.join(timeout=self.beat_s)
        if self.thread.is_alive():  # its beat finds no answer, and this would not either
            return
        try:
            self._say(free=True)
        except (CollegiumError, OSError) as error:
            log.debug("%s: its lease is not given back (%s)", self.title, error)

    def _say(self, *, free: bool) -> bool:
        with self.saying:
            while (version := self.conditions.swap(self.key, said(self.holder, free=free), self.version)) is None:
                found = self.conditions.read(self.key)  # a swap whose answer was lost may have been done
                if found is None or json.loads(found[0])["holder"] != self.holder:
                    return False
                self.version = found[1]
            self.version = version
            return True


def said(holder: str, *, free: bool = False) -> bytes:
    return json.dumps({"format": 1, "holder": holder, "free": free, "beat": uuid4().hex, **this_process()}).encode()


def take(remote: Remote, title: str, beat_s: float, stale_s: float) -> Held:
    """Wait for the lease and take it. Raises NotImplementedError where the storage knows no conditions."""
    conditions, key = bucket_of(remote).conditions, (remote / NAME).key
    check_conditions(remote)
    me, seen, since, told, wait = uuid4().hex, "", time.monotonic(), False, Wait(log)
    while True:
        if (version := _created(conditions, key, said(me))) is not None:
            return Held(conditions, key, title, me, version, beat_s)
        if (found := conditions.read(key)) is not None:
            holder, version = json.loads(found[0]), found[1]
            if holder["holder"] == me:  # the answer to what took it was lost
                return Held(conditions, key, title, me, version, beat_s)
            if version != seen:
                seen, since = version, time.monotonic()
            if holder["free"] or _is_dead_here(holder) or time.monotonic() - since > stale_s:
                taken = conditions.swap(key, said(me), version)
                if taken is not None:
                    return Held(conditions, key, title, me, taken, beat_s)
                continue
        if not told:
            log.info("waiting for another run that is building %s, on %s", title, spoken(remote))
            told = True
        wait.tell(lambda: f"another run is building {title}")
        time.sleep(min(POLL_S, beat_s))


def _created(conditions: Conditions, key: str, payload: bytes) -> str | None:
    with TemporaryFile() as body:
        body.write(payload)
        body.seek(0)
        return conditions.create(key, body)


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine that is gone."""
    return holder.get("processes") == neighbours() and not is_process(holder["pid"], holder["process_start"])


_checked: dict[tuple[str, str], str] = {}


def check_conditions(remote: Remote) -> None:
    """Raise NotImplementedError, with the reason, for a storage that does not honour create-only writes."""
    known = (remote.scheme, remote.bucket)
    if known not in _checked:
        _checked[known] = _reason(remote)
    if _checked[known]:
        raise NotImplementedError(_checked[known])


def _reason(remote: Remote) -> str:
    conditions, key = bucket_of(remote).conditions, (remote / f".probe-{uuid4().hex}-{os.getpid()}").key
    try:
        if _created(conditions, key, b"1") is None or _created(conditions, key, b"2") is None:
            return ""
        return f"{remote.scheme}://{remote.bucket} writes over what is there although it is told not to"
    except NotImplementedError as error:
        return str(error)
    finally:
        conditions.remove([key])
