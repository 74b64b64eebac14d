"""How teachers stand, in sentences: for the log, for the report, and for a run that ends because of it.

A teacher's standing is what its task found (`students.tasks.standing`), with the `split` it was found on; or `why` it was not judged.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from students.tasks.figure import Figure

Standing = Mapping[str, Any]


def told(figure: Figure, standings: Mapping[str, Standing]) -> Iterator[str]:
    """What a reader must know, in the words of the headline `figure`: who was not judged and why, who is worth nothing, who is far below the others."""
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
                f"Teacher {name} gives logits that are {found['like_probabilities']}, as probabilities do: if they are, "
                f"every figure of it, and of who learns from it, is wrong until the recipe says `output: probabilities`."
            )
        if far := found.get("far_below"):
            yield _far_below(figure, name, found, standings[far["best"]], far)


def why_open(found: Standing) -> str | None:
    """Why a teacher could not be judged."""
    if "why" in found:
        return str(found["why"])
    return _words(found, "open") if found["stands"] == "open" else None


def no_better(found: Standing) -> str:
    return (
        f"no better than always {_words(found, 'always')}: {what_was_found(found)}, that answer {_words(found, 'that')} "
        f"({_words(found, 'test')}, p = {found['p_value']:.2g})"
    )


def what_was_found(found: Standing) -> str:
    """`right on 51 of 60 labelled validation rows (85.0%)`."""
    return _words(found, "found")


def summary(figure: Figure, standings: Mapping[str, Standing]) -> str | None:
    """One line of all that were judged. `figure`: the headline."""
    judged = {name: found for name, found in standings.items() if found.get("rows")}
    if not judged:
        return None
    first = next(iter(judged.values()))
    figures = ", ".join(f"{name} {_short(figure, found['figures'][figure.key])}" for name, found in judged.items())
    return (
        f"on labelled {first['split']} rows: {figures}; always {_words(first, 'always')}: {_words(first, 'constant')}"
    )


def _words(found: Standing, which: str) -> str:
    """A standing's own, of the rows that it was found on."""
    row = f"labelled {found['split']} row"
    return str(found["words"][which]).replace("{rows}", f"{row}s").replace("{row}", row)


def _short(figure: Figure, value: float | None) -> str:
    return figure.shown(value).replace(" %", "%")


def _far_below(figure: Figure, name: str, found: Standing, best: Standing, far: Mapping[str, Any]) -> str:
    change = figure.gained(figure.sign * (far["without"] - far["together"]))
    return (
        f"Teacher {name} is far below {far['best']}: {what_was_found(found)}, 95 % interval {_interval(figure, found)}, "
        f"against {_short(figure, best['figures'][figure.key])}, {_interval(figure, best)}. All teachers together have "
        f"{_short(figure, far['together'])} on these rows, without {name} {_short(figure, far['without'])} "
        f"({change} {figure.units_gained.replace('test ', '')})."
    )


def _interval(figure: Figure, found: Standing) -> str:
    return f"{_short(figure, found['low'])} to {_short(figure, found['high'])}"
