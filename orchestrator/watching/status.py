"""What goes on in an OUT, from its files alone: runs, their stages, speeds, what is left, curves.

Works from any terminal that sees OUT, beside a run, after it and after its death; changes nothing there.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teachers.errors import RecipeError
from teachers.storage import anew, mirror
from teachers.storage.place import place as at
from teachers.storage.place import remote_of
from teachers.storage.seal import NAME as SEAL

from . import journal
from .journal import journals
from .pulse import Pulse, is_of_this_machine, looks_silent
from .status_stages import COMMITS, Curves, Records, labelling, records_in, study, training

FORMAT = 1
TRAINS = ("train_teacher", "distill")
EVERY_S = 1.0
PATIENCE_S = 3 * journal.BEAT_S
"""With a run of another machine that seems to have been silent for long: it, or a clock, is out of order."""


def place(out: str) -> Path:
    """The folder in which an OUT is read. Raises EnvironmentUnfit for a storage that does not exist or refuses."""
    folder = at(out)
    if remote_of(folder) is not None:
        anew.check(folder, writes=False)
    elif not folder.is_dir():
        raise RecipeError(f"there is no folder {out}; name the --out of a run")
    return folder


def newest_out(parent: Path = Path("out")) -> str:
    """Of the OUTs in `parent` the one whose run goes on, else the one that was begun last."""
    found = [path.parents[2] for path in parent.glob(f"*/runs/*/{journal.NAME}")]
    if not found:
        raise RecipeError(
            f"there is no run in {parent.resolve()}; name its OUT (collegium status OUT), or start one: collegium run"
        )
    runs = {folder: newest[0] for folder in set(found) if (newest := journals(folder))}
    if not runs:
        raise RecipeError(f"no run in {parent.resolve()} can be read; name another OUT (collegium status OUT)")
    return str(max(runs, key=lambda folder: (_seems_to_go_on(runs[folder]), runs[folder]["begun"])))


def _seems_to_go_on(run: Mapping[str, Any]) -> bool:
    return Pulse().goes_on(run) and (is_of_this_machine(run) or not looks_silent(run))


class Looker:
    """Looks at one OUT, again and again; what was read of curves once is not read again."""

    def __init__(self, out: str, run: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self.out, self.folder, self.run, self.patience_s = out, place(out), run, patience_s
        self.pulse = Pulse()
        self.curves: dict[Path, Curves] = {}
        self.records: Records | None = None
        self.every_s = EVERY_S if remote_of(self.folder) is None else journal.BEAT_S
        """More often there is nothing new."""

    def look(self) -> dict[str, Any]:
        """One document. Raises RecipeError for an OUT without a run, StoreError for one of another format."""
        now = time.time()
        if remote_of(self.folder) is not None:
            self.records = records_in(self.folder, mirror.pull(self.folder, without=COMMITS))
        runs = self.pulse.settle(self._journals, self.patience_s)
        if not runs:
            raise RecipeError(f"{self.out} holds no run; `collegium run RECIPE --out {self.out}` makes one")
        chosen = self._chosen(runs)
        return {
            "format": FORMAT,
            "out": self.out,
            "time": now,
            "run": self._about(chosen, now),
            "stages": (stages := [self._stage(chosen, title, now) for title in _titles(chosen)]),
            **_left(stages, self._state(chosen)),
            "runs": [
                {"id": each["id"], "command": each["command"], "state": self._state(each), "begun": each["begun"]}
                for each in runs
            ],
        }

    def _journals(self) -> list[dict[str, Any]]:
        runs = journals(self.folder)
        if remote_of(self.folder) is None:
            return runs
        goes_on = [each["id"] for each in runs if each["state"] == "running"]
        mirror.refresh_all(self.folder / "runs" / run / journal.NAME for run in goes_on)  # of one size, perhaps
        return journals(self.folder) if goes_on else runs

    def _state(self, run: Mapping[str, Any]) -> str:
        """`running`, `finished`, `failed`, `interrupted`, or `killed`: its process is gone and could not say so."""
        return "killed" if run["state"] == "running" and not self.pulse.goes_on(run) else str(run["state"])

    def _chosen(self, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The run that was asked for, else one that goes on, else the newest."""
        if self.run is None:
            return next((each for each in runs if self._state(each) == "running"), runs[0])
        for each in runs:
            if each["id"] == self.run:
                return each
        raise RecipeError(f"{self.out} has no run {self.run!r}; there are {', '.join(each['id'] for each in runs)}")

    def _about(self, run: Mapping[str, Any], now: float) -> dict[str, Any]:
        state = self._state(run)
        ended = now if state == "running" else run["ended"] or run["beat"]
        report = self.folder / "runs" / run["id"] / "report.html"
        told = ("id", "command", "recipe", "host", "pid", "begun", "ended", "error", "cluster", "mlflow")
        return {
            **{key: run[key] for key in told},
            "state": state,
            "seconds": round(ended - run["begun"], 1),
            "silent_s": round(max(0.0, now - run["beat"]), 1),
            "report": str(report) if report.exists() else None,
            "figures": self._figures(run["id"]),
        }

    def _figures(self, run: str) -> dict[str, dict[str, float]]:
        """What the driver itself measured, by stage: `rows_per_s` of `label/wide`; under `` what is of the whole run."""
        curves = self._curves(self.folder / "runs" / run / "metrics.jsonl")
        curves.read_on()
        return {
            stage: {key: record["value"] for key, record in sorted(newest.items())}
            for stage, newest in curves.newest.items()
        }

    def _curves(self, path: Path) -> Curves:
        return self.curves.setdefault(path, Curves(path))

    def _stage(self, run: Mapping[str, Any], title: str, now: float) -> dict[str, Any]:
        kind, _, name = title.partition("/")
        parts = {part: entry for part, entry in run["stages"].items() if part == title or part.startswith(f"{title}/")}
        state = _stage_state(kind, parts, run["work"].get(title), self._state(run), self.folder)
        seconds = [entry["seconds"] for entry in parts.values() if "seconds" in entry]
        told = {
            "stage": kind,
            "name": name,
            "state": state,
            "seconds": round(sum(seconds), 1) if seconds else None,
            "eta_s": None,
        }
        return told | self._details(run, title, parts, state, now)

    def _details(
        self, run: Mapping[str, Any], title: str, parts: Mapping[str, Any], state: str, now: float
    ) -> dict[str, Any]:
        kind, _, name = title.partition("/")
        work, goes_on = run["work"].get(title, {}), state == "running"
        folders = {part: self.folder / entry["folder"] for part, entry in parts.items()}
        if kind == "label" and parts:
            segments = {part.removeprefix(f"{title}/"): folder for part, folder in folders.items()}
            since = min(entry["since"] for entry in parts.values())
            found = labelling(segments, work, now, since=since, goes_on=goes_on, records=self.records)
            facts = [entry.get("facts", {}) for entry in parts.values()]
            speed = max((fact["rows_per_s"] for fact in facts if "rows_per_s" in fact), default=None)
            return found if goes_on else {**found, "rows_per_s": speed}
        if kind == "tune" and work:
            return study(self.folder / "studies" / name, work)
        if kind in TRAINS and work and parts:
            trained_in = {self.folder / budget["folder"] for budget in work.get("trainings", {}).values()}
            curves = {folder: self._curves(folder / "metrics.jsonl") for folder in sorted(trained_in)}
            return training(self.folder, work, curves, now, goes_on=goes_on)
        return {}


