"""What there is to learn, by name. Knows nothing of torch."""

from typing import Literal

TaskName = Literal["classification", "multilabel", "regression"]
AnswerName = Literal["class_axis", "class_set", "values"]
"""What a teacher says of a row: scores of which one class is meant, scores of classes that each hold or not, numbers."""

ANSWER_OF: dict[TaskName, AnswerName] = {
    "classification": "class_axis",
    "multilabel": "class_set",
    "regression": "values",
}
DEFAULT_TASK: TaskName = "classification"
