"""What can be learnt, by the recipe's own word."""

from teachers.config.task import TaskName

from .classification import CLASSIFICATION
from .detection import DETECTION
from .multilabel import MULTILABEL
from .regression import REGRESSION
from .task import Task

TASKS: dict[TaskName, Task] = {
    "classification": CLASSIFICATION,
    "multilabel": MULTILABEL,
    "regression": REGRESSION,
    "detection": DETECTION,
}
