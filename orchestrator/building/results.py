"""What a run has built."""

from dataclasses import dataclass, field

from ..stages.stages import Built
from .context import Taught
from .estimates import Estimates
from .judge import Standings
from .learned import Learned


@dataclass
class Results:
    """What a run has built, in the order in which it was done."""

    prepared: Built
    derived: list[Built] = field(default_factory=list)
    """What was made of text."""
    trained: dict[str, Built] = field(default_factory=dict)
    taught: dict[str, Taught] = field(default_factory=dict)
    judged: dict[str, Built] = field(default_factory=dict)
    standings: Standings = field(default_factory=dict)
    """How everybody who teaches stands."""
    students: dict[str, Learned] = field(default_factory=dict)
    """Cohorts too."""
    estimates: Estimates = field(default_factory=dict)
    """What all of it was thought to take."""
    evaluations: dict[str, Built] = field(default_factory=dict)
    models: dict[str, Built] = field(default_factory=dict)

    def built(self) -> list[Built]:
        labels = [built for taught in self.taught.values() for built in taught.labels.values()]
        return [
            self.prepared,
            *self.derived,
            *self.trained.values(),
            *labels,
            *self.judged.values(),
            *(built for learned in self.students.values() for built in learned.trainings.values()),
            *self.evaluations.values(),
            *self.models.values(),
        ]
