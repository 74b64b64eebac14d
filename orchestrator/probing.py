"""Do all nodes see OUT? The driver writes a few bytes there, and a task on every node reads them, before any work is done.

Nodes that join later are asked when they join.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, pthread_kill
from threading import Event, Thread, main_thread
from typing import Any
from uuid import uuid4

from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.storage import mirror
from teachers.storage.place import remote_of, spoken

log = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""For a worker to start on each node."""
LATE_S = 5.0
"""After which a network file system shows a new file."""
POLL_S = 2.0
"""Between two looks at which nodes there are."""
STOP_S = 5.0
"""So long the end of a run waits for a storage that is slow to take the bytes."""


def check_seen(out: Path, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise EnvironmentUnfit, naming the nodes, where one of `nodes` does not see what this process writes into `out`."""
    probe, token = out / f".seen-{uuid4().hex}", uuid4().hex
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_text(token)
        mirror.put(probe)
        problems = [f"{where} {problem}" for where, problem in asked(probe, token, nodes).items() if problem]
    except OSError as error:
        raise EnvironmentUnfit(f"--out {spoken(out)}: cannot be written ({error})") from error
    finally:
        mirror.remove(probe)
    if problems:
        raise unseen(out, problems)


def unseen(out: Path, problems: Sequence[str]) -> EnvironmentUnfit:
    cure = (
        "mend its access to the storage: package, credentials and endpoint have to be there too"
        if remote_of(out)
        else "give --out a folder that all nodes share (NFS), or s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
    )
    return EnvironmentUnfit(f"--out {spoken(out)}: {'; '.join(problems)}; {cure}")


def asked(probe: Path, token: str, nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By the node's address, what is wrong there; empty where nothing is."""
    import ray

    asked = {where_of(node): ask(probe, token, node) for node in nodes}
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE_S)
    found = {}
    for where, answer in asked.items():
        try:
            found[where] = ray.get(answer) if answer in done else f"did not answer within {PATIENCE_S:g} s"
        except ray.exceptions.RayError as error:
            found[where] = f"cannot look ({[line for line in str(error).splitlines() if line.strip()][-1]})"
    return found


def where_of(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']}"


def ask(probe: Path, token: str, node: Mapping[str, Any]) -> Any:
    """The reference of a node's answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    read = ray.remote(num_cpus=0, max_retries=1)(what_is_wrong)
    return read.options(scheduling_strategy=there).remote(str(probe), token)


def what_is_wrong(probe: str, token: str) -> str:
    """Of what a node sees of the probe; empty when it sees it."""
    path = Path(probe)
    try:
        mirror.check(path.parent, writes=False)  # it names what is missing; a failed read does not
        begun = time.monotonic()
        while not _has(path, token):
            if time.monotonic() - begun > LATE_S:
                return "does not see what the driver wrote there"
            time.sleep(0.2)
    except (CollegiumError, OSError) as error:
        return f"cannot read it ({error})"
    return ""


def _has(path: Path, token: str) -> bool:
    mirror.bring(path)
    return path.is_file() and path.read_text() == token


class NewNodes:
    """Asks each node that joins after `known`. One that says that it does not see OUT interrupts the main thread.

    `unfit` then says why. A node that gives no answer, or leaves before it does, says nothing.
    """

    def __init__(self, out: Path, known: Sequence[Mapping[str, Any]]) -> None:
        self.out, self.known = out, {node["NodeID"] for node in known}
        self.unfit: EnvironmentUnfit | None = None
        self._probe, self._token = out / f".seen-{uuid4().hex}", uuid4().hex
        self._asked: dict[Any, str] = {}
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
