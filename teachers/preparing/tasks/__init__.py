"""What label columns mean, task by task: `LABELS` has who reads them.

Knows nothing of inputs, keys or splits.
"""

from ...config.task import TaskName
from .classification import Classification
from .detection import Detection
from .multilabel import Multilabel
from .reader import LabelReader
from .regression import Regression

LABELS: dict[TaskName, LabelReader] = {
    "classification": Classification(),
    "multilabel": Multilabel(),
    "regression": Regression(),
    "detection": Detection(),
}
