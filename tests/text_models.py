"""A user's models of text: functions, and pipelines that begin with a vectoriser."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC


def by_umlaut(batch: Mapping[str, Any]) -> np.ndarray:
    """As a language identifier is asked: row by row, over `str`."""
    assert batch["text"].dtype == object
    languages = ["fi" if text.count("a") > 8 else "de" if "ist" in text.split() else "en" for text in batch["text"]]
    return np.eye(3)[[["de", "en", "fi"].index(each) for each in languages]]


def words(random_state: int = 0, C: float = 1.0) -> Pipeline:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=C, random_state=random_state))


def counts() -> Pipeline:
    return make_pipeline(CountVectorizer(), MultinomialNB())


def characters() -> Pipeline:
    vectoriser = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**12)
    return make_pipeline(vectoriser, LogisticRegression())


def calibrated(random_state: int = 0) -> Pipeline:
    svm = CalibratedClassifierCV(LinearSVC(random_state=random_state))
    return make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3)), svm)


def beside() -> Pipeline:
    """Two texts by their places, then the numbers."""
    each = [("text", TfidfVectorizer(), 0), ("title", TfidfVectorizer(), 1), ("rest", StandardScaler(), slice(2, None))]
    return make_pipeline(ColumnTransformer(each), LogisticRegression())


def neighbours() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), KNeighborsClassifier())
