"""All who teach and learn in one run: who waits for whom."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait

from teachers.process.waiting import POLL_S, SideBySide, go_on, outcome, until_done

from ..recipe.following import follows
from ..recipe.model import is_trained_here, learner_of
from ..stages import keys
from ..stages.stages import Built
from .context import Begun, Context, Taught, segments_heard, segments_of
from .derive import derive, reads_arrays
from .first_labels import FirstLabels
from .judge import Standings, judge
from .label import label
from .learn import Learners
from .learned import Learned
from .results import Results
from .train import folder_of, train_teacher
from .turns import Turns

Judged = tuple[Built | None, Standings]


class School:
    """All who teach and learn in one run, each in a thread that waits for those whom it hears. The first that fails ends all others.

    Arrays are made of text meanwhile, for which only those wait that read them.
    """

    def __init__(self, context: Context, results: Results, turns: Turns, threads: SideBySide) -> None:
        self.context, self.results, self.turns, self.threads = context, results, turns, threads
        self.prepared = results.prepared

    def teach(self, learners: Sequence[str]) -> None:
        recipe, results, start, come = self.context.recipe, self.results, self.threads.start, self.threads.outcome
        derived = start(derive, self.context, self.prepared)
        firsts = self._first_labels(learners)
        trained = {n: start(self._train, derived, n) for n, each in recipe.teachers.items() if is_trained_here(each)}
        labelled = {
            name: start(self._label, derived, name, trained.get(name), firsts[name]) for name in recipe.teachers
        }
        judged = {"teachers": start(self._judge, "teachers", {**labelled})}
        by_whom = self._judged_by_whom(learners, {**labelled}, judged["teachers"])
        ready = dict[str, Future[Taught]]()
        everyone = Learners(self.context, self.turns, self.threads, self.prepared)
        learnt = dict[str, Future[Learned]]()
        for name in learners:
            teachers = recipe.learners[name].teachers
            gate = by_whom[frozenset(each for each in teachers if each in recipe.teachers)]
            heard = {each: ready.get(each) or start(self._ready, labelled[each], gate) for each in teachers}
            begun = {each: firsts[each].begun for each in teachers} if follows(recipe.learners[name]) else None
            learnt[name] = start(self._learn, derived, everyone, name, heard, begun)
            for assistant in recipe.assistants():
                if learner_of(assistant) == name:
                    labelled[assistant] = start(self._label_as_assistant, assistant, learnt[name], firsts[assistant])
                    judged[assistant] = start(self._judge, assistant, {assistant: labelled[assistant]})
                    ready[assistant] = start(self._ready, labelled[assistant], judged[assistant])
        results.trained = {name: come(future) for name, future in trained.items()}
        results.taught = {name: come(future) for name, future in labelled.items()}
        for title, future in judged.items():
            built, standings = come(future)
            results.judged |= {title: built} if built is not None else {}
            results.standings |= standings
        results.students = everyone.in_order({name: come(future) for name, future in learnt.items()})
        results.derived = come(derived)

    def _train(self, derived: "Future[list[Built]]", name: str) -> Built:
        if reads_arrays(self.context.recipe.teachers[name]):
            outcome(derived)
        return train_teacher(self.context, self.turns, name, self.prepared)

    def _first_labels(self, learners: Sequence[str]) -> dict[str, FirstLabels]:
        """By who teaches: what those who follow it wait for."""
        recipe, found = self.context.recipe, dict[str, FirstLabels]()
        train = segments_of(self.prepared, "train", views=keys.viewing_of(recipe))
        for teacher in (*recipe.teachers, *recipe.assistants()):
            hear = [recipe.learners[name] for name in learners if teacher in recipe.learners[name].teachers]
            heard = {s for each in hear if follows(each) for s in segments_heard(recipe, self.prepared, each)}
            whole, some = sorted(heard - {*train}), [segment for segment in train if segment in heard]
            found[teacher] = FirstLabels(whole, some)
        return found

    def _label(
        self, derived: "Future[list[Built]]", name: str, trained: "Future[Built] | None", first: FirstLabels
    ) -> Taught:
        recipe, folder = self.context.recipe, None
        config = recipe.teachers[name]
        if trained is not None:
            built = outcome(trained)
            weights, folder = built.digest, folder_of(recipe, name, built)
        else:
            weights = keys.teacher_digest(recipe, name, None, self.prepared.stage.inputs["source"])
        if reads_arrays(config):
            outcome(derived)
        return label(self.context, self.turns, name, config, weights, folder, self.prepared, first)

    def _label_as_assistant(self, name: str, learnt: "Future[Learned]", first: FirstLabels) -> Taught:
        """A student, or a member of a cohort, that teaches another one labels what its delivered seed says."""
        network = outcome(learnt).delivered(name.partition(".")[2] or None)
        config = keys.assistant_as_teacher(self.context.recipe, name, str(network.folder))
        return label(self.context, self.turns, name, config, network.digest, None, self.prepared, first)

    def _judge(self, title: str, labelled: "Mapping[str, Future[Taught]]") -> Judged:
        """Before anybody hears them. Raises GateMissed."""
        taught = {name: outcome(future) for name, future in labelled.items()}
        return judge(self.context, self.turns, title, self.prepared, taught) if taught else (None, {})

    def _judged_by_whom(
        self, learners: Sequence[str], labelled: "Mapping[str, Future[Taught]]", all_judged: "Future[Judged]"
    ) -> "dict[frozenset[str], Future[Judged]]":
        """By teachers that somebody hears, when they are judged: with all others, or before these where these take longer."""
        recipe = self.context.recipe
        found = {frozenset[str](): all_judged, frozenset(recipe.teachers): all_judged}
        for name in learners:
            heard = frozenset(each for each in recipe.learners[name].teachers if each in recipe.teachers)
            if heard not in found:
                found[heard] = self.threads.start(self._judge_before_others, name, heard, labelled, all_judged)
        return found

    def _judge_before_others(
        self,
        learner: str,
        names: frozenset[str],
        labelled: "Mapping[str, Future[Taught]]",
        all_judged: "Future[Judged]",
    ) -> Judged:
        until_done([labelled[name] for name in names])
        others = [name for name in self.context.recipe.teachers if name not in names]
        while left := {labelled[name] for name in others if not labelled[name].done()}:
            go_on()
            if self.turns.are_under_way([f"{kind}/{name}" for kind in ("train_teacher", "label") for name in others]):
                mine = {name: labelled[name] for name in self.context.recipe.teachers if name in names}
                return self._judge(f"teachers-of-{learner}", mine)
            wait(left, timeout=POLL_S)
        return outcome(all_judged)

    def _ready(self, labelled: "Future[Taught]", judged: "Future[Judged]") -> Taught:
        outcome(judged)
        return outcome(labelled)

    def _learn(
        self,
        derived: "Future[list[Built]]",
        everyone: Learners,
        name: str,
        heard: "Mapping[str, Future[Taught]]",
        begun: "Mapping[str, Future[Begun]] | None",
    ) -> Learned:
        outcome(derived)
        return everyone.learn(name, heard, begun)
