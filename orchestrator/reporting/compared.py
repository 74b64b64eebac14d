"""One student by several methods, or of several sets of teachers: the section of a report, its table and its sentences.

Every conclusion is corrected for how many stand in the table (Holm). Knows nothing but the parts of `report.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from students.measuring.gain import with_interval
from students.measuring.several import concluded
from students.tasks.figure import MINUS, NOTHING, Figure, headline

from . import helped
from .comparison import both_ways
from .headline import on_validation, spread, task_of
from .of_many import Cell, below, gain_cells, plain, sentence

Found = Mapping[str, Any]
SOFT = "soft"
"""The method beside which every other one stands, besides the control."""


def compared_section(asked: Found, report: Found) -> dict[str, Any]:
    """The section. `asked`: what the command knows of the variants; `report`: the document of their run, whose students it reads."""
    if asked["kind"] == "teachers":
        return helped.section(asked, report)
    figure, students = headline(task_of(report)), report["students"]
    pairs, soft = both_ways(report["comparison"]), next((name for name, of in asked["of"].items() if of == SOFT), None)
    family = [(name, "over_control", students[name]["gain"]) for name in asked["of"]]
    family += [(name, "over_soft", pairs[name, soft]) for name in asked["of"] if soft is not None and name != soft]
    gains = {
        (name, which): gain for (name, which, _), gain in zip(family, concluded([g for *_, g in family]), strict=True)
    }
    first = next(iter(asked["of"]))
    variants = [
        {
            "name": name,
            "method": method,
            "says": asked["says"][method],
            "objective": report["recipe"]["students"][name]["objective"],
            "tuned": asked["tuned"].get(method),
            "validation": on_validation(students[name], figure.key),
            "share_of_gap": share_of_gap(figure, students[name], students[first]["ensemble"]),
            "step": (asked["costs"] or {"by_student": {}})["by_student"].get(name),
            "over_control": gains[name, "over_control"],
            "over_soft": gains.get((name, "over_soft")),
        }
        for name, method in asked["of"].items()
    ]
    found = {**asked, "variants": variants, "comparisons": len(family), "best": _best(figure, variants)}
    return found | {"sentences": [*_sentences(figure, found)]}


def with_corrected(report: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """The report with `compared`, whose conclusions stand instead of those that each student would have alone."""
    figure = headline(task_of(report))
    students = dict(report["students"])
    for each in found["variants"]:
        gain = each["over_control"]
        if gain is not None:
            students[each["name"]] = {**students[each["name"]], "gain": gain, "verdict": sentence(figure, gain, found)}
    return {**report, "students": students, "compared": dict(found)}


def share_of_gap(figure: Figure, student: Found, together: Found) -> dict[str, float | None] | None:
    """Of what the teachers together have more than the control, how much the student has; None where they have no more.

    `low` and `high` are the ends of the gain's interval, as shares of the gap as it was measured; None where there is none.
    """
    control, ceiling = student[f"control_{figure.key}"], together[figure.key]
    if control is None or ceiling is None:
        return None
    gap = figure.sign * (ceiling - control["mean"])
    ends = {end: student["gain"][end] for end in ("mean", "low", "high")}
    return {end: None if value is None else float(value / gap) for end, value in ends.items()} if gap > 0 else None


def _best(figure: Figure, variants: Sequence[Found]) -> str | None:
    """The best on validation, ties to the first; None where nothing was looked at."""
    known = [each for each in variants if each["validation"] is not None]
    return max(known, key=lambda each: figure.sign * each["validation"]["mean"])["name"] if known else None


def _sentences(figure: Figure, found: Found) -> Iterator[str]:
    """What the comparison shows; what to take is chosen on validation."""
    variants = {each["name"]: each for each in found["variants"]}
    if any(each["over_control"]["low"] is None for each in variants.values()):
        yield "No verdict: with one seed, or one test row, there is no interval; `--seeds 5` gives five."
        return
    for conclusion, words in (("helps", "is shown to beat"), ("hurts", "is shown to be worse than")):
        for beside, title in (("over_control", "the control"), ("over_soft", "`soft`")):
            names = [name for name, each in variants.items() if _concludes(each[beside], conclusion)]
            if names:
                yield f"{_listed(names)} {words if len(names) == 1 else words.replace('is', 'are', 1)} {title}."
            elif conclusion == "helps" and (beside == "over_control" or _has(variants.values(), beside)):
                yield f"No method is shown to beat {title}."
    if (best := found["best"]) is not None:
        each = variants[best]
        yield (
            f"On validation rows, which choose, `{best}` is best ({figure.label} {spread(figure, each['validation'])}): on test rows it has "
            f"{with_interval(figure, each['over_control'])} {figure.units_gained} against the control. `found.yaml` is the recipe with it."
        )
    if found["costs"]:
        dear = max(found["variants"], key=lambda each: each["step"]["ratio"])
        yield (
            f"All took the same steps of the same batches; the dearest step is that of `{dear['name']}`, {dear['step']['ratio']:.2f} of "
            f"one of cross-entropy's ({found['costs']['cross_entropy_ms']:.3g} ms), so at equal time it would take "
            f"{100 / max(1.0, dear['step']['ratio']):.0f} % of the steps."
        )


def _concludes(gain: Found | None, conclusion: str) -> bool:
    return gain is not None and gain["conclusion"] == conclusion


def _has(variants: Any, beside: str) -> bool:
    return any(each[beside] is not None for each in variants)


def _listed(names: Sequence[str]) -> str:
    marked = [f"`{name}`" for name in names]
    return marked[0] if len(marked) == 1 else f"{', '.join(marked[:-1])} and {marked[-1]}"


def tables(report: Found) -> list[dict[str, Any]]:
    """What a page, a terminal and MLflow show: {title, columns, rows of cells, below}."""
    found, figure = report["compared"], headline(task_of(report))
    return helped.tables(report) if found["kind"] == "teachers" else [_table(report, found, figure)]


def _table(report: Found, found: Found, figure: Figure) -> dict[str, Any]:
    columns = ["method", f"test {figure.label}", "over the control", "p"]
    with_soft, with_cost = _has(found["variants"], "over_soft"), bool(found["costs"])
    columns += ["over soft", "p"] * with_soft + ["share of gap", "validation"] + ["step"] * with_cost
    rows = [_of_control(report, found, figure, with_soft, with_cost)]
    for each in found["variants"]:
        student, looks = report["students"][each["name"]], each["validation"]
        rows.append(
            [
                *plain(each["name"], spread(figure, student[f"test_{figure.key}"])),
                *gain_cells(figure, each["over_control"]),
                *(gain_cells(figure, each["over_soft"]) if with_soft else ()),
                *plain(_share_in_words(each["share_of_gap"]), NOTHING if looks is None else spread(figure, looks)),
                *(plain(f"{each['step']['ratio']:.2f}") if with_cost else ()),
            ]
        )
    return {"title": f"Methods for {found['student']}", "columns": columns, "rows": rows, "below": below(found, figure)}


def _share_in_words(share: Found | None) -> str:
    """`75 % (60 to 90)`."""
    if share is None:
        return NOTHING
    mean, low, high = (None if share[end] is None else f"{100 * share[end]:.0f}" for end in ("mean", "low", "high"))
    return f"{mean} %{'' if low is None else f' ({low} to {high})'}".replace("-", MINUS)


def _of_control(report: Found, found: Found, figure: Figure, with_soft: bool, with_cost: bool) -> list[Cell]:
    control = report["students"][found["variants"][0]["name"]][f"control_{figure.key}"]
    empty = [""] * (6 if with_soft else 4)
    return plain("control", spread(figure, control), *empty, *(["1.00"] if with_cost else []))
