"""What is told of teachers that are brought: how their files say that they are fed."""

from teachers.config.published import TimmTeacher
from teachers.errors import CollegiumError

from ..recipe.model import Recipe


def fed_notes(recipe: Recipe) -> list[str]:
    """Of networks of timm, whose configuration decides size, crop and normalisation."""
    found = []
    for name, teacher in recipe.teachers.items():
        if isinstance(teacher, TimmTeacher):
            from teachers.models.timm_teacher import fed_in_words  # timm, which takes seconds

            try:
                found.append(f"teachers.{name}: {fed_in_words(teacher)}")
            except CollegiumError as error:
                found.append(f"teachers.{name}: {error}")
    return found
