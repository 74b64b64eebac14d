"""What students and cohorts have become: one stage a training, and which of their networks are delivered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from students.runs.best import delivered as best_seed
from students.runs.best import rank_of_run
from teachers.storage.seal import digest_of

from ..recipe.model import Recipe
from ..stages.stages import Built
from ..stages.trainings import Kind

NOT_LEARNT = {"result.json", "passes.json", "SEAL.json"}
"""Files of a training that say nothing of what it answers."""


@dataclass(frozen=True)
class Network:
    """A trained network: a model folder inside the stage that trained it."""

    built: Built
    run: str
    seed: int

    @property
    def folder(self) -> Path:
        return self.built.folder / self.run

    @property
    def digest(self) -> str:
        """Of what it says: its architecture and weights."""
        by_path = {output.path: output.sha256 for output in self.built.seal.outputs}
        run = f"{self.run}/"
        own = {path.removeprefix(run): sha256 for path, sha256 in by_path.items() if path.startswith(run)}
        return digest_of([own.pop("config.json"), *(own[file] for file in sorted(own.keys() - NOT_LEARNT))])


@dataclass(frozen=True)
class Learned:
    """The trainings of one student or cohort, by kind and seed."""

    trainings: Mapping[tuple[Kind, int], Built]

    @property
    def digest(self) -> str:
        return digest_of([[kind, seed, built.digest] for (kind, seed), built in sorted(self.trainings.items())])

    def networks(self, kind: Kind, member: str | None = None) -> dict[int, Network]:
        """By seed; `member`: of a cohort."""
        return {
            seed: Network(built, run_of(kind, seed, member), seed)
            for (of, seed), built in self.trainings.items()
            if of == kind
        }

    def folders(self, kind: Kind, member: str | None = None) -> dict[int, Path]:
        return {seed: network.folder for seed, network in self.networks(kind, member).items()}

    def delivered(self, member: str | None = None) -> Network:
        """Of all seeds the best on validation, ties to the lower one."""
        return self.networks("student", member)[best_seed(self.folders("student", member))]


def run_of(kind: Kind, seed: int, member: str | None) -> str:
    """Where a network lies in the folder of its stage."""
    if member is None:
        return f"{kind}/seed-{seed}"
    return f"{member}/seed-{seed}" if kind == "student" else f"{kind}/{member}/seed-{seed}"


def to_export(recipe: Recipe, name: str, learned: Learned) -> dict[str, list[Network]]:
    """By the deliverable's name (the learner's, or `cohort.member` where every member is delivered), its networks.

    The best member of a cohort is the best on validation, ties to the first; its ensemble is of that one's seed.
    """
    if name in recipe.students:
        return {name: [learned.delivered()]}
    config = recipe.cohorts[name]
    members = {member: learned.delivered(member) for member in config.members}
    if config.deliver == "all":
        return {f"{name}.{member}": [network] for member, network in members.items()}
    best = max(members, key=lambda member: rank_of_run(members[member].folder))
    if config.deliver == "ensemble":
        seed = members[best].seed
        return {name: [learned.networks("student", member)[seed] for member in config.members]}
    return {name: [members[best if config.deliver == "best" else config.deliver]]}
