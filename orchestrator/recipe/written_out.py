"""What a recipe says of students in one word, written out: generations as a chain, a pruned student with who it is made of.

Knows nothing of stages; reads of a teacher's model folder what network it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from students.config.estimator import EstimatorStudent
from students.config.init import Init
from students.config.student import StudentConfig
from teachers.config.teacher import CheckpointTeacher, ModuleTeacher, TeacherConfig

Students = Mapping[str, StudentConfig | EstimatorStudent]


def written_out(
    students: Students, teachers: Mapping[str, TeacherConfig]
) -> dict[str, StudentConfig | EstimatorStudent]:
    """Raises ValueError for a name that a generation would take from another student."""
    found: dict[str, StudentConfig | EstimatorStudent] = {}
    for name, student in students.items():
        if isinstance(student, StudentConfig) and student.generations:
            for number in range(1, student.generations):
                if f"{name}-{number}" in students:
                    raise ValueError(
                        f"{name}-{number} is generation {number} of {name}, and another student has that name; rename it"
                    )
            found |= _generations(name, student, student.generations)
        elif isinstance(student, StudentConfig) and student.is_pruned:
            found[name] = _pruned(student, students, teachers)
        else:
            found[name] = student
    return found


def _generations(name: str, student: StudentConfig, count: int) -> dict[str, StudentConfig]:
    """Each learns from the one before, the first from the student's teachers; the last has its name."""
    names = [*(f"{name}-{number}" for number in range(1, count)), name]
    taught_by = [student.teachers, *([before] for before in names)]
    return {
        own: student.model_copy(update={"generations": None, "teachers": teachers})
        for own, teachers in zip(names, taught_by, strict=False)
    }


def _pruned(student: StudentConfig, students: Students, teachers: Mapping[str, TeacherConfig]) -> StudentConfig:
    """With the architecture that it is made of in the place of a name, and with that one's weights unless `init` is said.

    Inputs are made for it as for that one, unless its own `preprocess` is said.
    """
    of = student.arguments.get("of")
    if not isinstance(of, str):
        return student
    whole = teachers.get(of) or students.get(of)
    network = _network_of(whole)
    if network is None:
        return student  # which is told with the recipe's other problems
    update: dict[str, Any] = {"arguments": {**student.arguments, "of": network}}
    if isinstance(whole, ModuleTeacher | StudentConfig):
        update["files"] = [*dict.fromkeys([*student.files, *whole.files])]
        if "preprocess" not in student.model_fields_set:
            update["preprocess"] = whole.preprocess
    if "init" not in student.model_fields_set and of in student.teachers:
        update["init"] = Init.model_validate({"from": of})
    return student.model_copy(update=update)


def _network_of(config: TeacherConfig | StudentConfig | EstimatorStudent | None) -> dict[str, Any] | None:
    """`{model, arguments}`; None of who is no network that a recipe or a model folder knows."""
    if isinstance(config, ModuleTeacher | StudentConfig):
        return {"model": config.model, "arguments": config.arguments}
    if isinstance(config, CheckpointTeacher):
        try:
            document = json.loads((Path(config.path) / "config.json").read_bytes())
            return {"model": str(document["model"]), "arguments": dict(document["arguments"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None  # a folder that is none is told by its own key
    return None