def _titles(run: Mapping[str, Any]) -> list[str]:
    """What was planned, and what was built besides."""
    built = ["/".join(title.split("/")[:2]) for title in run["stages"]]
    return list(dict.fromkeys([*run["planned"], *built]))


def _stage_state(kind: str, parts: Mapping[str, Any], work: Mapping[str, Any] | None, run: str, folder: Path) -> str:
    """`waiting`, `running`, `done` or `reused`; of a run that has ended `not begun` or `unfinished`."""
    goes_on = run == "running"
    if kind == "tune":
        done, begun = bool(work and work.get("done")), bool(work)
    else:
        done = bool(parts) and all(
            entry["state"] not in journal.TO_COME or (folder / entry["folder"] / SEAL).exists()
            for entry in parts.values()
        )
        begun = any(entry["state"] != "waiting" for entry in parts.values())
    if done:
        return "reused" if parts and all(entry["state"] == "reused" for entry in parts.values()) else "done"
    if begun:
        return "running" if goes_on else "unfinished"
    return "waiting" if goes_on else "not begun"


def _left(stages: Sequence[Mapping[str, Any]], state: str) -> dict[str, Any]:
    """What is left of the run: `eta_s` where all that is left is known, `at_least_s` where some of it is."""
    if state != "running":
        return {"eta_s": None, "at_least_s": None}
    unfinished = [stage for stage in stages if stage["state"] in ("waiting", "running")]
    known = [stage["eta_s"] for stage in unfinished if stage["eta_s"] is not None]
    all_known = len(known) == len(unfinished) and bool(known)
    return {"eta_s": max(known) if all_known else None, "at_least_s": max(known, default=None)}
