"""A head for each teacher on one body (Hydra: Tran et al., 2020): what a recipe says of it. Knows nothing of torch or ray."""

from collections.abc import Sequence

from pydantic import Field

from teachers.config.strict import Config

from .hints import Hint, first_stage
from .term_common import TeacherTermCommon, TermCommon

HYDRA = "students.models:hydra"
"""What a model folder names: the student's own network stands among its arguments."""


class Hydra(Config):
    """As many copies of the student's last layer as it has teachers, each taught by its own; the student says the mean of their probabilities (Tran et al., 2020)."""

    layer: str | None = None
    """Path of the layer that becomes the heads, whose output is the network's; null: it is looked for. `collegium students ls RECIPE --layers` lists layers."""
    phase_one: float = Field(0.5, ge=0, lt=1)
    """Share of the steps in which there is one head, which learns what all teachers say together; then each head begins as a copy of it. 0: heads from the first step. What a network is worth on validation counts in the second phase only."""


def single_steps(hydra: Hydra, steps: int) -> int:
    """Steps of the first phase; of the second there is one at least."""
    return min(round(hydra.phase_one * steps), steps - 1)


def check_hydra(
    hydra: Hydra,
    teachers: Sequence[str],
    objective: Sequence[TermCommon],
    hints: Sequence[Hint],
    generations: int | None,
) -> None:
    """Raise ValueError, which begins with the key, for what contradicts a head for each teacher."""
    if generations:
        raise ValueError(
            "hydra: has a head for each teacher, and each of the `generations` but the first has one, the one before; remove one of "
            "the two"
        )
    if len(teachers) < 2:
        named = f"one teacher, {teachers[0]!r}" if teachers else "no teacher"
        raise ValueError(
            f"hydra: has a head for each teacher, and there is {named}; name another one, or remove `hydra`"
        )
    heard = [(number, term) for number, term in enumerate(objective) if isinstance(term, TeacherTermCommon)]
    if not heard:
        raise ValueError("hydra: no term of the objective listens to the teachers of its heads; add `{loss: soft}`")
    for number, term in heard:
        _check_term(f"objective.{number}", term, teachers, hydra)
    if (alone := first_stage(hints)) > hydra.phase_one:
        raise ValueError(
            f"hydra.phase_one: is {hydra.phase_one:g} of the steps, and in the first {alone:g} of them hints train alone (`alone`); "
            f"give at least that"
        )


def _check_term(where: str, term: TeacherTermCommon, teachers: Sequence[str], hydra: Hydra) -> None:
    if term.teachers is not None and [*term.teachers] != [*teachers]:
        raise ValueError(
            f"{where}.teachers is {term.teachers}: every teacher has its own head (`hydra`), so all are heard, in the order "
            f"{[*teachers]}; remove it"
        )
    if term.level == "losses":
        raise ValueError(
            f"{where}.level: `hydra` has one target in its first phase and a loss beside each teacher, of that one's head, in its "
            f"second; remove it"
        )
    if term.drop is not None:
        raise ValueError(f"{where}.drop: every teacher has its own head (`hydra`), which it alone teaches; remove it")
    if hydra.phase_one == 0 and term.combine != type(term).model_fields["combine"].default:
        raise ValueError(
            f"{where}.combine is {term.combine!r}, which makes the one target of the first phase, and `hydra.phase_one` is 0; remove "
            f"one of the two"
        )
