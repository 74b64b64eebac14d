"""What there is to learn, by name. Knows nothing of torch."""

from typing import Literal

TaskName = Literal["classification", "multilabel", "regression", "detection"]
AnswerName = Literal["class_axis", "class_set", "values", "boxes"]
"""What a teacher says of a row: scores of which one class is meant, scores of classes that each hold or not, numbers, boxes with
a score and a class."""

ANSWER_OF: dict[TaskName, AnswerName] = {
    "classification": "class_axis",
    "multilabel": "class_set",
    "regression": "values",
    "detection": "boxes",
}
DEFAULT_TASK: TaskName = "classification"
