"""Answers that are paid for, kept as they arrive: a journal a shard, to which one process at a time appends.

Lines of JSON. The first says whose answers they are; then a line when a request leaves and a line when something comes of it, so
that what a killed process had under way counts as spent. A line is in the kernel's hands when `answered` returns: no death of
a process loses it. It is on the disk within SYNC_S: what a failing machine loses is of the last second. A torn last line is
cut off, and its answer asked for again. When its shard is committed a journal keeps what it cost and who is unknown.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from ..errors import StoreError
from ..models.endpoint.apis import Told
from ..models.endpoint.purse import Spent, Tokens
from ..soft_targets.schema import Commit
from ..soft_targets.store import SoftTargetStore
from ..storage import mirror
from ..storage.disk import told_if_unfit
from ..storage.flock import await_lock
from ..storage.seal import drafted, replace

FORMAT = 1
SYNC_S = 1.0
JOURNALS, TEXTS = "journals", "texts"


class Answers:
    """What was said of rows by their keys, in memory. `votes`: how many a row needs; 0: they are not counted."""

    def __init__(self, width: int, votes: int = 0) -> None:
        self.width, self.wanted = width, votes
        self.scores: dict[int, NDArray[np.float32]] = {}
        self.counts: dict[int, NDArray[np.float32]] = {}
        self.texts: dict[int, str] = {}
        self._num_sent = 0

    def sent(self, expected: Tokens) -> int:
        self._num_sent += 1
        return self._num_sent

    def answered(self, request: int, told: Mapping[int, Told], used: Tokens) -> None:
        for key, each in told.items():
            if each.text is not None:
                self.texts[key] = f"{self.texts[key]}\n\n{each.text}" if key in self.texts else each.text
            if each.scores is not None:
                self.scores[key] = each.scores
            elif each.votes is not None:
                self._count(key, each.votes)

    def failed(self, request: int, why: str, used: Tokens) -> None:
        pass

    def votes(self, key: int) -> int:
        return int(self.counts[key].sum()) if key in self.counts else 0

    def has(self, key: int) -> bool:
        return key in self.scores

    def of(self, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        """f32 [rows, C], NaN for rows of which nothing is said."""
        nothing = np.full(self.width, np.nan, np.float32)
        return np.stack([self.scores.get(key, nothing) for key in keys.tolist()])

    def _count(self, key: int, votes: NDArray[np.float32]) -> None:
        counts = self.counts[key] = self.counts.get(key, np.zeros(self.width + 1, np.float32)) + votes
        if counts.sum() >= self.wanted:
            self.scores[key] = counts[:-1] / counts[:-1].sum()


class Journal(Answers):
    """The journal at `path`, locked until it is closed: whoever else opens it waits. `digest`: of whose answers they are."""

    def __init__(self, path: Path, digest: str, width: int, votes: int = 0, *, with_text: bool = False) -> None:
        super().__init__(width, votes)
        self.path, self.digest, self.with_text = path, digest, with_text
        path.parent.mkdir(exist_ok=True)
        self._file = _locked(path)
        self._synced_at = time.monotonic()
        try:
            self._open()
        except BaseException:  # nobody else has it, and its lock is held until it is closed
            self.close()
            raise

    def _open(self) -> None:
        whole, lines = _read(self.path)
        os.truncate(self._file, whole)
        if lines and lines[0].get("teacher") != self.digest:
            raise StoreError(
                f"{self.path}: holds answers of {lines[0].get('teacher')}, not of {self.digest}; move it away"
            )
        if not lines:
            self._append({"format": FORMAT, "teacher": self.digest})
        for number, line in enumerate(lines, 1):
            try:
                self._take_up(line)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise StoreError(f"{self.path}: line {number} is no answer ({error}); move it away") from error

    def _take_up(self, line: Mapping[str, Any]) -> None:
        self._num_sent = max(self._num_sent, line.get("sent", 0))
        told = {
            int(key, 16): Told(_array(said[0]), _array(said[1]), said[2]) for key, said in line.get("said", {}).items()
        }
        super().answered(0, told, Tokens())

    def sent(self, expected: Tokens) -> int:
        number = super().sent(expected)
        self._append({"sent": number, "tokens": [expected.input, expected.output]})
        return number

    def answered(self, request: int, told: Mapping[int, Told], used: Tokens) -> None:
        said = {
            f"{key:016x}": [_list(t.scores), _list(t.votes), t.text if self.with_text else None]
            for key, t in told.items()
        }
        self._append({"done": request, "tokens": [used.input, used.output], "said": said})
        super().answered(request, told, used)

    def failed(self, request: int, why: str, used: Tokens) -> None:
        self._append({"done": request, "tokens": [used.input, used.output], "failed": why[:500]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._file)

    def note_unknown(self, unknown: Mapping[int, str]) -> None:
        """Of a shard that is committed next."""
        self._append(_unknown_line(unknown))

    def finish(self, unknown: Mapping[int, str]) -> None:
        """The shard is committed: what it cost and who is unknown stays."""
        spent = spent_by(_read(self.path)[1])
        lines = [{"format": FORMAT, "teacher": self.digest}, {"before": [spent.requests, spent.input, spent.output]}]
        lines.append(_unknown_line(unknown))
        replace(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _append(self, line: Mapping[str, Any]) -> None:
        with told_if_unfit(self.path.parent):
            payload = memoryview(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            whole = os.fstat(self._file).st_size
            try:
                while payload:
                    payload = payload[os.write(self._file, payload) :]
            except OSError:
                os.truncate(self._file, whole)  # or the next line would stand behind half of this one
                raise
        if time.monotonic() - self._synced_at > SYNC_S:
            self._synced_at = time.monotonic()
            threading.Thread(target=_sync, args=(os.dup(self._file),)).start()


def _sync(file: int) -> None:
    """Beside what is being asked; `file` is this call's own."""
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _locked(path: Path) -> int:
    """The file that lies at `path` when the lock is had: who had it before may have put another one there."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        is_had = False
        try:
            with suppress(NotImplementedError):  # a storage without locks, where one process alone works on a shard
                await_lock(file)
            with suppress(FileNotFoundError):
                is_had = os.fstat(file).st_ino == path.stat().st_ino
            if is_had:
                return file
        finally:
            if not is_had:
                os.close(file)


def _read(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """(bytes of whole lines, these): up to the first that is torn or is no JSON."""
    whole, lines = 0, []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            document = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            break
        lines.append(document)
        whole += len(line)
    return whole, lines


def spent_by(lines: Sequence[Mapping[str, Any]]) -> Spent:
    """What requests have cost; of those of which nothing came, what was expected."""
    before, tokens = Spent(), dict[int, tuple[int, int]]()
    for line in lines:
        if "before" in line:
            before += Spent(*line["before"])
        elif "tokens" in line:
            tokens[line.get("sent") or line["done"]] = tuple(line["tokens"])
    return before + Spent(
        len(tokens), sum(each[0] for each in tokens.values()), sum(each[1] for each in tokens.values())
    )


def journal_of(store: Path, shard: int) -> Path:
    return store / JOURNALS / f"{shard:06d}.jsonl"


def journals_in(store: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(shard, lines) of each journal of a store."""
    for path in (store / JOURNALS / name for name in mirror.entries(store / JOURNALS)):
        if not path.exists():  # of another machine's shards; what lies here is never older
            mirror.bring(path)
    for path in sorted((store / JOURNALS).glob("*.jsonl")):
        yield int(path.stem), _read(path)[1]


