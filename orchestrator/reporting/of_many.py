"""How a gain is told that is one of several: its interval, and the level that is left of it among all (Holm)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from students.measuring.gain import with_interval
from students.tasks.figure import NOTHING, Figure

from ..recipe.variants import by_reason
from .comparison import WORDS

Found = Mapping[str, Any]
"""`comparisons`: how many there are."""


def sentence(figure: Figure, gain: Found, found: Found, beside: str = "the control") -> str:
    """What a gain shows, and no more, when it is one of all that stand in the table."""
    mean = f"{figure.gained(gain['mean'])} {figure.units_gained}"
    if gain["low"] is None:
        return (
            f"No verdict: {mean} against {beside} with {len(gain['by_seed'])} seed, or one test row, gives no interval."
        )
    return f"{CLAIMS[gain['conclusion']]} {mean} against {beside} ({told(figure, gain, found)})."


CLAIMS = {"helps": "Better:", "hurts": "Worse:", "open": "No difference shown:"}


def told(figure: Figure, gain: Found, found: Found) -> str:
    """The interval of one, and its level among all."""
    seeds, units = len(gain["by_seed"]), gain["units"]
    kind = "groups of test rows" if gain["grouped"] else "test rows"
    return (
        f"95% interval {figure.gained(gain['low'])} to {figure.gained(gain['high'])}, {seeds} seeds, {units:,} {kind}; "
        f"p = {level(gain['p_corrected'])}, corrected for {found['comparisons']} comparisons"
    )


def level(p: float | None) -> str:
    return NOTHING if p is None else "less than 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.995 else "1"


class Cell(NamedTuple):
    """Of a table: its text, and `helps` or `hurts` where it is a claim."""

    text: str
    tone: str = ""


def plain(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def gain_cells(figure: Figure, gain: Found | None) -> list[Cell]:
    """A gain with its interval, and its word with the level that it has among all."""
    if gain is None:
        return plain("", "")
    tone = "" if gain["conclusion"] == "open" else gain["conclusion"]
    word = "no verdict" if gain["low"] is None else f"{level(gain['p_corrected'])} {WORDS[gain['conclusion']]}"
    return [Cell(with_interval(figure, gain), tone), Cell(word, tone)]


def below(found: Found, figure: Figure) -> str:
    """Under a table."""
    told = (
        f"Gains are {figure.units_gained} with their 95 % interval, paired by seed and test row. p is corrected by Holm for the "
        f"{found['comparisons']} comparisons of the table: were there no difference anywhere, one would be claimed in at most 5 % of "
        f"such tables."
    )
    if found["kind"] == "methods":
        told += (
            " Beside a share of the gap stand the ends of the gain's interval as shares of it, beside validation its standard deviation "
            "over seeds."
        )
    if found["kind"] == "methods" and found["costs"]:
        told += (
            f" A step is told as a multiple of one by labels alone, {found['costs']['cross_entropy_ms']:.3g} ms, measured in turns "
            f"in one process; steps and batches are the same for all."
        )
    if found.get("left_out"):
        reasons = by_reason(found["left_out"]).items()
        told += " Left out: " + "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons) + "."
    return told
