"""How teachers stand, in sentences: for the log, for the report, and for a run that ends because of it.

A teacher's standing is what `students.measuring.standing` found, with the `split` it was found on; or `why` it was not judged.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Standing = Mapping[str, Any]


def told(standings: Mapping[str, Standing]) -> Iterator[str]:
    """What a reader must know: who was not judged and why, who is worth nothing, who is far below the others."""
    unjudged: dict[str, list[str]] = {}
    for name, found in standings.items():
        if reason := why_open(found):
            unjudged.setdefault(reason, []).append(name)
    for reason, names in unjudged.items():
        several = len(names) > 1
        yield f"Teacher{'s' * several} {', '.join(names)} {'are' if several else 'is'} not judged before students learn: {reason}."
    for name, found in standings.items():
        if found.get("stands") == "no better":
            yield f"Teacher {name} is {no_better(found)}. `require: null` says that this is meant."
        if found.get("like_probabilities"):
            yield (
                f"Teacher {name} gives logits that are 0 to 1 and sum to 1 in every row, as probabilities do: if they are, "
                f"every figure of it, and of who learns from it, is wrong until the recipe says `output: probabilities`."
            )
        if far := found.get("far_below"):
            yield _far_below(name, found, standings[far["best"]], far)


def why_open(found: Standing) -> str | None:
    """Why a teacher could not be judged."""
    if "why" in found:
        return str(found["why"])
    if found["stands"] != "open":
        return None
    if not found["rows"]:
        return f"no labelled {found['split']} row is of a class that it knows"
    if found["share"] == 1:
        return f"all {found['rows']:,} labelled {found['split']} rows are of one class, {found['commonest']!r}"
    return (
        f"{found['share']:.1%} of the {found['rows']:,} labelled {found['split']} rows are of class {found['commonest']!r}, "
        f"so no teacher could show that it is better than always answering that"
    )


def no_better(found: Standing) -> str:
    return (
        f"no better than always answering {found['commonest']!r}: right on {_right(found)}, "
        f"that answer on {found['share']:.1%} (one-sided exact binomial test, p = {found['p_value']:.2g})"
    )


def summary(standings: Mapping[str, Standing]) -> str | None:
    """One line of all that were judged."""
    judged = {name: found for name, found in standings.items() if found.get("rows")}
    if not judged:
        return None
    first = next(iter(judged.values()))
    figures = ", ".join(f"{name} {found['accuracy']:.1%}" for name, found in judged.items())
    return f"on labelled {first['split']} rows: {figures}; always {first['commonest']!r}: {first['share']:.1%}"


def _right(found: Standing) -> str:
    return f"{found['right']:,} of {found['rows']:,} labelled {found['split']} rows ({found['accuracy']:.1%})"


def _far_below(name: str, found: Standing, best: Standing, far: Mapping[str, Any]) -> str:
    change = 100 * (far["without"] - far["together"])
    return (
        f"Teacher {name} is far below {far['best']}: right on {_right(found)}, 95 % interval {_interval(found)}, "
        f"against {best['accuracy']:.1%}, {_interval(best)}. All teachers together are right on {far['together']:.1%} "
        f"of these rows, without {name} on {far['without']:.1%} ({change:+.1f} points)."
    )


def _interval(found: Standing) -> str:
    return f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %"
