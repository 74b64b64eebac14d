"""Whether the head of the cluster is still there: without it Ray waits in silence, in some places for ever."""

import logging
import socket
import time
from signal import SIGINT, pthread_kill
from threading import Event, Thread, main_thread

log = logging.getLogger(__name__)

POLL_S = 2.0
PATIENCE_S = 45.0
"""Less than the 60 s after which Ray ends a process or a node; so long a head that is started again is waited for."""


class HeadWatch:
    """Interrupts the main thread when the head has not answered for a while; `gone` says since when, as told to people."""

    def __init__(self, address: str, patience_s: float = PATIENCE_S) -> None:
        host, _, port = address.rpartition(":")
        self.address, self._place, self._patience_s = address, (host.strip("[]"), int(port)), patience_s
        self.gone: str | None = None
        self._ended = Event()
        self._thread = Thread(target=self._watch, name="head-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        answered, clock = time.monotonic(), time.strftime("%H:%M:%S")
        told = False
        while not self._ended.wait(POLL_S):
            if self._answers():
                answered, clock, told = time.monotonic(), time.strftime("%H:%M:%S"), False
            elif time.monotonic() - answered > self._patience_s:
                self.gone = clock
                pthread_kill(main_thread().ident or 0, SIGINT)  # a real one, which ends any wait
                return
            elif not told:
                told = True
                log.warning("the head of the cluster at %s does not answer", self.address)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._place, timeout=POLL_S).close()
        except OSError:
            return False
        return True
