"""How far one stage is, from the files in its folder: shards of stores, points of curves, trials of a study.

Needs none of Ray, torch or MLflow, and opens no record: of thousands of shards only the names are listed.
"""

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from students.runs.curves import CURVES, Followed, Record
from teachers.storage.bucket import Entry
from teachers.storage.room import MANIFEST
from teachers.storage.seal import NAME as SEAL

from ..search.study import best_of, read_trials

COMMITS = "commits"
RECORD = re.compile(r"\d+\.json")
WINDOW_S = 60.0
"""Speeds are of the last minute."""

Records = Callable[[Path], Iterable[tuple[int, float]]]
"""Number and time of every commit record in a folder."""


class Curves:
    """The newest point of every curve in a `metrics.jsonl`; asked again, it reads only what has come since.

    In an object store each process that trains has a file of its own beside it until the stage is done.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._followed = path, dict[Path, Followed]()
        self.newest: dict[str, dict[str, Record]] = {}
        """By training and key, the point of the highest step; of two the later one, as MLflow has it."""
        self.recent: dict[str, deque[tuple[float, int]]] = {}
        """By training, the times and steps of the last minute."""

    def read_on(self) -> None:
        for path in (self._path, *sorted((self._path.parent / CURVES).glob("*.jsonl"))):
            followed = self._followed.setdefault(path, Followed(str(path), ""))
            for records, offset in followed.unsent():
                followed.offset = offset
                for record in records:
                    self._take(record)

    def _take(self, record: Record) -> None:
        name = record["run"] or record["stage"]  # what a driver measures is of a stage, and of no training
        curves = self.newest.setdefault(name, {})
        if record["key"] not in curves or record["step"] >= curves[record["key"]]["step"]:
            curves[record["key"]] = record
        recent = self.recent.setdefault(name, deque())
        recent.append((record["time"], record["step"]))
        while recent[-1][0] - recent[0][0] > WINDOW_S:
            recent.popleft()

    def step(self, training: str) -> int:
        return max((record["step"] for record in self.newest.get(training, {}).values()), default=0)

    def steps_per_s(self, training: str, now: float) -> float:
        """0 for a training that has not moved for a while."""
        points = [point for point in self.recent.get(training, ()) if now - point[0] <= WINDOW_S]
        if len(points) < 2 or points[-1][1] <= points[0][1]:
            return 0.0
        return (points[-1][1] - points[0][1]) / max(now - points[0][0], 1e-3)


def training(
    out: Path, work: Mapping[str, Any], curves: Mapping[Path, Curves], now: float, *, goes_on: bool
) -> dict[str, Any]:
    """What trains networks, in stages of one name or several: how far each is. `curves`: by the stage's folder."""
    for each in curves.values():
        each.read_on()
    budgets = work.get("trainings", {})
    rows = [_network(out / budget["folder"], name, budget, curves) for name, budget in budgets.items()]
    left = [row for row in rows if not row["done"]]
    of = {row["training"]: curves[out / budgets[row["training"]]["folder"]] for row in left}
    speed = sum(of[name].steps_per_s(name, now) for name in of) if goes_on else 0.0
    steps_left = sum(row["steps"] - row["step"] for row in left)
    given = {key: work[key] for key in ("workers", "cpus", "gpus", "follows") if key in work}
    return {
        **given,
        "trainings": rows,
        "together": _together(curves.values(), budgets),
        "steps_per_s": round(speed, 2) if speed else None,
        "eta_s": round(steps_left / speed, 1) if speed else None,
    }


def _network(folder: Path, name: str, budget: Mapping[str, Any], curves: Mapping[Path, Curves]) -> dict[str, Any]:
    done = (folder / SEAL).exists() or (folder / name / SEAL).exists()
    step = curves[folder].step(name)
    an_epoch = budget["rows"] / budget["batch_size"]
    newest = curves[folder].newest.get(name, {})
    return {
        "training": name,
        "done": done,
        "step": step,
        "steps": budget["steps"],
        "epoch": round(step / an_epoch, 2),
        "epochs": round(budget["steps"] / an_epoch, 2),
        "metrics": {key: _finite(record["value"]) for key, record in sorted(newest.items())},
    }


