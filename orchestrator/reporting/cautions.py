"""What makes figures worth less than they look: classes that are never said, few rows, teachers that know rows by heart.

Knows nothing but the parts of `report.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from students.tasks.figure import NEVER_SAID, Figure, headline

from .headline import learners, task_of

FEW_ROWS = 20
"""Below which an interval, or a figure of a class, rests on single rows."""
FEW_TO_CHOOSE = 10
"""Labelled validation rows of a class below which it is chosen by chance."""
FAR_ABOVE = 0.05
"""Between a teacher's share on training rows and the upper end of its 95% interval on validation rows."""
TIMES = 2
"""So much larger are errors on validation rows of whoever knows training rows by heart."""
NAMED = 5


def cautions(report: Mapping[str, Any]) -> list[str]:
    """In the order of their weight, a sentence each."""
    told = [*_by_heart(report), *_never_said(report), *_few_rows(report), *_classes_of_splits(report)]
    return [*told, *cut_off(report["stages"])]


def cut_off(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of how many texts only the beginning is read; `stages`: as `report.json` has them."""
    yield from _cut_off_by_teachers(stages)
    derived = [stage for stage in stages if stage["stage"] == "derive"]
    for name in dict.fromkeys(stage["name"] for stage in derived):
        mine = [stage for stage in derived if stage["name"] == name]
        num_cut, rows = (sum(stage[key] for stage in mine) for key in ("cut_off", "rows"))
        if num_cut:
            yield (
                f"{num_cut:,} of {rows:,} texts are longer than {mine[0]['max_length']:,} {'n-grams' if name.startswith('n') else 'tokens'} "
                f"(derive/{name}): what comes behind is not read; `max_length` says how much is."
            )


def _cut_off_by_teachers(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Who has a tokenizer of its own."""
    labelled = [stage for stage in stages if stage["stage"] == "label" and "cut_off" in stage]
    for name in dict.fromkeys(stage["name"] for stage in labelled):
        num_cut, texts = (sum(s[key] for s in labelled if s["name"] == name) for key in ("cut_off", "texts"))
        if num_cut:
            yield (
                f"{num_cut:,} of {texts:,} texts are longer than teacher {name} reads: what comes behind is not read; its "
                f"`max_length` says how much is, up to what the model takes."
            )


def _by_heart(report: Mapping[str, Any]) -> Iterator[str]:
    """Teachers that are far better on training rows, which they may have been fitted on, than on validation rows."""
    told, figure = [], headline(task_of(report))
    for name, teacher in report["teachers"].items():
        there, here = teacher.get("training"), teacher.get("validation")
        if there and here and _is_far_above(figure, there, here):
            told.append(
                f"{name} has {figure.label} {figure.shown(there[figure.key])} on the {there['rows']:,} labelled training "
                f"rows and {figure.shown(here[figure.key])} on the {here['rows']:,} validation rows"
            )
    if told:
        several = len(told) > 1
        yield (
            f"{'Teachers know' if several else 'A teacher knows'} training rows by heart: {_some(told)}. What is said of rows that one "
            f"was fitted on is little more than their labels, surer than it should be, and students learn from just these: the "
            f"commonest reason why distillation does not help. Let each row be labelled by who has not seen it "
            f"(`train: {{folds: 5}}`), fit on fewer of the rows (`labelled: N`), or with more regularisation."
        )


def _is_far_above(figure: Figure, there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Of shares 5 points above the upper end of the interval; of errors, where those on validation are twice as large."""
    on_training, on_validation = there[figure.key], here[figure.key]
    if on_training is None or on_validation is None:
        return False
    if figure.unit == "share":
        return bool(on_training - _upper_end(on_validation, here["rows"]) > FAR_ABOVE)
    return bool(TIMES * on_training < on_validation)


def _upper_end(share: float, rows: int) -> float:
    """Of Clopper and Pearson's 95% interval."""
    from scipy.special import betaincinv

    right = round(share * rows)
    return float(betaincinv(right + 1, rows - right, 0.975)) if right < rows else 1.0


def _never_said(report: Mapping[str, Any]) -> Iterator[str]:
    task = task_of(report)
    if task not in NEVER_SAID:
        return
    who = {name: (learner["by_class"], "student", name) for name, learner in learners(report).items()}
    if report["by_class"]:
        who["ensemble"] = (report["by_class"], "ensemble", "The ensemble of all teachers")
    for name, (found, key, title) in who.items():
        silent = [
            (label, rows)
            for label, rows, said in zip(found["classes"], found["support"], found["said"][key], strict=True)
            if rows and not said
        ]
        if silent:
            told = _some([f"{label!r} ({rows:,} test row{'s' * (rows > 1)})" for label, rows in silent])
            is_rare = {label for label, _ in silent} & set(found.get("rare", {"classes": []})["classes"])
            cure = _cure(report["recipe"], name) if key == "student" and is_rare else ""
            yield (
                f"{title} never says {len(silent)} of the {sum(map(bool, found['support']))} classes that are tested: {told}. "
                f"{NEVER_SAID[task]}{cure}."
            )


def _cure(recipe: Mapping[str, Any], name: str) -> str:
    """What may help a student, or `cohort.member`, to say rare classes: nothing that its recipe says already."""
    config = recipe["students"].get(name) or recipe["cohorts"][name.partition(".")[0]]
    if config["train"]["class_weights"]:
        return ": its `train.class_weights` count in `hard` and `ps_kd` alone; a larger weight of these may help, more steps, or more of such rows"
    return ": `train.class_weights: balanced` may help, or more of such rows"


def _few_rows(report: Mapping[str, Any]) -> Iterator[str]:
    for name, learner in learners(report).items():
        gain = learner["gain"]
        if gain and gain["low"] is not None and gain["units"] < FEW_ROWS:
            kind = "groups of test rows" if gain["grouped"] else "test rows"
            yield (
                f"The interval of {name} rests on {gain['units']} {kind}, fewer than {FEW_ROWS}: what a normal distribution "
                f"promises does not hold for so few; test on more."
            )
    judged = {
        (found["rows"], found["split"]) for found in report["standings"].values() if 0 < found.get("rows", 0) < FEW_ROWS
    }
    for rows, split in sorted(judged):
        yield f"How teachers stand was judged on {rows} {split} row{'s' * (rows > 1)}, fewer than {FEW_ROWS}: a bad one may have passed."
    tested = report["transfer_set"]["labelled_of_classes"]["test"] if task_of(report) in NEVER_SAID else {}
    if few := sorted((rows, name) for name, rows in tested.items() if 0 < rows < FEW_ROWS):
        told = _some([f"{name!r} {rows}" for rows, name in few])
        yield (
            f"{len(few)} of {len(tested)} classes have fewer than {FEW_ROWS} test rows ({told}): figures of such a class rest on "
            f"single rows."
        )


def _classes_of_splits(report: Mapping[str, Any]) -> Iterator[str]:
    if task_of(report) not in NEVER_SAID:
        return
    counts = report["transfer_set"]["labelled_of_classes"]
    if unlearnt := [name for name, rows in counts["train"].items() if not rows and counts["test"][name]]:
        yield f"No labelled training row is of {_some([repr(name) for name in unlearnt])}, and test rows are: only teachers can know it."
    if untested := [name for name, rows in counts["test"].items() if not rows]:
        yield f"No test row is of {_some([repr(name) for name in untested])}: no figure tells of it."
    rows = sum(counts["validation"].values())
    few = sorted((count, name) for name, count in counts["validation"].items() if count < FEW_TO_CHOOSE)
    if rows and few:
        told = _some([f"{name!r} {count}" for count, name in few])
        yield (
            f"Validation has fewer than {FEW_TO_CHOOSE} labelled rows of {len(few)} of {len(counts['validation'])} classes ({told}): "
            f"weights and seeds are chosen by {rows:,} rows, for such a class by chance; a larger `split.validation` helps."
        )


def _some(told: Sequence[str]) -> str:
    more = f" and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
    return ", ".join(told[:NAMED]) + more
