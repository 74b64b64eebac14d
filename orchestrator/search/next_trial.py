"""Which trial comes next: whose it is and with what setting, knowing what has ended. Knows nothing of Ray."""

from collections.abc import Mapping
from typing import Any

from ..recipe.search import Entry, SearchConfig
from ..recipe.space import of_the_control, shared_with_control
from .proposals import Proposals
from .study import Study, Trial, Who, best_of, num_control_trials


class Plan:
    """What is still to be tried, and by whom."""

    def __init__(
        self, study: Study, search: SearchConfig, now: Mapping[Who, Mapping[str, Any] | None], who: tuple[Who, ...]
    ) -> None:
        self.study, self.search, self.who = study, search, who
        spaces: dict[Who, Mapping[str, Entry]] = {"student": search.space, "control": of_the_control(search)}
        self.now = now
        self.number = max((trial.number for trial in study.trials), default=-1) + 1
        control = num_control_trials(search, len(spaces["control"])) if now["control"] is not None else 0
        counts = {"student": search.trials, "control": control}
        self.left = {each: max(0, counts[each] - len(study.of(each))) for each in who}
        seed = search.seed + 1000 * len(study.trials)  # a study that goes on must not draw the same again
        metrics = {"student": search.metrics, "control": dict([next(iter(search.metrics.items()))])}
        self.proposals = {each: Proposals(search, spaces[each], metrics[each], seed) for each in who}
        for each in who:
            self.proposals[each].knows(study.of(each))
        self.running: dict[int, tuple[Who, Mapping[str, Any]]] = {}
        self.as_recipe: set[Who] = {trial.who for trial in study.trials if trial.as_recipe}
        self.is_hopeless = False

    @property
    def num_left(self) -> int:
        return sum(self.left.values())

    def next(self) -> dict[str, Any] | None:
        """The next trial's number, who it is of, and its setting; None when nothing is left to try."""
        who = self._next_who()
        if who is None or self.is_hopeless:
            return None
        number, params = self.number, self._setting(who)
        if params is None:
            self.left[who] = 0  # a grid is done
            return self.next()
        self.number, self.left[who] = self.number + 1, self.left[who] - 1
        self.running[number] = who, params
        return {"number": number, "who": who, "params": dict(params), "as_recipe": params is self.now[who]}

    def all_that_is_left(self) -> list[dict[str, Any]]:
        found = []
        while (setting := self.next()) is not None:
            found.append(setting)
        return found

    def _next_who(self) -> Who | None:
        """The control as the recipe has it, then all of the student's, then the control's others."""
        order: tuple[Who, ...] = ("student", "control") if "control" in self.as_recipe else ("control", "student")
        return next((who for who in order if self.left.get(who, 0) > 0), None)

    @property
    def waits(self) -> bool:
        """The control's others have the network of the best student: that has to be known first."""
        students = any(who == "student" for who, _ in self.running.values())
        return students and self._next_who() == "control" and "control" in self.as_recipe

    def _setting(self, who: Who) -> Mapping[str, Any] | None:
        if who not in self.as_recipe:  # one that was lost to a kill is tried again
            self.as_recipe.add(who)
            return self.now[who]
        proposals, shared = self.proposals[who], self._shared() if who == "control" else {}
        proposed = proposals.ask(self.number, self._tried(who, shared) if proposals.grid is not None else [])
        return None if proposed is None else shared | proposed

    def _tried(self, who: Who, shared: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Points of its space that were tried already, of the same network."""
        tried = [trial.params for trial in self.study.of(who)]
        tried += [params for other, params in self.running.values() if other == who]
        alike = [params for params in tried if all(params.get(path) == value for path, value in shared.items())]
        return [{path: params[path] for path in self.proposals[who].space} for params in alike]

    def _shared(self) -> dict[str, Any]:
        """What the control's others have from the best student."""
        best = best_of(self.study.of("student"), self.search.metrics)
        return shared_with_control(best.params if best else self.now["student"] or {})

    def ended(self, trial: Trial) -> None:
        self.study.add(trial)
        self.running.pop(trial.number, None)
        self.proposals[trial.who].told(trial)
        if trial.state == "failed" and not any(trial.state != "failed" for trial in self.study.trials):
            self.is_hopeless = trial.who == "control" or len(self.study.trials) >= 3
