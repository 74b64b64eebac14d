"""Which teacher helped a student: without each, with each alone; and what each knows, says and counts. Tables and sentences.

Knows nothing but the parts of `report.json`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from students.config.task_terms import JUDGING
from students.measuring.gain import with_interval
from students.measuring.several import concluded
from students.tasks.figure import BESIDE, NOTHING, Figure, headline

from ..recipe.variants import ALL_TEACHERS
from .comparison import both_ways
from .headline import spread, task_of
from .of_many import below, gain_cells, level, plain, sentence, told

Found = Mapping[str, Any]
CLASSES = 25
"""On the page; all are in `report.json`."""


def section(asked: Found, report: Found) -> dict[str, Any]:
    """`variants` with their gain over the control, `teachers` with what each brings, `classes`, and sentences."""
    students, named = report["students"], {of: name for name, of in asked["of"].items()}
    whole = named[ALL_TEACHERS]
    heard = report["recipe"]["students"][whole]["teachers"]
    without = {teacher: _without(named, heard, teacher) for teacher in heard}
    pairs = both_ways(report["comparison"])
    asks = [
        (name, students[name]["gain"])
        for of, name in named.items()
        if of in (ALL_TEACHERS, *(f"only {t}" for t in heard))
    ]
    asks += [(f"brings {teacher}", pairs[whole, other]) for teacher, other in without.items() if other is not None]
    gains = dict(zip([who for who, _ in asks], concluded([gain for _, gain in asks]), strict=True))
    found = {
        **asked,
        "whole": whole,
        "variants": [{"name": name, "of": of, "over_control": gains.get(name)} for name, of in asked["of"].items()],
        "teachers": [
            {
                "name": teacher,
                "without": without[teacher],
                "brings": gains.get(f"brings {teacher}"),
                "alone": gains.get(named.get(f"only {teacher}", "")),
                **_of_teacher(report, whole, teacher),
            }
            for teacher in heard
        ],
        "classes": _classes(report, whole, without, asked["weights"]),
        "comparisons": len(asks),
    }
    return found | {"sentences": [*_sentences(headline(task_of(report)), found, report)]}


def _without(named: Mapping[str, str], heard: list[str], teacher: str) -> str | None:
    """The variant that hears all others; of two teachers that is the other one alone. None where it is left out."""
    (other, *more) = (name for name in heard if name != teacher)
    return named.get(f"without {teacher}") if more else named.get(f"only {other}")


def _of_teacher(report: Found, whole: str, name: str) -> dict[str, Any]:
    """What is known of a teacher, or of an assistant, besides what students learn from it."""
    figure, student = headline(task_of(report)), report["students"][whole]
    own, matrix = report["teachers"].get(name), student["agreement_matrix"]
    agrees = dict(zip(matrix["names"], matrix["matrix"][matrix["names"].index(name)], strict=True))
    unknown, of = (own or {}).get("unknown", {}).get("test", (0, 1))
    return {
        f"test_{figure.key}": own[figure.key] if own else None,
        "coverage": 1 - unknown / of,
        "counts": _combination(student).get("counts", {}).get(name),
        "agrees_with_ensemble": agrees["ensemble"],
        "agrees_with_student": agrees["student"],
        "alone_knows": [each["class"] for each in student["known_by_few"] if each["known_by"] == [name]],
    }


def _combination(student: Found) -> Found:
    """What the student's own rule found: the last of what stands there of several teachers as one."""
    rules = [each for each in student["combinations"] if "combine" in each]
    return rules[-1] if rules else {}


def _classes(
    report: Found, whole: str, without: Mapping[str, str | None], weights: Found | None
) -> list[dict[str, Any]]:
    """Of each tested class, recall (of several classes a row: of each) of every teacher, of the student, and what it loses without each."""
    table = report["students"][whole].get("by_class")
    if not table or "recall" not in table:
        return []
    own, lost = (
        table["recall"],
        {name: report["students"][other]["by_class"]["recall"] for name, other in without.items() if other is not None},
    )
    return [
        {
            "class": each,
            "rows": rows,
            "teachers": {name: own[name][number] for name in without},
            "student": own["student"][number],
            "counts": {name: counts[number] for name, counts in weights["counts"].items()} if weights else {},
            "without": {name: lost[name]["student"][number] if name in lost else None for name in without},
        }
        for number, (each, rows) in enumerate(zip(table["classes"], table["support"], strict=True))
        if rows
    ]


def _sentences(figure: Figure, found: Found, report: Found) -> Iterator[str]:
    """A sentence a finding, and no more than it shows."""
    (whole,) = (each["over_control"] for each in found["variants"] if each["name"] == found["whole"])
    yield f"All teachers together: {sentence(figure, whole, found)}"
    for each in found["teachers"]:
        yield _about_one(figure, each, found)
    yield from _about_rule(found, report)
    yield _about_fidelity(figure, found, report)
    for each in found["teachers"]:
        if each["coverage"] < 1:
            yield f"{each['name']} knows something of {100 * each['coverage']:.1f} % of the test rows."
        if each["alone_knows"]:
            yield f"Of {_some(each['alone_knows'])} only {each['name']} knows anything."
        if (worst := _most_lost(found, each["name"])) is not None:
            yield (
                f"Without {each['name']} the class {worst['class']!r} loses most: recall {_percent(worst['student'])} with it, "
                f"{_percent(worst['without'][each['name']])} without, on {worst['rows']:,} test rows (not tested class by class)."
            )


