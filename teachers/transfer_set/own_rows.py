"""Rows that teachers have for themselves: of the split `teachers`, which nobody labels, learns or is judged on but they."""

from dataclasses import replace

from .transfer_set import Segment, TransferSet


def shared(transfer_set: TransferSet) -> tuple[Segment, ...]:
    """All other segments, training rows in every view: what teachers are asked about, students learn, and figures are of."""
    return tuple(segment for segment in transfer_set.in_views() if segment.split != "teachers")


def of_teachers(transfer_set: TransferSet) -> TransferSet:
    """The same for who is trained to teach: these rows are training rows, too."""
    segments = tuple(
        replace(each, split="train") if each.split == "teachers" else each for each in transfer_set.segments
    )
    mine = replace(transfer_set, segments=segments)
    return replace(mine, num_labelled=sum(int(mine.labelled(segment).sum()) for segment in mine.of("train")))
