"""What the store of a teacher's answers about one segment is."""

from ..config.any_teacher import EncodingName
from ..soft_targets.encodings.features import bytes_of
from ..soft_targets.encodings.table import bytes_per_row
from ..soft_targets.schema import Output, Spec, rows_per_shard
from ..tasks.boxes import width_of
from ..tasks.space import Space
from ..transfer_set.transfer_set import Segment


def spec_of(
    teacher: str,
    digest: str,
    segment: Segment,
    space: Space,
    classes: tuple[str, ...],
    encoding: EncodingName = "dense",
    more: tuple[Output, ...] = (),
) -> Spec:
    """Of the store of what a teacher, whose content is `digest`, says of a segment."""
    size = bytes_per_row("dense", width_of(classes, space.max_boxes), space.answer)
    size += sum(bytes_of(output.shape) for output in more)
    return Spec(
        teacher=teacher,
        teacher_digest=digest,
        segment=segment.name,
        segment_digest=segment.digest,
        encoding=encoding,
        names=classes,
        num_rows=segment.num_rows,
        rows_per_shard=rows_per_shard(segment.num_rows, size),
        answer=space.answer,
        more=more,
        max_boxes=space.max_boxes,
    )