def _about_one(figure: Figure, each: Found, found: Found) -> str:
    """Whether a teacher helped, and whether it does alone."""
    gain, alone, name = each["brings"], each["alone"], each["name"]
    if gain is None:
        return f"Nothing is shown of {name}: the student cannot be without it."
    if gain["low"] is None:
        return f"Nothing is shown of {name}: one seed, or one test row, gives no interval; `--seeds 5` gives five."
    mean = f"{figure.gained(gain['mean'])} {figure.units_gained}"
    words = {
        "helps": f"{name} helped: with it the student is better than without, {mean}",
        "hurts": f"{name} hurt: with it the student is worse than without, {mean}",
        "open": f"Of {name} no difference is shown between the student with it and without, {mean}",
    }
    brings = f"{words[gain['conclusion']]} ({told(figure, gain, found)})."
    if alone is None:
        return brings
    word = {"helps": "better than", "hurts": "worse than", "open": "not shown to differ from"}[alone["conclusion"]]
    return (
        f"{brings} Taught by {name} alone it is {word} the control, {with_interval(figure, alone)}, p = "
        f"{level(alone['p_corrected'])}."
    )


def _about_rule(found: Found, report: Found) -> Iterator[str]:
    rule = _combination(report["students"][found["whole"]])
    counts = rule.get("counts") or {}
    if len({f"{share:.2f}" for share in counts.values()}) < 2:
        return
    shares = ", ".join(f"{name} {share:.2f}" for name, share in counts.items())
    why = ", weights that labelled validation rows decide" if rule.get("combine") in JUDGING else ""
    yield f"By `{rule['combine']}` they count, as the mean over test rows: {shares}{why}."


def _about_fidelity(figure: Figure, found: Found, report: Found) -> str:
    """How much of its teachers the student says again, beside how good both are."""
    student = report["students"][found["whole"]]
    beside, mean = BESIDE[task_of(report)][0], student[f"test_{figure.key}"]["mean"]
    together = student["ensemble"][figure.key]
    return (
        f"Fidelity against {figure.label}: the student {beside.label} together ({beside.shown(student[beside.key])}), who have {figure.label} "
        f"{figure.shown(together)}, and has {figure.shown(mean)} itself. Whoever agrees with them repeats their mistakes too, so this is no "
        f"figure to raise for its own sake."
    )


def _most_lost(found: Found, teacher: str) -> Found | None:
    """The class whose recall falls most without a teacher; None where none falls."""
    known = [each for each in found["classes"] if None not in (each["student"], each["without"][teacher])]
    worst = max(known, key=lambda each: each["student"] - each["without"][teacher], default=None)
    return worst if worst is not None and worst["student"] > worst["without"][teacher] else None


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def tables(report: Found) -> list[dict[str, Any]]:
    """Of the students, of the teachers, and of the classes."""
    found, figure = report["compared"], headline(task_of(report))
    return [_of_teachers(report, found, figure), _of_students(report, found, figure), *_of_classes(found)]


def _of_teachers(report: Found, found: Found, figure: Figure) -> dict[str, Any]:
    columns = ["teacher", f"test {figure.label}", "brings the student", "p", "alone, over the control", "p"]
    columns += ["knows", "counts", "agrees with all", "with the student"]
    beside = BESIDE[task_of(report)][0]
    rows = [
        [
            *plain(each["name"], figure.shown(each[f"test_{figure.key}"])),
            *gain_cells(figure, each["brings"]),
            *gain_cells(figure, each["alone"]),
            *plain(_percent(each["coverage"]), NOTHING if each["counts"] is None else f"{each['counts']:.2f}"),
            *plain(beside.shown(each["agrees_with_ensemble"]), beside.shown(each["agrees_with_student"])),
        ]
        for each in found["teachers"]
    ]
    return {
        "title": f"Which teacher helped {found['student']}",
        "columns": columns,
        "rows": rows,
        "below": below(found, figure),
    }


def _of_students(report: Found, found: Found, figure: Figure) -> dict[str, Any]:
    students, key = report["students"], f"test_{figure.key}"
    rows = [
        [
            *plain(each["of"], spread(figure, students[each["name"]][key])),
            *gain_cells(figure, each["over_control"]),
        ]
        for each in found["variants"]
    ]
    control = students[found["whole"]][f"control_{figure.key}"]
    rows.append(plain("no teacher (the control)", spread(figure, control), "", ""))
    columns = [f"{found['student']} taught by", f"test {figure.label}", "over the control", "p"]
    return {"title": "Students by who taught them", "columns": columns, "rows": rows, "below": ""}


def _of_classes(found: Found) -> Iterator[dict[str, Any]]:
    """Those first of which some teacher's absence costs most."""
    names = [each["name"] for each in found["teachers"]]
    if not found["classes"]:
        return
    columns = [
        "class",
        "test rows",
        *(f"{name} itself" for name in names),
        "student",
        *(f"without {name}" for name in names),
    ]
    trusted = names if found["classes"][0]["counts"] else []
    columns += [f"{name} counts" for name in trusted]
    ranked = sorted(found["classes"], key=lambda each: -max(abs(_lost(each, name)) for name in names))
    rows = [
        plain(
            each["class"],
            f"{each['rows']:,}",
            *(_percent(each["teachers"][name]) for name in names),
            _percent(each["student"]),
            *(_percent(each["without"][name]) for name in names),
            *(NOTHING if each["counts"][name] is None else f"{each['counts'][name]:.2f}" for name in trusted),
        )
        for each in ranked[:CLASSES]
    ]
    more = len(ranked) - len(rows)
    below = "Recall, of students the mean over seeds; a class is not tested by itself."
    below += f" {more} more classes are in report.json." if more else ""
    yield {"title": "Class by class", "columns": columns, "rows": rows, "below": below}


def _lost(each: Found, name: str) -> float:
    without = each["without"][name]
    return 0.0 if without is None else (each["student"] or 0.0) - without
