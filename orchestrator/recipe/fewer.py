"""What a student has otherwise when it hears some of its teachers only: terms, hints, weights. Knows nothing of other variants."""

from collections.abc import Sequence
from typing import Any

from students.config.estimator import EstimatorStudent
from students.config.student import StudentConfig
from teachers.errors import RecipeError


def heard_by(config: StudentConfig | EstimatorStudent, heard: Sequence[str]) -> dict[str, Any]:
    """Its teachers, objective and hints. Raises RecipeError, which says why, where it cannot be without the others."""
    document = config.model_dump(mode="json")
    begins = (document.get("init") or {}).get("from")
    if begins is not None and begins not in heard:
        raise RecipeError(f"begins with the weights of {begins} (`init`), which would not teach it")
    objective = []
    for number, term in enumerate(document["objective"]):
        own = term.get("teachers") or config.teachers
        mine = [name for name in own if name in heard]
        if "combine" not in term:
            objective.append(term)
        elif mine and _is_weighed(term, mine):
            objective.append(_for_fewer(f"objective.{number}", term, own, mine))
    hints = [hint for hint in document.get("hints", ()) if hint["teacher"] in heard]
    if not hints and not any("combine" in term for term in objective):
        raise RecipeError("no term would listen to anybody; leave `teachers` of terms, or weights of 0, out")
    changes: dict[str, Any] = {"teachers": list(heard), "objective": objective}
    if document.get("hydra") is not None and len(heard) == 1:
        changes["hydra"] = None  # a head for each of one teacher
    return changes | ({"hints": hints} if "hints" in type(config).model_fields else {})


def _is_weighed(term: dict[str, Any], mine: Sequence[str]) -> bool:
    """Whether anybody that is left counts in a term."""
    weights = term.get("teacher_weights")
    return weights is None or any(weights[name] for name in mine)


def _for_fewer(where: str, term: dict[str, Any], own: Sequence[str], mine: Sequence[str]) -> dict[str, Any]:
    """A term of `own` for those that are left, without what so few cannot have: some that are left out of each step, a weight
    that none may exceed."""
    if term.get("combine") == "route" and len(mine) < len(own):
        raise RecipeError(
            f"{where} gives rows to each teacher by name (`combine: route`), also to those who are left out"
        )
    for by_teacher in ("teacher_weights", "experts"):
        if term.get(by_teacher) is not None:
            term[by_teacher] = {name: each for name, each in term[by_teacher].items() if name in mine}
    if term.get("experts") is not None and not any(term["experts"].values()):
        raise RecipeError(f"{where}.experts gives those who are left no class")
    if term.get("teachers") is not None:
        term["teachers"] = list(mine)
    too_many = {"drop": (term.get("drop") or 0) >= len(mine), "box": len(mine) * (term.get("box") or 1) < 1}
    return {key: value for key, value in term.items() if not too_many.get(key, False)}
