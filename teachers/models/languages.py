"""Published language identifiers as teachers: `kind: callable` names these functions, `classes` the codes that each is asked for.

Each takes `text`, `str` [rows], and gives probabilities over `classes`. Of a row that it takes for another language it knows
nothing. Needs collegium[languages].
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EnvironmentUnfit

Known = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Probabilities [rows, classes], and of which rows something is known."""


def cld2(batch: Mapping[str, Any], classes: Sequence[str]) -> Known:
    """Compact Language Detector 2 (Sites, 2013): which part of the text is in which language."""
    cld = _library("pycld2")
    scores = np.zeros((len(batch["text"]), len(classes)))
    for row, text in enumerate(batch["text"]):
        _, _, found = cld.detect("".join(filter(str.isprintable, text)), bestEffort=True)
        scores[row] = [{code: percent for _, code, percent, _ in found}.get(code, 0) for code in classes]
    return _of_all(scores)


def cld3(batch: Mapping[str, Any], classes: Sequence[str]) -> Known:
    """Compact Language Detector 3 (Botha et al., 2017): one language and its probability, which leaves the others the rest."""
    identifier = _library("gcld3").NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=10_000)
    found = [identifier.FindLanguage(text) for text in batch["text"]]
    p = np.array([each.probability for each in found])[:, None]
    said = np.array([[code == each.language for code in classes] for each in found]).reshape(len(found), len(classes))
    return np.where(said, p, (1 - p) / (len(classes) - 1)), said.any(1)


def langid(batch: Mapping[str, Any], classes: Sequence[str]) -> Known:
    """langid.py (Lui and Baldwin, 2012) as py3langid trained it anew: naive Bayes over n-grams of bytes."""
    ranked = [dict(_langid().rank(text)) for text in batch["text"]]
    return _of_all(
        100 * np.array([[each.get(code, 0.0) for code in classes] for each in ranked]).reshape(-1, len(classes))
    )


@cache
def _langid() -> Any:
    library = _library("py3langid.langid")
    return library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise EnvironmentUnfit(f"{name} is not installed; pip install 'collegium[languages]'") from None


def _of_all(percent: NDArray[Any]) -> Known:
    """As probabilities; known where half of it or more is of the classes."""
    whole = percent.sum(1)
    return percent / np.maximum(whole, 1e-9)[:, None], whole >= 50
