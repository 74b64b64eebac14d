"""Whether a student and its control had the same: what a reader of a gain must know of both.

Knows the resolved recipe (as JSON) and nothing of figures.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from teachers.config.training import transforms_of

from .study import short


def about_augmentation(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Who was trained with which augmentation, and what a control lacks of that which its student's teachers had."""
    everyone = {f"teacher {name}": augment_of(config) for name, config in recipe["teachers"].items()}
    for kind, several in (("student", "its control"), ("cohort", "its controls")):
        for name, config in recipe[f"{kind}s"].items():
            own = _own_of_control(config)
            everyone |= (
                {f"{kind} {name}": augment_of(config)} if own else {f"{kind} {name} and {several}": augment_of(config)}
            )
            everyone |= {f"the control of {name}": own} if own else {}
    augmented: dict[str, list[str]] = {}
    for who, augment in everyone.items():
        if augment:
            augmented.setdefault(augment, []).append(who)
    views = bool(recipe["transfer_set"].get("views"))
    if views:
        yield f"Students and their controls saw training rows {_seen(recipe)}; teachers that are trained here see them as they are."
    for augment, names in augmented.items():
        others = "" if views else " All others saw the rows as they are."
        yield f"Trained with augmentation ({augment}): {', '.join(names)}.{others}"
    yield from missing_augmentation(recipe)


def _seen(recipe: Mapping[str, Any]) -> str:
    """How who has no augmentation sees training rows."""
    rows = recipe["transfer_set"]
    if not rows.get("views"):
        return "as they are"
    return f"in {rows['views']} views ({', then '.join(transforms_of(rows['transform']))})"


def missing_augmentation(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Controls without the augmentation that somebody who teaches their student was trained with."""
    for name, config in {**recipe["students"], **recipe["cohorts"]}.items():
        had = _own_of_control(config) or augment_of(config)
        behind = {who: augment for who, augment in _taught_with(recipe, name).items() if augment != had}
        if config["control"] and behind:
            lacks = f"saw the rows {_seen(recipe)}" if not had else f"was trained with {had}"
            whose = ", ".join(f"{who} ({augment})" for who, augment in behind.items())
            cure = "" if recipe["transfer_set"].get("views") else "; `control: {augment: ...}` gives it the same"
            yield (
                f"Part of what {name} gains may come from augmentation: {whose} learnt with it, the control of {name} {lacks}"
                f"{cure}."
            )


def _taught_with(recipe: Mapping[str, Any], learner: str) -> dict[str, str]:
    """By whoever teaches `learner`, its assistants' teachers too: the augmentation it was trained with."""
    learners = {**recipe["students"], **recipe["cohorts"]}
    found: dict[str, str] = {}
    waiting, seen = [*learners[learner]["teachers"]], set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        config = recipe["teachers"].get(name) or learners[name.partition(".")[0]]
        if augment := augment_of(config):
            found[name] = augment
        waiting += config.get("teachers", [])
    return found


def augment_of(config: Mapping[str, Any]) -> str:
    """`affine, then cutout`; empty without one."""
    return ", then ".join(transforms_of((config.get("train") or {}).get("augment")))


def _own_of_control(config: Mapping[str, Any]) -> str:
    return augment_of({"train": config["control"]}) if isinstance(config["control"], Mapping) else ""


def about_labels(counted: Mapping[str, Any]) -> str:
    """Every label that went into a student, those that only chose too. `counted`: the transfer set's report."""
    labelled = counted["labelled"]
    used = labelled["train"] + labelled["validation"]
    own = counted.get("of_teachers")
    further = f"Teachers learnt {own:,} further rows, of which nobody else saw an input or a label. " if own else ""
    return (
        f"{used:,} labels went into students and controls: {labelled['train']:,} of training rows to learn from, "
        f"{labelled['validation']:,} of validation rows to choose weights, seeds and settings. {further}"
        f"Figures are of {labelled['test']:,} other labelled rows, of the test split."
    )


def about_controls(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Settings that a control has for itself."""
    for name, config in {**recipe["students"], **recipe["cohorts"]}.items():
        if isinstance(config["control"], Mapping):
            own = ", ".join(f"{key} {short(value)}" for key, value in config["control"].items() if value is not None)
            if own:
                yield f"The control of {name} is trained by settings of its own ({own}); the budget is the same."