def spent_in(store: Path) -> Spent:
    return sum((spent_by(lines) for _, lines in journals_in(store)), Spent())


def unknown_in(store: SoftTargetStore) -> dict[int, str]:
    """By key, why nothing is said of rows whose shards are committed."""
    found: dict[int, str] = {}
    for shard, lines in journals_in(store.folder):
        if isinstance(store.record_or_damage(shard), Commit):
            told = [line["unknown"] for line in lines if "unknown" in line][-1:]  # before: of commits that did not come
            found |= {int(key, 16): why for each in told for key, why in each.items()}
    return found


def _unknown_line(unknown: Mapping[int, str]) -> dict[str, Any]:
    return {"unknown": {f"{key:016x}": why for key, why in unknown.items()}}


def num_answered(store: SoftTargetStore) -> int:
    """Rows of committed shards, and those that journals hold answers about."""
    missing = set(store.missing())
    committed = sum(store.shard_rows(number)[1] for number in range(store.num_shards) if number not in missing)
    said = [
        {key for line in lines for key in line.get("said", ())}
        for shard, lines in journals_in(store.folder)
        if shard in missing
    ]
    return committed + sum(map(len, said))


def write_texts(store: Path, shard: int, answers: Answers) -> None:
    """What was written about the rows of a shard: `sample_key`, `text`."""
    (store / TEXTS).mkdir(exist_ok=True)
    keys = sorted(answers.texts)
    columns = {
        "sample_key": pa.array(keys, pa.uint64()),
        "text": pa.array([_whole(answers.texts[key]) for key in keys], pa.string()),
    }
    with drafted(store / TEXTS / f"{shard:06d}.parquet") as draft:
        parquet.write_table(pa.table(columns), draft)


def _whole(text: str) -> str:
    """Half a character, which JSON may hold and a table may not, as `?`."""
    return text.encode(errors="replace").decode()


def _array(values: Sequence[float] | None) -> NDArray[np.float32] | None:
    return None if values is None else np.array(values, np.float32)


def _list(values: NDArray[np.float32] | None) -> list[float] | None:
    """Shortest decimals that are the same float32."""
    return None if values is None else [float(str(value)) for value in values]
