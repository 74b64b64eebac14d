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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from ..errors import CollegiumError
from ..processes import is_process, neighbours, this_process
from .bucket import Conditions, bucket_of
from .place import Remote, remote_of, spoken

NAME = ".lease"
BEAT_S = 10.0
STALE_S = 45.0
"""Without a beat: then its holder is dead, or cut off."""
POLL_S = 1.0

log = logging.getLogger(__name__)


@contextmanager
def lease(folder: Path, title: str, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> Iterator[bool]:
    """Hold the lease of `folder`, waited for; whether the storage can say that nobody else does. Nothing where it is local."""
    if (remote := remote_of(folder)) is None:
        yield True
        return
    try:
        held = take(remote, title, beat_s, stale_s)
    except NotImplementedError as error:
        log.warning("%s: no lease (%s): another machine may do the same work; nothing is lost by it", title, error)
        yield False
        return
    try:
        yield True
    finally:
        held.give_back()


@dataclass
class Held:
    """A lease in hand. A thread keeps it fresh."""

    conditions: Conditions
    key: str
    title: str
    version: str
    beat_s: float

    def __post_init__(self) -> None:
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.thread.start()

    def _keep(self) -> None:
        while not self.ended.wait(self.beat_s):
            try:
                version = self.conditions.swap(self.key, said(), self.version)
            except (CollegiumError, OSError) as error:  # the next beat may come through
                log.debug("%s: no beat of its lease (%s)", self.title, error)
                continue
            if version is None and not self._is_ours():
                log.warning("%s: another machine took its lease over, this one was not heard for too long", self.title)
                return
            self.version = version or self.version

    def _is_ours(self) -> bool:
        """After a swap whose answer was lost: it may have been done."""
        found = self.conditions.read(self.key)
        if found is None or json.loads(found[0])["holder"] != HOLDER:
            return False
        self.version = found[1]
        return True

    def give_back(self) -> None:
        self.ended.set()
        self.thread.join(timeout=self.beat_s)
        try:
            self.conditions.swap(self.key, said(free=True), self.version)
        except (CollegiumError, OSError) as error:
            log.debug("%s: its lease is not given back (%s)", self.title, error)


HOLDER = uuid4().hex
"""This process."""


def said(*, free: bool = False) -> bytes:
    return json.dumps({"format": 1, "holder": HOLDER, "free": free, "beat": uuid4().hex, **this_process()}).encode()


def take(remote: Remote, title: str, beat_s: float, stale_s: float) -> Held:
    """Wait for the lease and take it. Raises NotImplementedError where the storage knows no conditions."""
    conditions, key = bucket_of(remote).conditions, (remote / NAME).key
    check_conditions(remote)
    seen, since, told = "", time.monotonic(), False
    while True:
        if (version := _created(conditions, key)) is not None:
            return Held(conditions, key, title, version, beat_s)
        if (found := conditions.read(key)) is not None:
            holder, version = json.loads(found[0]), found[1]
            if version != seen:
                seen, since = version, time.monotonic()
            if holder["free"] or _is_dead_here(holder) or time.monotonic() - since > stale_s:
                taken = conditions.swap(key, said(), version)
                if taken is not None:
                    return Held(conditions, key, title, taken, beat_s)
                continue
        if not told:
            log.info("waiting for another run that is building %s, on %s", title, spoken(remote))
            told = True
        time.sleep(min(POLL_S, beat_s))


def _created(conditions: Conditions, key: str) -> str | None:
    with TemporaryFile() as body:
        body.write(said())
        body.seek(0)
        return conditions.create(key, body)


def _is_dead_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine that is gone."""
    if holder.get("processes") != neighbours() or holder["holder"] == HOLDER:
        return False
    return not is_process(holder["pid"], holder["process_start"])


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
        if _created(conditions, key) is None or _created(conditions, key) is None:
            return ""
        return f"{remote.scheme}://{remote.bucket} writes over what is there although it is told not to"
    except NotImplementedError as error:
        return str(error)
    finally:
        conditions.remove([key])
