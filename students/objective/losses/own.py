"""Losses of what a student itself says, of its last epoch or by its averaged weights; these are losses of other terms too."""

from torch import Tensor


def ps_kd(
    student: Tensor, target: Tensor, *, labels: Tensor | None = None, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with the distribution `target` `[rows, classes]` of logits `[rows, classes]`, per row `[rows]` (PS-KD, Kim et al., 2021).

    `target`: (1 - a) of the label and a of the probabilities that the student gave when it last saw the row. `class_weights`
    `[classes]` are those of `labels`, i64 `[rows]`, as in `hard`.
    """
    value = -(target * student.log_softmax(-1)).sum(-1)
    return value if class_weights is None or labels is None else value * class_weights[labels]