def _together(curves: Iterable[Curves], networks: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The newest of curves that are of a whole cohort, and of no network."""
    return {
        name: {key: _finite(record["value"]) for key, record in sorted(newest.items())}
        for each in curves
        for name, newest in each.newest.items()
        if name not in networks
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else None


def labelling(
    folders: Mapping[str, Path],
    work: Mapping[str, Any],
    now: float,
    *,
    since: float,
    goes_on: bool,
    records: Records | None = None,
) -> dict[str, Any]:
    """What a teacher has labelled; `folders`: its stores by segment, `since`: when it began, `records`: not those here."""
    stores, recent = [], []
    for segment, folder in folders.items():
        if (found := _store(folder, segment, records or _records)) is not None:
            store, times = found
            stores.append(store)
            recent += [(time, store["rows_per_shard"]) for time in times if time > max(since, now - WINDOW_S)]
    rows, num_rows = (sum(store[key] for store in stores) for key in ("rows", "num_rows"))
    shards_per_s, rows_per_s = _speeds(recent, now) if goes_on else (0.0, 0.0)
    given = {key: work[key] for key in ("replicas", "ready", "cpus", "gpus") if key in work}
    return {
        **given,
        "shards": sum(store["shards"] for store in stores),
        "num_shards": sum(store["num_shards"] for store in stores),
        "rows": rows,
        "num_rows": num_rows,
        "shards_per_s": round(shards_per_s, 3) if shards_per_s else None,
        "rows_per_s": round(rows_per_s, 1) if rows_per_s else None,
        "eta_s": round((num_rows - rows) / rows_per_s, 1) if rows_per_s else None,
        "stores": stores,
    }


def _store(folder: Path, segment: str, records: Records) -> tuple[dict[str, Any], Sequence[float]] | None:
    """How far a store is, and when its records were written; None before it is made."""
    try:
        spec = json.loads((folder / "spec.json").read_bytes())
    except (OSError, ValueError):  # a damaged one is told, and mended, by who opens the store
        return None
    num_rows, rows_per_shard = spec["num_rows"], spec["rows_per_shard"]
    num_shards = -(-num_rows // rows_per_shard)
    sealed = (folder / SEAL).exists()
    written = {} if sealed else dict(records(folder / COMMITS))
    there = {*written, *([] if sealed else _gathered(folder))}
    shards = num_shards if sealed else len(there)
    short = num_shards * rows_per_shard - num_rows if sealed or num_shards - 1 in there else 0
    store = {"segment": segment, "folder": str(folder), "sealed": sealed, "shards": shards, "num_shards": num_shards}
    rows = {"rows": shards * rows_per_shard - short, "num_rows": num_rows, "rows_per_shard": rows_per_shard}
    return {**store, **rows}, [*written.values()]


def _gathered(folder: Path) -> list[int]:
    """The shards in the manifest of a store that is repaired, or just being sealed."""
    if not (folder / MANIFEST).exists():
        return []
    from pyarrow import ArrowException, ipc, memory_map

    try:
        with memory_map(str(folder / MANIFEST)) as file:
            found: list[int] = ipc.open_file(file).read_all()["shard"].to_pylist()
            return found
    except (OSError, ArrowException, KeyError):  # a damaged one is told by who opens the store
        return []


def records_in(out: Path, listed: Mapping[str, Entry]) -> Records:
    """Of an OUT in an object store, from its listing: what lies here tells when it came, and need not come."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name, entry in listed.items():
        folder, _, file = name.rpartition("/")
        if folder.endswith(f"/{COMMITS}") and RECORD.fullmatch(file):
            found.setdefault(folder, []).append((int(file[:-5]), entry.time))
    return lambda commits: found.get(commits.relative_to(out).as_posix(), [])


def _records(commits: Path) -> Iterator[tuple[int, float]]:
    try:
        with os.scandir(commits) as entries:
            for entry in entries:
                if RECORD.fullmatch(entry.name):
                    yield int(entry.name[:-5]), entry.stat().st_mtime
    except FileNotFoundError:
        return


def _speeds(recent: Sequence[tuple[float, int]], now: float) -> tuple[float, float]:
    """Shards and rows a second; they fall while nothing is committed. The first shard only starts the clock."""
    if len(recent) < 2:
        return 0.0, 0.0
    ordered = sorted(recent)
    seconds = max(now - ordered[0][0], 1e-3)
    return (len(ordered) - 1) / seconds, sum(rows for _, rows in ordered[1:]) / seconds


def study(folder: Path, work: Mapping[str, Any]) -> dict[str, Any]:
    """The trials of a search that have ended, and the best of the student's."""
    trials = [*read_trials(folder)]
    of = {who: [trial for trial in trials if trial.who == who] for who in ("student", "control")}
    best = best_of(of["student"], {work["metric"]: work["direction"]})
    left = work["trials"] - len(of["student"]) + work["control_trials"] - len(of["control"])
    ended = sorted(trial.time for trial in trials if time.time() - trial.time < 10 * WINDOW_S)
    speed = (len(ended) - 1) / max(time.time() - ended[0], 1e-3) if len(ended) > 1 else 0.0
    return {
        "trials": len(of["student"]),
        "num_trials": work["trials"],
        "control_trials": len(of["control"]),
        "num_control_trials": work["control_trials"],
        **{state: sum(trial.state == state for trial in trials) for state in ("finished", "pruned", "failed")},
        "at_once": work.get("at_once"),
        "metric": work["metric"],
        "best": {"trial": best.number, "value": best.values[work["metric"]], "params": dict(best.params)}
        if best
        else None,
        "eta_s": round(max(left, 0) / speed, 1) if speed else None,
    }
