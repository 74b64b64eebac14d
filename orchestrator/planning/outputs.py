"""What `plan` knows of the named outputs of teachers: that their layers are there, their shapes, and what it takes to keep them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from teachers.config.outputs import NetworkTeacher
from teachers.errors import CollegiumError, RecipeError
from teachers.users_code.calls import within

from ..recipe.model import Recipe
from .budgets import Rows
from .memory import in_units
from .walk import Planned

if TYPE_CHECKING:
    from teachers.preparing.look import Look

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""By teacher, by name of the output: of one row."""
NONE: Shapes = {}


def shapes_of(recipe: Recipe, seen: "Look") -> Shapes:
    """Of who has named outputs; none where the classes are known after `prepare` only. Raises RecipeError with all that is wrong."""
    asked = {name: teacher for name, teacher in recipe.teachers.items() if getattr(teacher, "outputs", None)}
    if seen.classes is None or not asked:
        return {}
    from teachers.models.skeleton import output_shapes
    from teachers.tasks.space import Space

    space, found, problems = Space(recipe.task, seen.classes, max_boxes=recipe.transfer_set.boxes), {}, []
    for name, teacher in asked.items():
        assert isinstance(teacher, NetworkTeacher)
        try:
            with within(f"teachers.{name}"):
                found[name] = output_shapes(teacher, seen.columns, space, recipe.trusted())
        except CollegiumError as error:
            problems.append(str(error) if str(error).startswith("teachers.") else f"teachers.{name}: {error}")
    if problems:
        raise RecipeError("\n".join(problems))
    return found


def bytes_a_row(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """In a store."""
    from teachers.soft_targets.encodings.features import bytes_of

    return sum(map(bytes_of, shapes.values()))


def output_notes(recipe: Recipe, outputs: Shapes, stages: Sequence[Planned], rows: Rows | None) -> Iterator[str]:
    """Each output's shape and price; and that who gets one labels again."""
    for name, shapes in outputs.items():
        teacher = recipe.teachers[name]
        assert isinstance(teacher, NetworkTeacher)
        for output, shape in shapes.items():
            size = bytes_a_row({output: shape})
            pooled = " (the mean over positions)" if teacher.outputs[output].pool else ""
            told = f"{teacher.outputs[output].layer} gives {[*shape]} of a row{pooled}; {size:,} bytes"
            if teacher.mode == "live":
                told += " with every answer"
            elif rows is not None:
                total = sum(rows.by_split.values())
                told += f" in its store, {in_units(size * total)} for {rows.told(total)} rows"
            yield f"teachers.{name}.outputs.{output}: {told}"
        if any(each.stage == "label" and each.name == name and "outputs." in each.reason for each in stages):
            yield f"teachers.{name}.outputs: all rows are labelled again, for what its layers give stands beside its answers"
