"""Words as scores: which class a token, a word or an object of JSON stands for.

Knows nothing of HTTP. What stands for no class is no answer: `NoAnswer`, and never a guess.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
MOSTLY = 0.5
"""Share of a first token's probability that must stand for classes: of less, nobody has answered the question."""
EDGES = re.compile(r"^[\W_]+|[\W_]+$")
"""Around a word: quotes, stops, blanks."""


class NoAnswer(Exception):
    """What came is no answer to the question; says why."""


def of_first_token(log_probabilities: Mapping[str, float], words: Sequence[str]) -> Scores:
    """Probabilities f32 [C] of the classes by the most probable first tokens of an answer, normalised over them.

    A token stands for the class whose word it is, or the one class whose word begins with it.
    """
    found = np.zeros(len(words), np.float64)
    total = 0.0
    for token, log_p in log_probabilities.items():
        if not log_p < math.inf:
            raise NoAnswer(f"{token!r} has the log-probability {log_p}")
        p = math.exp(min(log_p, 0.0))
        total += p
        if (place := _class_of_token(token, words)) is not None:
            found[place] += p
    if not total or found.sum() < MOSTLY * min(total, 1.0):
        said = max(log_probabilities, key=log_probabilities.__getitem__, default="")
        raise NoAnswer(
            f"its first token is {said!r}, and {found.sum():.2g} of the probability stands for a class ({_some(words)})"
        )
    return _normalised(found)


def _class_of_token(token: str, words: Sequence[str]) -> int | None:
    token = token.strip().casefold()
    if not token:
        return None
    folded = [word.strip().casefold() for word in words]
    if token in folded:
        return folded.index(token)
    begun = [place for place, word in enumerate(folded) if word.startswith(token)]
    return begun[0] if len(begun) == 1 else None


def of_word(text: str, words: Sequence[str]) -> int:
    """The class that a text names: it is its word, or the only word of a class in it."""
    folded = [word.strip().casefold() for word in words]
    said = EDGES.sub("", text).casefold()
    for place, word in enumerate(folded):
        if said == EDGES.sub("", word):
            return place
    inside = [
        place for place, word in enumerate(folded) if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.casefold())
    ]
    if len(inside) != 1:
        raise NoAnswer(f"{text.strip()[:80]!r} names {len(inside) or 'none'} of the classes {_some(words)}")
    return inside[0]


def of_json(text: str, words: Sequence[str]) -> Scores:
    """Probabilities f32 [C] by an object `{"class": WORD}`, or one with a number for each word, alone or under `probabilities`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise NoAnswer(f"{text.strip()[:80]!r} is no JSON ({error})") from None
    if not isinstance(document, dict):
        raise NoAnswer(f"{text.strip()[:80]!r} is no object of JSON")
    found = np.zeros(len(words), np.float64)
    if isinstance(said := document.get("class"), str):
        found[of_word(said, words)] = 1
        return found.astype(np.float32)
    inner = document.get("probabilities")
    for word, p in (inner if isinstance(inner, dict) else document).items():
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < math.inf:
            raise NoAnswer(f"{word!r}: {str(p)[:40]!r} is no probability")
        found[of_word(word, words)] += p
    if not 0 < sum(found.tolist()) < math.inf:
        raise NoAnswer(f"{text.strip()[:80]!r} gives no class a probability")
    return _normalised(found)


def _normalised(found: NDArray[np.float64]) -> Scores:
    p: Scores = (found / found.sum()).astype(np.float32)
    return p


def _some(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words[:5])) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
