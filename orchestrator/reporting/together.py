"""Several teachers as one, in sentences and tables: by which rule how good, who counted, what is known by few or nobody.

Knows nothing but the parts of `report.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from students.config.methods import METHODS
from students.config.task_terms import JUDGING
from students.measuring.gain import with_interval
from students.tasks.figure import FIGURES, NOTHING, Figure, headline

from .headline import learners, task_of

CLASSES = 25
"""That few know, on the page; all are in `report.json`."""
Found = Mapping[str, Any]


def about_unknown(teachers: Mapping[str, Found]) -> Iterator[str]:
    """A sentence for each teacher that knows nothing of some rows."""
    for name, found in teachers.items():
        if unknown := found.get("unknown"):
            told = ", ".join(f"{rows:,} of {of:,} {split} rows" for split, (rows, of) in unknown.items())
            yield (
                f"Teacher {name} knows nothing of {told}: there it takes no part in targets, and in its own figures such a test row "
                f"is one that it does not get right; how sure it is, is told of the others."
            )


def of_several(report: Found) -> dict[str, list[dict[str, Any]]]:
    """What a page has of several teachers."""
    return {"combinations": combination_tables(report), "known_by_few": known_by_few(report)}


def combination_tables(report: Found) -> list[dict[str, Any]]:
    """`title`, `columns` and `rows` of text, of all teachers and of every student that has several of its own."""
    first, *others = FIGURES[task_of(report)]
    of = {"the teachers": report.get("combinations")} if not learners(report) else {}
    of |= {name: found.get("combinations") for name, found in learners(report).items()}
    return [
        {
            "title": name,
            "columns": [first.label, "95 % interval", *(figure.label for figure in others), "counts"],
            "rows": [_row(first, others, each) for each in [*found, *_not_there_yet(report, name, found)]]
            + _of_student(report, name),
        }
        for name, found in of.items()
        if found
    ]


def _not_there_yet(report: Found, name: str, found: Sequence[Found]) -> list[Found]:
    """The recommended rule of a student, where none of `found` is by it."""
    best = learners(report).get(name, {}).get("recommended")
    return [best] if best and best["combine"] not in [each.get("combine") for each in found] else []


def _of_student(report: Found, name: str) -> list[list[str]]:
    """The row of the student itself, the mean over seeds, where it is one."""
    first, *others = FIGURES[task_of(report)]
    learner = learners(report).get(name, {})
    if first.key not in learner:
        return []
    rest = [figure.shown(learner.get(figure.key)) for figure in others]
    return [["the student, which hears them", _exact(first, learner[first.key]["mean"]), NOTHING, *rest, ""]]


def _row(first: Figure, others: Sequence[Figure], found: Found) -> list[str]:
    low, high = found["low"], found["high"]
    interval = NOTHING if low is None else f"{_exact(first, low)} to {_exact(first, high)}"
    rest = [figure.shown(found["figures"][figure.key]) for figure in others]
    return [_title(first, found), _exact(first, found["figures"][first.key]), interval, *rest, _counts(found)]


def _title(first: Figure, found: Found) -> str:
    if "teacher" in found:
        return f"{found['teacher']} alone, the best on validation ({first.shown(found['validation'])})"
    if "instead_of" in found:
        return f"all by {found['combine']}, for {found['instead_of']} asks the student or a label"
    return f"all by {found['combine']}{', which is recommended' * ('validation' in found)}"


def _counts(found: Found) -> str:
    """Who has counted how much, where not all alike."""
    counts = found.get("counts", {})
    if len({f"{share:.2f}" for share in counts.values()}) < 2:
        return ""
    return ", ".join(f"{name} {share:.2f}" for name, share in counts.items())


def _exact(figure: Figure, value: float | None) -> str:
    """Four digits of a share: rules differ by tenths of points."""
    return f"{100 * value:.2f} %" if figure.unit == "share" and value is not None else figure.shown(value)


def known_by_few(report: Found) -> list[dict[str, Any]]:
    """`title`, `names` of those whose recall is told, and `rows` of {name, support, known_by, cells, gain}; `left_out`."""
    of = {name: found.get("known_by_few") for name, found in learners(report).items()}
    of = of or {"the teachers": report.get("known_by_few")}
    figure = headline(task_of(report))
    tables = []
    for title, found in of.items():
        tested = [each for each in found or () if each["rows"]]
        if tested:
            names = [*tested[0]["recall"]]
            rows = [
                {
                    "name": each["class"],
                    "support": each["rows"],
                    "known_by": ", ".join(each["known_by"]) or "nobody",
                    "cells": [each["recall"][name] for name in names],
                    "gain": with_interval(figure, each["gain"]) if each.get("gain") else "",
                }
                for each in sorted(tested, key=lambda each: len(each["known_by"]))
            ]
            left_out = max(0, len(rows) - CLASSES)
            tables.append({"title": title, "names": names, "rows": rows[:CLASSES], "left_out": left_out})
    return tables


def about_weights(report: Found) -> Iterator[str]:
    """A sentence for each student whose rule weighs teachers by labelled validation rows."""
    figure = headline(task_of(report))
    for name, learner in learners(report).items():
        for found in learner.get("combinations") or ():
            if found.get("combine") in JUDGING:
                counts = ", ".join(f"{teacher} {share:.2f}" for teacher, share in found["counts"].items())
                yield (
                    f"{name} hears its teachers by `{found['combine']}`, whose weights labelled validation rows decide: {counts}; on test "
                    f"rows they have {figure.label} {figure.shown(found['figures'][figure.key])} together."
                )


def about_rules(report: Found) -> Iterator[str]:
    """A sentence for each student of several teachers; without students, one about the teachers."""
    of = learners(report) or {"": report}
    for name, learner in of.items():
        if found := learner.get("recommended"):
            yield "".join(_recommended(headline(task_of(report)), name, found))


def _recommended(figure: Figure, name: str, found: Found) -> Iterator[str]:
    best, own, looks = found["combine"], found["own"], found["validation"]
    shown = {rule: _exact(figure, look[figure.key]) for rule, look in looks.items()}
    yield f"{name}: of" if name else "Of"
    teachers, leader = "its" if name else "the", found["leader"]
    if best != leader:
        of = "of the recipe" if name else "that null means"
        yield f" {len(looks)} rules for {teachers} teachers none is shown to be better than `{own}`, the rule {of}, on "
        yield f"{found['rows']:,} labelled validation rows: it has {shown[own]} there, `{leader}` {shown[leader]} (sign test of rows, corrected for so many rules)."
        return
    yield f" {len(looks)} rules for {teachers} teachers `{best}` has the best {figure.label} on {found['rows']:,} labelled "
    yield f"validation rows, {shown[best]}, each judged on rows that it was not fitted to; "
    yield f"on test rows they have {_exact(figure, found['figures'][figure.key])} together by it."
    if not name or best == own:
        yield " It is the recipe's rule." if name else ""
        return
    beside = f"`{own}`{', which stands for `' + found['instead_of'] + '`,' if 'instead_of' in found else ''}"
    yield f" The recipe's rule, {beside} has {shown.get(own, NOTHING)} there: `combine: {best}` is recommended."
    if best in METHODS and "instead_of" not in found:
        mine = own if own in METHODS else "recipe"
        yield (
            f" What a student learns need not follow: `collegium compare RECIPE --methods {mine},{best}` tells, which trains it by both."
        )
