"""A server on loopback that counts what it is paid for, and labelling by processes that are killed: for a benchmark and tests.

The server answers like one that charges by the answer: it knows requests by their `Idempotency-Key`, and gives the answer to one
that it has answered before again, for nothing.
"""

import asyncio
import json
import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from teachers.config.endpoint import EndpointTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.labelling.hands import IN_FLIGHT
from teachers.labelling.journal import journals_in
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec, rows_per_shard
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

CLASSES = ("even", "odd")
Reply = tuple[int, dict[str, str], bytes | None]
"""Status, headers, and the body; None: half of it, then the end of the connection."""
Faults = Callable[[int, Mapping[str, Any]], Reply | None]
"""(number of the request, its JSON) -> what is answered instead; None: what was asked."""


def even_or_odd(row: Mapping[str, Any]) -> list[float]:
    """Probabilities that any store tells apart: of the number in the row's column `x`."""
    x = int(row["x"])
    return [0.9, 0.1] if x % 2 == 0 else [0.2, 0.8]


class CountingServer:
    """Answers the JSON batch API about rows with a number `x` after `latency_s`; more than `limit_per_s` get 429."""

    def __init__(self, latency_s: float = 0.0, limit_per_s: float | None = None, faults: Faults | None = None) -> None:
        self.latency_s, self.limit_per_s = latency_s, limit_per_s
        self.faults: Faults = faults or (lambda number, asked: None)
        self.num_requests = 0
        self.paid: Counter[int] = Counter()
        """By the row's number, answers that were charged."""
        self.busy = 0
        """Requests that were turned away."""
        self.replayed = 0
        """Requests that were known."""
        self.had: set[int] = set()
        """Rows whose answers the client has: see `bought_again`."""
        self.bought_again: list[int] = []
        """Rows of those that were asked about once more."""
        self.at: list[float] = []
        """When each answer was given."""
        self.asked: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self._known: dict[str, bytes] = {}
        self._allowed, self._since = 0.0, time.monotonic()
        self.answer: Callable[[Mapping[str, Any]], Any] = lambda asked: {
            "scores": [even_or_odd(row) for row in asked["rows"]]
        }

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its address, while it serves in a thread."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connected, "127.0.0.1", 0), loop)
        server = started.result()
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/label"
        finally:
            server.close()
            asyncio.run_coroutine_threadsafe(_ended(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                headers = {}
                while header := (await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path = line.split()[1].decode()
                status, more, payload = await self._reply(path, headers, json.loads(body))
                whole = payload if payload is not None else b'{"scores": [[0.9, 0.1]'
                length = len(whole) + (64 if payload is None else 0)
                told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
                writer.write(f"HTTP/1.1 {status} .\r\nContent-Length: {length}\r\n{told}\r\n".encode() + whole)
                await writer.drain()
                if payload is None:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client was killed
        finally:
            writer.close()

    async def _reply(self, path: str, headers: dict[str, str], asked: Any) -> Reply:
        self.num_requests += 1
        self.asked.append({"path": path, **asked})
        self.headers.append(headers)
        if self.limit_per_s is not None and not self._lets_through(self.limit_per_s):
            self.busy += 1
            return 429, {}, b"too many"
        if (fault := self.faults(self.num_requests, asked)) is not None:
            return fault
        rows = [int(row["x"]) for row in asked.get("rows", [])]
        self.bought_again += [row for row in rows if row in self.had]
        await asyncio.sleep(self.latency_s)
        known_by = headers.get("idempotency-key", str(self.num_requests))
        if known_by in self._known:
            self.replayed += 1
        else:
            self.paid.update(rows)
            self._known[known_by] = json.dumps(self.answer(asked)).encode()
        self.at.append(time.monotonic())
        return 200, {}, self._known[known_by]

    def _lets_through(self, per_second: float) -> bool:
        """A bucket that holds a fifth of a second."""
        now = time.monotonic()
        self._allowed, self._since = min(self._allowed + (now - self._since) * per_second, per_second / 5), now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


async def _ended() -> None:
    """All that this loop still does."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def numbered(folder: Path, num_rows: int, **columns: Sequence[Any]) -> TransferSet:
    """A transfer set of so many rows, whose column `x` numbers them; nine tenths of them train."""
    x = np.arange(num_rows)
    label = np.array(CLASSES)[x % 2]
    parquet.write_table(pa.table({"x": x.astype(np.float32), "y": label, **columns}), folder / "rows.parquet")
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    split = {"validation": 0.05, "test": 0.05}
    told = {"source": source, "inputs": ["x", *columns], "label": "y", "split": split}
    return prepare(TransferSetConfig.model_validate(told), folder / "prepared")


def stores(folder: Path, data: TransferSet, config: EndpointTeacher) -> list[LabelTask]:
    """A store for each segment."""
    tasks = []
    for segment in data.segments:
        width = len(config.classes or data.classes)
        per_shard = rows_per_shard(segment.num_rows, 12 + 2 * width)
        names = tuple(config.classes or data.classes)
        spec = Spec(
            "asked",
            "d" * 64,
            segment.name,
            segment.digest,
            "dense",
            names,
            segment.num_rows,
            per_shard,
            data.space.answer,
        )
        store = SoftTargetStore.create(folder / segment.name, spec)
        tasks.append(LabelTask(data.folder, segment.name, store.folder))
    return tasks


def fill(config: EndpointTeacher, tasks: Sequence[LabelTask]) -> None:
    """What a replica does: label what is missing, several shards side by side."""
    labeller = Labeller(TeacherSpec("asked", config, None, (), Path.cwd()), tasks, "cpu")  # type: ignore[arg-type]
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        for number, task in enumerate(labeller.tasks):
            for _ in threads.map(labeller.label, repeat(number), task.store.missing()):
                pass


def killed_and_filled(
    server: CountingServer,
    config: EndpointTeacher,
    tasks: Sequence[LabelTask],
    kills: int,
    most_s: float,
    seed: int = 0,
) -> float:
    """Fill the stores in processes of which so many are killed within `most_s` of their first answer, at random; the seconds in
    which one was at work."""
    context, draw, at_work_s = multiprocessing.get_context("forkserver"), random.Random(seed), 0.0
    context.set_forkserver_preload(["benchmarks.paid"])
    for number in range(kills + 1):
        before, begun = len(server.at), time.monotonic()
        process = context.Process(target=partial(fill, config, tasks))
        process.start()
        if number < kills:
            while process.is_alive() and len(server.at) == before:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, most_s))
            process.kill()
        process.join()
        at_work_s += time.monotonic() - begun
        server.had = held(tasks)
    if process.exitcode:
        raise RuntimeError(f"labelling ended with {process.exitcode}")
    return at_work_s


def held(tasks: Sequence[LabelTask]) -> set[int]:
    """The numbers of rows whose answers are in a journal or a store."""
    found: set[int] = set()
    for task in tasks:
        data, store = TransferSet.open(task.transfer_set), SoftTargetStore.open(task.store)
        segment = data.segment(task.segment)
        x = data.inputs(segment)["features"][:, 0].astype(int)
        of_key = dict(zip(data.keys(segment).tolist(), x.tolist(), strict=True))
        missing = set(store.missing())
        for number in range(store.num_shards):
            first, num_rows = store.shard_rows(number)
            found |= set() if number in missing else set(x[first : first + num_rows].tolist())
        said = (key for _, lines in journals_in(store.folder) for line in lines for key in line.get("said", ()))
        found |= {of_key[int(key, 16)] for key in said}
    return found
