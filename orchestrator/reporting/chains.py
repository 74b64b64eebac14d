"""What a reader must know of students that began with a teacher's weights, and which assistant would lie between a student
and its teacher.

Knows nothing but the parts of `report.json`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from students.config.student import PRUNED
from students.tasks.figure import Figure, headline

from .headline import on_validation, task_of

FAR = 0.05
"""Between a student and the best of its teachers, from where on an assistant is worth a word."""


def about_beginnings(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Students whose gain is of more than what teachers say. `recipe`: the resolved one."""
    for name, student in recipe["students"].items():
        init = student.get("init")
        is_pruned = student["model"] == PRUNED
        if init is not None:
            what = f"what is left of the weights of {init['from']}" if is_pruned else f"weights of {init['from']}"
            control = ", its control the same network with weights of chance" if student["control"] else ""
            yield (
                f"{name} begins with {what}{control}: its gain is of these weights and of what teachers say, together; the same "
                f"student with `init: null` beside it shows what teachers alone bring."
            )
        elif is_pruned:
            yield f"{name} is a pruned network with weights of chance, as its control is: its gain is of what teachers say."


def about_assistants(report: Mapping[str, Any]) -> Iterator[str]:
    """Of students far below the best of their teachers, without an assistant yet: how good one would be, and who is.

    Half way between the two by figures, not by sizes (Mirzadeh et al., 2020); of validation rows, for test rows choose nothing.
    """
    figure = headline(task_of(report))
    key, teachers = figure.key, report["teachers"]
    if figure.unit != "share":
        return
    for name in report["students"]:
        heard = report["recipe"]["students"][name]["teachers"]
        own = _of_student(report, name, key)
        looks = {teacher: teachers[teacher].get("validation") for teacher in heard if teacher in teachers}
        known: dict[str, float] = {
            teacher: look[key] for teacher, look in looks.items() if look and look[key] is not None
        }
        if own is None or not known or len(known) < len(heard):
            continue
        best = max(known, key=lambda teacher: known[teacher])
        if known[best] - own < FAR:
            continue
        yield _told(report, figure, name, own, best, known[best])


def _of_student(report: Mapping[str, Any], name: str, key: str) -> float | None:
    look = on_validation(report["students"][name], key)
    return None if look is None else look["mean"]


def _told(report: Mapping[str, Any], figure: Figure, name: str, own: float, best: str, theirs: float) -> str:
    middle = (own + theirs) / 2
    told = (
        f"On validation rows {name} has {figure.label} {figure.shown(own)} and {best}, the best of its teachers, {figure.shown(theirs)}: "
        f"an assistant between them would have about {figure.shown(middle)} (half way by {figure.label}, not by size)"
    )
    between = {
        other: _of_student(report, other, figure.key)
        for other, config in report["recipe"]["students"].items()
        if other != name and config["model"] == report["recipe"]["students"][name]["model"]
    }
    between = {other: value for other, value in between.items() if value is not None and own < value < theirs}
    if not between:
        return f"{told}. Train some sizes between the two as students of one run, and this line names the one to take."
    nearest = min(between, key=lambda other: abs((between[other] or 0.0) - middle))
    return f"{told}; of the students here {nearest} is nearest, {figure.shown(between[nearest])}: try `teachers: [{nearest}]`."
