"""What a training would hold in memory, were there room for all of it; and who of its teachers is asked live."""

from collections.abc import Mapping, Sequence

import numpy as np

from teachers.models.preprocess import Preprocessor
from teachers.rows.rows import Rows

from ..objective.combination import Combination, teachers_of
from ..objective.voices import Voice
from ..runs.run import Run
from .memory import Needs, Target


def needs_of(
    run: Run,
    preprocessor: Preprocessor,
    labelled: np.ndarray,
    views: int,
    stored: dict[str, Rows],
    voices: Mapping[str, Voice],
    together: Sequence[Combination],
) -> Needs:
    """Without those of validation."""
    num_rows = len(labelled)
    is_parted = run.membership.share_of_rows[1] > 1 or (run.train.labelled_fraction and not labelled.all())
    is_parted = is_parted or run.follow
    return Needs(
        inputs=num_rows * preprocessor.bytes_per_row if can_be_made_once(run) else None,
        stored_inputs=sum(column.nbytes for column in stored.values()),
        targets=tuple(
            Target(each.teachers, bytes_combined(each, voices, views * num_rows) if each.is_made_once(voices) else None)
            for each in together
        ),
        stored_labels={name: sum(column.nbytes for column in voice.columns.values()) for name, voice in voices.items()},
        validation=0,
        copies=2 if is_parted else 1,
    )


def can_be_made_once(run: Run) -> bool:
    """Whether nothing random comes before the network's own preprocess, and nobody asks for the rows before it."""
    return (
        run.train.augment is None
        and run.views is None
        and run.train.mix is None
        and not run.membership.keeps_canonical
        and not live_sources(run)
    )


def bytes_combined(combination: Combination, voices: Mapping[str, Voice], num_rows: int) -> int:
    """Of a target and the weight of each row, in float32."""
    return 4 * num_rows * (len(voices[combination.teachers[0]].known) + 1)


def live_sources(run: Run) -> dict[str, int]:
    """Live teachers that the objective listens to: for how many batches ahead each is asked."""
    heard = {name for term in run.objective for name in teachers_of(term, run.sources)}
    heard |= {hint.teacher for hint in run.hints}
    return {source.name: source.live.prefetch for source in run.sources if source.live and source.name in heard}
