"""Which columns of a new source are the ones that a model was trained on: by their names, or as `--inputs` maps them.

Knows nothing of what the columns hold.
"""

from collections.abc import Mapping, Sequence

from teachers.errors import RecipeError
from teachers.preparing.canonical import InputPlan
from teachers.sources.files import nearest


def columns_for(
    plans: Sequence[InputPlan], found: Sequence[str], given: Sequence[str] = (), title: str = "the source"
) -> list[tuple[str, ...]]:
    """For each plan its columns among `found`: one for each of the plan's own, or one that holds all of them.

    `given` are `NEW=OLD` (column NEW of the source is the model's OLD) or names alone, of which one that the model does
    not know stands for the one that is missing, or for the one in its place. Raises RecipeError for columns that are not
    there, in another order, or too few.
    """
    mapped, alone = _parsed(plans, found, given, title)
    if len(plans) == 1 and alone and not mapped:
        (plan,) = plans
        several_are_there = len(plan.sources) > 1 and any(name in found for name in plan.sources)
        if len(alone) == 1 and not _is_known(plans, alone[0]) and not several_are_there:
            return [(alone[0],)]
        if plan.sources == (plan.name,) and plan.kind == "number" and len(alone) == plan.shape[0]:
            return [tuple(alone)]  # a model that does not know of which columns its features were made
    mapped |= _by_place(plans, found, mapped, alone)
    chosen = [_chosen(plan, found, mapped) for plan in plans]
    if len(plans) == 1 and chosen[0] is None and not given and len(found) == 1:
        return [(found[0],)]
    missing = [
        name
        for plan, columns in zip(plans, chosen, strict=True)
        if columns is None
        for name in plan.sources
        if name not in mapped and name not in found
    ]
    if missing:
        raise RecipeError(_told(plans, missing, found, title))
    whole = [columns for columns in chosen if columns is not None]
    flat = [name for columns in whole for name in columns]
    if twice := sorted({name for name in flat if flat.count(name) > 1}):
        raise RecipeError(f"--inputs: {twice[0]!r} would stand for two columns of the model; it takes {_listed(plans)}")
    return whole


def _parsed(
    plans: Sequence[InputPlan], found: Sequence[str], given: Sequence[str], title: str
) -> tuple[dict[str, str], list[str]]:
    """({column of the model: column of the source}, names alone)."""
    mapped: dict[str, str] = {}
    alone: list[str] = []
    for text in given:
        new, equals, old = text.rpartition("=")
        if text in found or not equals:
            new = text
            alone.append(text)
        elif not _is_known(plans, old):
            raise RecipeError(f"--inputs {text}: the model has no column {old!r}; it takes {_listed(plans)} (NEW=OLD)")
        elif old in mapped:
            raise RecipeError(f"--inputs {text}: {old!r} is mapped twice")
        else:
            mapped[old] = new
        if new not in found:
            raise RecipeError(f"--inputs {text}: {title} has no column {new!r}{nearest(new, found)}")
    if twice := sorted({name for name in alone if alone.count(name) > 1}):
        raise RecipeError(f"--inputs: {twice[0]!r} is there twice; the model takes {_listed(plans)}")
    return mapped, alone


def _by_place(
    plans: Sequence[InputPlan], found: Sequence[str], mapped: Mapping[str, str], alone: Sequence[str]
) -> dict[str, str]:
    """What names alone stand for: each the model's column of that name, a strange one that of its place, or the missing one."""
    left = [name for plan in plans if plan.name not in mapped for name in plan.sources if name not in mapped]
    strange = [name for name in alone if not _is_known(plans, name)]
    known = [name for name in alone if name in left]
    if known != [name for name in left if name in known] or (
        strange and len(alone) == len(left) and any(a in left and a != b for a, b in zip(alone, left, strict=True))
    ):
        raise RecipeError(
            f"--inputs {', '.join(alone)}: the model takes {', '.join(left)}, and finds them by name; leave --inputs out, or "
            f"say which is which: --inputs {alone[0]}={left[0]}"
        )
    if not strange:
        return {}
    if len(alone) == len(left):
        return dict(zip(left, alone, strict=True))
    wanted = [name for name in left if name not in found]
    if len(strange) == len(wanted) == 1:
        return {wanted[0]: strange[0]}
    raise RecipeError(
        f"--inputs names {len(alone)} column{'s' * (len(alone) != 1)}, the model takes {len(left)}: {_listed(plans)}; say which "
        f"is which: --inputs {strange[0]}={(wanted or left)[0]}"
    )


def _chosen(plan: InputPlan, found: Sequence[str], mapped: Mapping[str, str]) -> tuple[str, ...] | None:
    """The plan's columns, or the one that holds all of them; None where some are missing."""
    if plan.name in mapped and plan.name not in plan.sources:
        return (mapped[plan.name],)
    if all(name in mapped or name in found for name in plan.sources):
        return tuple(mapped.get(name, name) for name in plan.sources)
    return (plan.name,) if plan.name in found else None


def _is_known(plans: Sequence[InputPlan], name: str) -> bool:
    return any(name == plan.name or name in plan.sources for plan in plans)


def _listed(plans: Sequence[InputPlan]) -> str:
    return ", ".join(name for plan in plans for name in plan.sources)


def _told(plans: Sequence[InputPlan], missing: Sequence[str], found: Sequence[str], title: str) -> str:
    names = " and ".join(map(repr, missing))
    there = ", ".join(map(repr, found)) or "none"
    for plan in plans:
        if plan.sources == (plan.name,) == tuple(missing) and plan.kind == "number" and plan.shape[0] > 1:
            return (
                f"{title}: no column {names}, of {plan.shape[0]} numbers a row, which the model takes; there are {there}; name "
                f"its {plan.shape[0]} columns, in the order of the training, with --inputs"
            )
    return (
        f"{title}: no column{'s' * (len(missing) > 1)} {names}, which the model takes; there are {there}; say what is what: "
        f"--inputs NEW={missing[0]}"
    )
