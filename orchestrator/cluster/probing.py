"""Do all nodes see OUT? The driver writes a few bytes there, and a task on every node reads them, before any work is done."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from teachers.errors import CollegiumError, EnvironmentUnfit
from teachers.process.waiting import Wait
from teachers.storage import anew, mirror
from teachers.storage.place import remote_of, spoken

log = logging.getLogger(__name__)

POLL_S = 1.0
PATIENCE_S = 120.0
"""For a worker to start on each node."""
LATE_S = 5.0
"""After which a network file system shows a new file."""


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


def where_of(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']}"


def unanswered(places: Sequence[str]) -> str:
    return f"{', '.join(places)} to say whether --out is seen there"


def ask(probe: Path, token: str, node: Mapping[str, Any]) -> Any:
    """The reference of a node's answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    read = ray.remote(num_cpus=0, max_retries=1)(what_is_wrong)
    return read.options(scheduling_strategy=there).remote(str(probe), token)


def asked(probe: Path, token: str, nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By the node's address, what is wrong there; empty where nothing is."""
    import ray

    asked = {where_of(node): ask(probe, token, node) for node in nodes}
    wait, done = Wait(log), list[Any]()
    while len(done) < len(asked) and wait.seconds < PATIENCE_S:
        done, missing = ray.wait(list(asked.values()), num_returns=len(asked), timeout=POLL_S)
        wait.tell(partial(unanswered, [where for where, answer in asked.items() if answer in missing]))
    found = {}
    for where, answer in asked.items():
        try:
            found[where] = ray.get(answer) if answer in done else f"did not answer within {PATIENCE_S:g} s"
        except ray.exceptions.RayError as error:
            found[where] = f"cannot look ({[line for line in str(error).splitlines() if line.strip()][-1]})"
    return found


def what_is_wrong(probe: str, token: str) -> str:
    """Of what a node sees of the probe; empty when it sees it."""
    path = Path(probe)
    try:
        anew.check(path.parent, writes=False)  # it names what is missing; a failed read does not
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
