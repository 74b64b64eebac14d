"""A study on disk: `studies/<student>/study.json` says what it is of, `trials.jsonl` holds every trial that has ended.

The file is the truth: a line is on the disk before anything else learns of the trial, so whoever comes after a kill reads
what was finished and does the rest. Knows nothing of Ray or Optuna.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from teachers.errors import RecipeError, StoreError
from teachers.storage import mirror
from teachers.storage.place import remote_of
from teachers.storage.seal import check_format, publish, replace

from ..recipe.model import Recipe, name_in_recipe, public
from ..recipe.search import Direction, SearchConfig
from ..stages.reasons import flat

FORMAT = 1
Who = Literal["student", "control"]
State = Literal["finished", "pruned", "failed"]
MAY_CHANGE = ("trials", "max_concurrent", "seeds_for_best")
"""Of a search: a study goes on with other values of these."""


@dataclass(frozen=True)
class Trial:
    """One training with one setting, ended."""

    number: int
    """Counted from 0, over student and control."""
    who: Who
    params: Mapping[str, Any]
    """By path of the space, what it was trained with."""
    state: State
    values: Mapping[str, float] = field(default_factory=dict)
    """Figures of the best look at validation, and of the network where the metric asks for them."""
    looks: int = 0
    """At validation, before it ended."""
    seconds: float = 0.0
    error: str | None = None
    time: float = 0.0
    """When it ended, Unix seconds."""
    as_recipe: bool = False
    """Whether its setting is the recipe's own."""

    @property
    def is_complete(self) -> bool:
        return self.state == "finished"


@dataclass
class Study:
    """The trials of one search, in the order in which they ended."""

    folder: Path
    trials: list[Trial] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, of: Mapping[str, Any]) -> "Study":
        """Go on with the study in `folder`, or begin it. Raises RecipeError when that one is of something else."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, **of}
        mirror.refresh_all([folder / "study.json", folder / "trials.jsonl"])
        if (folder / "trials.jsonl").exists() and not (folder / "study.json").exists():
            raise StoreError(
                f"{folder} has trials, and no study.json that says of what; begin anew: collegium tune --fresh"
            )
        if publish(folder / "study.json", json.dumps(document, indent=1, allow_nan=False).encode()):
            return cls(folder)
        earlier = _read(folder / "study.json")
        check_format(earlier, FORMAT, folder / "study.json")
        if changed := [*differences(earlier, document)]:
            raise RecipeError(
                f"{folder} holds a study of something else, and trials of different things cannot be compared:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\ngive the recipe what it had, or set that study aside and begin anew: collegium tune --fresh"
            )
        study = cls(folder)
        study._cut_torn_line()
        study.trials = [*read_trials(folder)]
        return study

    @property
    def file(self) -> Path:
        return self.folder / "trials.jsonl"

    def _cut_torn_line(self) -> None:
        """What a killed writer left unfinished would spoil the next line."""
        if self.file.exists():
            with self.file.open("rb+") as file:
                file.truncate(file.read().rfind(b"\n") + 1)

    def add(self, trial: Trial) -> None:
        """Keep a trial that has ended; on the disk when this returns."""
        line = json.dumps({"format": FORMAT, **asdict(trial)}, allow_nan=False) + "\n"
        if remote_of(self.file) is not None:  # which cannot be appended to
            replace(self.file, (self.file.read_bytes() if self.file.exists() else b"") + line.encode())
        else:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        self.trials.append(trial)

    def of(self, who: Who) -> list[Trial]:
        return [trial for trial in self.trials if trial.who == who]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(
            f"{path}: is not JSON ({error}); set that study aside and begin anew: collegium tune --fresh"
        ) from None


def read_trials(folder: Path) -> Iterator[Trial]:
    """Every trial of a study. Raises StoreError for a line that is no trial, naming it."""
    path = folder / "trials.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # somebody is writing it, or was killed meanwhile
            try:
                document = json.loads(line)
                if "format" in document:
                    check_format(document, FORMAT, Path(f"{path}:{number}"))
                del document["format"]
                yield Trial(**document)
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{path}:{number}: is no trial ({error}); remove the line") from None


def set_aside(folder: Path) -> Path | None:
    """Move an earlier study out of the way; where it is kept."""
    if not any((folder / name).exists() for name in ("study.json", "trials.jsonl")):
        return None
    kept = folder.with_name(f"{folder.name}-until-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}")
    mirror.move(folder, kept)
    return kept


def what_it_is_of(recipe: Recipe, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Everything that decides what a trial of the same setting would give. `inputs`: digests of rows and labels, by name."""
    from ..stages.code import text_by_content  # reads files; a look at a study does not

    search = recipe.search
    assert search is not None
    document = public(recipe)
    kind = "students" if search.student in recipe.students else "cohorts"
    learner = {key: value for key, value in document[kind][search.student].items() if key not in ("require", "control")}
    text_by_content(name_in_recipe(recipe, search.student), learner)
    return {
        "recipe": recipe.name,
        "search": {key: value for key, value in document["search"].items() if key not in MAY_CHANGE},
        kind: {search.student: learner | {"control": _own_of_control(document[kind][search.student], search)}},
        "inputs": dict(inputs),
    }


def _own_of_control(learner: Mapping[str, Any], search: SearchConfig) -> dict[str, Any]:
    """What the recipe's control trains otherwise and no trial of it says: whether there is one changes no trial."""
    own = learner["control"] if isinstance(learner["control"], dict) else {}
    return {key: value for key, value in own.items() if value is not None and f"train.{key}" not in search.space}


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, after = flat(earlier), flat(now)
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            if path.startswith("inputs."):
                yield f"{path.removeprefix('inputs.')} changed"
            else:
                yield f"{path}: it has {_told(before, path)}, the recipe {_told(after, path)}"


def _told(values: Mapping[str, Any], path: str) -> str:
    return json.dumps(values[path]) if path in values else "nothing"


def best_of(trials: Sequence[Trial], metrics: Mapping[str, Direction]) -> Trial | None:
    """The best finished trial by the first metric; of equals the one with the lower validation NLL, then the earlier."""
    metric, direction = next(iter(metrics.items()))
    sign = 1.0 if direction == "max" else -1.0

    def rank(trial: Trial) -> tuple[float, float, int]:
        return sign * trial.values[metric], -trial.values.get("validation.nll", 0.0), -trial.number

    return max((trial for trial in trials if trial.is_complete), key=rank, default=None)


def front_of(trials: Sequence[Trial], metrics: Mapping[str, Direction]) -> list[Trial]:
    """Finished trials that no other one beats in everything (the Pareto front), best in the first metric first."""
    complete = [trial for trial in trials if trial.is_complete]
    signs = [1.0 if direction == "max" else -1.0 for direction in metrics.values()]
    costs = {t.number: tuple(-s * t.values[m] for s, m in zip(signs, metrics, strict=True)) for t in complete}
    kept: list[Trial] = []
    for trial in sorted(complete, key=lambda trial: (costs[trial.number], trial.number)):
        own = costs[trial.number]
        if not any(all(a <= b for a, b in zip(costs[other.number], own, strict=True)) for other in kept):
            kept.append(trial)
    return kept


def num_control_trials(search: SearchConfig, entries: int) -> int:
    """Half as many as the student's; one where it has nothing to be searched for."""
    return -(-search.trials // 2) if entries else 1
